"""How long a job is expected to take, by which source."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest

from perak.domain.hardware.speeds import sheet_speeds, speeds_of, time_ratio
from perak.domain.hardware.standing import Standing
from perak.domain.job import Image, Input, JobSpec, PythonEnvironment, Resources, Work
from perak.domain.market.history import Past, device_key, fingerprint
from perak.domain.market.predict import DECLARED, HISTORY, ROOFLINE, Place, predict

GAVEL = Path(__file__).parents[5] / "shared/data/market/gavel/simulation_throughputs.json"

V100 = Place(gpu="Tesla V100-SXM2-16GB", cpu_model="x", memory_bytes=16 * 2**30)
A100 = Place(gpu="NVIDIA A100-SXM4-80GB", cpu_model="x", memory_bytes=80 * 2**30)
UNKNOWN = Place(gpu="Frobnicator 9", cpu_model="x")
JOB = JobSpec(name="a", run="python train.py", resources=Resources(gpu_count=1))


def past(device: str, median_seconds: float, **changes: object) -> Past:
    plain = Past(
        device=device,
        runs=8,
        renters=1,
        own=True,
        low_seconds=median_seconds * 0.9,
        median_seconds=median_seconds,
        high_seconds=median_seconds * 1.2,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_its_own_past_on_the_same_device_is_believed_first() -> None:
    declared = replace(JOB, work=Work(device="V100", hours=5))
    here = past("1 x V100 SXM2 16GB", 3000.0, median_joules=600_000.0)

    found = predict(declared, V100, past=[here, past("1 x A100 SXM4 80GB", 900.0)])

    assert found is not None
    assert (found.source, found.seconds, found.joules) == (HISTORY, 3000.0, 600_000.0)
    assert (found.low_seconds, found.high_seconds) == pytest.approx((2700.0, 3600.0))
    assert found.detail == "8 runs of yours on 1 x V100 SXM2 16GB"


def test_own_runs_come_before_everybodys_and_few_of_them_have_a_wide_interval() -> None:
    own = past("1 x V100 SXM2 16GB", 100.0, runs=1, low_seconds=100.0, high_seconds=100.0)
    everybody = past("1 x V100 SXM2 16GB", 200.0, runs=90, renters=9, own=False)

    found = predict(JOB, V100, past=[everybody, own])

    assert found is not None
    assert found.seconds == 100.0
    assert (found.low_seconds, found.high_seconds) == pytest.approx((80.0, 125.0))


def test_declared_work_is_scaled_by_what_the_cards_can_do() -> None:
    declared = replace(JOB, work=Work(device="V100 SXM2 16GB", hours=2))

    same, faster = predict(declared, V100), predict(declared, A100)

    assert same is not None
    assert faster is not None
    assert same.source == faster.source == DECLARED
    assert same.seconds == pytest.approx(7200)
    assert 7200 / 3 < faster.seconds < 7200 / 1.5
    assert faster.low_seconds < faster.seconds < faster.high_seconds


def test_a_past_elsewhere_is_scaled_where_there_is_nothing_better() -> None:
    found = predict(JOB, A100, past=[past("1 x V100 SXM2 16GB", 3600.0)])

    assert found is not None
    assert found.source == ROOFLINE
    assert 1200 < found.seconds < 2400
    assert "V100" in found.detail


def test_a_card_that_measured_slower_than_its_sheet_takes_longer() -> None:
    declared = replace(JOB, work=Work(device="V100 SXM2 16GB", hours=1))
    worn = replace(V100, standing=Standing(bandwidth_gbs=360.0, fp32_tflops=12.56))

    found = predict(declared, worn)

    assert found is not None
    assert found.seconds > 3600 * 1.2
    assert "measured" in found.detail


def test_nothing_is_said_where_nothing_is_known() -> None:
    assert predict(JOB, V100) is None
    assert predict(replace(JOB, work=Work(device="V100", hours=1)), UNKNOWN) is None
    two = past("2 x V100 SXM2 16GB", 50.0)
    assert predict(JOB, V100, past=[two]) is None


def test_a_cpu_job_is_as_long_as_declared() -> None:
    job = JobSpec(name="a", run="b", work=Work(device="cpu", hours=1))

    found = predict(job, Place(gpu=None, cpu_model="Some CPU"))

    assert found is not None
    assert (found.low_seconds, found.seconds, found.high_seconds) == (1800, 3600, 7200)


def test_a_fingerprint_is_of_the_work_and_nothing_else() -> None:
    base = fingerprint(JOB)

    assert base == fingerprint(replace(JOB, name="b", work=Work(device="V100", hours=1), regions=("DE",)))
    changed = [
        replace(JOB, run="python other.py"),
        replace(JOB, env={"EPOCHS": "5"}),
        replace(JOB, workdir_digest="sha256:" + "0" * 64),
        replace(JOB, image=Image(name="a", digest="sha256:" + "1" * 64)),
        replace(JOB, python=PythonEnvironment(version="3.11")),
        replace(JOB, inputs=(Input(path="data", url="s3://bucket/key"),)),
    ]
    assert len({base, *map(fingerprint, changed)}) == len(changed) + 1


def test_variants_of_a_card_are_told_apart() -> None:
    small = device_key(model="Tesla V100-SXM2-16GB", gpu_count=2, cpu_milli=1)
    large = device_key(model="Tesla V100-SXM2-32GB", gpu_count=2, cpu_milli=1)

    assert (small, large) == ("2 x V100 SXM2 16GB", "2 x V100 SXM2 32GB")
    assert device_key(model="Some CPU", gpu_count=0, cpu_milli=500) == "500m x Some CPU"


def test_a_ratio_and_its_reverse_agree() -> None:
    v100, a100 = sheet_speeds("V100 SXM2 16GB"), speeds_of("NVIDIA A100-SXM4-80GB")
    assert v100 is not None
    assert a100 is not None

    there, back = time_ratio(reference=v100, target=a100), time_ratio(reference=a100, target=v100)

    assert there.expected * back.expected == pytest.approx(1)
    assert there.low * back.high == pytest.approx(1)


@pytest.mark.skipif(not GAVEL.exists(), reason="the measured throughputs of Gavel are not on this machine")
@pytest.mark.parametrize(
    ("one", "other"), [("k80", "p100"), ("p100", "v100"), ("k80", "v100")], ids="->".join
)
def test_measured_trainings_lie_where_the_roofline_says(one: str, other: str) -> None:
    """Gavel's 26 trainings on one GPU of each kind: the median of predicted over actual is near 1."""
    cards = {"k80": "K80", "p100": "P100 SXM2 16GB", "v100": "V100 SXM2 16GB"}
    of, to = sheet_speeds(cards[one]), sheet_speeds(cards[other])
    assert of is not None
    assert to is not None
    measured = json.loads(GAVEL.read_text())
    alone = {name: {job: runs["null"] for job, runs in measured[name].items()} for name in (one, other)}
    actual = [alone[one][job] / rate for job, rate in alone[other].items() if job.endswith(", 1)") and rate]

    predicted = time_ratio(reference=of, target=to)

    assert 1 / 1.25 < median(predicted.expected / ratio for ratio in actual if ratio) < 1.25
    inside = [predicted.low <= ratio <= predicted.high for ratio in actual if ratio]
    assert sum(inside) / len(inside) > 0.65

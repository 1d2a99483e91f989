"""Which offers a job fits, and what is said of those that it does not fit."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from perak.domain.hardware.specs import SPECS
from perak.domain.hardware.torch import known_variants
from perak.domain.job import Image, Input, JobSpec, Limits, PythonEnvironment, Resources, Secret
from perak.domain.market.feasible import fitting_devices, misfits, model_fits, normal_model
from perak.domain.offer import Device, Hours, Offer, OfferAsk, SandboxTier

NOW = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)  # a Monday
GIB = 2**30


def device(index: int = 0, model: str = "Tesla V100-SXM2-16GB", memory_bytes: int = 16 * GIB) -> Device:
    return Device(index=index, kind="nvidia", model=model, uuid=f"GPU-{index}", memory_bytes=memory_bytes)


def offer(**changes: Any) -> Offer:
    """An idle offer of 8 cores and two V100; `changes` are of the ask or, of that name, of the offer."""
    ask_fields: dict[str, Any] = {
        "region": "DE",
        "cpu_model": "Test CPU",
        "cpu_milli": 8000,
        "memory_bytes": 64 * 10**9,
        "disk_bytes": 100 * 10**9,
        "devices": (device(0), device(1)),
        "price_gpu": 180_000,
        "price_cpu": 10_000,
        "pythons": ("3.11", "3.12"),
    }
    ask_fields |= {key: changes.pop(key) for key in list(changes) if key in OfferAsk.__dataclass_fields__}
    ask = OfferAsk(**ask_fields)
    idle = Offer(
        id="offer-1",
        version=1,
        node="node-1",
        node_name="one",
        provider="project-1",
        state="open",
        ask=ask,
        free_cpu_milli=ask.cpu_milli,
        free_memory_bytes=ask.memory_bytes,
        free_disk_bytes=ask.disk_bytes,
        free_devices=ask.devices,
    )
    return replace(idle, **changes)


def job(*, python: str | None = None, max_price: int | None = None, **resources: Any) -> JobSpec:
    return JobSpec(
        name="job",
        run="true",
        python=PythonEnvironment(version=python) if python else None,
        resources=Resources(**resources),
        limits=Limits(max_price=max_price),
    )


def why_not(spec: JobSpec, offer: Offer, now: datetime = NOW) -> list[tuple[str, bool]]:
    return [(m.dimension, m.now_only) for m in misfits(spec, offer, now=now)]


@pytest.mark.parametrize(
    ("wanted", "actual"),
    [
        ("V100", "Tesla V100-SXM2-16GB"),
        ("V100", "Tesla V100S-PCIE-32GB"),
        ("V100-SXM2", "Tesla V100-SXM2-16GB"),
        ("A100", "NVIDIA A100-SXM4-80GB"),
        ("A100", "NVIDIA A100 80GB PCIe"),
        ("A100-80GB", "NVIDIA A100-SXM4-80GB"),
        ("a100 80gb", "NVIDIA A100 80GB PCIe"),
        ("RTX 3090 24GB", "NVIDIA GeForce RTX 3090"),
        ("H100 80GB", "NVIDIA H100 PCIe"),
        ("A10", "NVIDIA A10"),
        ("H100", "NVIDIA H100 80GB HBM3"),
        ("rtx3090", "NVIDIA GeForce RTX 3090"),
        ("RTX 3080 Ti", "NVIDIA GeForce RTX 3080 Ti"),
        ("rtx3080ti", "NVIDIA GeForce RTX 3080 Ti"),
        ("RTX A4000", "NVIDIA RTX A4000"),
        ("RTX 6000 Ada", "NVIDIA RTX 6000 Ada Generation"),
        ("GTX 1060", "NVIDIA GeForce GTX 1060 6GB"),
        ("MI100", "AMD Instinct MI100"),
        ("Radeon RX 7900 XTX", "AMD Radeon RX 7900 XTX"),
    ],
)
def test_a_model_admits_its_variants_and_other_spellings(wanted: str, actual: str) -> None:
    assert model_fits((wanted,), actual)
    assert model_fits(("no such card", wanted), actual)


@pytest.mark.parametrize(
    ("wanted", "actual"),
    [
        ("A10", "NVIDIA A100-SXM4-80GB"),
        ("A10", "NVIDIA A10G"),
        ("A10G", "NVIDIA A10"),
        ("L4", "NVIDIA L40"),
        ("L40", "NVIDIA L40S"),
        ("T4", "NVIDIA T400"),
        ("RTX 3080", "NVIDIA GeForce RTX 3080 Ti"),
        ("RTX 2080", "NVIDIA GeForce RTX 2080 SUPER"),
        ("RTX 3080", "NVIDIA GeForce RTX 3080 Laptop GPU"),
        ("RTX 4000", "NVIDIA RTX A4000"),
        ("RTX A4000", "NVIDIA RTX A4000 Laptop GPU"),
        ("RTX 6000", "NVIDIA RTX 6000 Ada Generation"),
        ("RX 7900 XT", "AMD Radeon RX 7900 XTX"),
        ("H100", "NVIDIA GH200 480GB"),
        ("A100", "NVIDIA A100-SXM4-40GB MIG 1g.5gb"),
        ("A100-80GB", "NVIDIA A100-SXM4-40GB"),
        ("A100-80GB", "NVIDIA A100"),
        ("V100-SXM2", "Tesla V100-PCIE-16GB"),
        ("NVIDIA", "NVIDIA TITAN V"),
        ("16GB", "Tesla V100-SXM2-16GB"),
        ("", "Tesla V100-SXM2-16GB"),
    ],
)
def test_a_model_does_not_admit_another_card(wanted: str, actual: str) -> None:
    assert not model_fits((wanted,), actual)


def test_no_model_named_is_any_model() -> None:
    assert model_fits((), "Anything")


def test_every_known_card_is_admitted_by_its_own_model_and_no_other() -> None:
    models = {spec.model for spec in SPECS}
    for spec in SPECS:
        for name in spec.names:
            assert {m for m in models if model_fits((m,), name)} == {spec.model}, name


def test_brands_spaces_and_case_do_not_tell_models_apart() -> None:
    assert normal_model("NVIDIA GeForce RTX 3090") == normal_model("rtx3090") == "rtx3090"


def test_devices_come_in_order_of_index_and_fit_in_model_and_memory() -> None:
    cards = (device(2), device(0), device(1, "NVIDIA A10", 24 * GIB), device(3, memory_bytes=8 * GIB))
    spec = job(gpu_models=("V100",), gpu_count=1, gpu_memory_bytes=16 * 10**9)
    assert [d.index for d in fitting_devices(spec, cards)] == [0, 2]


@pytest.mark.parametrize(
    "spec",
    [
        job(),
        job(cpu_milli=8000, memory_bytes=64 * 10**9, disk_bytes=100 * 10**9),
        job(gpu_count=2, gpu_models=("A10", "V100"), gpu_memory_bytes=16 * 10**9, max_price=180_000),
        job(python="3.12", max_price=10_000),
    ],
)
def test_a_job_that_fits_is_told_nothing(spec: JobSpec) -> None:
    assert misfits(spec, offer(), now=NOW) == ()


BUSY = {"free_cpu_milli": 500, "free_memory_bytes": 10**9, "free_disk_bytes": 2 * 10**9, "free_devices": ()}


@pytest.mark.parametrize(
    ("spec", "changes", "reasons"),
    [
        (job(), {"state": "paused"}, [("availability", True)]),
        (job(), {"accepting": False}, [("availability", True)]),
        (job(), {"hours": (Hours(start_minute=0, end_minute=720),)}, [("hours", True)]),
        (job(gpu_count=1, gpu_models=("A100",)), {}, [("gpu", False)]),
        (job(gpu_count=1), {"devices": ()}, [("gpu", False)]),
        (job(gpu_count=1, gpu_memory_bytes=32 * GIB), {}, [("gpu_memory", False)]),
        (job(gpu_count=3), {}, [("gpu_count", False)]),
        (job(gpu_count=1), {"free_devices": ()}, [("gpu_count", True)]),
        (job(cpu_milli=8001), {}, [("cpu", False)]),
        (job(cpu_milli=501), BUSY, [("cpu", True)]),
        (job(memory_bytes=2 * 10**9, disk_bytes=10**12), BUSY, [("memory", True), ("disk", False)]),
        (job(python="3.9"), {}, [("python", False)]),
        (job(max_price=9_999), {}, [("price", False)]),
        (job(), {"price_cpu": None}, [("price", False)]),
        (job(gpu_count=1), {"price_gpu": None}, [("price", False)]),
    ],
)
def test_each_dimension_that_fails_is_named(
    spec: JobSpec, changes: dict[str, Any], reasons: list[tuple[str, bool]]
) -> None:
    assert why_not(spec, offer(**changes)) == reasons


def test_all_that_fails_is_said_at_once() -> None:
    spec = job(gpu_count=9, cpu_milli=9000, python="2.7", max_price=1)
    assert [d for d, _ in why_not(spec, offer(state="paused"))] == [
        "availability",
        "gpu_count",
        "cpu",
        "python",
        "price",
    ]


def test_an_offer_is_open_within_any_of_its_hours() -> None:
    nights = Hours(start_minute=22 * 60, end_minute=6 * 60)
    mondays = Hours(start_minute=0, end_minute=1440, weekdays=(1,))
    assert why_not(job(), offer(hours=(nights, mondays))) == []
    assert why_not(job(), offer(hours=(nights, mondays)), NOW.replace(day=3)) == [("hours", True)]


def test_a_misfit_reads_as_a_sentence() -> None:
    (cpu,) = misfits(job(cpu_milli=9000), offer(free_cpu_milli=500), now=NOW)
    assert str(cpu) == "cpu: needs 9 cores, has 0.5 cores free of 8 cores"


def test_an_offer_that_shrank_below_its_leases_has_nothing_free_rather_than_less() -> None:
    (cpu,) = misfits(job(), offer(free_cpu_milli=-250), now=NOW)
    assert cpu.available == "0 cores free of 8 cores"


def test_a_torch_without_kernels_for_the_card_is_a_misfit_that_says_what_fits() -> None:
    torch = PythonEnvironment(version="3.11", packages=("torch",))
    wanted = replace(job(gpu_count=1), python=torch)
    old = tuple(replace(device(index), compute_capability="7.0") for index in range(2))
    (misfit,) = misfits(wanted, offer(devices=old), now=NOW)
    assert misfit.dimension == "cuda"
    assert "7.0" in misfit.needed
    assert "torch<2.11" in misfit.available
    assert misfits(wanted, offer(devices=old, torch_variants=known_variants()), now=NOW) == ()
    mixed = (old[0], replace(device(1), compute_capability="8.0"))
    assert misfits(wanted, offer(devices=mixed), now=NOW) == ()
    assert fitting_devices(wanted, mixed) == (mixed[1],), (
        "the card that has kernels is the one that is leased"
    )


def test_a_driver_too_old_for_the_jobs_torch_is_a_misfit_before_money_moves() -> None:
    wanted = replace(job(gpu_count=1), python=PythonEnvironment(version="3.11", packages=("torch",)))
    card = replace(device(model="NVIDIA A10"), compute_capability="8.6", driver="550.54.15", cuda="12.4")
    (misfit,) = misfits(wanted, offer(devices=(card,)), now=NOW)
    assert misfit.dimension == "cuda"
    assert not misfit.now_only
    assert "driver 550.54.15" in misfit.needed
    assert "needs a driver for CUDA 13 (580 or newer), it has 12.4; write torch<2.11" in misfit.available
    assert misfits(wanted, offer(devices=(card,), torch_variants=known_variants()), now=NOW) == ()
    newer = replace(card, driver="580.95.05", cuda=None)
    assert misfits(wanted, offer(devices=(newer,)), now=NOW) == (), (
        "known by its version where no more is told"
    )


def test_a_node_whose_provider_lets_no_job_out_is_a_misfit_for_one_that_needs_the_network() -> None:
    alone = replace(job(), network_allow=())
    out = replace(alone, network_allow=("models.example.org:443",))

    assert misfits(alone, offer(), now=NOW) == ()
    assert misfits(out, offer(grants=("network",)), now=NOW) == ()
    (misfit,) = misfits(out, offer(), now=NOW)
    assert (misfit.dimension, misfit.needed) == ("network", "models.example.org:443")


def test_a_node_with_no_room_for_what_a_job_brings_is_a_misfit_that_names_it() -> None:
    digest = "sha256:" + "0" * 64
    brings = replace(
        job(),
        image=Image(name="debian:12", digest=digest),
        inputs=(
            Input(path="a", url="s3://bucket/key"),
            Input(path="b", url="https://host.example/b", digest=digest),
            Input(path="c", url="job:job-1@local", digest=digest),
        ),
    )

    assert misfits(brings, offer(takes=("image", "https", "s3", "job")), now=NOW) == ()
    found = misfits(brings, offer(takes=("https",)), now=NOW)
    assert [(each.dimension, each.needed) for each in found] == [
        ("image", "a container image"),
        ("inputs", "an input by job"),
        ("inputs", "an input by s3"),
    ]
    assert not any(each.now_only for each in found), "waiting does not help"


def test_a_virtual_machine_is_no_place_for_a_job_with_secrets_yet() -> None:
    plain = replace(job(), isolation="microvm")
    secretive = replace(plain, secrets=(Secret(name="TOKEN"),))
    both = offer(tiers=(SandboxTier(tier="bubblewrap"), SandboxTier(tier="microvm")))

    assert misfits(plain, both, now=NOW) == ()
    assert misfits(replace(secretive, isolation=None), both, now=NOW) == ()
    (misfit,) = misfits(secretive, both, now=NOW)
    assert (misfit.dimension, misfit.available) == ("secrets", "none in microvm yet")


def test_a_virtual_machine_has_no_network_and_takes_a_machines_memory() -> None:
    offered = tuple(SandboxTier(tier=each) for each in ("bubblewrap", "gvisor", "microvm"))
    talks = replace(job(), isolation="microvm", network_allow=("models.example.org:443",))
    small = replace(job(), isolation="microvm", resources=Resources(memory_bytes=64 << 20))
    here = offer(tiers=offered, grants=("network",))

    assert misfits(replace(talks, isolation="gvisor"), here, now=NOW) == ()
    (misfit,) = misfits(talks, here, now=NOW)
    assert (misfit.dimension, misfit.needed) == ("network", "a network in the sandbox")
    (misfit,) = misfits(small, here, now=NOW)
    assert (misfit.dimension, misfit.available) == ("memory", "67.1 MB asked for")


def test_a_job_runs_only_in_its_regions() -> None:
    in_union = replace(job(), regions=("EU", "US-CA"))

    assert misfits(in_union, offer(region="DE"), now=NOW) == ()
    (misfit,) = misfits(in_union, offer(region="CH"), now=NOW)
    assert str(misfit) == "region: needs EU or US-CA, has CH"


def test_a_provider_sets_the_shortest_job_and_its_end() -> None:
    ends = int(NOW.timestamp() * 1000) + 2 * 3600 * 1000
    terms = offer(min_duration_seconds=1800, available_until_ms=ends)
    short, fits, long = (
        replace(job(), limits=Limits(max_duration_seconds=seconds)) for seconds in (600, 3600, 10_800)
    )

    assert [str(each) for each in misfits(short, terms, now=NOW)] == [
        "min_duration: needs an offer for 10m 00s, has 30m 00s or more"
    ]
    assert misfits(fits, terms, now=NOW) == ()
    assert [each.dimension for each in misfits(long, terms, now=NOW)] == ["available_until"]
    assert misfits(job(), terms, now=NOW) == ()  # It names no length; its lease ends with the offer.
    after = datetime(2026, 11, 2, 15, 0, tzinfo=UTC)
    assert [each.dimension for each in misfits(job(), terms, now=after)] == ["available_until"]

"""Grades: what is missing never passes, worse never grades better, and noise changes nothing."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perak.domain.facts.grades import XIDS_REJECTED
from perak.domain.hardware import inspection as names
from perak.domain.hardware.grade import ESSENTIAL, MISMATCHES, REJECTED, RULES, Assessment, assess, merged
from perak.domain.hardware.inspection import Check, DeviceInspection
from perak.domain.hardware.reference import Reference, reference_of, throughputs
from unit.domain.hardware.inspections import HEALTHY, START, failed, identity, inspection

NETWORK = Reference(cards=9, owners=4, medians={names.FP32: 14.2, names.COPY: 750.0, names.FP16: 28.0})
ORDER = ("A", "B", "C", None, REJECTED)
DAY = 86_400_000
PROCESSOR = identity(kind="cpu", model="Xeon")


def graded(*inspections: DeviceInspection, before: str | None = None) -> Assessment:
    return assess(inspections, reference=NETWORK, before=before)


def test_a_healthy_card_is_an_a_without_reasons() -> None:
    found = graded(inspection())
    assert (found.grade, found.provisional, found.ecc, found.reasons) == ("A", False, True, ())
    assert found.score is not None
    assert found.score > 95


def test_a_processor_has_no_grade_however_good_it_is_and_one_that_miscalculates_is_rejected() -> None:
    found = graded(replace(inspection(), identity=PROCESSOR))
    assert (found.grade, found.reasons) == (
        None,
        ("ungraded because it is a processor: grades compare graphics cards",),
    )
    broken = {names.COMPUTE_FP32: failed(names.COMPUTE_FP32)}
    assert graded(replace(inspection(broken), identity=PROCESSOR)).grade == REJECTED


@pytest.mark.parametrize(
    ("changes", "grade", "reason"),
    [
        ({names.SOAK_POWER: 0.84}, "B", "B because the sustained power reached 84% of its limit"),
        ({names.SOAK_POWER: 0.76}, "C", "C because the sustained power reached 76%"),
        ({names.SOAK_POWER: 0.70}, None, "reached 70% of its limit"),
        (
            {names.FP32: 14.2 * 0.93},
            "B",
            "B because the throughput is 93% of the median of its model (arXiv 2208.11035",
        ),
        ({names.COPY: 750 * 0.80}, "C", "C because the throughput is 80% of the median"),
        ({names.COPY: 750 * 0.70}, None, "70% of the median"),
        ({names.COPY: 750 * 0.60}, REJECTED, "rejected because its throughput is 60%"),
        ({names.SOAK_CLOCK_DRIFT: 40.0}, "B", "lost 40 MHz"),
        ({names.SOAK_CLOCK_DRIFT: 400.0}, "C", "lost 400 MHz"),
        ({names.SOAK_TEMPERATURE: 83.0}, "B", "83 °C"),
        ({names.SOAK_TEMPERATURE: 88.0}, "C", "88 °C"),
        ({names.SOAK_TEMPERATURE: 88.0, names.SOAK_SLOWDOWN: 0.2}, None, "hardware slowed 20%"),
        ({names.NVLINK_INACTIVE: 1.0}, "C", "links that are down"),
        ({names.REMAP_PENDING: 1.0}, "C", "wait for a reset"),
        ({names.PCIE_WIDTH: 8.0}, "C", "PCIe runs at 50%"),
        ({names.RETIRED_PAGES: 10.0}, "A", ""),
        ({names.RETIRED_PAGES: 11.0}, REJECTED, "11 pages"),
        ({names.REMAP_FAILED: failed(names.REMAP_FAILED)}, REJECTED, "could not be replaced"),
        ({names.ECC_SRAM_THRESHOLD: 1.0}, REJECTED, "SRAM"),
        ({names.SOAK_ERRORS: 2.0}, REJECTED, "new uncorrectable"),
        ({names.IDENTITY_SEVERAL: failed(names.IDENTITY_SEVERAL)}, REJECTED, "not what it says it is"),
    ],
)
def test_each_rule_says_why(changes: dict[str, float | Check], grade: str | None, reason: str) -> None:
    found = graded(inspection(changes))
    assert found.grade == grade
    assert any(reason in each for each in found.reasons) or not reason


@pytest.mark.parametrize("name", MISMATCHES)
def test_any_mismatch_rejects(name: str) -> None:
    found = graded(inspection({name: failed(name, "0x2a: expected 0, read 1, mask 1")}))
    assert found.rejected
    assert "mask 1" in found.reasons[0]


@pytest.mark.parametrize("xid", XIDS_REJECTED)
def test_grave_xids_reject(xid: int) -> None:
    found = graded(inspection(xids=(13, xid)))
    assert found.rejected
    assert f"Xid {xid}" in found.reasons[0]
    assert graded(inspection(xids=(13,))).grade == "A", "a program's own fault is not the card's"


@settings(max_examples=60, deadline=None)
@given(st.sets(st.sampled_from(sorted(HEALTHY)), min_size=1, max_size=12))
def test_what_is_missing_never_passes(missing: set[str]) -> None:
    whole = graded(inspection())
    found = graded(inspection(dict.fromkeys(missing)))
    assert ORDER.index(found.grade) >= ORDER.index(whole.grade)
    assert found.coverage < whole.coverage
    assert found.score is None or whole.score is None or found.score <= whole.score + 5
    if missing & {
        *ESSENTIAL,
        names.MEMORY_SHARE,
        names.FP32,
        names.COPY,
        names.SOAK_TEMPERATURE,
        names.SOAK_SECONDS,
    }:
        assert found.grade is None
        assert any("ungraded because" in each for each in found.reasons)
    if missing & {names.ECC_AGGREGATE_UNCORRECTED, names.ECC_VOLATILE_UNCORRECTED}:
        assert not found.ecc


WORSE = {
    names.FP32: -1, names.COPY: -1, names.FP16: -1, names.SOAK_POWER: -1, names.SOAK_CLOCK_DRIFT: 1,
    names.SOAK_TEMPERATURE: 1, names.SOAK_SLOWDOWN: 1, names.NVLINK_ERRORS: 1, names.NVLINK_INACTIVE: 1,
    names.REMAP_PENDING: 1, names.RETIRED_PAGES: 1, names.REMAPPED_ROWS: 1, names.SOAK_ERRORS: 1,
    names.PCIE_WIDTH: -1, names.PCIE_GENERATION: -1, names.REMAP_FAILED: 1, names.ECC_SRAM_THRESHOLD: 1,
}  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(WORSE)),
    st.floats(0, 2),
    st.floats(0, 2),
    st.sampled_from([None, "A", "B", "C"]),
    st.sets(st.sampled_from(sorted(HEALTHY)), max_size=4),
)
def test_worse_never_grades_better(
    name: str, one: float, other: float, before: str | None, missing: set[str]
) -> None:
    if name in missing:
        return
    scale = max(HEALTHY[name], 10.0)
    worse, better = sorted((one * scale, other * scale), key=lambda value: -WORSE[name] * value)
    of_better = graded(inspection({**dict.fromkeys(missing), name: better}), before=before)
    of_worse = graded(inspection({**dict.fromkeys(missing), name: worse}), before=before)
    assert ORDER.index(of_worse.grade) >= ORDER.index(of_better.grade)
    if of_worse.score is not None and of_better.score is not None:
        assert of_worse.score <= of_better.score


@pytest.mark.parametrize("throughput", [1.0, 0.955, 0.95, 0.945, 0.905])
def test_ten_noisy_inspections_of_one_card_give_one_grade(throughput: float) -> None:
    """Around a threshold too: 1% of noise on rates, 0.5% on power, 1 °C, 2 MHz."""
    rng = random.Random(20261123)
    seen: list[DeviceInspection] = []
    grades: list[str | None] = []
    for turn in range(10):
        noisy = {
            names.FP32: 14.2 * throughput * (1 + rng.gauss(0, 0.005)),
            names.COPY: 750 * throughput * (1 + rng.gauss(0, 0.005)),
            names.SOAK_POWER: 0.97 + rng.gauss(0, 0.005),
            names.SOAK_TEMPERATURE: 72 + rng.gauss(0, 1),
            names.SOAK_CLOCK_DRIFT: 10 + rng.gauss(0, 2),
        }
        seen.append(inspection(noisy, at=START + turn * DAY))
        grades.append(graded(*seen, before=grades[-1] if grades else None).grade)
    assert len(set(grades)) == 1


def test_without_error_counters_an_a_is_called_one_without_ecc() -> None:
    ecc = [name for name in HEALTHY if name.startswith("ecc.")]
    found = graded(inspection(dict.fromkeys(ecc), ecc_enabled=None))
    assert (found.grade, found.ecc) == ("A", False)


def test_a_model_of_few_cards_is_graded_by_its_data_sheet_provisionally() -> None:
    for known in (
        None,
        Reference(cards=4, owners=3, medians=NETWORK.medians),
        Reference(cards=9, owners=1, medians={}),
    ):
        found = assess([inspection()], reference=known)
        assert (found.grade, found.provisional) == ("A", True)
        assert any("compared with the data sheet" in each for each in found.reasons)
    slow = assess([inspection({names.COPY: 400.0})], reference=None)
    assert slow.grade is None, "a data sheet alone rejects nobody"


def test_a_model_that_nobody_knows_is_ungraded_not_c() -> None:
    found = assess([inspection(model="NVIDIA Unknown 9000")], reference=None)
    assert found.grade is None
    assert any("nothing to compare it with" in each for each in found.reasons)


def test_a_slow_slot_is_the_machines_limit() -> None:
    found = graded(inspection({names.PCIE_WIDTH: 4.0}, pcie_width_slot=4))
    assert found.grade == "A"
    assert any("the machine's limit, not the card's" in each for each in found.reasons)
    unknown = graded(inspection({names.PCIE_WIDTH: 4.0}, pcie_width_slot=None, pcie_generation_slot=None))
    assert unknown.grade == "A"
    assert any("not held against the card" in each for each in unknown.reasons)


def test_a_row_replaced_after_a_reset_is_a_b() -> None:
    before, after = inspection({names.REMAP_PENDING: 1.0}), inspection(at=START + DAY)
    assert graded(before).grade == "C"
    assert graded(before, after).grade == "B"
    assert graded(before, inspection(at=START + 100 * DAY)).grade == "A", "it is forgotten in time"


def test_a_quick_inspection_does_not_undo_a_soak() -> None:
    quick = inspection(
        {names.MEMORY_SHARE: failed(names.MEMORY_SHARE, "a bounded part", 0.1)}, kind="quick", at=START + DAY
    )
    assert graded(quick).grade is None
    assert graded(inspection(), quick).grade == "A"
    assert merged([inspection(), quick]).coverage == inspection().coverage


def test_a_mismatch_is_not_forgotten_for_a_lesser_inspection() -> None:
    bad = inspection({names.MEMORY_RANDOM: failed(names.MEMORY_RANDOM)}, xids=(79,))
    quick = inspection(kind="quick", at=START + DAY)
    assert graded(bad, quick).rejected
    assert graded(bad, quick, inspection(at=START + 2 * DAY)).grade == "A"


def test_old_evidence_counts_no_more() -> None:
    assert graded(inspection(), inspection(kind="quick", at=START + 91 * DAY)).grade is None


def test_medians_are_of_devices_and_need_several_owners() -> None:
    cards = {
        f"GPU-{i}": (f"owner-{i % 2}", throughputs([inspection({names.FP32: 14.0 + i / 10})]))
        for i in range(5)
    }
    found = reference_of(cards)
    assert found.suffices
    assert found.medians[names.FP32] == pytest.approx(14.2)
    assert not reference_of({"GPU-1": cards["GPU-1"]}).suffices
    assert not reference_of({uuid: ("one", rates) for uuid, (_, rates) in cards.items()}).suffices


def test_every_rule_has_a_source_and_its_thresholds_in_order() -> None:
    for rule in RULES:
        assert rule.source
        bounds = [each for each in (rule.a, rule.b, rule.c) if each is not None]
        assert bounds == sorted(bounds, reverse=rule.more_is_better)

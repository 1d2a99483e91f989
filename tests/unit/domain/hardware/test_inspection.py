"""What an inspection is: one result for each check, what is missing counted, and a digest that stays."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from perak.domain.hardware import inspection as i
from perak.domain.hardware.drift import fitted_loss, thinned
from perak.domain.hardware.inspection import Check, DeviceIdentity, DeviceInspection, Sample, complete

IDENTITY = DeviceIdentity(uuid="GPU-1", model="x", kind="nvidia", index=0)
EMPTY = DeviceInspection(
    identity=IDENTITY, kind="full", trigger="hand", started_at=1, ended_at=2, checks=complete(())
)


def test_nothing_that_did_not_run_is_covered_or_has_a_value() -> None:
    assert EMPTY.coverage == 0
    assert EMPTY.value(i.MEMORY_RANDOM) is None
    assert {check.status for check in EMPTY.checks} == {"not_run"}
    assert EMPTY.check("no such check").status == "not_run"


def test_coverage_counts_failed_checks_as_run_and_a_soaks_only_with_a_soak() -> None:
    every = tuple(Check(name=kind.name, status="failed", value=1) for kind in i.CHECKS if not kind.soak)
    full = replace(EMPTY, checks=complete(every))
    assert full.coverage == 1
    assert 0.5 < replace(full, kind="soak").coverage < 1


def test_the_digest_covers_everything_and_does_not_tell_3_from_3_0() -> None:
    one = replace(EMPTY, checks=(Check(name=i.COPY, status="passed", value=3),))
    assert i.digest(one) == i.digest(replace(EMPTY, checks=(Check(name=i.COPY, status="passed", value=3.0),)))
    assert i.digest(one) != i.digest(replace(one, xids=(79,)))
    assert i.digest(one) != i.digest(replace(one, identity=replace(IDENTITY, serial="1")))


@given(st.floats(-100, 100), st.floats(-1, 1))
def test_a_straight_line_is_fitted_as_it_is(start: float, slope: float) -> None:
    points = [(float(at), start + slope * at) for at in range(11)]
    lost = fitted_loss(points)
    assert lost is not None
    assert abs(lost - -slope * 8) < 1e-6, "from the end of the warm-up, 2, to 10"


def test_too_few_samples_fit_nothing() -> None:
    assert fitted_loss([(0.0, None), (1.0, None)]) is None
    assert fitted_loss([(0.0, 1.0), (1.0, 2.0)]) is None


def test_samples_are_thinned_evenly_with_first_and_last() -> None:
    samples = [Sample(at_seconds=float(at)) for at in range(1000)]
    kept = thinned(samples, 240)
    assert len(kept) == 240
    assert (kept[0].at_seconds, kept[-1].at_seconds) == (0.0, 999.0)

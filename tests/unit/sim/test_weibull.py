"""The Weibull of Titan's published failures, and how badly its first years foretell the fourth."""

from __future__ import annotations

import pytest

pytest.importorskip("scipy", reason="scipy is not installed: no fit")

from perak.domain.facts.titan import TITAN_FAILURES, TITAN_GPUS
from perak.domain.hardware.hazard import CLASS_PRIOR
from perak.sim.weibull import fit_yearly

SHARES = {batch: [percent / 100 for percent in yearly] for batch, yearly, _, _ in TITAN_FAILURES}
GPUS = {batch: at_work for batch, _, at_work, _ in TITAN_FAILURES}


def test_the_old_batch_aged() -> None:
    fit = fit_yearly(SHARES["old"], devices=GPUS["old"])
    assert fit.k == pytest.approx(2.48, abs=0.01)
    assert fit.sampling == pytest.approx((2.43, 2.53), abs=0.01)
    assert fit.misfit == pytest.approx((1.58, 3.63), abs=0.02), "a Weibull hardly fits it"


def test_the_reworked_batch_hardly_did() -> None:
    """An interval of 95% within 1.0 to 1.6 would need four times as many cards as there were in it."""
    fit = fit_yearly(SHARES["reworked"], devices=GPUS["reworked"])
    assert fit.k == pytest.approx(1.42, abs=0.01)
    assert fit.sampling == pytest.approx((1.11, 1.78), abs=0.01)
    assert fit.misfit is not None
    assert fit.misfit[0] < 1 < fit.misfit[1], "three years do not tell whether it aged at all"


def test_three_years_of_the_old_batch_foretell_the_fourth_badly_either_way() -> None:
    actual = SHARES["old"][3]
    weibull = fit_yearly(SHARES["old"][:3], devices=TITAN_GPUS)
    gamma = CLASS_PRIOR.after(events=sum(SHARES["old"][:3]) * TITAN_GPUS, exposure=3.0 * TITAN_GPUS)
    assert weibull.failing_in(4) / actual == pytest.approx(3.8, abs=0.1), "extrapolated: four times too many"
    assert gamma.mean / actual == pytest.approx(0.32, abs=0.01), "a constant rate: a third of what came"


def test_a_constant_rate_is_found_again() -> None:
    fit = fit_yearly([0.05] * 6, devices=TITAN_GPUS)
    assert fit.k == pytest.approx(1, abs=0.001)
    assert fit.failing_in(7) == pytest.approx(0.05, abs=0.001)
    assert fit_yearly([0.05, 0.05], devices=100).misfit is None

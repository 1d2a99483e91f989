"""Old or new, against what was measured on both."""

import csv

import pytest
from benchmarks.data import FOLDER, missing

from perak.domain.carbon.breakeven import (
    NEW,
    UNCERTAIN,
    USED,
    Pair,
    advice,
    break_even,
    measured_pair,
    new_card_for,
)
from perak.domain.errors import InvalidInput
from perak.domain.facts.epochs import EPOCHS
from perak.domain.facts.grid import EU, WORLD

DATA = FOLDER / "carbon" / "gpu"
TYPICAL = (EU[0], WORLD[0])


@pytest.mark.parametrize("here", TYPICAL)
def test_resnet_on_a_v100_is_better_old(here: float) -> None:
    found = advice("V100", new="A40", workload="ResNet-50", here=here)
    assert found is not None
    assert (found.verdict, found.low) == (USED, None)
    assert "on any grid" in found.line


@pytest.mark.parametrize("here", TYPICAL)
def test_deepspeech_on_a_p100_is_not(here: float) -> None:
    found = advice("P100", new="A40", workload="DeepSpeech2", here=here)
    assert found is not None
    assert found.verdict == NEW
    assert found.high is not None
    assert found.high < 30
    assert f"here it is {here:.0f}" in found.line


def test_on_a_clean_grid_even_that_one_is_better_old() -> None:
    found = advice("P100", new="A40", workload="DeepSpeech2", here=2.0)
    assert found is not None
    assert found.verdict == USED


def test_the_formula_by_hand() -> None:
    """A new card at twice the speed and the same power: it saves 0.05 kWh of each hour's 0.1 kWh."""
    pair = Pair(used="P100", new="H100", ratios=(0.5,), used_watts=100, new_watts=100, basis="made up")
    found = break_even(pair, here=100.0, pue=2.0)
    assert found.low == pytest.approx(164_000 / (6 * 365 * 24) * 0.5 / (0.05 * 2.0))
    assert found.high == pytest.approx(575_100 / (4 * 365 * 24) * 0.5 / (0.05 * 2.0))
    assert found.verdict == NEW
    assert break_even(pair, here=(found.low or 0) + 1, pue=2.0).verdict == UNCERTAIN


def test_without_a_measurement_data_sheets_give_a_range() -> None:
    found = advice("Tesla P100-PCIE-16GB", here=400)
    assert found is not None
    assert found.pair.new == new_card_for("Tesla P100-PCIE-16GB") == "L4"
    assert len(found.pair.ratios) == 2
    assert "data sheets" in found.pair.basis


def test_a_card_that_nothing_newer_can_replace_gets_no_advice() -> None:
    assert advice("NVIDIA H200", here=400) is None
    assert advice("Voodoo 2", here=400) is None


def test_what_was_not_measured_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match="ResNet-50"):
        measured_pair("V100", "A40", "tetris")
    with pytest.raises(InvalidInput, match="was on P100, V100"):
        measured_pair("V100", "H100", "ResNet-50")


def test_the_rows_are_those_of_the_measurements() -> None:
    files = {"P100": "p100", "V100": "v100", "Quadro RTX 6000": "rtx6000", "A40": "a40"}
    if reason := missing(DATA / "zeus_nsdi23_summary_power_p100.csv"):
        pytest.skip(reason)
    networks = {"ResNet-50": "resnet50", "DeepSpeech2": "deepspeech2", "NCF": "ncf"}
    for workload, card, seconds, watts, batch in EPOCHS:
        if workload not in networks:
            continue
        with (DATA / f"zeus_nsdi23_summary_power_{files[card]}.csv").open() as stream:
            rows = [r for r in csv.DictReader(stream) if r["network"] == networks[workload]]
        limit = max(float(r["power_limit"]) for r in rows)
        best = min(
            (r for r in rows if float(r["power_limit"]) == limit),
            key=lambda r: float(r["time_per_epoch"]) * float(r["average_power"]),
        )
        assert int(best["batch_size"]) == batch
        assert float(best["time_per_epoch"]) == pytest.approx(seconds, rel=1e-3)
        assert float(best["average_power"]) == pytest.approx(watts, rel=1e-3)

"""What a job file says of the market: it becomes money, places and hours, or an error at its key."""

from typing import Any

import pytest

from perak.domain.job import Preference, Start, Work
from perak.domain.market.utility import PRESETS
from perak.domain.units import MICROS
from perak.wire.jobfile import JobFileError, parse_job, spec_to_tree


def parsed(**more: Any) -> Any:
    return parse_job({"name": "hello", "run": "echo hello", **more}, workdir_digest=None)


def test_the_keys_of_the_market() -> None:
    spec = parsed(
        prefer={"carbon_price": "0.10/kg", "delay_cost": "0.50/h", "value": 6},
        start={"within": "8h", "deadline": "12h"},
        work={"device": "V100", "hours": 3},
        placement={"regions": ["eu", "us_ca", "UK"], "min_grade": "b"},
        limits={"max_carbon": "2kg"},
    )

    assert spec.preference == Preference(
        carbon_price_per_kg=MICROS // 10, delay_cost_per_hour=MICROS // 2, value=6 * MICROS
    )
    assert spec.start == Start(within_seconds=8 * 3600, deadline_seconds=12 * 3600)
    assert spec.work == Work(device="V100", hours=3.0)
    assert (spec.regions, spec.min_grade) == (("EU", "US-CA", "GB"), "B")
    assert spec.limits.max_carbon_grams == 2000


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_its_prices(name: str) -> None:
    assert parsed(prefer=name).preference == PRESETS[name]


def test_a_preset_may_be_given_a_value_or_another_price() -> None:
    valued = parsed(prefer={"preset": "greenest", "value": "2.50"}).preference
    changed = parsed(prefer={"preset": "balanced", "delay_cost": "1/h"}).preference

    assert (valued.name, valued.value) == ("greenest", 2_500_000)
    assert (changed.name, changed.delay_cost_per_hour) == (None, MICROS)
    assert changed.carbon_price_per_kg == PRESETS["balanced"].carbon_price_per_kg
    assert spec_to_tree(parsed(prefer="balanced"))["prefer"] == "balanced"


def test_the_cheapest_is_taken_where_nothing_is_said() -> None:
    assert parsed().preference == Preference()
    assert "prefer" not in spec_to_tree(parsed())


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ({"prefer": "quickest"}, "prefer"),
        ({"prefer": {}}, "prefer"),
        ({"prefer": {"preset": "quickest"}}, "prefer.preset"),
        ({"prefer": {"carbon_price": "dear"}}, "prefer.carbon_price"),
        ({"prefer": {"price": 1}}, "prefer.price"),
        ({"start": {}}, "start.within"),
        ({"start": {"within": "2h", "deadline": "1h"}}, "start.deadline"),
        ({"start": {"within": "90d"}}, "start.within"),
        ({"placement": {"regions": "moon base"}}, "placement.regions[0]"),
        ({"placement": {"regions": ["DE", "XD"]}}, "placement.regions[1]"),
        ({"placement": {"min_grade": "D"}}, "placement.min_grade"),
        ({"limits": {"max_carbon": 2}}, "limits.max_carbon"),
        ({"limits": {"max_carbon": "9999999t"}}, "limits.max_carbon"),
        ({"work": {"device": "Q9", "hours": 1}}, "work.device"),
        ({"work": {"device": "V100", "hours": 0}}, "work.hours"),
        ({"work": {"device": "V100"}}, "work.hours"),
    ],
)
def test_what_is_wrong_is_refused_at_its_key(more: dict[str, Any], key: str) -> None:
    with pytest.raises(JobFileError) as caught:
        parsed(**more)

    assert [error["key"] for error in caught.value.errors] == [key]


@pytest.mark.parametrize(("written", "meant"), [("DEU", "DE"), ("US-CAL", "US-CA"), ("EUR", "EU")])
def test_a_region_that_is_none_is_answered_with_the_nearest(written: str, meant: str) -> None:
    with pytest.raises(JobFileError, match=f"did you mean {meant}\\?"):
        parsed(placement={"regions": [written]})

"""Each source's replies, as documented; and sources that are away, slow, late, or nonsense."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from feed_replies import (
    GB_AHEAD,
    GB_PAST,
    MAPS_FORECAST,
    MAPS_HISTORY,
    WATTTIME_FORECAST,
    WATTTIME_LOGIN,
)
from feed_server import Source, source

from perak.adapters.feeds import entsoe, gridstatus
from perak.adapters.feeds.electricitymaps import ElectricityMapsFeed
from perak.adapters.feeds.file import FileFeed
from perak.adapters.feeds.gb import GbFeed
from perak.adapters.feeds.http import REPLY_BYTES_MAX, FeedError, get_json
from perak.adapters.feeds.mix import fuel_of, intensity_of
from perak.adapters.feeds.watttime import WattTimeFeed
from perak.app.grid import ZoneFeed, ZoneState
from perak.domain.carbon.placement import FORECAST, MEASURED, YEARLY
from perak.domain.carbon.signal import MarginalHours, hour_of

NOW = datetime(2026, 11, 23, 11, 40, tzinfo=UTC)
HOUR = hour_of(NOW.timestamp())


@pytest.fixture
def there() -> Iterator[Source]:
    with source() as told:
        yield told


async def test_gb_tells_what_was_and_what_comes(there: Source) -> None:
    there.replies = {"/intensity/2026-11-23T11:40Z/fw48h": GB_AHEAD, "/intensity/2026-11-15": GB_PAST}
    found = await GbFeed(url=there.url).read("GB", now=NOW)
    assert found.measured is not None
    assert (found.measured.first_hour, found.measured.grams_per_kwh) == (HOUR - 1, (260.0,))
    assert found.forecast is not None
    assert found.forecast.grams_per_kwh == (250.0, 240.0)
    assert found.measured.factor == "direct"
    assert not GbFeed().tried_live


async def test_electricity_maps_says_what_it_estimated_and_is_given_its_key(there: Source) -> None:
    there.replies = {
        "/carbon-intensity/history": MAPS_HISTORY,
        "/carbon-intensity/forecast": MAPS_FORECAST,
    }
    feed = ElectricityMapsFeed(token="secret", url=there.url, forecast=True)
    found = await feed.read("DE", now=NOW)
    assert found.measured is not None
    assert found.measured.grams_per_kwh == (302.0, 310.0)
    assert "in part estimated" in found.measured.source
    assert found.forecast is not None
    assert found.forecast.first_hour == HOUR + 1
    path, headers = there.asked[0]
    assert (path, headers["auth-token"]) == ("/carbon-intensity/history?zone=DE", "secret")
    assert "secret" not in repr(feed)


async def test_watttime_is_marginal_and_in_grams(there: Source) -> None:
    there.replies = {"/login": WATTTIME_LOGIN, "/v3/forecast": WATTTIME_FORECAST}
    found = await WattTimeFeed(user="me", password="pw", url=there.url).read("CAISO_NORTH", now=NOW)
    assert (found.measured, found.forecast) == (None, None)
    assert isinstance(found.marginal, MarginalHours)
    assert found.marginal.grams_per_kwh[0] == pytest.approx(875 * 0.45359237)
    assert there.asked[1][1]["authorization"] == f"Bearer {WATTTIME_LOGIN['token']}"


async def test_watttimes_other_units_are_refused(there: Source) -> None:
    meta = {**WATTTIME_FORECAST["meta"], "units": "grams"}  # type: ignore[dict-item]
    there.replies = {"/login": WATTTIME_LOGIN, "/v3/forecast": {**WATTTIME_FORECAST, "meta": meta}}
    with pytest.raises(FeedError, match="grams"):
        await WattTimeFeed(user="me", password="pw", url=there.url).read("CAISO_NORTH", now=NOW)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"status": 500}, "answers 500"),
        ({"status": 401}, "refuses the key"),
        ({"status": 302, "headers": {"location": "http://127.0.0.1:1/"}}, "answers 302"),
        ({"raw": b"<html>maintenance</html>"}, "no JSON"),
        ({"raw": b'{"data": 7}'}, "not as documented"),
        ({"raw": b'{"data": []}'}, "no figure"),
        ({"raw": b'{"data": [{"from": "soon", "intensity": {"actual": 1}}]}'}, "no time"),
        ({"raw": b'{"data": [{"from": "2026-11-23T10:00Z", "intensity": {"actual": "x"}}]}'}, "no intensity"),
    ],
)
async def test_what_can_not_be_used_says_why(
    there: Source, change: dict[str, object], complaint: str
) -> None:
    for name, value in change.items():
        setattr(there, name, value)
    with pytest.raises(FeedError, match=complaint):
        await GbFeed(url=there.url).read("GB", now=NOW)


async def test_a_rate_limit_says_when_to_come_again(there: Source) -> None:
    there.status, there.headers = 429, {"retry-after": "1800"}
    state = ZoneState(ZoneFeed(region="GB", feed=GbFeed(url=there.url), zone="GB"))
    try:
        await state.of.feed.read("GB", now=NOW)
    except FeedError as error:
        state.failed(error, now=NOW)
    assert "429" in state.problem
    assert not state.due(NOW + timedelta(seconds=1799))
    assert state.due(NOW + timedelta(seconds=1800))


async def test_a_source_that_is_slow_or_away_is_not_waited_for(there: Source) -> None:
    there.delay_seconds = 5.0
    started = time.monotonic()
    with pytest.raises(FeedError, match="no answer within"):
        await get_json(there.url, timeout_seconds=0.05)
    with pytest.raises(FeedError, match="can't be reached"):
        await get_json("http://127.0.0.1:9/", timeout_seconds=5.0)
    assert time.monotonic() - started < 5.0 + 4.0
    there.delay_seconds = 0.0


async def test_an_endless_reply_is_cut(there: Source) -> None:
    there.raw = b" " * (REPLY_BYTES_MAX + 1)
    with pytest.raises(FeedError, match="longer than"):
        await get_json(there.url)


def file_of(folder: Path, hours: int, *, until: datetime, packed: bool = False) -> Path:
    lines = ["time,GB,FR"]
    for hour in range(hours):
        at = until - timedelta(hours=hours - 1 - hour)
        lines.append(f"{at:%Y-%m-%dT%H:00:00Z},{100 + hour},")
    text = "\n".join(lines) + "\n"
    path = folder / ("grid.csv.gz" if packed else "grid.csv")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    return path


@pytest.mark.parametrize("packed", [False, True])
async def test_a_file_gives_hours_that_were_and_its_own_forecast(tmp_path: Path, packed: bool) -> None:
    feed = FileFeed(path=file_of(tmp_path, 48, until=NOW + timedelta(hours=24), packed=packed))
    found = await feed.read("GB", now=NOW)
    assert found.measured is not None
    assert found.forecast is not None
    assert found.measured.end_hour == HOUR + 1 == found.forecast.first_hour
    with pytest.raises(FeedError, match="no column 'XX'"):
        await feed.read("XX", now=NOW)
    with pytest.raises(FeedError, match="no figure"):
        await feed.read("FR", now=NOW)
    with pytest.raises(FeedError, match="near 2030"):
        await feed.read("GB", now=NOW.replace(year=2030))


async def test_a_parquet_file_is_read_as_well(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    from pyarrow import parquet

    times = [NOW - timedelta(hours=hour) for hour in range(3)]
    parquet.write_table(pa.table({"time": times, "GB": [1.0, None, 3.0]}), tmp_path / "grid.parquet")
    found = await FileFeed(path=tmp_path / "grid.parquet").read("GB", now=NOW)
    assert found.measured is not None
    assert found.measured.grams_per_kwh == (3.0, None, 1.0)


def test_a_mix_is_weighed_by_fuel_and_storage_makes_nothing() -> None:
    assert intensity_of({"Nuclear": 50, "Fossil Gas": 50, "Hydro Pumped Storage": 900}) == 251.0
    assert intensity_of({"Fossil Gas": -5, "Batteries": 10}) is None
    assert fuel_of("Fossil Brown coal/Lignite") == "coal"
    assert fuel_of("Hydro Run-of-river and poundage") == "hydro"
    assert fuel_of("Imports") is None
    assert fuel_of("Fusion") == "other"


def test_entsoes_table_is_counted_by_type() -> None:
    pandas = pytest.importorskip("pandas", reason="the extra `feeds` is not installed")
    index = pandas.date_range("2026-11-23T12:00", periods=2, freq="15min", tz="Europe/Berlin")
    columns = pandas.MultiIndex.from_tuples(
        [("Wind Onshore", "Actual Aggregated"), ("Fossil Gas", "Actual Aggregated"),
         ("Hydro Pumped Storage", "Actual Consumption")]
    )  # fmt: skip
    found = entsoe.parse(
        pandas.DataFrame([[50, 50, 9], [100, float("nan"), 9]], index, columns), zone="DE_LU"
    )
    assert (found.first_hour, found.grams_per_kwh) == (HOUR, ((250.5 + 11) / 2,))
    pytest.importorskip("entsoe", reason="the extra `feeds` is not installed")


def test_gridstatus_table_is_counted_by_fuel() -> None:
    pandas = pytest.importorskip("pandas", reason="the extra `feeds` is not installed")
    frame = pandas.DataFrame(
        {
            "Time": pandas.to_datetime(["2026-11-23T03:10-08:00"]),
            "Interval Start": ["x"],
            "Solar": [0.0],
            "Natural Gas": [100.0],
            "Imports": [50.0],
        }
    )
    frame = frame.drop(columns="Interval Start")
    found = gridstatus.parse(frame, zone="CAISO")
    assert (found.first_hour, found.grams_per_kwh) == (HOUR, (490.0,))


@pytest.mark.parametrize("feed", [entsoe.EntsoeFeed(token="t"), gridstatus.GridstatusFeed()])
async def test_a_library_that_is_missing_is_named(feed: entsoe.EntsoeFeed) -> None:
    try:
        import pandas  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(FeedError, match="perak\\[feeds\\]"):
            await feed.read("CAISO", now=NOW)
    else:
        pytest.skip("the extra `feeds` is installed")


async def test_an_outage_takes_no_hour_away_and_is_said(there: Source) -> None:
    feed = GbFeed(url=there.url)
    there.replies = {"/intensity/2026-11-23T11:40Z/fw48h": GB_AHEAD, "/intensity/2026-11-15": GB_PAST}
    state = ZoneState(ZoneFeed(region="GB", feed=feed, zone="GB"))
    state.took(await feed.read("GB", now=NOW), now=NOW)
    there.status = 503
    later = NOW + timedelta(hours=5)
    assert state.due(later)
    with pytest.raises(FeedError) as caught:
        await feed.read("GB", now=later)
    state.failed(caught.value, now=later)

    outlook = state.outlook(later)
    assert outlook.at(HOUR - 1) == (260.0, MEASURED)
    assert outlook.note == "gb: it answers 503; figures are 6 hours old"
    assert outlook.at(HOUR + 5)[1] == YEARLY, "the feed's forecast ended, and a day is not known"


async def test_a_feed_without_a_forecast_gets_ours(tmp_path: Path) -> None:
    state = ZoneState(ZoneFeed(region="GB", feed=FileFeed(path=file_of(tmp_path, 48, until=NOW)), zone="GB"))
    state.took(await state.of.feed.read("GB", now=NOW), now=NOW)
    outlook = state.outlook(NOW)
    assert outlook.at(HOUR)[1] == MEASURED
    assert outlook.at(HOUR + 3)[1] == FORECAST
    assert outlook.forecast is not None
    assert outlook.forecast.source.startswith("Perak's forecast")

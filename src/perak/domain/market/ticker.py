"""The price history: what was offered, bid, cancelled and traded, by class and hour, without names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from perak.domain.hardware.specs import find_gpu

THIN_TRADES = 5
"""A cell with fewer trades is marked: its quantiles say little, and may be one party's."""
ANY = "any"
"""The model, region or grade that a bid did not name."""
UNGRADED = "ungraded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """As many events alike as `count`. `price` in micro-units per device-hour; None: none was named."""

    hour: datetime
    kind: str
    gpu: bool
    model: str | None
    region: str | None
    grade: str | None
    price: int | None
    count: int
    devices_milli: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """Seconds of thousandths of devices that were offered and leased in an hour."""

    hour: datetime
    gpu: bool
    model: str
    region: str
    grade: str | None
    offered: int
    leased: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One class in one hour. Prices in micro-units per device-hour, of the trades; None: there was none.

    `devices`: traded; `device_hours`: leased, whoever traded them when. `utilisation`: leased of offered, 0
    to 1; None: it was not sampled. `thin`: fewer than THIN_TRADES trades.
    """

    hour: datetime
    gpu: bool
    model: str
    region: str
    grade: str
    p10: int | None
    median: int | None
    p90: int | None
    trades: int
    devices: float
    device_hours: float | None
    utilisation: float | None
    offers: int
    bids: int
    cancellations: int

    @property
    def thin(self) -> bool:
        return self.trades < THIN_TRADES


Key = tuple[datetime, bool, str, str, str]


def history(happened: Iterable[Happened], used: Iterable[Used]) -> tuple[Cell, ...]:
    """The cells, newest hour first."""
    events: defaultdict[Key, list[Happened]] = defaultdict(list)
    for each in happened:
        events[each.hour, each.gpu, *_class(each.gpu, each.model, each.region, each.grade)].append(each)
    uses: defaultdict[Key, list[Used]] = defaultdict(list)
    for use in used:
        uses[use.hour, use.gpu, *_class(use.gpu, use.model, use.region, use.grade)].append(use)
    keys = sorted({*events, *uses}, key=lambda key: (-key[0].timestamp(), key[1:]))
    return tuple(_cell(key, events.get(key, ()), uses.get(key, ())) for key in keys)


def quantile(prices: Sequence[tuple[int, int]], share: float) -> int | None:
    """The least price that `share` of the trades did not exceed; of (price, count), sorted by price."""
    total = sum(count for _, count in prices)
    seen = 0
    for price, count in prices:
        seen += count
        if seen >= share * total:
            return price
    return None


def _class(gpu: bool, model: str | None, region: str | None, grade: str | None) -> tuple[str, str, str]:
    name = ANY
    if model:
        known = find_gpu(model) if gpu else None
        name = known.variant if known else model
    return name, region or ANY, grade or UNGRADED


def _cell(key: Key, events: Sequence[Happened], uses: Sequence[Used]) -> Cell:
    hour, gpu, model, region, grade = key
    counts: defaultdict[str, int] = defaultdict(int)
    for each in events:
        counts[each.kind] += each.count
    trades = [each for each in events if each.kind == "trade"]
    prices = sorted((each.price, each.count) for each in trades if each.price is not None)
    offered, leased = sum(use.offered for use in uses), sum(use.leased for use in uses)
    return Cell(
        hour=hour,
        gpu=gpu,
        model=model,
        region=region,
        grade=grade,
        p10=quantile(prices, 0.1),
        median=quantile(prices, 0.5),
        p90=quantile(prices, 0.9),
        trades=counts["trade"],
        devices=sum(each.devices_milli for each in trades) / 1000,
        device_hours=leased / 3_600_000 if uses else None,
        utilisation=min(1.0, leased / offered) if offered else None,
        offers=counts["offer"],
        bids=counts["bid"],
        cancellations=counts["cancellation"],
    )

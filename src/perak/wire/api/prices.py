"""The price history, and how well times were foretold."""

from __future__ import annotations

from datetime import datetime

from perak.wire.api.base import Model, Money


class PriceCell(Model):
    """One class in one hour; prices per device-hour, of its trades. `thin`: fewer than five of them.

    `devices` were traded, `device_hours` leased. `utilisation`: leased of what was offered, 0 to 1.
    """

    hour: datetime
    gpu: bool
    model: str
    region: str
    grade: str
    p10: Money | None
    median: Money | None
    p90: Money | None
    trades: int
    thin: bool
    devices: float
    device_hours: float | None
    utilisation: float | None
    offers: int
    bids: int
    cancellations: int


class Accuracy(Model):
    """Foretold over actual run times of one source: runs that ended well since `since`.

    `p90_factor`: nine in ten were foretold within this factor, either way; `inside`: the share in the
    interval.
    """

    source: str
    runs: int
    median: float
    p90: float
    p90_factor: float
    inside: float


class Prices(Model):
    """The history from `since` to `until`, newest hour first."""

    currency: str
    since: datetime
    until: datetime
    cells: list[PriceCell]
    predictions: list[Accuracy]

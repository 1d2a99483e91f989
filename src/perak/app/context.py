"""What the use cases of one exchange share."""

from __future__ import annotations

from dataclasses import dataclass, field

from perak.app.ports import Ids, PassportSigner, ReceiptSigner
from perak.app.records import ExchangeFacts
from perak.domain.carbon.placement import YEARLY_GRID, Grid


@dataclass(slots=True)
class GridPicture:
    """The grid as this replica's feeds have it now; looked at, never waited for."""

    now: Grid = YEARLY_GRID


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Its facts, its ids and its signature."""

    exchange: ExchangeFacts
    new_id: Ids
    sign_receipt: ReceiptSigner
    sign_passport: PassportSigner
    grid: GridPicture = field(default_factory=GridPicture)

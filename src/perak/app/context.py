"""What the use cases of one exchange share."""

from __future__ import annotations

from dataclasses import dataclass

from perak.app.ports import Ids, ReceiptSigner
from perak.app.records import ExchangeFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Its facts, its ids and its signature."""

    exchange: ExchangeFacts
    new_id: Ids
    sign_receipt: ReceiptSigner

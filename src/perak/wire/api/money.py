"""Wallets, earnings, entries and receipts."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from pydantic import Field

from perak.wire.api.base import Model, Money, Request


class Wallet(Model):
    """`available` can be held for new jobs; `held` is for running ones; `earned` came in as a provider."""

    project: str
    currency: str
    available: Money
    held: Money
    earned: Money


class NodeEarnings(Model):
    """What a node's runs earned in the period; `earned` is after the fee."""

    node: str
    name: str
    runs: int
    earned: Money
    fee: Money


class DayEarnings(Model):
    """What all nodes earned on a day (UTC)."""

    day: date
    runs: int
    earned: Money
    fee: Money


class Earnings(Model):
    """What a provider's nodes earned since `since`, and what it has in all. Renters paid `earned` + `fee`.

    `balance` is what the operator still owes: all that was ever earned less `paid_out`. Only what earned
    something is listed: the nodes with the most first, the latest day first.
    """

    project: str
    currency: str
    fee_percent: float
    since: date
    runs: int
    earned: Money
    fee: Money
    earned_in_all: Money
    paid_out: Money
    balance: Money
    nodes: list[NodeEarnings]
    days: list[DayEarnings]


class Funding(Request):
    """An operator's record of money received from outside."""

    amount: Money
    project: str | None = None
    note: str = Field(default="", max_length=200)


class EntryView(Model):
    """One line of a project's account: positive came in, negative went out."""

    id: str
    at: datetime
    kind: str
    amount: Money
    job: str | None
    note: str | None


class ReceiptSummary(Model):
    id: str
    job: str
    run: str
    issued_at: datetime
    cost: Money
    energy_joules: float | None
    carbon_grams: float | None


class Receipt(Model):
    """The signed document as it stands in a receipt file: `receipt` for people, `jws` for verification."""

    receipt: dict[str, Any]
    jws: str

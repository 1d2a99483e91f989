"""A job's bill on an offer beside its bills elsewhere: the least of each kind of seller, by a dated table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from perak.domain.facts.prices import (
    CPU,
    CPU_SECONDS_MIN,
    CPU_SELLER,
    DISKLESS,
    EGRESS,
    HOURS_A_MONTH,
    HYPERSCALER,
    PRICES,
    SPECIALIST,
    SPOT,
    STORAGE,
)
from perak.domain.hardware.specs import GpuSpec, find_gpu
from perak.domain.hardware.speeds import sheet_speeds, time_ratio
from perak.domain.units import SECONDS_PER_HOUR, format_bytes, format_money

CURRENCY = "USD"
"""The currency of the table; offers in another are not compared, because rates change by the day."""
COMPARED = (HYPERSCALER, SPOT, SPECIALIST)
"""What a renter could have taken instead: marketplaces are what this is one of."""
COMPARABLE_TIME = 1.5
"""Comparable throughput: the job takes at most this many times as long there, or here."""
MEMORY_SHARE = 0.95
"""Makers count a card's memory in GiB and people ask for it in GB; so much of what is asked for will do."""
GIB = 2**30
"""What clouds call a GB; where one means 10^9 bytes, this errs in its favour."""
WORDS = {
    HYPERSCALER: "the cheapest hyperscaler on demand",
    SPOT: "its spot",
    SPECIALIST: "the cheapest specialist",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What a job needs beside its devices, which others bill apart. Bytes; None: not known, so on no bill.

    `outputs`: what leaves the machine at the end; `disk`: what it asks for, as long as it runs.
    """

    disk: int | None = None
    outputs: int | None = None


NOTHING_BESIDE = Beside(disk=0, outputs=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """The least bill of one kind of seller for the same job. Money in micro-units of CURRENCY.

    `seller` None: no comparable offer is in the table; then the rest says nothing. `points`: how many
    comparable prices it is the least of. `saving`: what the offer's bill is below it; negative: above.
    `storage` and `transfer`: what of their bill is for disk and for data that leaves.
    """

    kind: str
    seller: str | None = None
    gpu: str = ""
    bill: int = 0
    saving: int = 0
    points: int = 0
    date: str = ""
    source: str = ""
    storage: int = 0
    transfer: int = 0

    @property
    def saving_percent(self) -> int:
        """Whole percent of their bill, rounded down, so that no claim is rounded in our favour."""
        return self.saving * 100 // self.bill if self.bill else 0

    def __str__(self) -> str:
        if self.seller is None:
            return f"{WORDS[self.kind]}: no comparable offer"
        percent = self.saving_percent
        by = f"{percent}% less" if percent >= 0 else f"{-percent}% more"
        of = f"{self.points} {'price' if self.points == 1 else 'prices'}"
        apart = [("disk", self.storage), ("data out", self.transfer)]
        more = [f"{format_money(amount)} for {what}" for what, amount in apart if amount]
        bill = format_money(self.bill) + (f" with {' and '.join(more)}" if more else "")
        return f"{by} than {WORDS[self.kind]} ({self.seller}, {bill}, {self.date}; {of})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One job's bill here and elsewhere. `hours` is what it takes here; 1 where that is not known.

    `included` and `left_out`: what is on the bills elsewhere beside the devices, and what is not, in words.
    """

    bill: int
    hours: float
    per_hour: bool
    alternatives: tuple[Alternative, ...]
    included: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def __str__(self) -> str:
        what = "an hour" if self.per_hour else "the job"
        parts = "; ".join(map(str, self.alternatives))
        return f"{format_money(self.bill)} {CURRENCY} for {what}: {parts}"

    @property
    def terms(self) -> str:
        """What the bills hold, in one line."""
        theirs = f"include {', '.join(self.included)}" if self.included else "are of devices alone"
        missing = ", ".join(self.left_out)
        return f"Their bills {theirs}; not included: {missing}. Here disk and transfer are in the price."


def compare(
    gpu: str,
    *,
    count: int,
    bill: int,
    currency: str,
    hours: float | None,
    memory_bytes: int | None = None,
    memory_needed: int = 0,
    beside: Beside = NOTHING_BESIDE,
) -> Comparison | None:
    """The job on `count` of `gpu` at `bill` micro-units, beside what each kind of seller would bill for it.

    `bill` includes the work that is expected to be lost; elsewhere none is counted, as no dated figures are
    known, which errs in the others' favour. `hours` None: an hour's bills are compared. None: another
    currency, or a GPU not in the tables.
    """
    spec = find_gpu(gpu, memory_bytes=memory_bytes)
    if spec is None or currency != CURRENCY or bill < 0:
        return None
    length = hours if hours is not None else 1.0
    paid = replace(beside, outputs=None) if hours is None else beside
    alternatives = tuple(
        _least(kind, spec, bill=bill, hours=length, count=count, memory_needed=memory_needed, beside=paid)
        for kind in COMPARED
    )
    return Comparison(
        bill=bill,
        hours=length,
        per_hour=hours is None,
        alternatives=alternatives,
        included=_included(paid, disk=any(each.storage for each in alternatives)),
        left_out=_left_out(beside, per_hour=hours is None),
    )


def compare_cores(
    cpu_milli: int,
    *,
    memory_bytes: int,
    bill: int,
    currency: str,
    hours: float | None,
    beside: Beside = NOTHING_BESIDE,
) -> Comparison | None:
    """The same of a job on so many thousandths of a core and so much memory; None: another currency.

    A core is counted like one vCPU: how fast either is, isn't known. The disk that comes with it is free.
    """
    if currency != CURRENCY or bill < 0:
        return None
    length = hours if hours is not None else 1.0
    seconds = max(CPU_SECONDS_MIN, math.ceil(length * SECONDS_PER_HOUR))
    core, gib, date, source = CPU
    transfer = 0 if hours is None else _transfer(beside)
    an_hour = cpu_milli / 1000 * core + memory_bytes / GIB * gib
    theirs = math.floor(an_hour * seconds / SECONDS_PER_HOUR) + transfer
    cloud = Alternative(
        kind=HYPERSCALER,
        seller=CPU_SELLER,
        bill=theirs,
        saving=theirs - bill,
        points=1,
        date=date,
        source=source,
        transfer=transfer,
    )
    paid = replace(beside, outputs=None) if hours is None else beside
    return Comparison(
        bill=bill,
        hours=length,
        per_hour=hours is None,
        alternatives=(cloud, Alternative(kind=SPOT), Alternative(kind=SPECIALIST)),
        included=("a vCPU for each core, whichever is faster", "memory", *_included(paid, disk=False)),
        left_out=_left_out(beside, per_hour=hours is None),
    )


def _least(
    kind: str, spec: GpuSpec, *, bill: int, hours: float, count: int, memory_needed: int, beside: Beside
) -> Alternative:
    """The least bill of one kind of seller for `hours` of `count` GPUs like `spec`."""
    transfer = _transfer(beside) if kind in (HYPERSCALER, SPOT) else 0
    bills = []
    for seller, variant, price, date, source, ratio, memory in _comparable(kind, spec):
        if memory < memory_needed * MEMORY_SHARE:
            continue
        storage = _storage(beside, hours=hours * ratio) if seller in DISKLESS else 0
        whole = math.floor(price * hours * count * ratio) + storage + transfer
        bills.append((whole, seller, variant, date, source, storage))
    if not bills:
        return Alternative(kind=kind)
    least, seller, variant, date, source, storage = min(bills)
    return Alternative(
        kind=kind,
        seller=seller,
        gpu=variant,
        bill=least,
        saving=least - bill,
        points=len(bills),
        date=date,
        source=source,
        storage=storage,
        transfer=transfer,
    )


def _storage(beside: Beside, *, hours: float) -> int:
    """Of the disk for so long, in micro-units, rounded down: in the others' favour."""
    return math.floor((beside.disk or 0) / GIB * STORAGE[0] * hours / HOURS_A_MONTH)


def _transfer(beside: Beside) -> int:
    return math.floor((beside.outputs or 0) / GIB * EGRESS[0])


def _included(beside: Beside, *, disk: bool) -> tuple[str, ...]:
    said = []
    if disk and beside.disk:
        price, date, _ = STORAGE
        said.append(
            f"{format_bytes(beside.disk)} of disk where a machine brings none ({format_money(price)} per "
            f"GB-month, {date})"
        )
    if beside.outputs:
        price, date, _ = EGRESS
        said.append(f"{format_bytes(beside.outputs)} of data out ({format_money(price)} per GB, {date})")
    return tuple(said)


def _left_out(beside: Beside, *, per_hour: bool) -> tuple[str, ...]:
    said = ["work that spot or a fault loses there", "disk and transfer at specialists"]
    if beside.disk is None:
        said.append("disk, as its size is not said")
    if beside.outputs is None:
        said.append("data out, as its size is not known")
    elif per_hour and beside.outputs:
        said.append("data out, which comes once a job")
    return tuple(said)


@lru_cache(maxsize=1024)
def _comparable(kind: str, spec: GpuSpec) -> tuple[tuple[str, str, int, str, str, float, int], ...]:
    """(seller, variant, price, date, source, time there over time here, memory) of comparable throughput."""
    here = sheet_speeds(spec.variant)
    found = []
    for row_kind, seller, variant, price, date, source in PRICES:
        there, known = sheet_speeds(variant), find_gpu(variant)
        if row_kind != kind or here is None or there is None or known is None:
            continue
        ratio = time_ratio(reference=here, target=there).expected
        if 1 / COMPARABLE_TIME <= ratio <= COMPARABLE_TIME:
            found.append((seller, variant, price, date, source, ratio, known.memory_gib * 2**30))
    return tuple(found)


def band(gpu: str, *, memory_bytes: int | None = None) -> tuple[int, int, int] | None:
    """(least, most, how many) marketplace and specialist prices of the very GPU in the table, per hour."""
    spec = find_gpu(gpu, memory_bytes=memory_bytes)
    if spec is None:
        return None
    prices = [
        price
        for kind, _, variant, price, _, _ in PRICES
        if kind not in (HYPERSCALER, SPOT) and variant == spec.variant
    ]
    return (min(prices), max(prices), len(prices)) if prices else None


def compare_receipt(said: Mapping[str, Any], *, outputs_bytes: int | None = None) -> Comparison | None:
    """What the run of a receipt would have cost elsewhere, by the table of today; None: nothing to compare.

    It is no part of what is signed: anyone who has the receipt and the table can say it again.
    `outputs_bytes`: what the node's report, which is the receipt's evidence, says of them.
    """
    device, seconds = said.get("device"), said.get("billed_seconds")
    if not isinstance(device, Mapping) or not seconds:
        return None
    bill, currency = int(said.get("cost_micros") or 0), str(said.get("currency", ""))
    hours, beside = seconds / SECONDS_PER_HOUR, Beside(disk=device.get("disk_bytes"), outputs=outputs_bytes)
    if device.get("uuids"):
        return compare(
            str(device.get("model", "")),
            count=len(device["uuids"]),
            bill=bill,
            currency=currency,
            hours=hours,
            beside=beside,
        )
    if device.get("kind") != "cpu":
        return None
    return compare_cores(
        int(device.get("cpu_milli") or 0),
        memory_bytes=int(device.get("memory_bytes") or 0),
        bill=bill,
        currency=currency,
        hours=hours,
        beside=beside,
    )

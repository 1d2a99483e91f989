"""The auction of one batch, as a process: a line of JSON with the batch in, a line with the plan out.

It is a process of its own, so that numba, numpy and the compiled code are not in the exchange's memory, and a
clearing that takes too long can be ended. It ends with its input.
"""

from __future__ import annotations

import sys

import msgspec
import numpy as np

from perak.domain.market import auction
from perak.domain.market.batch import Batch, Bid, Part, Supply
from perak.domain.market.clearing import Jobs, Offers

READY = b"ready\n"
WARM_UP = Batch(
    bids=tuple(Bid(job=str(at), gpus=at, hours=1.0, rate=9, offers=(0,)) for at in (1, 2)),
    supply=(Supply(offer="", version=1, gpus=2, ask=1),),
)
"""Loads, or compiles, all that a clearing runs."""


def solve(batch: Batch) -> list[Part]:
    """Clear it. Prices between ask and bid, whole gangs, nothing sold twice: the auction asserts that."""
    if not batch.bids:
        return []
    count, rows = len(batch.bids), len(batch.supply)
    gpus = np.array([bid.gpus for bid in batch.bids], np.int64)
    hours = np.array([bid.hours for bid in batch.bids])
    rate = np.array([bid.rate for bid in batch.bids], np.float64)
    admits = np.zeros((count, rows), np.bool_)
    for at, bid in enumerate(batch.bids):
        admits[at, list(bid.offers)] = True
    ones = np.ones(rows)
    offers = Offers(
        kind=np.arange(rows), devices=np.array([each.gpus for each in batch.supply], np.int64),
        price=np.array([each.ask for each in batch.supply], np.float64), performance=ones, memory_gb=ones,
        power_w=0 * ones, carbon_g_per_kwh=0 * ones, region=np.arange(rows),
    )  # fmt: skip
    none = np.zeros(count)
    jobs = Jobs(
        devices=gpus, per_node=gpus, memory_gb=none, work=gpus * hours, value=rate * gpus * hours,
        deadline_h=np.full(count, np.inf), delay_cost_per_h=none, carbon_price_per_kg=none, admits=admits,
    )  # fmt: skip
    plan = auction.auction(jobs, offers).plan
    found = []
    for job, offer, pays in zip(plan.job, plan.offer, plan.pays, strict=True):
        bid, supply = batch.bids[job], batch.supply[offer]
        # Whole micro-units: never below the ask, nor above the bid.
        price = min(bid.rate, max(supply.ask, int(pays)))
        found.append(Part(job=bid.job, offer=supply.offer, version=supply.version, price=price))
    return found


def main() -> None:
    decoder = msgspec.json.Decoder(Batch)
    solve(WARM_UP)
    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(msgspec.json.encode(solve(decoder.decode(line))) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()

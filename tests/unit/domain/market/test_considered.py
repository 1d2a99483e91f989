"""What is kept of the offers that a job did not get: the next best ones, with what decided."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from perak.domain.job import JobSpec, Resources, Work
from perak.domain.market.considered import KEPT_MAX, considered
from perak.domain.market.match import PendingJob
from perak.domain.offer import Offer, OfferAsk

NOW = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
SPEC = JobSpec(name="job", run="true", resources=Resources(cpu_milli=1000))


def offer(id: str, *, free_cpu_milli: int = 4000, **ask: Any) -> Offer:
    fields: dict[str, Any] = {
        "region": "DE", "cpu_model": "CPU", "cpu_milli": 4000, "memory_bytes": 32 * 10**9,
        "disk_bytes": 10**11, "price_cpu": 20_000, "price_gpu": None, "devices": (),
    }  # fmt: skip
    whole = OfferAsk(**(fields | ask))
    return Offer(
        id=id, version=1, node=f"node of {id}", node_name=id, provider="provider", state="open", ask=whole,
        free_cpu_milli=free_cpu_milli, free_memory_bytes=whole.memory_bytes,
        free_disk_bytes=whole.disk_bytes, free_devices=(),
    )  # fmt: skip


def job(**more: Any) -> PendingJob:
    return PendingJob(id="job", project="project", spec=replace(SPEC, **more), epoch=0)


def test_the_next_best_come_first_and_what_did_not_fit_says_why() -> None:
    chosen = offer("chosen")
    others = [
        offer("dear", price_cpu=50_000),
        offer("next", price_cpu=30_000),
        offer("full", free_cpu_milli=0),
    ]

    found = considered(job(work=Work(device="cpu", hours=2)), chosen, [chosen, *others], now=NOW)

    assert [each.node_name for each in found] == ["next", "dear", "full"]
    assert found[0].line("USD") == (
        "next (CPU, DE): fitted, at 0.03 USD per device-hour; 0.02 USD more in cost, carbon and delay for "
        "the job"
    )
    assert "cpu" in found[2].misfit


def test_where_nothing_is_known_of_the_work_no_difference_is_claimed() -> None:
    chosen = offer("chosen")

    (found,) = considered(job(), chosen, [chosen, offer("next", price_cpu=30_000)], now=NOW)

    assert found.more is None
    assert found.line("EUR") == "next (CPU, DE): fitted, at 0.03 EUR per device-hour"


def test_little_is_kept_of_a_large_market() -> None:
    chosen = offer("chosen", price_cpu=1)
    market = [offer(f"offer {index:03}", price_cpu=20_000 + index) for index in range(100)]

    found = considered(job(), chosen, [*market, chosen], now=NOW)

    assert [each.node_name for each in found] == [f"offer {index:03}" for index in range(KEPT_MAX)]

"""Why a job is where it is: of then and of now, in money of a currency."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from perak.domain.job import JobSpec, Preference, Resources, Work
from perak.domain.market.considered import Considered
from perak.domain.market.quote import quote
from perak.domain.market.why import Placed, Why, why_placed, why_waiting
from perak.domain.offer import Offer, OfferAsk

NOW = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
SPEC = JobSpec(
    name="job", run="true", resources=Resources(cpu_milli=1000), work=Work(device="cpu", hours=10),
    preference=Preference(delay_cost_per_hour=100_000),
)  # fmt: skip


def offer(id: str, *, price_cpu: int, free_cpu_milli: int = 4000) -> Offer:
    fields: dict[str, Any] = {
        "region": "DE", "cpu_model": "CPU", "cpu_milli": 4000, "memory_bytes": 32 * 10**9,
        "disk_bytes": 10**11, "price_cpu": price_cpu,
    }  # fmt: skip
    whole = OfferAsk(**fields)
    return Offer(
        id=id, version=1, node=f"node of {id}", node_name=id, provider="provider", state="open", ask=whole,
        free_cpu_milli=free_cpu_milli, free_memory_bytes=whole.memory_bytes,
        free_disk_bytes=whole.disk_bytes, free_devices=(),
    )  # fmt: skip


def placed(beside: tuple[Considered, ...] | None) -> Why:
    offers = [offer("here", price_cpu=20_000), offer("dear", price_cpu=50_000)]
    asked = quote(SPEC, offers, available=10**9, currency="EUR", now=NOW)
    lease = Placed(offer="here", node_name="here", price=20_000, at=NOW, beside=beside)
    return why_placed(SPEC, lease, asked, currency="EUR")


def test_what_others_would_cost_now_is_said_in_money_and_of_the_job() -> None:
    (line,) = placed(None).elsewhere

    assert line.endswith("at 0.05 EUR per device-hour; 0.30 EUR more in cost, carbon and delay for the job")
    assert placed(None).then is None


def test_what_was_known_then_is_told_beside_it() -> None:
    then = placed((Considered(node_name="old", market_class="CPU, DE", price=30_000, more=100_000),)).then

    assert then == (
        "old (CPU, DE): fitted, at 0.03 EUR per device-hour; 0.10 EUR more in cost, carbon and delay for the "
        "job",
    )


def test_a_single_offer_is_not_counted_as_several() -> None:
    asked = quote(SPEC, [offer("one", price_cpu=1)], available=10**9, currency="EUR", now=NOW)

    found = why_waiting(SPEC, asked, currency="EUR", waited_seconds=5)

    assert found.reasons[0].startswith("1 offer fits: ")

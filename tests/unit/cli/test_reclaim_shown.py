"""What renters and providers see of a machine that goes back to its owner."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from perak.cli import render
from perak.cli.render.of_market import taken_back
from perak.wire import api
from unit.client.canned_exchange import a_detail, a_job, a_run

AT = datetime(2026, 12, 1, 18, 0, tzinfo=UTC)


def printed(what: object) -> str:
    out = io.StringIO()
    Console(file=out, width=160).print(what)
    return out.getvalue()


@pytest.mark.parametrize(
    ("run", "line"),
    [
        ({"reclaim_notice_seconds": 7200}, "2h 00m before the owner of"),
        ({"reclaim_notice_seconds": 7200, "reclaim_at": AT}, f"{AT.astimezone():%m-%d %H:%M}"),
    ],
)
def test_a_job_shows_the_notice_that_it_has_and_then_the_time(run: dict[str, Any], line: str) -> None:
    live = {"ended_at": None, "state": "running"}
    detail = a_detail(a_job(**live), runs=[a_run(**live, **run)])
    assert line in printed(render.job(detail, now=AT))
    over = a_detail(a_job(), runs=[a_run(**run)])
    assert "owner" not in printed(render.job(over, now=AT))


def test_a_quote_says_when_an_offer_ends_and_what_notice_it_gives() -> None:
    offer = api.OfferQuote(
        offer="offer-1", node_name="attic", region="DE", device="CPU", fits=True, misfits=[], price="0.02",
        per_hour="0.02", cost_max="0.48", energy_watts=None, carbon_grams_per_hour=None, carbon_source=None,
        tier="bubblewrap", unenforced={}, reclaim_notice_seconds=86_400, available_until=AT,
    )  # fmt: skip
    quoted = api.Quote(
        currency="USD", max_duration_seconds=86_400, hold="0.48", affordable=True, offers=[offer]
    )
    said = f"attic: until {AT.astimezone():%Y-%m-%d %H:%M}"
    shown = printed(render.quote(quoted))
    assert "its owner gives 24h 00m of notice before taking it back" in shown
    assert said[:12] in shown


def test_an_owner_reads_when_a_drained_node_is_its_own_again() -> None:
    node = api.Node(
        id="node-1", name="attic", project="p", state="online", mode="draining", last_seen=AT, enrolled_at=AT,
        agent_version="1", offer=None, live_leases=1,
    )  # fmt: skip
    assert taken_back(node) == ""
    assert "taken back at" in taken_back(node.model_copy(update={"reclaim_at": AT}))

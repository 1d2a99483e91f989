"""What is reserved, as renters and providers see it on a terminal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console, RenderableType

from perak.cli import render
from perak.cli.render.of_market import reserved_warning
from perak.wire import api

NOW = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
START = NOW + timedelta(hours=20)


def shown(table: RenderableType) -> str:
    console = Console(width=160)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def job(**changes: Any) -> api.JobDetail:
    kept = api.ReservationView(
        state="booked", offer="offer-1", node="node-1", node_name="attic", devices=["GPU-1", "GPU-2"],
        price="0.20", cost="1.60", start_at=START, end_at=START + timedelta(hours=4),
    )  # fmt: skip
    fields: dict[str, Any] = {
        "id": "job-01k9f3v2m8q7zx4t5r@home", "name": "train", "state": "queued", "reason": None,
        "exit_code": None, "attempts": 0, "created_at": NOW, "started_at": None, "ended_at": None,
        "held": "1.60", "cost": "0.00", "node_name": None, "reservation": kept, "spec": {}, "runs": [],
        "events": [],
    }  # fmt: skip
    return api.JobDetail(**(fields | changes))


def node(windows: int) -> api.Node:
    kept = [
        api.WindowView(
            start_at=START + timedelta(days=day), end_at=START + timedelta(days=day, hours=4),
            devices=["GPU-1"], cpu_milli=2000, memory_bytes=10**9, price="0.20",
        )
        for day in range(windows)
    ]  # fmt: skip
    return api.Node(
        id="node-1", name="attic", project="p", state="online", mode="paused", last_seen=NOW,
        enrolled_at=NOW, agent_version="1", offer=None, live_leases=0, reservations=kept,
    )  # fmt: skip


def test_a_waiting_job_shows_when_its_window_begins() -> None:
    assert f"reserved {START.astimezone():%m-%d %H:%M}" in shown(render.jobs([job()], now=NOW))
    page = shown(render.job(job(), now=NOW))
    assert "2 GPU on attic" in page
    assert "booked, 0.20 per device-hour, 1.60 in all" in page


def test_a_running_job_shows_that_it_runs() -> None:
    assert "running" in shown(render.jobs([job(state="running")], now=NOW))


def test_a_provider_sees_what_comes_and_is_warned() -> None:
    assert shown(render.node(node(2))).count("1 GPU at 0.20 per device-hour") == 2
    assert (reserved_warning(node(2)) or "").startswith("2 reserved windows on attic, the next from")
    assert reserved_warning(node(0)) is None

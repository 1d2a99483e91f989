"""Jobs, their runs and how they ended."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from perak.cli.render.of_money import carbon_of, energy_of
from perak.cli.render.parts import (
    Fitted,
    ago,
    at_time,
    block,
    fact_table,
    job_state,
    lasted,
    new_table,
    plain,
    short_id,
    state_text,
)
from perak.domain.units import format_bytes, format_duration

if TYPE_CHECKING:
    from perak.wire import api


def jobs(found: Iterable[api.Job], *, now: datetime) -> RenderableType:
    rows = [
        (
            short_id(job.id),
            plain(job.name),
            job_state(job),
            plain(job.node_name or "-"),
            ago(job.created_at, now),
            lasted(job.started_at, job.ended_at, now),
            job.cost,
        )
        for job in found
    ]
    columns = ("ID", "NAME", "STATE", "NODE", "SUBMITTED", ">TIME", ">COST")
    return Fitted(columns, rows, spare=("NODE", ">TIME"))


def job(detail: api.JobDetail, *, now: datetime) -> RenderableType:
    facts = fact_table(
        ("job", detail.id),
        ("name", detail.name),
        ("state", job_state(detail)),
        ("reason", detail.reason),
        ("submitted", at_time(detail.created_at)),
        *_window(detail),
        ("time", lasted(detail.started_at, detail.ended_at, now)),
        ("cost", detail.cost),
        ("held", detail.held),
        *_end_of_node(detail),
        ("outputs", f"perak download {short_id(detail.id)}" if detail.has_outputs else None),
        *_left_behind(detail),
    )
    runs = Fitted(
        (
            "RUN", "NODE", "STATE", ">PRICE/h", ">TIME", ">MEMORY", ">EXIT", "ENDED BY", ">COST", "RECEIPT",
        ),
        [
            (
                str(run.attempt),
                plain(run.node_name),
                state_text(run.state),
                run.price,
                lasted(run.started_at, run.ended_at, now),
                _memory(run),
                "-" if run.exit_code is None else str(run.exit_code),
                plain(run.cause or "-"),
                run.cost or "-",
                short_id(run.receipt) if run.receipt else "-",
            )
            for run in detail.runs
        ],
        spare=(">PRICE/h", ">MEMORY", ">EXIT", "NODE"),
    )  # fmt: skip
    steps = new_table("AT", "STEP")
    for event in detail.events:
        steps.add_row(at_time(event.at), plain(event.detail or event.kind))
    parts: list[RenderableType] = [facts, Text(), runs] if detail.runs else [facts]
    return Group(*parts, Text(), steps)


def _window(detail: api.JobDetail) -> Iterator[tuple[str, str | None]]:
    """What is reserved for it."""
    kept = detail.reservation
    if kept is None:
        return
    span = f"{at_time(kept.start_at)} to {at_time(kept.end_at)}"
    devices = f"{len(kept.devices)} GPU on " if kept.devices else ""
    yield "reserved", f"{span}, {devices}{kept.node_name}"
    yield "window", f"{kept.state}, {kept.price} per device-hour, {kept.cost} in all"
    yield "note", kept.note


def _end_of_node(detail: api.JobDetail) -> Iterator[tuple[str, str]]:
    """When the owner takes the machine back, while the job is there; else how long before that it is told."""
    last = detail.runs[-1] if detail.runs else None
    if last is None or last.ended_at is not None or detail.ended_at is not None:
        return
    if last.reclaim_at is not None:
        yield "taken back", f"{at_time(last.reclaim_at)}, by the owner of {last.node_name}"
    elif last.reclaim_notice_seconds:
        notice = format_duration(last.reclaim_notice_seconds)
        yield "notice", f"{notice} before the owner of {last.node_name} takes it back"


def _memory(run: api.RunView) -> str:
    """The most that an ended run used, or what a live one uses."""
    known = run.memory_bytes if run.memory_peak_bytes is None else run.memory_peak_bytes
    return "-" if known is None else format_bytes(known)


def _left_behind(detail: api.JobDetail) -> Iterator[tuple[str, str]]:
    """What the last run with outputs did not leave, and what of it can't be taken."""
    last = detail.runs[-1] if detail.runs else None
    if last is not None and last.outputs_missing:
        yield "not found", ", ".join(last.outputs_missing)
    for skipped in last.outputs_skipped if last is not None else ():
        yield "left out", skipped


def ending(detail: api.JobDetail, receipt: api.Receipt | None) -> RenderableType:
    """How a job ended, in a few lines: what `run` closes with."""
    rows: list[tuple[str, str | Text | None]] = [("state", job_state(detail)), ("reason", detail.reason)]
    if detail.exit_code:
        rows.append(("exit code", str(detail.exit_code)))
    if receipt is None:
        rows.append(("cost", detail.cost))
    else:
        rows += _short_receipt(detail, receipt)
    if detail.has_outputs:
        rows.append(("outputs", f"perak download {detail.name}"))
    rows += _left_behind(detail)
    return Panel(
        fact_table(*rows),
        title=plain(detail.name),
        title_align="left",
        box=box.ROUNDED,
        expand=False,
        padding=(0, 1),
    )


def _short_receipt(detail: api.JobDetail, receipt: api.Receipt) -> list[tuple[str, str | Text | None]]:
    said = receipt.receipt
    return [
        ("cost", f"{detail.cost} {said.get('currency', '')}".strip()),
        ("time", format_duration(float(said.get("billed_seconds") or 0)) + " billed"),
        ("energy", energy_of(said)),
        ("carbon", carbon_of(said)),
        ("sandbox", str(block(said, "sandbox").get("tier", "-"))),
        ("receipt", f"perak receipt show {short_id(str(said.get('id', '')))}"),
    ]

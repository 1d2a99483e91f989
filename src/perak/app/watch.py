"""Nodes that fall silent: suspected, then lost; their runs fenced after the job's grace, and run again."""

from __future__ import annotations

from datetime import datetime, timedelta

from perak.app.alerts import tell
from perak.app.context import Context
from perak.app.effects import Effect, JobChanged, MarketChanged
from perak.app.periods import Periods
from perak.app.ports import Transaction
from perak.app.records import Engagement, RunEnd
from perak.app.settlement import settle_run
from perak.domain.lifecycle import LEASE, NODE

SILENT = "the node was silent for longer than the job's disconnect_grace"
FENCED_PER_ROUND_MAX = 100
"""Bounds one round's transaction; the next goes on."""


async def keep_alive(tx: Transaction, *, periods: Periods, now: datetime) -> bool:
    """Note that the exchange is alive; after an absence of its own, renew every window. True: it was away."""
    await tx.single("watch")
    before = await tx.nodes.exchange_alive(now=now)
    away = (now - before).total_seconds() > periods.absence_seconds
    if away:
        await tx.nodes.renew_windows(away_seconds=(now - before).total_seconds(), now=now)
    return away


async def suspect_silent(tx: Transaction, *, periods: Periods, now: datetime) -> list[Effect]:
    """Suspect the nodes that were silent for three beats; tell those whose jobs they run."""
    await tx.single("watch")
    effects: list[Effect] = []
    for node in await tx.nodes.silent(before=now - timedelta(seconds=periods.suspect_after_seconds)):
        await tx.nodes.set_state(node.id, state=NODE.step(node.state, "silent"))
        for job in await tx.leases.suspect(node=node.id, now=now):
            detail = f"node {node.name} is silent; the run keeps its lease while the job's grace lasts"
            await tx.jobs.event(job, kind="warning", detail=detail, now=now)
            effects.append(JobChanged(job))
    for node in await tx.nodes.lost(before=now - timedelta(seconds=periods.lost_after_seconds)):
        await tx.nodes.set_state(node.id, state=NODE.step(node.state, "lost"))
        detail = f"{node.name} is offline: nothing was heard of it for {periods.lost_after_seconds:.0f} s"
        await tell(tx, node=node, event="node.offline", detail=detail, now=now)
    return effects


async def overdue_runs(tx: Transaction, *, now: datetime) -> list[str]:
    """Runs whose grace is over; each is fenced in a transaction of its own."""
    return await tx.leases.overdue(now=now, limit=FENCED_PER_ROUND_MAX)


async def fence(tx: Transaction, *, run: str, context: Context, now: datetime) -> list[Effect]:
    """Fence a run whose node stayed silent: billed to its last signed evidence, and run again."""
    at = await tx.leases.of_run(run)
    if at is None or not LEASE.allows(at.lease.state, "fenced") or at.lease.state != "suspected":
        return []
    end = lost_end(at, now, detail=SILENT)
    return [*await settle_run(tx, at, end, context=context, now=now), MarketChanged()]


async def unreported_runs(tx: Transaction, *, periods: Periods, now: datetime) -> list[tuple[str, str]]:
    """(run, node) of nodes that beat, and did not say in time that the run began or ended."""
    return await tx.leases.unreported(
        start_within_seconds=periods.start_within_seconds,
        report_within_seconds=periods.report_within_seconds,
        now=now,
        limit=FENCED_PER_ROUND_MAX,
    )


async def end_unreported(
    tx: Transaction, *, run: str, node: str, periods: Periods, context: Context, now: datetime
) -> list[Effect]:
    """Fence a run whose agent or shim is stuck: billed to its last signed evidence, and run again.

    Otherwise the renter's money would be held, and the devices kept from others, until its owner looks.
    """
    record = await tx.nodes.lock(node)
    at = await tx.leases.of_run(run)
    # What the node said while this waited for its lock counts.
    due = await unreported_runs(tx, periods=periods, now=now)
    if at is None or record is None or (run, node) not in due:
        return []
    if at.run.started_at is None:
        detail = f"the node did not start the run within {periods.start_within_seconds:.0f} s"
    else:
        asked = "it was asked to" if at.lease.stop_cause else "its max_duration"
        detail = (
            f"the node did not report the run's end within {periods.report_within_seconds:.0f} s of {asked}"
        )
    await tx.jobs.event(at.job.id, kind="warning", detail=detail, now=now)
    text = f"run {run} was ended: {detail}; look at the agent, and restart it if it is stuck"
    await tx.nodes.notice(node, text=text, now=now)
    await tell(tx, node=record, event="node.stuck", detail=f"{record.name}: {text}", now=now)
    return await settle_run(tx, at, lost_end(at, now, detail=detail), context=context, now=now)


def lost_end(at: Engagement, now: datetime, *, detail: str) -> RunEnd:
    """The end of a run whose node says nothing, or nothing that can be believed: its last evidence counts."""
    evidence = at.run.evidence
    started = int(at.run.started_at.timestamp() * 1000) if at.run.started_at and evidence else None
    return RunEnd(
        cause="node_lost",
        reported_cause="node_lost",
        started_at_ms=started,
        until_ms=evidence.until if evidence else int(now.timestamp() * 1000),
        exit_code=None,
        detail=detail,
        energy_joules=evidence.energy_joules if evidence else 0.0,
        energy_method=evidence.energy_method if evidence else "none",
        energy_uncertainty_percent=100.0,
        log_bytes=None,
        outputs=None,
        evidence_jws=at.run.evidence_jws,
        energy_hours=evidence.energy_hours if evidence else (),
        energy_samples=evidence.energy_samples if evidence else None,
        energy_modelled=evidence.energy_modelled if evidence else (),
        fenced=True,
    )

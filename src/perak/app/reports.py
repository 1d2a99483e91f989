"""Apply what nodes report: once, in order, and only for the current epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from perak.app.budget import watch_carbon
from perak.app.challenges import take_answer
from perak.app.context import Context
from perak.app.devices import take_inspection, take_wipe
from perak.app.effects import Effect, JobChanged, MarketChanged, NodeChanged
from perak.app.health import take_health
from perak.app.incidents import take_fault
from perak.app.ports import Transaction
from perak.app.records import Engagement, NodeRecord, RunEnd
from perak.app.refusals import tell_refusal
from perak.app.settlement import refuse_run, settle_run, settle_runs
from perak.app.watch import lost_end
from perak.domain.checklist import Checklist, unsafe
from perak.domain.errors import Conflict, DomainError, InsufficientFunds, NotAuthenticated, NotFound
from perak.domain.lifecycle import JOB, LEASE_LIVE, RUN
from perak.domain.offer import SandboxTier
from perak.domain.outcome import ROLLING_SECONDS, rolling_step
from perak.domain.plausible import Implausible, check_report, shown
from perak.domain.report import (
    CAUSES,
    NODE_CAUSES,
    ChecklistPosted,
    Faulted,
    Health,
    Inspected,
    LogChunk,
    Metered,
    NodeBody,
    OfferPosted,
    Proved,
    Report,
    RunExited,
    RunPreparing,
    RunRefused,
    RunStarted,
    Wiped,
)
from perak.domain.units import billed_seconds, charge, format_money

OUTPUTS_CHARACTERS_MAX = 2_000
"""Of a warning that names outputs; the job's page has them all."""


@dataclass(frozen=True, slots=True)
class NodeReports:
    """Verified reports of one node, in their order."""

    node: str
    reports: Sequence[Report]


async def apply_reports(
    tx: Transaction, *, node_id: str, reports: Sequence[Report], context: Context, now: datetime
) -> tuple[int, list[Effect]]:
    """Apply a node's verified reports in their order. The number of the last one applied, and what to wake.

    A report that was applied before is passed over. A gap in the numbers raises Conflict: the agent sends
    again from what it was last told. A report on a run that is not the node's, or of an older epoch, changes
    nothing: it is acknowledged, so that the agent goes on. One that says what can't be raises Implausible:
    apply those around it one by one, and `pass_over` it.
    """
    group = [NodeReports(node_id, reports)]
    (answer,), effects = await apply_group(tx, group=group, context=context, now=now)
    if isinstance(answer, DomainError):
        raise answer
    return answer, effects


async def apply_group(
    tx: Transaction, *, group: Sequence[NodeReports], context: Context, now: datetime
) -> tuple[list[int | DomainError], list[Effect]]:
    """The same of several nodes, each of which is there once. Runs that end are settled together.

    Answers, in order, what `apply_reports` returns or raises for each node; nothing is changed where one is
    an error. Raises what is found too late for that: then nothing is changed at all.
    """
    nodes = {node.id: node for node, _ in await tx.sessions.lock([each.node for each in group])}
    assert len({each.node for each in group}) == len(group)
    answers: list[int | DomainError] = []
    fresh: list[tuple[NodeRecord, Report]] = []
    for each in group:
        try:
            node = _reporting(nodes.get(each.node), each.node)
            reports = _fresh(each.reports, after=node.report_seq, now=now)
        except DomainError as error:
            answers.append(error)
            continue
        answers.append(reports[-1].seq if reports else node.report_seq)
        fresh += [(node, report) for report in reports]
    runs = await _Runs.lock(tx, [report for _, report in fresh], context=context, now=now)
    for node, report in fresh:
        runs.effects += await _apply(tx, node, report, runs, context, now)
    await runs.settle()
    seqs = zip(group, answers, strict=True)
    await tx.nodes.applied({each.node: seq for each, seq in seqs if isinstance(seq, int)}, now=now)
    return answers, runs.effects


def _reporting(node: NodeRecord | None, id: str) -> NodeRecord:
    if node is None:
        raise NotFound(f"there is no node {id}")
    if node.state == "revoked":
        raise NotAuthenticated(f"the node {id} was revoked")
    return node


def _fresh(reports: Sequence[Report], *, after: int, now: datetime) -> list[Report]:
    """Those that were not applied before, without a gap, each of which can be."""
    fresh = []
    for report in reports:
        if report.seq <= after:
            continue
        if report.seq != after + 1:
            raise Conflict(f"report {report.seq} of {report.node} came after {after}", code="report_gap")
        check_report(report, now_ms=int(now.timestamp() * 1000))
        fresh.append(report)
        after = report.seq
    return fresh


class _Runs:
    """The runs that reports are about, locked together in one order; those that end are settled together."""

    def __init__(
        self, tx: Transaction, known: dict[str, Engagement], *, context: Context, now: datetime
    ) -> None:
        self._tx = tx
        self._known = known
        self._context = context
        self._now = now
        self._ended: dict[str, tuple[Engagement, RunEnd]] = {}
        self.effects: list[Effect] = []

    @classmethod
    async def lock(
        cls, tx: Transaction, reports: Sequence[Report], *, context: Context, now: datetime
    ) -> _Runs:
        ids = {r.body.run for r in reports if not isinstance(r.body, NodeBody)}
        return cls(tx, await tx.leases.of_runs(sorted(ids)) if ids else {}, context=context, now=now)

    async def get(self, run: str) -> Engagement | None:
        """The run, for one report, which may change it: the next reads it again. None: none, or it ended."""
        if run in self._ended:
            return None
        return self._known.pop(run, None) or await self._tx.leases.of_run(run)

    def end(self, at: Engagement, end: RunEnd) -> None:
        self._ended[at.run.id] = at, end

    async def settle(self) -> None:
        """Settle those that ended, at the end of all, or before somebody looks at a wallet."""
        if self._ended:
            ended = list(self._ended.values())
            self.effects += await settle_runs(self._tx, ended, context=self._context, now=self._now)
            self._ended.clear()


async def pass_over(
    tx: Transaction,
    *,
    node_id: str,
    report: Report,
    subject: str,
    reason: str,
    context: Context,
    now: datetime,
) -> tuple[int, list[Effect]]:
    """Count a report that was refused for `reason` as done, so that the agent goes on with the next.

    Where it told of a run's end, the run ends all the same, as if its node had been lost: billed to the last
    evidence that was taken, and run again. Otherwise its lease, and the renter's money, would be held on.
    The node's owner is told; `subject` is one of REFUSALS.
    """
    node = await tx.nodes.lock(node_id)
    if node is None:
        raise NotFound(f"there is no node {node_id}")
    if report.seq != node.report_seq + 1:
        return node.report_seq, []
    await tx.nodes.applied({node_id: report.seq}, now=now)
    body = report.body
    what = f"its report {type(body).__name__} was refused: {shown(reason)[:500]}"
    await tell_refusal(tx, node=node, subject=subject, detail=what, now=now)
    if not isinstance(body, RunExited | RunRefused):
        return report.seq, []
    at = await tx.leases.of_run(body.run)
    if at is None or not _is_current(at, node, body.lease, body.epoch):
        return report.seq, []
    detail = f"the node's report of the end was refused: {reason}"[:500]
    await tx.jobs.event(at.job.id, kind="warning", detail=detail, now=now)
    return report.seq, await settle_run(tx, at, lost_end(at, now, detail=detail), context=context, now=now)


async def _apply(
    tx: Transaction, node: NodeRecord, report: Report, runs: _Runs, context: Context, now: datetime
) -> list[Effect]:
    body = report.body
    if isinstance(body, OfferPosted):
        return await _offered(tx, node, body, context, now)
    if isinstance(body, ChecklistPosted):
        await tx.checklists.keep(node=node.id, checklist=body.checklist, jws=report.jws, now=now)
        return []
    if isinstance(body, Health):
        await take_health(tx, node=node, health=body, at=_time(report.at), context=context, now=now)
        return []
    if isinstance(body, Inspected):
        found = body.inspection
        return await take_inspection(
            tx, node=node, inspection=found, jws=report.jws, context=context, now=now
        )
    if isinstance(body, Wiped):
        return await take_wipe(tx, node=node, record=body.record, jws=report.jws, context=context, now=now)
    if isinstance(body, Faulted):
        await take_fault(tx, node=node, fault=body, at=_time(report.at), context=context, now=now)
        return []
    if isinstance(body, Proved):
        return await take_answer(tx, node=node, answer=body.answer, now=now)
    engagement = await runs.get(body.run)
    if engagement is None or not _is_current(engagement, node, body.lease, body.epoch):
        return []
    match body:
        case LogChunk():
            await tx.leases.append_log(body.run, offset=body.offset, data=body.data)
            return [JobChanged(engagement.job.id)]
        case RunPreparing():
            return await _preparing(tx, engagement, body, now)
        case RunStarted():
            return await _started(tx, engagement, body, now)
        case Metered():
            told = await watch_carbon(tx, engagement, body, context=context, now=now)
            return told + await _metered(tx, engagement, body, report.jws, runs, now)
        case RunRefused():
            return await _refused(tx, engagement, node, body, now)
        case RunExited():
            await _tell_of_outputs(tx, engagement, body, now)
            runs.end(engagement, _run_end(body, engagement, report.jws))
            return []


async def _offered(
    tx: Transaction, node: NodeRecord, body: OfferPosted, context: Context, now: datetime
) -> list[Effect]:
    """Take the offer; tell the owner of devices that were fit before, or never seen, and are left out.

    Raises Implausible for a tier whose checklist the node did not send, or that says the tier is unsafe.
    """
    for tier in body.offer.tiers:
        if tier.checklist:
            _check_tier(tier, await tx.checklists.of_node(node.id, digest=tier.checklist))
    before = await tx.offers.of_node(node.id) if body.offer.left_out else None
    known = before.ask.left_out if before is not None else {}
    await tx.offers.post(id=context.new_id("offer"), node=node, ask=body.offer, now=now)
    new = [f"{uuid}: {why}" for uuid, why in sorted(body.offer.left_out.items()) if uuid not in known]
    if new:
        detail = f"not offered: {shown('; '.join(new))[:500]}"
        subject = "device" if any(not each.startswith("sandbox ") for each in new) else "sandbox"
        await tell_refusal(tx, node=node, subject=subject, detail=detail, now=now)
    return [MarketChanged()]


def _check_tier(tier: SandboxTier, checklist: Checklist | None) -> None:
    if checklist is None or checklist.tier != tier.tier:
        raise Implausible(f"tiers: {tier.tier} names a checklist that this node has not sent")
    if found := unsafe(checklist.results, complete=False):
        raise Implausible(f"tiers: {tier.tier} is offered, and its checklist says of {min(found)}: not safe")


def _time(ms: int) -> datetime:
    """`check_report` has seen that it is no later than now."""
    return datetime.fromtimestamp(ms / 1000, tz=UTC)


def _is_current(engagement: Engagement, node: NodeRecord, lease: str, epoch: int) -> bool:
    """Only the current epoch of a live lease counts, and only from the node that holds it."""
    held = engagement.lease
    return held.node == node.id and held.id == lease and held.epoch == epoch and held.state in LEASE_LIVE


async def _preparing(tx: Transaction, at: Engagement, body: RunPreparing, now: datetime) -> list[Effect]:
    if not RUN.allows(at.run.state, "preparing"):
        return []
    detail = shown(body.detail)[:500]
    await tx.leases.preparing(at.run.id, detail=detail)
    await tx.jobs.event(at.job.id, kind="preparing", detail=detail, now=now)
    return [JobChanged(at.job.id)]


async def _started(tx: Transaction, at: Engagement, body: RunStarted, now: datetime) -> list[Effect]:
    if not RUN.allows(at.run.state, "started"):
        return []
    await tx.leases.started(at.run.id, body)
    if JOB.allows(at.job.state, "started"):
        await tx.jobs.started(at.job.id, state=JOB.step(at.job.state, "started"), now=now)
    return [JobChanged(at.job.id)]


async def _refused(
    tx: Transaction, at: Engagement, node: NodeRecord, body: RunRefused, now: datetime
) -> list[Effect]:
    """A run that has started can't be refused any more; one that "exited" never was refused."""
    if not RUN.allows(at.run.state, "refused"):
        return []
    cause = body.cause if body.cause in CAUSES and body.cause != "exited" else "sandbox"
    if cause in NODE_CAUSES:
        detail = f"a run could not be started: {shown(body.detail[:500])}"
        await tell_refusal(tx, node=node, subject="run", detail=detail, now=now)
    return await refuse_run(tx, at, cause=cause, detail=shown(body.detail), now=now)


async def _tell_of_outputs(tx: Transaction, at: Engagement, body: RunExited, now: datetime) -> None:
    """Tell the renter of outputs that the job, ended by itself, did not leave, or that can't be taken."""
    wanted = at.job.spec.outputs
    if not wanted or body.cause != "exited":
        return
    found = body.outputs
    for what, names in (
        ("not found", wanted if found is None else found.missing),
        ("left out", () if found is None else found.skipped),
    ):
        if names:
            detail = shown(f"outputs {what}: {', '.join(names)}")[:OUTPUTS_CHARACTERS_MAX]
            await tx.jobs.event(at.job.id, kind="warning", detail=detail, now=now)


async def _metered(
    tx: Transaction, at: Engagement, body: Metered, jws: str, runs: _Runs, now: datetime
) -> list[Effect]:
    """Keep the evidence; hold the next ten minutes where the hold rolls, or stop the run cleanly.

    The exchange's clock bounds what is due, as at settlement: a node's wrong clock holds nothing more.
    """
    await tx.leases.metered(at.run.id, body, jws=jws)
    if at.job.hold_mode != "rolling" or at.run.started_at is None or at.lease.stop_cause:
        return []
    step = rolling_step(price=at.lease.price, devices_milli=at.lease.devices_milli)
    leased = (now - at.lease.granted_at).total_seconds()
    seconds = min(billed_seconds(int(at.run.started_at.timestamp() * 1000), body.until), math.ceil(leased))
    due = charge(price_per_device_hour=at.lease.price, devices_milli=at.lease.devices_milli, seconds=seconds)
    held = sum(h.amount for h in await tx.ledger.held(at.job.id))
    if held - due >= step:
        return []
    await runs.settle()  # What an ended run frees may be what this one needs.
    amount = min(step, await tx.ledger.wallet_available(at.job.project))
    try:
        if amount:
            await tx.ledger.hold(project=at.job.project, job=at.job.id, amount=amount, now=now)
    except InsufficientFunds:
        amount = 0  # another job of the project was faster
    if amount == step:
        return []
    return await _running_dry(tx, at, left=held + amount - due, now=now)


FUNDS_STOP_SECONDS = 30
"""A run whose money lasts no longer than this is stopped: time to end cleanly within what is held."""


async def _running_dry(tx: Transaction, at: Engagement, *, left: int, now: datetime) -> list[Effect]:
    margin = charge(
        price_per_device_hour=at.lease.price, devices_milli=at.lease.devices_milli, seconds=FUNDS_STOP_SECONDS
    )
    if left > margin:
        seconds = (
            left
            * ROLLING_SECONDS
            // max(1, rolling_step(price=at.lease.price, devices_milli=at.lease.devices_milli))
        )
        detail = f"the wallet is empty: {format_money(left)} is held, enough for {seconds} s more; fund it"
        await tx.jobs.event(at.job.id, kind="warning", detail=detail, now=now)
        return [JobChanged(at.job.id)]
    await tx.leases.ask_stop(at.lease.id, cause="funds", now=now)
    await tx.jobs.event(at.job.id, kind="warning", detail=f"stopping: {CAUSES['funds']}", now=now)
    return [NodeChanged(at.lease.node), JobChanged(at.job.id)]


def _run_end(body: RunExited, at: Engagement, jws: str) -> RunEnd:
    cause = body.cause if body.cause in CAUSES else "sandbox"
    if cause == "max_duration" and at.lease.duration_limited_by == "max_cost":
        cause = "max_cost"
    return RunEnd(
        cause=cause,
        reported_cause=body.cause,
        started_at_ms=body.started_at,
        until_ms=body.ended_at,
        exit_code=body.exit_code,
        detail=None if body.detail is None else shown(body.detail),
        energy_joules=body.energy_joules,
        energy_method=body.energy_method,
        energy_uncertainty_percent=body.energy_uncertainty_percent,
        log_bytes=body.log_bytes,
        outputs=body.outputs,
        network=body.network,
        energy_hours=body.energy_hours,
        energy_samples=body.energy_samples,
        energy_modelled=body.energy_modelled,
        evidence_jws=jws,
    )

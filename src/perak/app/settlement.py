"""Settle a run: lease and run end, money moves, the receipt is written and the job steps on, all in one."""

from __future__ import annotations

from datetime import datetime

from perak.app.context import Context
from perak.app.effects import Effect, JobChanged, MarketChanged, NodeChanged
from perak.app.ports import Transaction
from perak.app.receipts import compose
from perak.app.records import Engagement, RunEnd
from perak.domain.lifecycle import JOB, LEASE, RUN
from perak.domain.outcome import Outcome, Settlement, outcome, settle
from perak.domain.report import CAUSES


async def settle_run(
    tx: Transaction, at: Engagement, end: RunEnd, *, context: Context, now: datetime
) -> list[Effect]:
    """End the run as `end` says and pay for what is proven."""
    RUN.step(at.run.state, "fenced" if end.fenced else "exited")
    LEASE.step(at.lease.state, "fenced" if end.fenced else "ended")
    held = await tx.ledger.held(at.job.id)
    money = _money(at, end, held=sum(h.amount for h in held), context=context, now=now)
    what = outcome(
        state=at.job.state,
        cause=end.cause,
        exit_code=end.exit_code,
        attempts=at.run.attempt,
        retry=at.job.spec.retry,
    )
    what = _within_max_cost(at, what, left=sum(h.amount for h in held) - money.cost)
    await tx.ledger.settle(
        project=at.job.project,
        provider=at.lease.provider,
        job=at.job.id,
        run=at.run.id,
        held=held,
        settlement=money,
        keep=what.event == "requeued",
        now=now,
    )
    await tx.leases.end(at, end, settlement=money, now=now)
    if end.evidence_jws is not None and end.started_at_ms is not None:
        offer = await tx.offers.of_node(at.lease.node)
        assert offer is not None, "a lease is part of an offer"
        receipt = compose(
            at,
            end,
            money,
            offer=offer,
            held=sum(h.amount for h in held),
            exchange=context.exchange,
            id=context.new_id("receipt"),
            now=now,
        )
        await tx.receipts.insert(context.sign_receipt(receipt), receipt, now=now)
    return await _step_job(tx, at, what, exit_code=end.exit_code, now=now)


def _within_max_cost(at: Engagement, what: Outcome, *, left: int) -> Outcome:
    """A job that has used up its max_cost is not run again."""
    if what.event == "requeued" and at.job.spec.limits.max_cost is not None and left <= 0:
        return Outcome(event="failed", reason=f"{what.reason}; {CAUSES['max_cost']}")
    return what


def _money(at: Engagement, end: RunEnd, *, held: int, context: Context, now: datetime) -> Settlement:
    return settle(
        started_at_ms=end.started_at_ms,
        until_ms=end.until_ms,
        granted_at_ms=int(at.lease.granted_at.timestamp() * 1000),
        now_ms=int(now.timestamp() * 1000),
        price=at.lease.price,
        devices_milli=at.lease.devices_milli,
        held=held,
        fee_basis_points=context.exchange.fee_basis_points,
    )


async def refuse_run(
    tx: Transaction, at: Engagement, *, cause: str, detail: str, now: datetime
) -> list[Effect]:
    """The node could not start the run: nothing is billed."""
    RUN.step(at.run.state, "refused")
    what = outcome(
        state=at.job.state, cause=cause, exit_code=None, attempts=at.run.attempt, retry=at.job.spec.retry
    )
    await tx.leases.refuse(at, cause=cause, detail=detail, now=now)
    if what.event != "requeued":
        held = await tx.ledger.held(at.job.id)
        await tx.ledger.release(project=at.job.project, job=at.job.id, held=held, now=now)
    reason = Outcome(event=what.event, reason=f"{what.reason}: {detail[:1000]}")
    return await _step_job(tx, at, reason, exit_code=None, now=now)


async def _step_job(
    tx: Transaction, at: Engagement, what: Outcome, *, exit_code: int | None, now: datetime
) -> list[Effect]:
    await tx.jobs.step(
        at.job.id,
        state=JOB.step(at.job.state, what.event),
        now=now,
        reason=what.reason,
        exit_code=exit_code,
        ended=what.event != "requeued",
        avoid=at.lease.node if what.event == "requeued" else None,
    )
    return [JobChanged(at.job.id), NodeChanged(at.lease.node), MarketChanged()]

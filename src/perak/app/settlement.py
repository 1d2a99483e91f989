"""Settle a run: lease and run end, money moves, the receipt is written and the job steps on, all in one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from perak.app.context import Context
from perak.app.effects import Effect, JobChanged, MarketChanged, NodeChanged
from perak.app.ports import Transaction
from perak.app.receipts import compose
from perak.app.records import Engagement, RunEnd, SettledRun, SettlementFacts, SignedReceipt
from perak.domain.lifecycle import JOB, LEASE, RUN
from perak.domain.outcome import Outcome, Settlement, outcome, settle
from perak.domain.report import CAUSES

WINDOW_OVER = "its reserved window ended"


async def settle_run(
    tx: Transaction, at: Engagement, end: RunEnd, *, context: Context, now: datetime
) -> list[Effect]:
    """End the run as `end` says and pay for what is proven."""
    return await settle_runs(tx, [(at, end)], context=context, now=now)


async def settle_runs(
    tx: Transaction, ended: Sequence[tuple[Engagement, RunEnd]], *, context: Context, now: datetime
) -> list[Effect]:
    """The same of many runs: they cost the database little more than one."""
    facts = await tx.settlements.facts([at for at, _ in ended])
    settled = [
        _settled(at, end, known, context=context, now=now)
        for (at, end), known in zip(ended, facts, strict=True)
    ]
    await tx.settlements.write(settled, now=now)
    return [effect for at, _ in ended for effect in _changed(at)]


def _settled(
    at: Engagement, end: RunEnd, facts: SettlementFacts, *, context: Context, now: datetime
) -> SettledRun:
    event = "fenced" if end.fenced else "ended"
    held = sum(h.amount for h in facts.held)
    money = _money(at, end, held=held, context=context, now=now)
    what = outcome(
        state=at.job.state,
        cause=end.cause,
        exit_code=end.exit_code,
        attempts=at.run.attempt,
        retry=at.job.spec.retry,
    )
    if end.cause == "max_duration" and at.job.spec.reserve is not None:
        what = Outcome(event=what.event, reason=WINDOW_OVER)
    what = _within_max_cost(at, what, left=held - money.cost)
    receipt = _receipt(at, end, money, facts=facts, held=held, context=context, now=now)
    if what.event == "requeued" and at.job.spec.limits.max_carbon_grams is not None:
        what = _within_max_carbon(what, left=_carbon_left(at, facts, receipt))
    return SettledRun(
        at=at,
        end=end,
        facts=facts,
        money=money,
        receipt=receipt,
        lease_state=LEASE.step(at.lease.state, event),
        run_state=RUN.step(at.run.state, "fenced" if end.fenced else "exited"),
        job_state=JOB.step(at.job.state, what.event),
        job_ended=what.event != "requeued",
        reason=what.reason,
    )


def _receipt(
    at: Engagement,
    end: RunEnd,
    money: Settlement,
    *,
    facts: SettlementFacts,
    held: int,
    context: Context,
    now: datetime,
) -> SignedReceipt | None:
    """Where there is no evidence, there is nothing to give a receipt of."""
    if end.evidence_jws is None or end.started_at_ms is None:
        return None
    id, exchange = context.new_id("receipt"), context.exchange
    receipt = compose(
        at,
        end,
        money,
        ask=facts.ask,
        held=held,
        exchange=exchange,
        grid=context.grid.now,
        where=facts.where,
        id=id,
        now=now,
    )
    return context.sign_receipt(receipt)


def _within_max_cost(at: Engagement, what: Outcome, *, left: int) -> Outcome:
    """A job that has used up its max_cost is not run again."""
    if what.event == "requeued" and at.job.spec.limits.max_cost is not None and left <= 0:
        return Outcome(event="failed", reason=f"{what.reason}; {CAUSES['max_cost']}")
    return what


def _within_max_carbon(what: Outcome, *, left: float) -> Outcome:
    """A job that has used up its max_carbon is not run again."""
    if left > 0:
        return what
    return Outcome(event="failed", reason=f"{what.reason}; {CAUSES['max_carbon']}")


def _carbon_left(at: Engagement, facts: SettlementFacts, receipt: SignedReceipt | None) -> float:
    """Grams of the job's budget, this run's taken off."""
    budget = at.job.spec.limits.max_carbon_grams
    assert budget is not None
    this_run = receipt.carbon_grams if receipt is not None else None
    return budget - facts.emitted_grams - (this_run or 0.0)


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
        await tx.ledger.release(job=at.job.id, held=held, now=now)
    await tx.jobs.step(
        at.job.id,
        state=JOB.step(at.job.state, what.event),
        now=now,
        reason=f"{what.reason}: {detail[:1000]}",
        ended=what.event != "requeued",
        avoid=at.lease.node if what.event == "requeued" else None,
    )
    return _changed(at)


def _changed(at: Engagement) -> list[Effect]:
    return [JobChanged(at.job.id), NodeChanged(at.lease.node), MarketChanged()]

"""Submit and cancel jobs."""

from __future__ import annotations

from datetime import datetime

from perak.app.effects import Effect, JobChanged, MarketChanged, NodeChanged
from perak.app.ports import Ids, Transaction
from perak.app.records import Caller
from perak.domain.errors import InsufficientFunds, InvalidInput, NotFound
from perak.domain.job import JobSpec
from perak.domain.lifecycle import JOB
from perak.domain.outcome import hold_for
from perak.domain.units import format_money


async def submit(
    tx: Transaction,
    *,
    caller: Caller,
    spec: JobSpec,
    tree: dict[str, object],
    new_id: Ids,
    now: datetime,
) -> tuple[str, list[Effect]]:
    """Queue a job and hold its money. The new job's id, and what to wake.

    Raises InvalidInput where the work folder was not uploaded, InsufficientFunds where the wallet does not
    cover the hold.
    """
    if spec.workdir_digest and not await tx.blobs.known(project=caller.project, digest=spec.workdir_digest):
        raise InvalidInput(f"the work folder {spec.workdir_digest} was not uploaded; PUT /v1/blobs/… first")
    job = new_id("job")
    amount, mode = await _hold(tx, caller.project, spec)
    await tx.jobs.insert(id=job, caller=caller, spec=spec, tree=tree, hold_mode=mode, now=now)
    if amount:
        await tx.ledger.hold(project=caller.project, job=job, amount=amount, now=now)
    return job, [MarketChanged()]


async def _hold(tx: Transaction, project: str, spec: JobSpec) -> tuple[int, str]:
    """What to hold now. The market holds the rest when it knows the price of the lease."""
    available = await tx.ledger.wallet_available(project)
    price = await tx.offers.cheapest_price(spec)
    if price is None:
        price = spec.limits.max_price or 0
    hold = hold_for(
        price=price,
        devices_milli=spec.resources.devices_milli,
        seconds=spec.limits.duration_seconds,
        max_cost=spec.limits.max_cost,
        available=available,
    )
    if hold.amount > available:
        raise InsufficientFunds(
            f"the job needs {format_money(hold.amount)} held and the wallet has {format_money(available)}; "
            "fund it with `perak wallet fund`, or lower max_cost, max_duration or the resources"
        )
    return hold.amount, hold.mode


async def cancel(tx: Transaction, *, caller: Caller, job_id: str, now: datetime) -> list[Effect]:
    """Cancel a job: at once while it waits, else by stopping its run. An ended job is left as it is."""
    job = await tx.jobs.lock(job_id, project=caller.project)
    if job is None:
        raise NotFound(f"there is no job {job_id} in this project; `perak ps -a` lists them")
    if job.state == "queued":
        held = await tx.ledger.held(job.id)
        await tx.ledger.release(job=job.id, held=held, now=now)
        await tx.jobs.step(
            job.id,
            state=JOB.step(job.state, "cancelled"),
            now=now,
            reason="cancelled by the renter",
            ended=True,
        )
        return [JobChanged(job.id)]
    if not JOB.allows(job.state, "cancel_asked"):
        return []
    engagement = await tx.leases.live_of_job(job.id)
    assert engagement is not None, "a leased or running job has a live lease"
    await tx.leases.ask_stop(engagement.lease.id, cause="cancelled", now=now)
    await tx.jobs.step(job.id, state=JOB.step(job.state, "cancel_asked"), now=now)
    return [NodeChanged(engagement.lease.node), JobChanged(job.id)]

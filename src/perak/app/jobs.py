"""Submit and cancel jobs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from perak.app.budget import check_max_carbon
from perak.app.effects import Effect, JobChanged, MarketChanged, NodeChanged
from perak.app.ports import Ids, Transaction
from perak.app.records import Caller
from perak.domain.carbon.placement import YEARLY_GRID, Grid
from perak.domain.errors import InsufficientFunds, InvalidInput, NotFound
from perak.domain.job import Image, Input, JobSpec
from perak.domain.lifecycle import JOB
from perak.domain.outcome import hold_for
from perak.domain.secrets import WORKDIR_KEY
from perak.domain.units import format_money


async def submit(
    tx: Transaction,
    *,
    caller: Caller,
    spec: JobSpec,
    tree: dict[str, object],
    new_id: Ids,
    now: datetime,
    workdir_key: Callable[[str], bytes] | None = None,
    grid: Grid = YEARLY_GRID,
) -> tuple[str, list[Effect]]:
    """Queue a job and hold its money. The new job's id, and what to wake.

    `workdir_key`: seals the key to the encrypted work folder for the job of that id.

    Raises InvalidInput where the work folder was not uploaded, an image is not pinned or a max_carbon is too
    small to be kept, NotFound where an input is no output of an earlier job, InsufficientFunds where the
    wallet does not cover the hold.
    """
    if spec.workdir_digest and not await tx.blobs.known(project=caller.project, digest=spec.workdir_digest):
        raise InvalidInput(f"the work folder {spec.workdir_digest} was not uploaded; PUT /v1/blobs/… first")
    _check_pinned(spec.image)
    await _check_secrets(tx, caller.project, spec)
    _check_encrypted(spec, has_key=workdir_key is not None)
    await check_max_carbon(tx, spec, grid=grid, now=now)
    spec = replace(spec, inputs=tuple([await _pinned(tx, caller.project, each) for each in spec.inputs]))
    job = new_id("job")
    # Of a window the whole is held, by whoever books it: at the price of its offer.
    amount, mode = (0, "full") if spec.reserve is not None else await _hold(tx, caller.project, spec)
    await tx.jobs.insert(id=job, caller=caller, spec=spec, tree=tree, hold_mode=mode, now=now)
    if workdir_key is not None:
        await tx.secrets.keep_for_job(job, name=WORKDIR_KEY, sealed=workdir_key(job))
    if amount:
        await tx.ledger.hold(project=caller.project, job=job, amount=amount, now=now)
    return job, [MarketChanged()]


def _check_pinned(image: Image | None) -> None:
    """The tag of an image may mean something else tomorrow, and we never ask a registry ourselves."""
    if image is not None and image.digest is None:
        raise InvalidInput(
            f"the image {image.name} is not pinned; name it by digest, as {image.name}@sha256:… "
            "(`perak run` and the SDK do so by asking the registry; `skopeo inspect` shows it, too)",
            code="image_not_pinned",
        )


async def _check_secrets(tx: Transaction, project: str, spec: JobSpec) -> None:
    """A run that lacks a secret would fail on the node, after others have waited for it."""
    missing = await tx.secrets.missing(sorted(spec.secret_names()), project=project)
    if missing:
        raise NotFound(
            f"this project has no secret {', '.join(missing)}; set it with `perak secret set {missing[0]}`, "
            "or leave it out of the job file",
            code="no_secret",
        )


def _check_encrypted(spec: JobSpec, *, has_key: bool) -> None:
    if spec.encrypt_to == "own":
        raise InvalidInput(
            "encrypt: true means the renter's own key, which this exchange doesn't have; `perak run` and the "
            "SDK put in its public half, or write it yourself, as encrypt: age1…",
            code="no_recipient",
        )
    if has_key != (spec.encrypt_to is not None and spec.workdir_digest is not None):
        raise InvalidInput(
            "`encrypt` and the key of the work folder go together: encrypt the folder to a key of its own, "
            "and send that as workdir_key; `perak run` and the SDK do so",
            code="no_workdir_key",
        )


async def _pinned(tx: Transaction, project: str, wanted: Input) -> Input:
    """An earlier job's outputs by what they are now; other inputs as they are."""
    if not wanted.url.startswith("job:"):
        return wanted
    named = wanted.url.removeprefix("job:").partition("/")[0]
    digest = await tx.jobs.outputs(named, project=project)
    # A node names the digest: only what was uploaded for this project is given to it.
    if digest is None or not await tx.blobs.known(project=project, digest=digest):
        raise NotFound(
            f"the input {wanted.path} names outputs of {named[:80]}, and this project has no such job with "
            "outputs; `perak ps -a` lists its jobs"
        )
    if await tx.jobs.encrypted(named, project=project):
        raise InvalidInput(
            f"the input {wanted.path} names outputs of {named[:80]}, which are encrypted to their renter, so "
            "that no node can read them; download them and send them along in the work folder"
        )
    if wanted.digest not in (None, digest):
        raise InvalidInput(f"the input {wanted.path} names {wanted.digest}, and the outputs are {digest}")
    return replace(wanted, digest=digest)


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

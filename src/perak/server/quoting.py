"""Ask the market about a job, for quotes and for the answer to why."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime

from perak.adapters.db.prices import price_profile
from perak.adapters.db.views.market import offers_to_quote
from perak.adapters.db.views.reservations import window_of
from perak.adapters.db.views.why import job_place
from perak.adapters.db.windows import taken
from perak.adapters.db.workloads import PgWorkloads
from perak.app.records import Caller
from perak.app.reservations import check_window
from perak.domain.errors import NotFound
from perak.domain.job import JobSpec
from perak.domain.market.history import fingerprint
from perak.domain.market.quote import Quote, quote
from perak.domain.market.why import why_placed, why_waiting
from perak.domain.units import format_money
from perak.server import clock
from perak.server.services import Services
from perak.wire import api


async def quoted(
    services: Services,
    spec: JobSpec,
    caller: Caller,
    *,
    job: str | None = None,
    submitted_at: datetime | None = None,
) -> Quote:
    """The job on every offer, with what its workload did before; `job`: the one that it is, if any, and when
    it was submitted.

    Raises InvalidInput for a window that a new job could not reserve.
    """
    if spec.reserve is not None and job is None:
        check_window(spec.reserve, now=clock.now())
    print_of = fingerprint(spec)
    async with services.db.transaction() as tx:
        offers = await offers_to_quote(tx.connection)
        if spec.reserve is not None:
            claims = await taken(tx.connection, now=clock.now(), except_job=job)
            offers = [replace(each, taken=claims.get(each.id, ())) for each in offers]
        available = await tx.ledger.wallet_available(caller.project)
        workloads = PgWorkloads(tx.connection)
        past = await workloads.past([print_of], project=caller.project)
        left = await workloads.outputs_bytes(print_of, project=caller.project) if spec.outputs else 0
        prices = await price_profile(tx.connection, now=clock.now()) if spec.start is not None else None
    # A thousand offers take a fifth of a second, in which others want to be answered.
    return await asyncio.to_thread(
        quote,
        spec,
        offers,
        available=available,
        currency=services.identity.facts.currency,
        now=clock.now(),
        past=past.get(print_of, ()),
        outputs_bytes=left,
        grid=services.context.grid.now,
        prices=prices,
        submitted_at=submitted_at,
    )


async def why(services: Services, job: str, caller: Caller) -> api.Why:
    """Why the job is where it is, or waits. Raises NotFound."""
    async with services.db.connection() as connection:
        found = await job_place(connection, job, project=caller.project)
        window = None if found is None else await window_of(connection, job)
    if found is None:
        raise NotFound(f"there is no job {job[:80]} in this project; `perak ps -a` lists them")
    asked = await quoted(services, found.spec, caller, job=job, submitted_at=found.created_at)
    currency = services.identity.facts.currency
    kept = () if window is None else window.lines(currency)
    if found.state != "queued" and found.placed is not None:
        answer = why_placed(found.spec, found.placed, asked, currency=currency)
    else:
        waited = (clock.now() - found.created_at).total_seconds()
        waits = asked.waiting is not None and asked.waiting.wait_seconds > 0
        answer = why_waiting(
            found.spec,
            asked,
            currency=currency,
            waited_seconds=waited,
            deferred_until=asked.waiting.why if waits and asked.waiting is not None else None,
        )
    return api.Why(
        job=job,
        state=found.state,
        reasons=[*kept, *(answer.reasons if window is None or found.placed is not None else ())],
        placed_at=found.placed.at if found.placed is not None and found.state != "queued" else None,
        then=None if answer.then is None else list(answer.then),
        elsewhere=list(answer.elsewhere),
        price_now=None if answer.price_now is None or window else format_money(answer.price_now),
        currency=currency,
    )

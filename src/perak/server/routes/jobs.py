"""Submit, list, follow and cancel jobs."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import Response, StreamingResponse

from perak.adapters.db.database import PgTransaction
from perak.adapters.db.quotes import PgQuotes
from perak.adapters.db.reservations import PgReservations
from perak.adapters.db.views import jobs as views
from perak.adapters.db.workloads import PgWorkloads
from perak.app import jobs as use_cases
from perak.app.effects import Effect
from perak.app.quotes import honour
from perak.app.reservations import book
from perak.domain.errors import InvalidInput, NotFound
from perak.domain.lifecycle import JOB
from perak.domain.secrets import WORKDIR_KEY
from perak.server import clock
from perak.server.access import services_of
from perak.server.auth import Renter
from perak.server.follow import KEEP_ALIVE_SECONDS, READ_BYTES_MAX, SEND_SECONDS_MAX, Place, follow
from perak.server.identity import Vault
from perak.server.logs import read_log
from perak.server.paging import AskedPage
from perak.server.quoting import why
from perak.server.secrets import sealed_for
from perak.server.services import Services
from perak.server.writes import reply, reply_page, write
from perak.wire.api import Job, JobDetail, JobSubmit, Page, Why
from perak.wire.jobfile import parse_job

BYTES = "application/octet-stream"
QUOTE_OR_WINDOW = (
    "a held quote is for now, and `reserve` makes its own price firm; submit the job without a quote"
)

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.post("", status_code=201, response_model=Job)
async def submit(body: JobSubmit, request: Request, caller: Renter) -> Response:
    """Queue a job and hold its money."""
    services = services_of(request)
    spec = parse_job(body.job, workdir_digest=body.workdir)
    vault, key = services.identity.vault, body.workdir_key
    workdir_key = None if key is None else partial(_sealed_key, vault, key)

    if body.quote is not None and spec.reserve is not None:
        raise InvalidInput(QUOTE_OR_WINDOW)

    async def action(tx: PgTransaction) -> tuple[Job, Sequence[Effect]]:
        if body.quote is not None or spec.reserve is not None:
            await tx.single("market")  # What is free changes under neither; before any row is locked.
        id, effects = await use_cases.submit(
            tx,
            caller=caller,
            spec=spec,
            tree=body.job,
            new_id=services.context.new_id,
            now=clock.now(),
            workdir_key=workdir_key,
            grid=services.context.grid.now,
        )
        if body.quote is not None:
            held = sum(each.amount for each in await tx.ledger.held(id))
            effects = await honour(
                tx,
                PgQuotes(tx.connection),
                body.quote,
                caller=caller,
                job=id,
                spec=spec,
                held=held,
                new_id=services.context.new_id,
                now=clock.now(),
                workloads=PgWorkloads(tx.connection),
            )
        elif spec.reserve is not None:
            effects = await book(
                tx,
                PgReservations(tx.connection),
                caller=caller,
                job=id,
                spec=spec,
                now=clock.now(),
                grid=services.context.grid.now,
            )
        return await _job(tx, id, caller.project), effects

    return await write(request, action, project=caller.project, status=201)


def _sealed_key(vault: Vault, key: str, job: str) -> bytes:
    return sealed_for(vault, key.encode(), owner=job, name=WORKDIR_KEY)


@router.get("", response_model=Page[Job])
async def list_jobs(
    request: Request,
    caller: Renter,
    paging: AskedPage,
    state: Annotated[str, Query(max_length=200, description="one or more states, with commas")] = "",
    name: Annotated[str | None, Query(max_length=63)] = None,
) -> Response:
    """The project's jobs, newest first."""
    async with services_of(request).db.connection() as connection:
        page = await views.list_jobs(
            connection,
            project=caller.project,
            states=_states(state),
            name=name,
            before=paging.cursor,
            limit=paging.limit,
        )
    return reply_page(page.items, page.next_cursor)


@router.get("/{job}", response_model=JobDetail)
async def get_job(job: str, request: Request, caller: Renter) -> Response:
    """A job with its file, runs and steps."""
    async with services_of(request).db.connection() as connection:
        found = await views.get_job_detail(connection, job, project=caller.project)
    if found is None:
        raise _no_job(job)
    return reply(found)


@router.get("/{job}/why", response_model=Why)
async def get_why(job: str, request: Request, caller: Renter) -> Response:
    """Why the job is where it is and not elsewhere, or why it waits, and what would place it now."""
    return reply(await why(services_of(request), job, caller))


@router.post("/{job}/cancel", response_model=Job)
async def cancel(job: str, request: Request, caller: Renter) -> Response:
    """Cancel a job: at once while it waits, else by stopping its run."""

    async def action(tx: PgTransaction) -> tuple[Job, Sequence[Effect]]:
        effects = await use_cases.cancel(tx, caller=caller, job_id=job, now=clock.now())
        return await _job(tx, job, caller.project), effects

    return await write(request, action, project=caller.project)


@router.get("/{job}/log", response_class=StreamingResponse)
async def get_log(
    job: str, request: Request, caller: Renter, attempt: Annotated[int | None, Query(ge=1, le=10**6)] = None
) -> Response:
    """The log of an attempt as it is now, the latest unless one is named."""
    services = services_of(request)
    async with services.db.connection() as connection:
        if not await views.project_has_job(connection, job, project=caller.project):
            raise _no_job(job)
        run = await views.run_of_attempt(connection, job, attempt=attempt)
    if run is None and attempt is not None:
        raise NotFound(f"the job {job} has no attempt {attempt}", code="no_attempt")
    if run is None:
        return Response(b"", media_type=BYTES)
    id, size = run
    return StreamingResponse(
        _log(services, id, size), media_type=BYTES, headers={"Content-Length": str(size)}
    )


@router.get("/{job}/events", response_class=EventSourceResponse)
async def get_events(
    job: str,
    request: Request,
    caller: Renter,
    last_event_id: Annotated[str | None, Header(max_length=60)] = None,
) -> Response:
    """What happens to the job, as a stream: `log`, `state`, `warning`, and `end`, after which it closes."""
    services = services_of(request)
    place = Place.parse(last_event_id)
    services.limits.check_followers(caller.key)
    async with services.db.connection() as connection:
        if not await views.project_has_job(connection, job, project=caller.project):
            raise _no_job(job)
    return EventSourceResponse(
        _counted(services, caller.key, follow(services, job, project=caller.project, place=place)),
        ping=KEEP_ALIVE_SECONDS,
        send_timeout=SEND_SECONDS_MAX,
        sep="\n",
    )


@router.get("/{job}/outputs", response_class=StreamingResponse)
async def get_outputs(job: str, request: Request, caller: Renter) -> Response:
    """The outputs of the last run that has some, as a tar.gz; `X-Perak-Digest` names their digest."""
    services = services_of(request)
    async with services.db.connection() as connection:
        if not await views.project_has_job(connection, job, project=caller.project):
            raise _no_job(job)
        digest = await views.outputs_of(connection, job)
    async with services.db.transaction() as tx:
        # A node names the digest: only what was uploaded for this project is shown to it.
        known = digest is not None and await tx.blobs.known(project=caller.project, digest=digest)
    if digest is None or not known:
        raise NotFound(
            f"the job {job} has no outputs; a job file names them under `outputs`, and they come when a "
            "run ends",
            code="no_outputs",
        )
    blob = await services.blobs.get(digest)
    headers = {"Content-Length": str(blob.size_bytes), "X-Perak-Digest": digest}
    return StreamingResponse(blob.chunks, media_type="application/gzip", headers=headers)


async def _counted(
    services: Services, key: str, events: AsyncGenerator[ServerSentEvent, None]
) -> AsyncIterator[ServerSentEvent]:
    with services.limits.following(key):
        async with contextlib.aclosing(events):
            async for event in events:
                yield event


async def _job(tx: PgTransaction, id: str, project: str) -> Job:
    job = await views.get_job(tx.connection, id, project=project)
    assert job is not None, "the use case found or made it"
    return job


async def _log(services: Services, run: str, size: int) -> AsyncIterator[bytes]:
    """The first `size` bytes of a run's log; no connection is held while the reader reads."""
    offset = 0
    while offset < size:
        part = await read_log(services, run, offset=offset, limit_bytes=min(READ_BYTES_MAX, size - offset))
        assert part, "the log is as long as its run says"
        offset += len(part)
        yield part


def _states(text: str) -> list[str]:
    states = [state for state in text.split(",") if state]
    if unknown := set(states) - JOB.states:
        raise InvalidInput(
            f"{sorted(unknown)[0]!r} is no state of a job; they are {', '.join(sorted(JOB.states))}"
        )
    return states


def _no_job(job: str) -> NotFound:
    return NotFound(f"there is no job {job[:80]} in this project; `perak ps -a` lists them")

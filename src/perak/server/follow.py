"""A job's events as a stream that can be cut anywhere and goes on exactly there.

The id of each event is the place after it, ``<attempt>.<offset>.<event>``: all up to that byte of that
attempt's log, and up to that step of the job's life, was sent.
"""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace

from pydantic import BaseModel
from sse_starlette import ServerSentEvent

from perak.adapters.db.views.jobs import EVENTS_PER_READ, Steps, get_job, read_steps
from perak.domain.errors import InvalidInput
from perak.server.logs import read_log
from perak.server.services import Services
from perak.wire.api import EndEvent, EventView, LogEvent

READ_BYTES_MAX = 256 * 1024
"""Read at once, and held for one follower: the next read waits until its connection took these."""
EVENT_BYTES_MAX = 64 * 1024
"""Log bytes in one event."""
LOOK_AGAIN_SECONDS = 2.0
"""Wake-ups are hints and may be lost; after this long a follower looks by itself."""
KEEP_ALIVE_SECONDS = 15
"""Comments this often keep proxies from cutting a quiet stream."""
SEND_SECONDS_MAX = 60.0
"""A follower that takes nothing for this long is cut off; it can come back and resume."""

_ID = re.compile(r"([0-9]{1,9})\.([0-9]{1,18})\.([0-9]{1,18})")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a follower is: `offset` bytes into the log of `attempt`, and after the step `event`."""

    attempt: int = 1
    offset: int = 0
    event: int = 0

    @classmethod
    def parse(cls, text: str | None) -> Place:
        """The place that an event's id names; the beginning without one. Raises InvalidInput."""
        if not text:
            return cls()
        match = _ID.fullmatch(text)
        if match is None:
            raise InvalidInput(
                f"{text[:60]!r} is not the id of an event of this stream; leave out Last-Event-ID"
            )
        return cls(max(1, int(match[1])), int(match[2]), int(match[3]))

    def __str__(self) -> str:
        return f"{self.attempt}.{self.offset}.{self.event}"


async def follow(
    services: Services, job: str, *, project: str, place: Place
) -> AsyncGenerator[ServerSentEvent, None]:
    """Everything that happened to the job since `place`, and what happens, until it has ended."""
    with services.hub.job(job) as wakeup:
        while not services.stopping.is_set():
            wakeup.clear()
            async with services.db.connection() as connection:
                steps = await read_steps(connection, job, after_event=place.event, from_attempt=place.attempt)
            read = await _read(services, steps, place)
            for event in read.events:
                yield event
            place = read.place
            if read.more:
                continue
            if steps.ended:
                yield await _end(services, job, project, place)
                return
            await wakeup.wait(LOOK_AGAIN_SECONDS)


@dataclass(frozen=True, slots=True)
class _Read:
    """What one read found, the place after it, and whether there is more by now."""

    events: list[ServerSentEvent]
    place: Place
    more: bool


async def _read(services: Services, steps: Steps, place: Place) -> _Read:
    """The next events in the order in which they happened, as far as one read goes.

    Log bytes carry no time. Those of an attempt come after the steps from before its run was made, and
    before the later ones.
    """
    found: list[ServerSentEvent] = []
    waiting = list(steps.events)
    for run in steps.runs:
        if run.attempt > place.attempt:
            place = Place(run.attempt, 0, place.event)
        while waiting and waiting[0].at <= run.created_at:
            place = _step(found, place, waiting.pop(0))
        if len(steps.events) == EVENTS_PER_READ and not waiting:
            return _Read(found, place, more=True)
        if place.offset < run.log_bytes:
            log = await read_log(services, run.id, offset=place.offset, limit_bytes=READ_BYTES_MAX)
            place = _log(found, place, log)
            if place.offset < run.log_bytes:
                return _Read(found, place, more=bool(log))
    while waiting:
        place = _step(found, place, waiting.pop(0))
    return _Read(found, place, more=len(steps.events) == EVENTS_PER_READ)


def _step(found: list[ServerSentEvent], place: Place, step: EventView) -> Place:
    place = replace(place, event=step.seq)
    found.append(_event("warning" if step.kind == "warning" else "state", step, place))
    return place


def _log(found: list[ServerSentEvent], place: Place, log: bytes) -> Place:
    for start in range(0, len(log), EVENT_BYTES_MAX):
        part = log[start : start + EVENT_BYTES_MAX]
        event = LogEvent(attempt=place.attempt, offset=place.offset, data=base64.b64encode(part).decode())
        place = replace(place, offset=place.offset + len(part))
        found.append(_event("log", event, place))
    return place


async def _end(services: Services, job: str, project: str, place: Place) -> ServerSentEvent:
    async with services.db.connection() as connection:
        view = await get_job(connection, job, project=project)
    assert view is not None, "the follower was let in because the project has the job"
    return _event("end", EndEvent(job=view), place)


def _event(name: str, model: BaseModel, place: Place) -> ServerSentEvent:
    return ServerSentEvent(model.model_dump_json(), event=name, id=str(place), sep="\n")

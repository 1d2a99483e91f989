"""The events of a job as they come, and how a stream that was cut goes on."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from pydantic import ValidationError

from perak.client import calls
from perak.client.calls import Reply
from perak.client.errors import ExchangeUnreachable, NotAnExchange, error_of
from perak.client.flows import RETRIED_STATUSES, Unreached
from perak.wire import api

if TYPE_CHECKING:
    from httpx_sse import ServerSentEvent

SILENCE_SECONDS_MAX = 50.0
"""Three of the exchange's keep-alive comments (every 15 s) and some slack; then the connection is dead."""
PAUSE_FIRST_SECONDS = 0.2
PAUSE_SECONDS_MAX = 5.0
PAUSES_IN_ALL_SECONDS_MAX = 300.0
"""An exchange that is updated is back within minutes; the job itself lives on without anyone following."""


# In all of them `id` is where the stream can be taken up again: `client.events(job, last_event_id=id)`.


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """Bytes of the job's log, in order; `offset` counts from the start of the attempt's log."""

    attempt: int
    offset: int
    data: bytes
    id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A step in the job's life."""

    event: api.EventView
    id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """Something the renter should know: a silent node, a wallet that runs low."""

    event: api.EventView
    id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The job has ended and is settled; nothing follows."""

    job: api.Job
    id: str | None = None


JobEvent: TypeAlias = Log | State | Warned | End


class Follower:
    """Where in a job's stream we are. It does no I/O: the clients feed it and obey its pauses."""

    def __init__(self, job_id: str, *, url: str, last_event_id: str | None = None) -> None:
        self.path = calls.events_path(job_id)
        self.ended = False
        self.last_event_id = last_event_id
        self._url = url
        self._next_offset: dict[int, int] = {}
        self._pause = PAUSE_FIRST_SECONDS
        self._paused_seconds = 0.0

    @property
    def headers(self) -> dict[str, str]:
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if self.last_event_id:
            headers["Last-Event-ID"] = self.last_event_id
        return headers

    def take(self, sse: ServerSentEvent) -> JobEvent | None:
        """The event that arrived, without log bytes that came before; None for a repetition or a new kind."""
        self.last_event_id = sse.id or self.last_event_id
        event = self._read(sse)
        self._pause, self._paused_seconds = PAUSE_FIRST_SECONDS, 0.0
        if isinstance(event, Log):
            return self._without_repetition(event)
        self.ended = isinstance(event, End)
        return event

    def pause_after(self, outcome: Reply | Unreached | None) -> float:
        """Seconds to wait before the next connection; None: the stream just ended early.

        Raises what there is to report when another try makes no sense.
        """
        if isinstance(outcome, Reply) and outcome.status not in RETRIED_STATUSES:
            raise error_of(calls.problem_of(outcome))
        final = isinstance(outcome, Unreached) and outcome.final
        if final or self._paused_seconds >= PAUSES_IN_ALL_SECONDS_MAX:
            if isinstance(outcome, Reply):
                raise error_of(calls.problem_of(outcome))
            raise ExchangeUnreachable(
                self._url, outcome.reason if outcome else "its stream keeps breaking off"
            )
        pause = self._pause
        self._paused_seconds += pause
        self._pause = min(2 * pause, PAUSE_SECONDS_MAX)
        return pause

    def _read(self, sse: ServerSentEvent) -> JobEvent | None:
        here = self.last_event_id
        try:
            match sse.event:
                case "log":
                    log = api.LogEvent.model_validate_json(sse.data)
                    return Log(
                        attempt=log.attempt, offset=log.offset, data=base64.b64decode(log.data), id=here
                    )
                case "state":
                    return State(event=api.EventView.model_validate_json(sse.data), id=here)
                case "warning":
                    return Warned(event=api.EventView.model_validate_json(sse.data), id=here)
                case "end":
                    return End(job=api.EndEvent.model_validate_json(sse.data).job, id=here)
                case _:
                    return None
        except (ValidationError, ValueError) as error:
            raise NotAnExchange(f"An event {sse.event!r} of the job can't be understood: {error}") from None

    def _without_repetition(self, log: Log) -> Log | None:
        known = self._next_offset.get(log.attempt, log.offset)
        end = log.offset + len(log.data)
        self._next_offset[log.attempt] = max(known, end)
        if log.offset >= known:
            return log
        if end <= known:
            return None
        return replace(log, offset=known, data=log.data[known - log.offset :])

"""Around every request: an id, a place in the log, a bound on its body, figures, and no error left bare."""

from __future__ import annotations

import asyncio
import secrets
import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from perak.domain.errors import DomainError, InvalidInput, TooLarge, TooSlow
from perak.server.logging import get_logger
from perak.server.metrics import Metrics
from perak.server.patience import Patience
from perak.server.problems import instance_of, of_domain, problem
from perak.wire.api import BODY_BYTES_MAX

UNBOUNDED_HERE = ("/v1/blobs/", "/v1/node/leases/")
"""Paths whose bodies are streams with limits of their own."""

_log = get_logger(__name__)


class Envelope:
    """ASGI middleware; the outermost one of ours."""

    def __init__(self, app: ASGIApp, metrics: Metrics, patience: Patience) -> None:
        self._app = app
        self._metrics = metrics
        self._patience = patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = _Request(scope, receive, send, self._patience)
        scope["perak.request_id"] = secrets.token_hex(8)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request=scope["perak.request_id"])
        try:
            if _is_text(scope):
                await self._app(scope, request.receive, request.send)
            else:
                request.refused = InvalidInput("the address of this request holds what is no text")
            await request.answer_if_refused()
        except Exception:
            _log.exception("request failed", method=scope["method"], path=scope["path"])
            await request.fail()
        finally:
            self._note(scope, request)

    def _note(self, scope: Scope, request: _Request) -> None:
        route = getattr(scope.get("route"), "path", "none")
        self._metrics.requests.labels(scope["method"], route, str(request.status)).inc()
        self._metrics.request_seconds.labels(route).observe(request.seconds)
        _log.debug(
            "request",
            method=scope["method"],
            path=scope["path"],
            status=request.status,
            seconds=request.seconds,
        )


def _is_text(scope: Scope) -> bool:
    """Whether path and query can be text in the database, which takes no NUL."""
    return "\0" not in scope["path"] and b"%00" not in scope["query_string"]


class _Request:
    """One request on its way: counts its body, and notes what was answered."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, patience: Patience) -> None:
        self._patience = patience
        self._scope = scope
        self._receive = receive
        self._send = send
        self._started_at = time.perf_counter()
        self._is_stream = scope["path"].startswith(UNBOUNDED_HERE)
        self._bytes = 0
        self._more_body = True
        self.refused: DomainError | None = None
        self.status = 0
        self.seconds = 0.0

    async def receive(self) -> Message:
        if not self._more_body:
            return await self._receive()  # What comes now is the end of the connection.
        try:
            async with asyncio.timeout(self._patience_left()):
                message = await self._receive()
        except TimeoutError:
            raise self._refuse(TooSlow("the request's body came too slowly; send it again")) from None
        self._more_body = bool(message.get("more_body", False))
        self._bytes += len(message.get("body", b""))
        if self._bytes > BODY_BYTES_MAX and not self._is_stream:
            too_large = f"a request's body may have {BODY_BYTES_MAX:,} bytes; put data into the work folder"
            raise self._refuse(TooLarge(too_large))
        return message

    def _patience_left(self) -> float:
        """Seconds in which the next piece of the body has to come."""
        patience, passed = self._patience, time.perf_counter() - self._started_at
        if not self._is_stream:
            return max(0.0, patience.body_seconds - passed)
        due = patience.body_seconds + self._bytes / patience.stream_bytes_per_second
        return max(0.0, min(patience.piece_seconds, due - passed))

    def _refuse(self, error: DomainError) -> DomainError:
        self.refused = error
        return error

    async def send(self, message: Message) -> None:
        if self.refused is not None and not self.status:
            return  # The framework says that the body can't be read; we know why, and answer instead.
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.seconds = time.perf_counter() - self._started_at
            headers = list(message.get("headers", ()))
            headers.append((b"x-request-id", self._scope["perak.request_id"].encode()))
            message = {**message, "headers": headers}
        await self._send(message)

    async def answer_if_refused(self) -> None:
        error, self.refused = self.refused, None
        if error is not None and not self.status:
            response = of_domain(error, instance=instance_of(self._scope))
            await response(self._scope, self._receive, self.send)

    async def fail(self) -> None:
        """Answer without any internals; the log has them under the same id."""
        if self.status:
            return  # The answer is on its way; the server cuts the connection.
        instance = instance_of(self._scope)
        detail = f"the exchange failed on this request; its operator finds why in the log under {instance}"
        response = problem(500, "internal", detail, instance=instance)
        await response(self._scope, self._receive, self.send)

"""Errors as problem+json (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import asyncpg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from perak.domain import errors
from perak.server.logging import get_logger
from perak.server.ratelimits import OverLimit
from perak.wire.api import Problem
from perak.wire.jobfile import JobFileError

MEDIA_TYPE = "application/problem+json"
ERRORS_SHOWN_MAX = 20

STATUS: dict[type[errors.DomainError], int] = {
    errors.InvalidInput: 400,
    errors.NotAuthenticated: 401,
    errors.InsufficientFunds: 402,
    errors.NotAllowed: 403,
    errors.NotFound: 404,
    errors.TooSlow: 408,
    errors.Conflict: 409,
    errors.TooLarge: 413,
    errors.TooManyRequests: 429,
    errors.Unavailable: 503,
}

DATABASE_AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,  # a connection of the pool that is closed
    asyncpg.OperatorInterventionError,  # it stops, or is just starting
    asyncpg.InsufficientResourcesError,  # its disk, its memory, its connections
    OSError,  # nothing listens at its socket
)
"""What a request meets while the database is killed, restarts or has no room. Nothing was changed then, or it
was and the repetition with the same idempotency key says so: either way the client tries again."""
DATABASE_RETRY_SECONDS = 1
DISK_RETRY_SECONDS = 5

_log = get_logger(__name__)


def add_handlers(app: FastAPI) -> None:
    """Answer every refusal of the application as a problem."""

    @app.exception_handler(errors.DomainError)
    async def refused(request: Request, error: errors.DomainError) -> Response:
        return of_domain(error, instance=instance_of(request.scope))

    for kind in DATABASE_AWAY:

        @app.exception_handler(kind)
        async def away(request: Request, error: Exception) -> Response:
            return _of_database(error, instance=instance_of(request.scope))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return _of_validation(error, instance=instance_of(request.scope))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        return _of_http(error, request, instance=instance_of(request.scope))


def of_domain(error: errors.DomainError, *, instance: str | None) -> Response:
    """The answer to an expected refusal."""
    status = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 400)
    headers = {}
    if isinstance(error, OverLimit):
        headers["Retry-After"] = str(error.retry_after)
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    places = [dict(place) for place in error.errors] if isinstance(error, JobFileError) else []
    return problem(
        status, error.code, error.detail, instance=instance, errors=places[:ERRORS_SHOWN_MAX], headers=headers
    )


def _of_database(error: Exception, *, instance: str | None) -> Response:
    """503, so that clients come back; an error of a file is no such thing, and is ours."""
    if isinstance(error, OSError) and error.filename is not None:
        raise error
    _log.error("a request met a database that is away", error=f"{type(error).__name__}: {error}")
    if isinstance(error, asyncpg.DiskFullError):
        detail = (
            "the exchange's disk is full and nothing was changed; its operator has to make room; try again"
        )
        code, seconds = "disk_full", DISK_RETRY_SECONDS
    else:
        detail = "the exchange's database is away or starting; send the same request again in a moment"
        code, seconds = "database_away", DATABASE_RETRY_SECONDS
    return problem(503, code, detail, instance=instance, headers={"Retry-After": str(seconds)})


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    instance: str | None,
    errors: list[dict[str, Any]] | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """A problem as a response."""
    body = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        instance=instance,
        errors=errors or [],
    )
    return Response(body.model_dump_json(), status_code=status, media_type=MEDIA_TYPE, headers=headers)


def instance_of(scope: Any) -> str | None:
    """What names this request here and in the log."""
    request_id = scope.get("perak.request_id")
    return request_id and f"urn:perak:request:{request_id}"


def _of_validation(error: RequestValidationError, *, instance: str | None) -> Response:
    places = [
        {"key": ".".join(str(part) for part in found["loc"]), "message": str(found["msg"])}
        for found in error.errors()[:ERRORS_SHOWN_MAX]
    ]
    detail = "; ".join(f"{place['key']}: {place['message']}" for place in places)
    return problem(400, "invalid_input", detail, instance=instance, errors=places)


def _of_http(error: HTTPException, request: Request, *, instance: str | None) -> Response:
    headers = dict(error.headers or {})
    if error.status_code == 404:
        detail = f"there is no route {request.url.path[:200]}; /openapi.json lists them all"
        return problem(404, "no_such_route", detail, instance=instance, headers=headers)
    if error.status_code == 405:
        detail = (
            f"{request.method} can't be used here; this route takes {headers.get('Allow', 'another method')}"
        )
        return problem(405, "method_not_allowed", detail, instance=instance, headers=headers)
    return problem(error.status_code, "refused", str(error.detail), instance=instance, headers=headers)

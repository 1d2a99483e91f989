"""What anyone may know of the exchange, and whether it is well."""

from __future__ import annotations

from importlib.metadata import version

import asyncpg
from fastapi import APIRouter, Depends, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from perak.adapters.db.upkeep import Counts, count, reachable
from perak.domain.errors import Unavailable
from perak.server.access import services_of
from perak.server.auth import AnyCaller, public
from perak.server.writes import reply
from perak.wire.api import Exchange, Me

router = APIRouter(tags=["exchange"])


@router.get("/v1/exchange", response_model=Exchange, dependencies=[Depends(public)])
async def get_exchange(request: Request) -> Response:
    """The exchange's name, currency, fee and authority."""
    identity = services_of(request).identity
    return reply(
        Exchange(
            name=identity.facts.name,
            version=version("perak"),
            currency=identity.facts.currency,
            fee_percent=identity.facts.fee_basis_points / 100,
            ca_fingerprint=identity.authority.fingerprint,
            ca_certificate=identity.authority.certificate_pem.decode(),
        )
    )


@router.get("/v1/me", response_model=Me)
async def get_me(caller: AnyCaller) -> Response:
    """Who the key belongs to."""
    return reply(
        Me(
            project=caller.project,
            project_name=caller.project_name,
            key=caller.key,
            key_name=caller.key_name,
            roles=sorted(caller.roles),  # type: ignore[arg-type]  # the schema knows no other roles
        )
    )


@router.get("/healthz", tags=["operations"], dependencies=[Depends(public)])
async def healthz() -> dict[str, str]:
    """The process is alive and answers."""
    return {"status": "ok"}


@router.get("/readyz", tags=["operations"], dependencies=[Depends(public)])
async def readyz(request: Request) -> dict[str, str]:
    """The database answers too."""
    try:
        async with services_of(request).db.connection() as connection:
            await reachable(connection)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        raise Unavailable("the database does not answer; the exchange goes on when it does") from None
    return {"status": "ok"}


@router.get("/metrics", tags=["operations"], dependencies=[Depends(public)])
async def metrics(request: Request) -> Response:
    """Figures for Prometheus."""
    services = services_of(request)
    counts: Counts | None = None
    try:
        async with services.db.connection() as connection:
            counts = await count(connection)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        pass  # Missing figures say so; a scrape that fails would hide the others.
    return Response(services.metrics.render(counts), media_type=CONTENT_TYPE_LATEST)

"""Secrets of the project: set, list by name, remove. No route gives a value back."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, Request
from starlette.responses import Response

from perak.adapters.db.database import PgTransaction
from perak.adapters.db.views import secrets as views
from perak.app.effects import Effect
from perak.domain.errors import Conflict, InvalidInput, NotFound, TooLarge
from perak.domain.secrets import PER_PROJECT_MAX, VALUE_BYTES_MAX, check_name
from perak.server import clock
from perak.server.access import services_of
from perak.server.auth import Renter
from perak.server.paging import AskedPage
from perak.server.secrets import sealed_for
from perak.server.trail import Deed, noted
from perak.server.writes import reply, write
from perak.wire.api import Page, Secret

router = APIRouter(prefix="/v1/secrets", tags=["secrets"])

OCTETS = {"requestBody": {"required": True, "content": {"application/octet-stream": {}}}}


@router.get("", response_model=Page[Secret])
async def list_secrets(request: Request, caller: Renter, paging: AskedPage) -> Response:
    """The names and times of the project's secrets."""
    async with services_of(request).db.connection() as connection:
        found = await views.list_secrets(
            connection, project=caller.project, after=paging.cursor, limit=paging.read
        )
    return reply(paging.page(Page[Secret], found))


@router.put("/{name}", response_model=Secret, openapi_extra=OCTETS)
async def set_secret(name: str, request: Request, caller: Renter) -> Response:
    """Set or replace a secret: the body is its value, as it is. Jobs that name it are given it.

    An Idempotency-Key is not looked at: a repetition does no harm, and with it a digest of the value would be
    kept, by which a short one could be guessed.
    """
    services = services_of(request)
    check_name(name)
    value = await _value(request)
    vault, now = services.identity.vault, clock.now()
    sealed = sealed_for(vault, value, owner=caller.project, name=name)

    async def action(tx: PgTransaction) -> tuple[Secret, Sequence[Effect]]:
        kept = await tx.secrets.put(
            project=caller.project, name=name, sealed=sealed, limit=PER_PROJECT_MAX, now=now
        )
        if not kept:
            raise Conflict(
                f"a project has {PER_PROJECT_MAX} secrets at most; remove one with `perak secret rm`"
            )
        return await _shown(tx, name, caller.project), ()

    deed = Deed(caller, "secret.set", subject=name)
    return reply(await noted(request, action, deed))


@router.delete("/{name}", response_model=Secret)
async def remove_secret(name: str, request: Request, caller: Renter) -> Response:
    """Remove a secret. Runs that were given it keep it; jobs that still wait for it fail, by its name."""

    async def action(tx: PgTransaction) -> tuple[Secret, Sequence[Effect]]:
        gone = await views.get_secret(tx.connection, name, project=caller.project)
        if gone is None or not await tx.secrets.remove(project=caller.project, name=name):
            raise NotFound(f"there is no secret {name[:80]} in this project; `perak secret ls` lists them")
        return gone, ()

    deed = Deed(caller, "secret.remove", subject=name)
    return await write(request, action, project=caller.project, deed=deed)


async def _shown(tx: PgTransaction, name: str, project: str) -> Secret:
    found = await views.get_secret(tx.connection, name, project=project)
    assert found is not None, "it was written in this transaction"
    return found


async def _value(request: Request) -> bytes:
    value = bytearray()
    async for chunk in request.stream():
        value += chunk
        if len(value) > VALUE_BYTES_MAX:
            raise TooLarge(
                f"a secret has {VALUE_BYTES_MAX:,} bytes at most; larger things belong into the work folder, "
                "encrypted"
            )
    if not value:
        raise InvalidInput("the value is empty; send it as the body of the request")
    return bytes(value)

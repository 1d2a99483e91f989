"""Devices and their passports: the owner by the device, a buyer by the digest that the owner gives away."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from perak.adapters.db.views import devices as views
from perak.app.records import Caller
from perak.domain.errors import NotFound
from perak.server.access import services_of
from perak.server.auth import Provider, public
from perak.server.writes import reply
from perak.wire.api.devices import NodeDevices, PassportView

router = APIRouter(prefix="/v1", tags=["devices"])


@router.get("/nodes/{node}/devices", response_model=NodeDevices)
async def get_node_devices(node: str, request: Request, caller: Provider) -> Response:
    """Grades of a node's devices, with the reasons."""
    async with services_of(request).db.connection() as connection:
        found = await views.node_devices(connection, node, project=_visible(caller))
    if found is None:
        raise NotFound(f"there is no node {node[:80]} in this project; `perak node ls` lists them")
    return reply(found)


@router.get("/devices/{device}/passport", response_model=PassportView)
async def get_passport(device: str, request: Request, caller: Provider) -> Response:
    """The passport of one's own device, with the evidence."""
    async with services_of(request).db.connection() as connection:
        found = await views.passport_of_device(connection, device, project=_visible(caller))
    if found is None:
        raise NotFound(
            f"no device {device[:80]} of this project has a passport; it gets one with its first inspection"
        )
    return reply(found)


@router.get("/passports/{digest}", response_model=PassportView, dependencies=[Depends(public)])
async def get_passport_by_digest(digest: str, request: Request) -> Response:
    """The same for whoever holds the digest of one of its entries, such as a buyer whom the owner gave it."""
    async with services_of(request).db.connection() as connection:
        found = await views.passport_by_digest(connection, digest)
    if found is None:
        raise NotFound(f"there is no passport with an entry {digest[:80]}; its owner knows the digests")
    return reply(found)


def _visible(caller: Caller) -> str | None:
    """The project whose devices a caller sees; None: an operator sees all."""
    return None if "operator" in caller.roles else caller.project

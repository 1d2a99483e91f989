"""Terminals, ssh sessions and ports of a job: a tunnel that the exchange relays and can't read."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from perak.adapters.db.views.tunnels import tunnel_target
from perak.domain.errors import NotFound
from perak.server.access import services_of
from perak.server.auth import Renter
from perak.server.trail import Deed, note
from perak.server.writes import reply
from perak.wire.api import Tunnel, TunnelCreate
from perak.wire.tunnel import CLIENT_PATH

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.post("/{job}/tunnels", status_code=201, response_model=Tunnel)
async def open_tunnel(job: str, body: TunnelCreate, request: Request, caller: Renter) -> Response:
    """Ask the node of a running job to dial in. The answer names the WebSocket to open, within seconds.

    A tunnel that nobody comes for is forgotten, so that asking twice is harmless.
    """
    services = services_of(request)
    async with services.db.connection() as connection:
        target = await tunnel_target(connection, job, project=caller.project)
    if target is None:
        raise NotFound(f"there is no job {job[:80]} in this project; `perak ps -a` lists them")
    tunnel = services.tunnels.open(target, caller, certificate=body.certificate)
    assert target.node is not None
    opened = Tunnel(
        id=tunnel.id,
        job=target.job,
        node=target.node,
        path=CLIENT_PATH.format(tunnel=tunnel.id),
        replica=services.replica_url,
    )
    async with services.db.transaction() as tx:
        await note(tx, request, Deed(caller, "tunnel.open", subject=target.job), made=opened)
    return reply(opened, status=201)

"""Work folders go up, and anything of the project's own comes down."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from perak.domain.errors import NotFound
from perak.server.access import services_of
from perak.server.auth import Renter
from perak.server.keeping import keep
from perak.server.writes import reply
from perak.wire.api import BlobView
from perak.wire.archive import WORKDIR_BYTES_MAX

PACKED_OVERHEAD_BYTES = 64 * 2**20
"""What cannot be compressed grows a little, and every file has a header in the archive."""

router = APIRouter(prefix="/v1/blobs", tags=["blobs"])


@router.head("/{digest}")
async def head_blob(digest: str, request: Request, caller: Renter) -> Response:
    """Whether the project has this blob: 200 or 404."""
    services = services_of(request)
    async with services.db.transaction() as tx:
        known = await tx.blobs.known(project=caller.project, digest=digest)
    size = await services.blobs.size(digest) if known else None
    return Response(status_code=404 if size is None else 200)


@router.put("/{digest}", response_model=BlobView, responses={201: {"model": BlobView}})
async def put_blob(digest: str, request: Request, caller: Renter) -> Response:
    """Store a packed work folder; its bytes must have the digest. 201 where it is new to the project."""
    services = services_of(request)
    size, new = await keep(
        services,
        project=caller.project,
        digest=digest,
        chunks=request.stream(),
        limit_bytes=WORKDIR_BYTES_MAX + PACKED_OVERHEAD_BYTES,
    )
    return reply(BlobView(digest=digest, size_bytes=size), status=201 if new else 200)


@router.get("/{digest}", response_class=StreamingResponse)
async def get_blob(digest: str, request: Request, caller: Renter) -> Response:
    """The blob's bytes."""
    services = services_of(request)
    async with services.db.transaction() as tx:
        if not await tx.blobs.known(project=caller.project, digest=digest):
            raise NotFound(f"this project has no blob {digest[:90]}; upload it with PUT")
    blob = await services.blobs.get(digest)
    headers = {"Content-Length": str(blob.size_bytes)}
    return StreamingResponse(blob.chunks, media_type="application/octet-stream", headers=headers)

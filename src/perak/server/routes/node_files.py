"""Files of a lease, for the node that holds it: its work folder down, its outputs up."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response, StreamingResponse

from perak.adapters.db.views.market import LeasedJob, leased_job, node_sign_key
from perak.app.refusals import tell_refusal
from perak.domain.errors import NotAuthenticated, NotFound
from perak.server import clock
from perak.server.access import services_of
from perak.server.auth import address_of
from perak.server.keeping import keep
from perak.server.secrets import unsealed
from perak.server.services import Services
from perak.server.writes import reply
from perak.wire import session as wire
from perak.wire.api import BlobView, SealedSecrets
from perak.wire.archive import OUTPUTS_BYTES_MAX
from perak.wire.sealing import seal
from perak.wire.signing import peek_payload, verify

PACKED_OVERHEAD_BYTES = 64 * 2**20
"""What cannot be compressed grows a little, and every file has a header in the archive."""


async def signing_node(request: Request) -> str:
    """The node that signed this request. Raises NotAuthenticated, or InvalidInput on a bad signature."""
    return await node_of(
        services_of(request),
        request.headers.get("authorization", ""),
        method=request.method,
        path=request.url.path,
        address=address_of(request),
    )


async def node_of(services: Services, authorization: str, *, method: str, path: str, address: str) -> str:
    """The node that signed this Authorization for this request. Raises as `signing_node` does."""
    scheme, _, jws = authorization.partition(" ")
    if scheme.lower() != "node" or not jws:
        raise NotAuthenticated("this is for nodes: send `Authorization: Node <jws>`")
    claimed = wire.decode_request(peek_payload(jws))
    if not claimed.node.isprintable():
        raise NotAuthenticated("the node in this signature is none")
    async with services.db.connection() as connection:
        key = await node_sign_key(connection, claimed.node)
    if key is None:
        services.limits.failure(address)
        services.limits.check_failures(address)
        raise NotAuthenticated(f"the node {claimed.node[:80]} is not enrolled here, or was revoked")
    proven = wire.decode_request(verify(jws, key, typ=wire.REQUEST_TYPE))
    if (proven.method, proven.path) != (method, path):
        raise NotAuthenticated(f"this signature is for {proven.method} {proven.path[:200]}")
    off_ms = abs(int(clock.now().timestamp() * 1000) - proven.at)
    if off_ms > wire.REQUEST_SECONDS_MAX * 1000:
        # Python refuses to write out huge integers.
        reason = (
            f"this signature is {min(off_ms // 1000, 10**12)} s off our clock and "
            f"{wire.REQUEST_SECONDS_MAX} s are taken; set the node's clock"
        )
        async with services.db.transaction() as tx:
            if (node := await tx.nodes.get(proven.node)) is not None:
                await tell_refusal(tx, node=node, subject="transfer", detail=reason, now=clock.now())
        raise NotAuthenticated(reason)
    return proven.node


SigningNode = Annotated[str, Depends(signing_node)]
router = APIRouter(prefix="/v1/node/leases", tags=["node"])


@router.get("/{lease}/workdir", response_class=StreamingResponse)
async def get_workdir(lease: str, request: Request, node: SigningNode) -> Response:
    """The packed work folder of the lease's job."""
    services = services_of(request)
    job = await _job(request, lease, node)
    if job.workdir_digest is None:
        raise NotFound(f"the job of the lease {lease[:80]} has no work folder", code="no_workdir")
    blob = await services.blobs.get(job.workdir_digest)
    headers = {"Content-Length": str(blob.size_bytes), "X-Perak-Digest": job.workdir_digest}
    return StreamingResponse(blob.chunks, media_type="application/gzip", headers=headers)


@router.get("/{lease}/inputs/{digest}", response_class=StreamingResponse)
async def get_input(lease: str, digest: str, request: Request, node: SigningNode) -> Response:
    """Outputs of an earlier job that the lease's job names; `Range: bytes=N-` goes on after a cut."""
    services = services_of(request)
    job = await _job(request, lease, node)
    async with services.db.transaction() as tx:
        known = digest in job.input_digests and await tx.blobs.known(project=job.project, digest=digest)
    if not known:
        raise NotFound(f"the job of the lease {lease[:80]} has no such input", code="no_input")
    size = await services.blobs.size(digest)
    offset = _offset(request.headers.get("range", ""))
    if size is None or offset >= max(size, 1):
        return Response(status_code=416, headers={"Content-Range": f"bytes */{size or 0}"})
    blob = await services.blobs.get(digest, offset=offset)
    headers = {"Content-Length": str(size - offset)}
    if offset:
        headers["Content-Range"] = f"bytes {offset}-{size - 1}/{size}"
    return StreamingResponse(
        blob.chunks, status_code=206 if offset else 200, media_type="application/gzip", headers=headers
    )


@router.put("/{lease}/outputs/{digest}", status_code=201, response_model=BlobView)
async def put_outputs(lease: str, digest: str, request: Request, node: SigningNode) -> Response:
    """Store the packed outputs of the lease's run; the report of its end names their digest."""
    services = services_of(request)
    job = await _job(request, lease, node)
    size, _ = await keep(
        services,
        project=job.project,
        node=node,
        digest=digest,
        chunks=request.stream(),
        limit_bytes=OUTPUTS_BYTES_MAX + PACKED_OVERHEAD_BYTES,
    )
    return reply(BlobView(digest=digest, size_bytes=size), status=201)


@router.get("/{lease}/secrets", response_model=SealedSecrets)
async def get_secrets(lease: str, request: Request, node: SigningNode) -> Response:
    """The secrets that the lease's job names, sealed to the node's key within this request."""
    services = services_of(request)
    job = await _job(request, lease, node)
    async with services.db.transaction() as tx:
        names = None if job.stopping else list(job.secrets)
        found = await tx.secrets.of_lease(project=job.project, job=job.job, names=names)
        seal_key = await tx.nodes.seal_key(node)
    values = {each.name: unsealed(services.identity.vault, each) for each in found}
    if names is not None and (missing := sorted(job.secrets - values.keys())):
        raise NotFound(f"the secret {missing[0]} was removed since the job was submitted", code="no_secret")
    exchange = services.context.exchange.name
    envelope = seal(values, to=seal_key, exchange=exchange, node=node, lease=lease)
    return reply(SealedSecrets(sealed=envelope.sealed))


def _offset(header: str) -> int:
    """Where ``bytes=N-`` begins; anything else asks for all (RFC 9110, 14.2)."""
    match = re.fullmatch(r"bytes=(\d{1,18})-", header)
    return int(match[1]) if match else 0


async def _job(request: Request, lease: str, node: str) -> LeasedJob:
    async with services_of(request).db.connection() as connection:
        job = await leased_job(connection, lease, node=node)
    if job is None:
        raise NotFound(f"the node {node} has no live lease {lease[:80]}; look at its list of leases again")
    return job

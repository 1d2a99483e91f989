"""Invite, enrol and look at nodes."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Sequence
from datetime import timedelta

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from perak.adapters.db.database import PgTransaction
from perak.adapters.db.reclaims import PgReclaims
from perak.adapters.db.views import market as views
from perak.app import nodes as use_cases
from perak.app.effects import Effect
from perak.app.records import Caller
from perak.app.refusals import tell_enrolment_refused
from perak.domain.errors import DomainError, InvalidInput, NotAuthenticated, NotFound
from perak.server import clock
from perak.server.access import services_of
from perak.server.auth import Provider, address_of, public, secret_hash
from perak.server.certificates import node_certificate
from perak.server.paging import AskedPage
from perak.server.trail import Deed
from perak.server.writes import reply, write
from perak.wire.api import Enrolled, Enrolment, Invite, InviteCreate, Node, NodeChange, Page
from perak.wire.invite import Invite as InviteToken

SECRET_BYTES = 32
PUBLIC_KEY_BYTES = 32

router = APIRouter(prefix="/v1", tags=["nodes"])


@router.get("/nodes", response_model=Page[Node])
async def list_nodes(request: Request, caller: Provider, paging: AskedPage) -> Response:
    """The provider's nodes; the operator sees all."""
    async with services_of(request).db.connection() as connection:
        nodes = await views.list_nodes(
            connection, project=_visible(caller), before=paging.cursor, limit=paging.read
        )
    return reply(paging.page(Page[Node], nodes))


@router.get("/nodes/{node}", response_model=Node)
async def get_node(node: str, request: Request, caller: Provider) -> Response:
    async with services_of(request).db.connection() as connection:
        found = await views.get_node(connection, node, project=_visible(caller))
    if found is None:
        raise NotFound(f"there is no node {node[:80]} in this project; `perak node ls` lists them")
    return reply(found)


@router.patch("/nodes/{node}", response_model=Node)
async def set_node(node: str, body: NodeChange, request: Request, caller: Provider) -> Response:
    """Pause, drain or resume a node. Runs that live go on to their end; a drained node has none left.

    Drained to a time, what has not ended by then is stopped; that is no sooner than its offer promises.
    """

    async def action(tx: PgTransaction) -> tuple[Node, Sequence[Effect]]:
        effects = await use_cases.set_mode(
            tx,
            PgReclaims(tx.connection),
            node_id=node,
            project=_visible(caller),
            mode=body.mode,
            within_seconds=body.within_seconds,
            now=clock.now(),
        )
        return await _shown(tx, node), effects

    deed = Deed(caller, f"node.{body.mode}", subject=node)
    return await write(request, action, project=caller.project, deed=deed)


@router.delete("/nodes/{node}", response_model=Node)
async def revoke_node(node: str, request: Request, caller: Provider) -> Response:
    """Take a node's identity for good. Its runs are fenced after their grace, and run again elsewhere."""

    async def action(tx: PgTransaction) -> tuple[Node, Sequence[Effect]]:
        effects = await use_cases.revoke(tx, node_id=node, project=_visible(caller), now=clock.now())
        return await _shown(tx, node), effects

    deed = Deed(caller, "node.revoke", subject=node)
    return await write(request, action, project=caller.project, deed=deed)


async def _shown(tx: PgTransaction, node: str) -> Node:
    found = await views.get_node(tx.connection, node, project=None)
    assert found is not None, "the use case found it"
    return found


@router.post("/invites", status_code=201, response_model=Invite)
async def invite(body: InviteCreate, request: Request, caller: Provider) -> Response:
    """Make an invite into the provider's project; its token is shown once."""
    services = services_of(request)
    secret = secrets.token_urlsafe(SECRET_BYTES)
    token = InviteToken(
        url=services.url, fingerprint=services.identity.authority.fingerprint, secret=secret
    ).encode()

    async def action(tx: PgTransaction) -> tuple[Invite, Sequence[Effect]]:
        id, expires_at = await use_cases.invite(
            tx,
            caller=caller,
            secret_hash=secret_hash(secret),
            uses=body.uses,
            ttl_seconds=body.ttl_seconds,
            new_id=services.context.new_id,
            now=clock.now(),
        )
        return Invite(id=id, token=token, expires_at=expires_at, uses=body.uses), ()

    deed = Deed(caller, "invite.create")
    return await write(request, action, project=caller.project, status=201, secret=True, deed=deed)


@router.post("/enrol", status_code=201, response_model=Enrolled, dependencies=[Depends(public)])
async def enrol(body: Enrolment, request: Request) -> Response:
    """Enrol a node by an invite. The same key and invite again get the same node, so it may be repeated."""
    services = services_of(request)
    hashed, now = secret_hash(body.secret), clock.now()
    sign_key, seal_key = _public_key(body.sign_key), _public_key(body.seal_key)

    async def action(tx: PgTransaction) -> tuple[Enrolled, Sequence[Effect]]:
        earlier = await views.enrolled_with(tx.connection, secret_hash=hashed, sign_key=sign_key)
        if earlier is not None:
            return _enrolled(earlier[0], services.identity.facts.name, earlier[1]), ()
        id = services.context.new_id("node")
        made = node_certificate(
            services.identity.authority,
            node=id,
            sign_key=sign_key,
            now=now,
            lifetime=timedelta(seconds=services.periods.certificate_seconds),
        )
        node = use_cases.NewNode(
            id=id,
            name=body.name,
            sign_key=sign_key,
            seal_key=seal_key,
            certificate_chain=made.chain_pem,
            certificate_expires_at=made.expires_at,
        )
        await use_cases.enrol(tx, node=node, secret_hash=hashed, now=now)
        return _enrolled(id, services.identity.facts.name, made.chain_pem), ()

    try:
        return reply(await services.commit(action), status=201)
    except DomainError as error:
        async with services.db.transaction() as tx:
            await tell_enrolment_refused(tx, secret_hash=hashed, name=body.name, detail=error.detail, now=now)
        if not isinstance(error, NotAuthenticated):
            raise
        services.limits.failure(address_of(request))
        services.limits.check_failures(address_of(request))
        raise


def _enrolled(node: str, exchange: str, chain: str) -> Enrolled:
    return Enrolled(node=node, exchange=exchange, certificate_chain=chain)


def _visible(caller: Caller) -> str | None:
    """The project whose nodes the caller sees; None: of all."""
    return None if "operator" in caller.roles else caller.project


def _public_key(text: str) -> bytes:
    try:
        key = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != PUBLIC_KEY_BYTES:
        raise InvalidInput(f"a public key is {PUBLIC_KEY_BYTES} bytes in base64url; this is {text!r}")
    return key

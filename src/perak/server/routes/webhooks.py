"""Webhooks of a provider: add, look, test, remove."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, Request
from starlette.responses import Response

from perak.adapters.db.database import PgTransaction
from perak.adapters.db.views import webhooks as views
from perak.app.alerts import EVENTS, TEST_EVENT, body
from perak.app.effects import Effect
from perak.domain.errors import Conflict, InvalidInput, NotFound
from perak.server import clock
from perak.server.access import services_of
from perak.server.auth import Provider
from perak.server.paging import AskedPage
from perak.server.trail import Deed
from perak.server.webhooks import check_url, new_secret
from perak.server.writes import reply, write
from perak.wire.api import Page, Webhook, WebhookCreate, WebhookCreated, WebhookDetail

WEBHOOKS_MAX = 10
"""Of one project; each one multiplies what is sent."""

router = APIRouter(prefix="/v1", tags=["webhooks"])


@router.get("/webhooks", response_model=Page[Webhook])
async def list_webhooks(request: Request, caller: Provider, paging: AskedPage) -> Response:
    async with services_of(request).db.connection() as connection:
        found = await views.list_webhooks(
            connection, project=caller.project, before=paging.cursor, limit=paging.read
        )
    return reply(paging.page(Page[Webhook], found))


@router.post("/webhooks", status_code=201, response_model=WebhookCreated)
async def add_webhook(new: WebhookCreate, request: Request, caller: Provider) -> Response:
    """Tell this address of the project's nodes. The secret that signs the messages is shown once."""
    services = services_of(request)
    check_url(new.url, to_private=services.webhook_sender.to_private)
    events = list(dict.fromkeys(new.events or EVENTS))
    if unknown := [event for event in events if event not in EVENTS]:
        raise InvalidInput(f"there is no event {unknown[0][:40]!r}; there are: {', '.join(EVENTS)}")
    id, secret, now = services.context.new_id("webhook"), new_secret(), clock.now()

    async def action(tx: PgTransaction) -> tuple[WebhookCreated, Sequence[Effect]]:
        inserted = await tx.webhooks.insert(
            id=id,
            project=caller.project,
            url=new.url,
            events=events,
            secret_sealed=services.identity.vault.seal(secret.encode()),
            limit=WEBHOOKS_MAX,
            now=now,
        )
        if not inserted:
            raise Conflict(
                f"a project has {WEBHOOKS_MAX} webhooks at most; remove one with `perak webhook rm`"
            )
        return WebhookCreated(id=id, url=new.url, events=events, created_at=now, secret=secret), ()

    deed = Deed(caller, "webhook.add")
    return await write(request, action, project=caller.project, status=201, secret=True, deed=deed)


@router.get("/webhooks/{webhook}", response_model=WebhookDetail)
async def get_webhook(webhook: str, request: Request, caller: Provider) -> Response:
    """A webhook with its latest deliveries."""
    async with services_of(request).db.connection() as connection:
        return reply(await _own(connection, webhook, caller.project))


@router.post("/webhooks/{webhook}/test", response_model=WebhookDetail)
async def test_webhook(webhook: str, request: Request, caller: Provider) -> Response:
    """Send a message of the type webhook.test."""
    now = clock.now()

    async def action(tx: PgTransaction) -> tuple[WebhookDetail, Sequence[Effect]]:
        found = await _own(tx.connection, webhook, caller.project)
        said = body(TEST_EVENT, {"webhook": found.id, "detail": "this is a test"}, now=now)
        await tx.webhooks.enqueue_one(found.id, event=TEST_EVENT, body=said, now=now)
        return await _own(tx.connection, webhook, caller.project), ()

    return await write(request, action, project=caller.project)


@router.delete("/webhooks/{webhook}", response_model=WebhookDetail)
async def remove_webhook(webhook: str, request: Request, caller: Provider) -> Response:
    """Remove a webhook with what waits for it."""

    async def action(tx: PgTransaction) -> tuple[WebhookDetail, Sequence[Effect]]:
        found = await _own(tx.connection, webhook, caller.project)
        await tx.webhooks.delete(webhook, project=caller.project)
        return found, ()

    deed = Deed(caller, "webhook.remove", subject=webhook)
    return await write(request, action, project=caller.project, deed=deed)


async def _own(connection: object, webhook: str, project: str) -> WebhookDetail:
    found = await views.get_webhook(connection, webhook, project=project)
    if found is None:
        raise NotFound(f"there is no webhook {webhook[:80]} in this project; `perak webhook ls` lists them")
    return found

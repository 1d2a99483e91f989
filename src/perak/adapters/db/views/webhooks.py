"""Webhooks as their project sees them. Their secrets are shown nowhere."""

from __future__ import annotations

from typing import Any

from perak.wire.api import DeliveryView, Webhook, WebhookDetail

DELIVERIES_SHOWN = 50
WEBHOOK = "select id, url, events, created_at from webhook"


async def list_webhooks(connection: Any, *, project: str, before: str | None, limit: int) -> list[Webhook]:
    rows = await connection.fetch(
        f"{WEBHOOK} where project_id = $1 and ($2::text is null or id < $2) order by id desc limit $3",
        project,
        before,
        limit,
    )
    return [Webhook(**row) for row in rows]


async def get_webhook(connection: Any, id: str, *, project: str) -> WebhookDetail | None:
    """The webhook with its latest deliveries."""
    row = await connection.fetchrow(f"{WEBHOOK} where id = $1 and project_id = $2", id, project)
    if row is None:
        return None
    deliveries = await connection.fetch(
        """select 'msg_' || id as id, event, state, attempts, answer, created_at,
            case when state = 'waiting' then next_at end as next_at, ended_at
        from webhook_delivery where webhook_id = $1 order by webhook_delivery.id desc limit $2""",
        id,
        DELIVERIES_SHOWN,
    )
    return WebhookDetail(**row, deliveries=[DeliveryView(**each) for each in deliveries])

"""Webhooks and their deliveries: a queue that the replicas share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

WAITING_MAX = 1_000
"""Messages that wait for one receiver; beyond it new ones are dropped, as it is away for hours already."""

ENQUEUE = """
insert into webhook_delivery (webhook_id, event, node_id, body, subject, next_at, created_at)
select webhook.id, $2, $3, $4, $8, $6, $6 from webhook
where project_id = $1 and $2 = any (events)
    and ($5::timestamptz is null or not exists (
        select from webhook_delivery earlier
        where earlier.webhook_id = webhook.id and event = $2 and node_id is not distinct from $3
            and subject is not distinct from $8 and created_at > $5))
    and (select count(*) from webhook_delivery where webhook_id = webhook.id and state = 'waiting') < $7
"""

# `next_at` goes ahead before anything is sent: where the replica dies meanwhile, another one sends it then.
CLAIM = """
update webhook_delivery claimed set attempts = attempts + 1, next_at = $2
from webhook
where webhook.id = claimed.webhook_id and claimed.id in (
    select id from webhook_delivery where state = 'waiting' and next_at <= $1
    order by next_at limit $3 for update skip locked)
returning claimed.id, claimed.body, claimed.attempts, webhook.url, webhook.secret_sealed
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A message to send now; `attempts` counts this one too."""

    id: int
    body: str
    attempts: int
    url: str
    secret_sealed: bytes


class PgWebhooks:
    def __init__(self, connection: Any) -> None:
        self._db = connection

    async def insert(
        self,
        *,
        id: str,
        project: str,
        url: str,
        events: Sequence[str],
        secret_sealed: bytes,
        limit: int,
        now: datetime,
    ) -> bool:
        await self._db.execute("select from project where id = $1 for no key update", project)
        inserted = await self._db.fetchval(
            """insert into webhook (id, project_id, url, events, secret_sealed, created_at)
            select $1, $2, $3, $4, $5, $6 where (select count(*) from webhook where project_id = $2) < $7
            returning true""",
            id,
            project,
            url,
            list(events),
            secret_sealed,
            now,
            limit,
        )
        return bool(inserted)

    async def delete(self, id: str, *, project: str) -> bool:
        deleted = await self._db.execute("delete from webhook where id = $1 and project_id = $2", id, project)
        return bool(deleted == "DELETE 1")

    async def enqueue(
        self,
        *,
        project: str,
        event: str,
        node: str | None,
        subject: str | None,
        body: str,
        unless_since: datetime | None,
        now: datetime,
    ) -> None:
        await self._db.execute(ENQUEUE, project, event, node, body, unless_since, now, WAITING_MAX, subject)

    async def enqueue_one(self, id: str, *, event: str, body: str, now: datetime) -> None:
        await self._db.execute(
            """insert into webhook_delivery (webhook_id, event, body, next_at, created_at)
            values ($1, $2, $3, $4, $4)""",
            id,
            event,
            body,
            now,
        )


async def claim(connection: Any, *, now: datetime, until: datetime, limit: int) -> list[Delivery]:
    """Take messages that are due; nobody else sends them before `until`."""
    return [Delivery(**row) for row in await connection.fetch(CLAIM, now, until, limit)]


async def settle(
    connection: Any, id: int, *, state: str, answer: str, next_at: datetime, now: datetime
) -> None:
    """Note how an attempt went; `next_at` matters while it is still waiting."""
    await connection.execute(
        """update webhook_delivery set state = $2, answer = $3, next_at = $4,
            ended_at = case when $2 = 'waiting' then null else $5::timestamptz end
        where id = $1""",
        id,
        state,
        answer,
        next_at,
        now,
    )


async def forget_deliveries(connection: Any, *, before: datetime, limit: int) -> int:
    """Delete ended deliveries from before a time, some at once; how many."""
    done: str = await connection.execute(
        """delete from webhook_delivery where id in (
            select id from webhook_delivery where ended_at < $1 limit $2)""",
        before,
        limit,
    )
    return int(done.rpartition(" ")[2])

"""Replies to requests that came with an idempotency key."""

from __future__ import annotations

from typing import Any

from perak.app.records import IdempotentReply
from perak.domain.errors import Conflict


class PgIdempotency:
    def __init__(self, connection: Any) -> None:
        self._db = connection

    async def begin(self, *, project: str, key: str, fingerprint: bytes) -> IdempotentReply | None:
        claimed = await self._db.fetchval(
            """insert into idempotency (project_id, key, fingerprint) values ($1, $2, $3)
            on conflict do nothing returning true""",
            project,
            key,
            fingerprint,
        )
        if claimed:
            return None
        row = await self._db.fetchrow(
            "select fingerprint, status, body from idempotency where project_id = $1 and key = $2",
            project,
            key,
        )
        if row is None:
            raise Conflict("an earlier request with this idempotency key is being undone; try again")
        if row["fingerprint"] != fingerprint:
            raise Conflict(
                "this idempotency key was used for another request; use a new one for each",
                code="idempotency_conflict",
            )
        assert row["status"] is not None, "a claim commits together with its reply"
        return IdempotentReply(status=row["status"], body=row["body"])

    async def finish(self, *, project: str, key: str, reply: IdempotentReply) -> None:
        await self._db.execute(
            "update idempotency set status = $3, body = $4 where project_id = $1 and key = $2",
            project,
            key,
            reply.status,
            reply.body,
        )

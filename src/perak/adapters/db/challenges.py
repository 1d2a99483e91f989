"""Challenges that nodes were given, what they answered, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from perak.app.records import OpenChallenge, Provable
from perak.domain.hardware.challenge import Answer, Challenge, DeviceProof
from perak.domain.hardware.inspection import PROOF_RATE

PROVABLE = """
select node.id, array_agg(device.uuid order by device.uuid) as devices, array_agg(
    (select (checked ->> 'value')::float from inspection,
        jsonb_array_elements(inspection.document::jsonb -> 'checks') as checked
    where inspection.device = device.uuid and inspection.node_id = node.id
        and checked ->> 'name' = $2 and checked ->> 'status' = 'passed'
    order by inspection.ended_at desc limit 1) order by device.uuid
) as rates
from node join offer on offer.node_id = node.id join device on device.offer_id = offer.id
where node.id = any($1) and node.state = 'online'
group by node.id
having bool_and(device.lease_id is null)
"""

ANSWER = """
update challenge set
    proofs = proofs || $3::jsonb,
    problem = coalesce(problem, $4::text),
    answered_at = case
        when $4::text is not null or jsonb_array_length(proofs || $3::jsonb) >= cardinality(devices)
            then $5::timestamptz
    end
where id = $1 and node_id = $2 and answered_at is null and judged_at is null
"""

OPEN = """
select * from challenge
where judged_at is null and (answered_at is not null or asked_at < $1)
order by asked_at limit 1 for update skip locked
"""

_proofs = msgspec.json.Decoder(tuple[DeviceProof, ...])


class PgChallenges:
    def __init__(self, connection: Any) -> None:
        self._db = connection

    async def provable(self, nodes: Sequence[str]) -> list[Provable]:
        rows = await self._db.fetch(PROVABLE, list(nodes), PROOF_RATE)
        return [
            Provable(
                node=row["id"],
                devices=tuple(row["devices"]),
                steps_per_second=tuple(None if each is None else each * 1e9 for each in row["rates"]),
            )
            for row in rows
        ]

    async def ask(
        self, challenge: Challenge, *, node: str, allowed_seconds: float | None, now: datetime
    ) -> None:
        await self._db.execute(
            """insert into challenge (id, node_id, nonce, devices, leaves, steps, allowed_seconds, asked_at)
            values ($1, $2, $3, $4, $5, $6, $7, $8)""",
            challenge.id,
            node,
            challenge.nonce,
            list(challenge.devices),
            challenge.leaves,
            challenge.steps,
            allowed_seconds,
            now,
        )

    async def answer(self, answer: Answer, *, node: str, now: datetime) -> None:
        proofs = msgspec.to_builtins(answer.proofs)
        await self._db.execute(ANSWER, answer.challenge, node, proofs, answer.problem or None, now)

    async def open(self, *, asked_before: datetime) -> OpenChallenge | None:
        row = await self._db.fetchrow(OPEN, asked_before)
        if row is None:
            return None
        answered_at: datetime | None = row["answered_at"]
        return OpenChallenge(
            node=row["node_id"],
            challenge=Challenge(
                id=row["id"],
                nonce=row["nonce"],
                devices=tuple(row["devices"]),
                leaves=row["leaves"],
                steps=row["steps"],
            ),
            allowed_seconds=row["allowed_seconds"],
            answer=Answer(
                challenge=row["id"],
                proofs=_proofs.decode(msgspec.json.encode(row["proofs"])),
                problem=row["problem"] or "",
            ),
            elapsed_seconds=None if answered_at is None else (answered_at - row["asked_at"]).total_seconds(),
        )

    async def judge(self, id: str, *, problems: Sequence[str], unmet: bool, now: datetime) -> bool:
        judged = await self._db.fetchval(
            """update challenge set judged_at = $2, problems = $3, unmet = $4, proofs = '[]'
            where id = $1 and judged_at is null returning id""",
            id,
            now,
            list(problems),
            unmet,
        )
        return judged is not None

    async def unmet(self, device: str, *, node: str) -> tuple[str, ...]:
        found = await self._db.fetchrow(
            """select unmet, problems from challenge
            where node_id = $1 and devices @> array[$2::text] and unmet is not null
            order by judged_at desc limit 1""",
            node,
            device,
        )
        return tuple(found["problems"]) if found is not None and found["unmet"] else ()

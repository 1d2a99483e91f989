"""Devices as their owners see them, and passports."""

from __future__ import annotations

from typing import Any

import msgspec

from perak.domain.hardware.standing import Standing
from perak.wire.api.devices import NodeDevices, PassportView, StandingView

ENTRIES_MAX = 10_000
"""Of one passport in one answer: a wipe after every lease, for years."""
EVIDENCE_MAX = 200
"""Reports of inspections and wipes that come along, the newest ones: some 20 kB each after a soak."""

_decoder = msgspec.json.Decoder(Standing)


async def node_devices(connection: Any, node: str, *, project: str | None) -> NodeDevices | None:
    """What is known of a node's devices; `project` None: of whosever it is. None: there is no such node."""
    found = await connection.fetchval(
        "select id from node where id = $1 and ($2::text is null or project_id = $2)", node, project
    )
    if found is None:
        return None
    rows = await connection.fetch(
        """select device, model, rejected, document::text as document from standing where node_id = $1
        order by device""",
        node,
    )
    return NodeDevices(node=node, devices=[_standing(row) for row in rows])


async def passport_of_device(connection: Any, device: str, *, project: str | None) -> PassportView | None:
    """The passport of a device that a node of the project has now, or had."""
    owned = await connection.fetchval(
        "select exists (select from standing where device = $1 and ($2::text is null or project_id = $2))",
        device,
        project,
    )
    return await _passport(connection, device) if owned else None


async def passport_by_digest(connection: Any, digest: str) -> PassportView | None:
    """The passport that has an entry of this digest."""
    device = await connection.fetchval("select device from passport_entry where digest = $1", digest)
    return None if device is None else await _passport(connection, device)


async def _passport(connection: Any, device: str) -> PassportView | None:
    entries = await connection.fetch(
        "select credential from passport_entry where device = $1 order by seq limit $2", device, ENTRIES_MAX
    )
    if not entries:
        return None
    evidence = await connection.fetch(
        """select digest, jws from (
            select digest, jws, ended_at from inspection where device = $1
            union all select digest, jws, ended_at from wipe where device = $1
        ) reports order by ended_at desc limit $2""",
        device,
        EVIDENCE_MAX,
    )
    return PassportView(
        device=device,
        entries=[row["credential"] for row in entries],
        evidence={row["digest"]: row["jws"] for row in evidence},
    )


def _standing(row: Any) -> StandingView:
    found = _decoder.decode(row["document"])
    return StandingView(
        device=row["device"],
        model=row["model"],
        label="rejected" if row["rejected"] else found.label,
        grade=found.grade,
        rejected=row["rejected"],
        provisional=found.provisional,
        ecc=found.ecc,
        score=found.score,
        coverage=found.coverage,
        reasons=list(found.reasons),
        fp32_tflops=found.fp32_tflops,
        fp16_tflops=found.fp16_tflops,
        bandwidth_gbs=found.bandwidth_gbs,
        failures_per_hour=found.failures_per_hour,
        passport=found.passport,
        inspected_at_ms=found.inspected_at_ms,
    )

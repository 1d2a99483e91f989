"""After a restore: what was live in the back-up ends, by the evidence that others kept, or fenced."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from perak.app.context import Context
from perak.app.effects import Effect
from perak.app.ports import Transaction
from perak.app.reports import apply_reports
from perak.app.settlement import settle_run
from perak.app.watch import lost_end
from perak.domain.lifecycle import LEASE_LIVE
from perak.domain.report import Report

RESTORED = "the exchange was restored to a state in which this run still lived"


async def settle_by_evidence(
    tx: Transaction, *, report: Report, context: Context, now: datetime
) -> list[Effect]:
    """Apply a report that the node had signed, that was acknowledged, and that the back-up lacks.

    It takes the node's next number here; the agent agrees on its numbers when it returns. The caller has
    verified the signature. Raises what a report of today would.
    """
    node = await tx.nodes.lock(report.node)
    if node is None:
        return []
    again = replace(report, seq=node.report_seq + 1)
    _, effects = await apply_reports(tx, node_id=report.node, reports=[again], context=context, now=now)
    return effects


async def end_live_run(tx: Transaction, *, run: str, context: Context, now: datetime) -> list[Effect]:
    """Fence a run that lived in the back-up: its node may have ended it and forgotten it since.

    It is billed to the last signed evidence that the back-up has, and its job is run again.
    """
    at = await tx.leases.of_run(run)
    if at is None or at.lease.state not in LEASE_LIVE:
        return []
    return await settle_run(tx, at, lost_end(at, now, detail=RESTORED), context=context, now=now)

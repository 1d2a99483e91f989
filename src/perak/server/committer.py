"""Reports of several nodes that wait at the same moment are applied in one transaction.

A transaction costs the database more than what most reports write in it. Nobody waits for a group to fill:
reports that come alone are applied at once, and what comes meanwhile is the next group. Should a group fail,
each node's reports are applied in a transaction of their own, so that no node pays for another's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from perak.adapters.db.database import PgTransaction
from perak.app.context import Context
from perak.app.effects import Effect
from perak.app.reports import NodeReports, apply_group
from perak.domain.errors import DomainError
from perak.domain.report import Report
from perak.server import clock
from perak.server.logging import get_logger
from perak.server.transact import Transact

GROUP_NODES_MAX = 8
"""More nodes in one transaction save little of its cost, and each waits for all."""
GROUP_BYTES_MAX = 256 * 1024
"""Signed text in one transaction beyond the first node's: ends of runs have 5 kB, and long logs go alone."""
GROUPS_AT_ONCE = 3
"""While the database works for one group, this process composes and signs another's receipts."""

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Waiting:
    reports: NodeReports
    size_bytes: int
    answer: asyncio.Future[int]


class ReportCommitter:
    """Applies the reports of one replica's nodes."""

    def __init__(self, commit: Transact, context: Context) -> None:
        self._commit = commit
        self._context = context
        self._waiting: list[_Waiting] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._working = 0

    async def __call__(self, node: str, reports: Sequence[Report]) -> int:
        """Apply a node's reports; the number of the last one that is durable. Raises as `apply_reports`."""
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        size = sum(len(report.jws) for report in reports)
        self._waiting.append(_Waiting(NodeReports(node, reports), size, answer))
        if self._working < GROUPS_AT_ONCE:
            self._working += 1
            task = asyncio.create_task(self._work())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await answer

    async def _work(self) -> None:
        try:
            while self._waiting:
                group = self._next_group()
                for one, answer in zip(group, await self._applied(group), strict=True):
                    if one.answer.done():
                        continue  # The session is gone.
                    if isinstance(answer, Exception):
                        one.answer.set_exception(answer)
                    else:
                        one.answer.set_result(answer)
        finally:
            # In the very step that saw that nothing waits: whoever comes after it starts another.
            self._working -= 1

    def _next_group(self) -> list[_Waiting]:
        """The first that waits, and with it those that fit. A node whose session is new may wait twice."""
        group, rest, nodes, size = list[_Waiting](), list[_Waiting](), set[str](), 0
        for one in self._waiting:
            fits = len(group) < GROUP_NODES_MAX and size + one.size_bytes <= GROUP_BYTES_MAX
            if not group or (fits and one.reports.node not in nodes):
                group.append(one)
                nodes.add(one.reports.node)
                size += one.size_bytes
            else:
                rest.append(one)
        self._waiting = rest
        return group

    async def _applied(self, group: Sequence[_Waiting]) -> Sequence[int | Exception]:
        try:
            return await self._apply([one.reports for one in group])
        except Exception as error:
            if len(group) == 1:
                return [error]
            nodes = [one.reports.node for one in group]
            _log.warning("reports of several nodes are applied one by one", nodes=nodes, error=str(error))
        alone = await asyncio.gather(*(self._applied([one]) for one in group))
        return [answer for (answer,) in alone]

    async def _apply(self, group: Sequence[NodeReports]) -> list[int | DomainError]:
        async def action(tx: PgTransaction) -> tuple[list[int | DomainError], Sequence[Effect]]:
            return await apply_group(tx, group=group, context=self._context, now=clock.now())

        return await self._commit(action)

"""The reports of one session: those that wait together are applied in one transaction, in their order.

Reports of other nodes that wait at that moment are in the same one (`committer`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from perak.app.reports import pass_over
from perak.domain.errors import Conflict, DomainError, InvalidInput, NotAuthenticated, Unavailable
from perak.domain.plausible import Implausible
from perak.domain.report import Evidence, Report, RunExited
from perak.server import clock
from perak.server.evidence import EvidenceCheck
from perak.server.hello import Refused
from perak.server.logging import get_logger
from perak.server.services import Services
from perak.wire import session as wire
from perak.wire.signing import verify

BATCH_MAX = 64
BATCH_BYTES_MAX = 2 * 2**20
"""Reports in one transaction, and how much of them as signed text: some 16 full log chunks."""
WAITING_BYTES_MAX = 2 * 2**20
"""Signed text of one node that waits here; an agent may send 30 MB ahead, which thousands must not."""
REVOKED = "this node was revoked by its owner; enrol the machine again, with an empty --state-dir"

_log = get_logger(__name__)


class Intake:
    """What a node has reported and what of it is applied. `acknowledged`: the last one that is durable."""

    __slots__ = (
        "_bytes",
        "_node",
        "_services",
        "_sign_key",
        "_waiting",
        "acknowledged",
        "evidence",
    )

    def __init__(
        self,
        services: Services,
        *,
        node: str,
        sign_key: bytes,
        acknowledged: int,
        evidence: EvidenceCheck,
    ) -> None:
        self._services = services
        self._node = node
        self._sign_key = sign_key
        self.acknowledged = acknowledged
        self.evidence = evidence
        self._waiting: list[str] = []
        self._bytes = 0

    def add(self, jws: str) -> None:
        self._waiting.append(jws)
        self._bytes += len(jws)

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether no more should be read from the node for now."""
        return self._bytes > WAITING_BYTES_MAX or len(self._waiting) >= wire.REPORTS_UNACKNOWLEDGED_MAX

    async def apply_next(self) -> None:
        """Apply what waits, as far as one transaction takes it.

        Raises InvalidInput, Refused, Unavailable, and Conflict for a gap: the session ends.
        """
        batch = [self._decoded(jws) for jws in self._take()]
        started_at = time.perf_counter()
        try:
            if any(self._fault(report) for report in batch):
                seq = await self._apply_singly(batch)
            else:
                seq = await self._services.apply(self._node, batch)
        except Conflict as error:
            if error.code == "report_gap":
                raise
            seq = await self._apply_singly(batch)
        except NotAuthenticated:
            raise Refused(REVOKED, retry=False) from None
        except Unavailable:
            raise
        except DomainError:
            seq = await self._apply_singly(batch)
        self._count(batch, seconds=time.perf_counter() - started_at)
        self.acknowledged = max(self.acknowledged, seq)

    def _take(self) -> list[str]:
        count = size = 0
        while count < min(len(self._waiting), BATCH_MAX) and size < BATCH_BYTES_MAX:
            size += len(self._waiting[count])
            count += 1
        taken = self._waiting[:count]
        del self._waiting[:count]
        self._bytes -= size
        return taken

    def _decoded(self, jws: str) -> Report:
        """The report, its signature checked. Raises InvalidInput."""
        report = wire.decode_report(verify(jws, self._sign_key, typ=wire.REPORT_TYPE), jws=jws)
        if report.node != self._node:
            raise InvalidInput(f"{self._node} signed a report of {report.node[:80]}")
        return report

    def _fault(self, report: Report) -> str | None:
        """Why the report can't be evidence on a receipt, which is verified by nothing else; None: it can."""
        if not isinstance(report.body, Evidence):
            return None
        try:
            self.evidence.check(report)
        except InvalidInput as error:
            return f"its certificates prove nothing: {error.detail}"
        return None

    async def _apply_singly(self, reports: Sequence[Report]) -> int:
        """One by one: a report that is refused is passed over with a line in the log, and the rest go on.

        Only an expected refusal is passed over. An error of ours ends the session instead: the evidence
        stays in the agent's journal.
        """
        seq = self.acknowledged
        for report in reports:
            fault = self._fault(report)
            try:
                if fault:
                    raise Implausible(fault)
                seq = max(seq, await self._services.apply(self._node, [report]))
            except DomainError as error:
                if error.code == "report_gap" or isinstance(error, Unavailable):
                    raise
                self._services.metrics.refused_reports.inc()
                _log.error(
                    "a report was refused and passed over",
                    node=self._node, seq=report.seq, type=type(report.body).__name__, error=error.detail,
                )  # fmt: skip
                seq = max(seq, await self._pass_over(report, "evidence" if fault else "report", error.detail))
        return seq

    async def _pass_over(self, report: Report, subject: str, reason: str) -> int:
        return await self._services.commit(
            lambda tx: pass_over(
                tx, node_id=self._node, report=report, subject=subject, reason=reason,
                context=self._services.context, now=clock.now(),
            )
        )  # fmt: skip

    def _count(self, reports: Sequence[Report], *, seconds: float) -> None:
        for report in reports:
            self._services.metrics.reports.labels(type(report.body).__name__).inc()
            if isinstance(report.body, RunExited):
                self._services.metrics.settle_seconds.observe(seconds)

"""`perak audit`: recompute balances, receipts and passports from the entries, by other code than wrote them.

Nothing of the ledger's, the market's or the settlement's code is used here: only rows, arithmetic, and the
verification of receipts that anyone can do.
"""

from __future__ import annotations

import base64
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from perak.adapters.db import audit as rows
from perak.adapters.db.audit import Books
from perak.domain.errors import DomainError
from perak.server.audit_passports import check_passports
from perak.server.audit_windows import check_windows
from perak.wire.identity import fingerprint
from perak.wire.receipts import receipt_file, verify_receipt

FINDINGS_MAX = 1000
"""More are counted, not kept: by then the first of them is what matters."""

SIDES = {
    "fund": ("external", "wallet"),
    "hold": ("wallet", "escrow"),
    "capture": ("wallet", "escrow"),
    "release": ("wallet", "escrow"),
    "payout": ("escrow", "earnings"),
    "fee": ("escrow", "fees"),
}
"""Between which kinds of account each kind of transfer moves (docs/ledger.md)."""

JOB_ENDED = frozenset({"succeeded", "failed", "cancelled"})
LEASE_LIVE = frozenset({"active", "suspected"})
RUN_ENDED = frozenset({"exited", "refused", "fenced"})


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it must be: which check, of what, and in words."""

    check: str
    subject: str
    detail: str


@dataclass(slots=True)
class Report:
    """What was looked at, and what is wrong. `looked_at` counts the rows of each kind."""

    looked_at: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    more: int = 0

    @property
    def sound(self) -> bool:
        return not self.findings

    def add(self, check: str, subject: object, detail: str) -> None:
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(Finding(check, str(subject), detail))
        else:
            self.more += 1

    def as_json(self) -> str:
        found = [asdict(finding) for finding in self.findings]
        tree = {"sound": self.sound, "looked_at": dict(self.looked_at), "findings": found, "more": self.more}
        return json.dumps(tree, indent=2)

    def lines(self) -> Iterator[str]:
        yield "looked at " + ", ".join(f"{count:,} {kind}" for kind, count in self.looked_at.items())
        for finding in self.findings:
            yield f"WRONG  {finding.check}: {finding.subject}: {finding.detail}"
        if self.more:
            yield f"… and {self.more:,} more"
        yield "all is as it must be" if self.sound else f"{len(self.findings) + self.more} findings"


@dataclass(slots=True)
class _Money:
    """What the transfers of one run moved."""

    captured: int = 0
    paid: int = 0
    fee: int = 0


async def audit(books: Books) -> Report:
    """Check everything in `books`."""
    report = Report()
    authority = await books.authority()
    if authority is None:
        report.add("exchange", "exchange", "this database has no exchange in it")
        return report
    jobs = {row["id"]: row["state"] async for row in books.rows(rows.JOBS)}
    report.looked_at["jobs"] = len(jobs)
    money = await _check_ledger(report, books, jobs)
    trusted = fingerprint(authority.encode())
    receipts = await _check_receipts(report, books, money, trusted=trusted)
    await _check_runs(report, books, money, receipts)
    await _check_capacity(report, books)
    await check_windows(report, books)
    await check_passports(report, books, trusted=trusted)
    return report


async def _check_ledger(report: Report, books: Books, jobs: dict[str, str]) -> dict[str, _Money]:
    """Replay every transfer; what each run moved."""
    accounts = {row["id"]: row async for row in books.rows(rows.ACCOUNTS)}
    posted: Counter[int] = Counter()
    pending: Counter[int] = Counter()
    holds: dict[int, tuple[int, int, int, str | None]] = {}
    resolved: set[int] = set()
    runs: dict[str, _Money] = defaultdict(_Money)
    async for row in books.rows(rows.TRANSFERS):
        report.looked_at["transfers"] += 1
        id, debit, credit, amount = row["id"], row["debit"], row["credit"], row["amount"]
        kinds = (accounts[debit]["kind"], accounts[credit]["kind"])
        if amount < 0 or debit == credit or SIDES.get(row["kind"], kinds) != kinds:
            said = f"a {row['kind']} of {amount} from {kinds[0]} to {kinds[1]}"
            report.add("transfer", id, f"{said} is none that there may be")
        if row["phase"] == "pending":
            holds[id] = (debit, credit, amount, row["job_id"])
            pending[debit] += amount
            continue
        if row["phase"] in ("post", "void"):
            hold = holds.pop(row["pending_id"], None)
            if hold is None:
                twice = row["pending_id"] in resolved
                said = "was resolved before" if twice else "was never made"
                report.add("hold", row["pending_id"], f"transfer {id} resolves it, and it {said}")
                continue
            resolved.add(row["pending_id"])
            if hold[:2] != (debit, credit) or hold[3] != row["job_id"]:
                report.add("hold", row["pending_id"], f"transfer {id} is between others than its hold was")
            if amount > hold[2]:
                report.add("hold", row["pending_id"], f"{amount} were captured of the {hold[2]} held")
            pending[hold[0]] -= hold[2]
        posted[debit] -= amount
        posted[credit] += amount
        if row["run_id"] is not None:
            moved = runs[row["run_id"]]
            moved.captured += amount if row["kind"] == "capture" else 0
            moved.paid += amount if row["kind"] == "payout" else 0
            moved.fee += amount if row["kind"] == "fee" else 0
        elif row["kind"] in ("capture", "payout", "fee"):
            report.add("transfer", id, f"a {row['kind']} belongs to no run")
    for id, (_, _, amount, job) in holds.items():
        if job is not None and jobs.get(job) in JOB_ENDED:
            report.add("hold", id, f"{amount} are still held for the ended job {job}")
    _check_balances(report, accounts, posted, pending)
    for run, moved in runs.items():
        if moved.paid + moved.fee != moved.captured:
            report.add("run", run, f"{moved.captured} captured, {moved.paid} paid and {moved.fee} of fee")
    return runs


def _check_balances(
    report: Report, accounts: dict[int, Any], posted: Counter[int], pending: Counter[int]
) -> None:
    total = 0
    for id, row in accounts.items():
        report.looked_at["accounts"] += 1
        name = " ".join(filter(None, (row["kind"], row["project_id"])))
        kept = row["kind"] == "wallet"
        stands = (row["posted"], row["pending"])
        recomputed = (posted[id], pending[id]) if kept else (0, 0)
        total += row["posted"] if kept else posted[id]
        if stands != recomputed:
            report.add("balance", name, f"its row says {stands}, its transfers say {recomputed}")
        if kept and posted[id] - pending[id] < 0:
            report.add("balance", name, f"{posted[id]} less {pending[id]} held is below zero")
        if row["kind"] == "escrow" and posted[id]:
            report.add("balance", name, f"{posted[id]} were captured and not paid on")
    if total:
        report.add("balance", "all accounts", f"they sum to {total}, not to zero")


async def _check_receipts(
    report: Report, books: Books, money: dict[str, _Money], *, trusted: str
) -> dict[str, dict[str, Any]]:
    """Verify every receipt, and compare it with the ledger; what is signed, by run."""
    found: dict[str, dict[str, Any]] = {}
    async for row in books.rows(rows.RECEIPTS):
        report.looked_at["receipts"] += 1
        try:
            verified = verify_receipt(receipt_file(row["jws"]), trusted_fingerprint=trusted)
        except DomainError as error:
            report.add("receipt", row["id"], error.detail)
            continue
        for check in verified.checks:
            if not check.passed:
                report.add("receipt", row["id"], f"{check.name}: {check.detail}")
        signed = _payload(row["jws"])
        if {"evidence": signed["evidence"]} | json.loads(row["payload"]) != signed:
            report.add("receipt", row["id"], "what is stored beside it differs from what is signed")
        columns = (row["id"], row["project_id"], row["provider_project_id"], row["job_id"], row["run_id"])
        if columns != tuple(signed[name] for name in ("id", "project", "provider", "job", "run")):
            report.add("receipt", row["id"], "it is filed under something else than is signed")
        if row["run_id"] in found:
            report.add("receipt", row["id"], f"the run {row['run_id']} has another one too")
        found[row["run_id"]] = signed
        moved = money.get(row["run_id"], _Money())
        says = (signed["cost_micros"], signed["payout_micros"], signed["fee_micros"])
        if says != (moved.captured, moved.paid, moved.fee) or row["cost"] != signed["cost_micros"]:
            ledger = (moved.captured, moved.paid, moved.fee)
            report.add(
                "receipt", row["id"], f"cost, payout and fee are {says}, and the ledger moved {ledger}"
            )
    return found


async def _check_runs(
    report: Report, books: Books, money: dict[str, _Money], receipts: dict[str, dict[str, Any]]
) -> None:
    live: Counter[str] = Counter()
    async for row in books.rows(rows.RUNS):
        report.looked_at["runs"] += 1
        lease_lives, run_ended = row["lease_state"] in LEASE_LIVE, row["state"] in RUN_ENDED
        live[row["job_id"]] += lease_lives
        if lease_lives and row["job_state"] in JOB_ENDED:
            report.add("lease", row["lease_id"], f"it lives, and its job {row['job_id']} has ended")
        if lease_lives == run_ended:
            said = f"it is {row['lease_state']}, and its run {row['id']} is {row['state']}"
            report.add("lease", row["lease_id"], said)
        if lease_lives and row["lease_epoch"] != row["job_epoch"]:
            report.add(
                "lease", row["lease_id"], f"it lives, and is not of its job's epoch {row['job_epoch']}"
            )
        if live[row["job_id"]] > 1 and lease_lives:
            report.add("lease", row["lease_id"], f"the job {row['job_id']} has another that lives")
        moved = money.get(row["id"], _Money())
        if (row["cost"] or 0) != moved.captured:
            report.add("run", row["id"], f"its cost is {row['cost']}, and the ledger moved {moved.captured}")
        if run_ended:
            _check_evidence(report, row, moved, receipts.get(row["id"]))
        elif moved.captured:
            report.add("run", row["id"], f"{moved.captured} were captured before it ended")


def _check_evidence(report: Report, row: Any, moved: _Money, receipt: dict[str, Any] | None) -> None:
    """No billing beyond what the node signed, nor beyond the life of the lease."""
    span = _proven_ms(row["evidence_jws"], row["started_at"])
    if receipt is None and (moved.captured or (span is not None and row["state"] != "refused")):
        report.add("run", row["id"], "it was settled and has no receipt")
    if receipt is not None and (
        receipt["evidence"] != row["evidence_jws"] or receipt["epoch"] != row["epoch"]
    ):
        report.add("run", row["id"], "its receipt names other evidence than was kept")
    lease_ms = _ms(row["lease_ended_at"]) - _ms(row["granted_at"]) if row["lease_ended_at"] else 0
    # A millisecond more, because both ends of the lease were cut to whole ones when it was billed.
    seconds = -(-min(span or 0, lease_ms + 1) // 1000)
    # Price x devices x time in micro-units, rounded half up (docs/ledger.md).
    most = (2 * row["price"] * row["devices_milli"] * seconds + 3_600_000) // 7_200_000
    if moved.captured > most:
        report.add("run", row["id"], f"{moved.captured} were billed, and signed evidence proves {most}")


async def _check_capacity(report: Report, books: Books) -> None:
    used: dict[str, list[int]] = {}
    stands: dict[str, list[int]] = {}
    async for row in books.rows(rows.CAPACITY):
        stands[row["id"]] = [row["used_cpu_milli"], row["used_memory_bytes"], row["used_disk_bytes"]]
        parts = [row["cpu_milli"] or 0, row["memory_bytes"] or 0, row["disk_bytes"] or 0]
        used[row["id"]] = [a + b for a, b in zip(used.get(row["id"], [0, 0, 0]), parts, strict=True)]
    for offer, row_says in stands.items():
        if row_says != used[offer]:
            said = f"its row says {row_says} are used, its live leases and held quotes {used[offer]}"
            report.add("offer", offer, said)
    report.looked_at["offers"] = len(stands)
    async for row in books.rows(rows.TAKEN_DEVICES):
        if row["state"] not in LEASE_LIVE:
            report.add("device", row["uuid"], f"it is taken by the lease {row['lease_id']}, which has ended")


def _proven_ms(jws: str | None, started_at: datetime | None) -> int | None:
    """How long the node's own signed report proves that the run lived; None: it proves nothing."""
    if jws is None:
        return None
    said = _payload(jws)
    body = said["body"]
    if said["type"] == "run_exited":
        return None if body["started_at"] is None else max(0, body["ended_at"] - body["started_at"])
    if said["type"] == "metered" and started_at is not None:
        return max(0, int(body["until"]) - _ms(started_at))
    return None


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def _payload(jws: str) -> dict[str, Any]:
    """What a JWS says, unproven."""
    middle = jws.split(".")[1]
    tree: dict[str, Any] = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
    return tree


async def compare(report: Report, books: Books, files: Iterator[tuple[str, str]]) -> None:
    """Add the receipts that others hold, that this exchange signed, and that its database lacks.

    After a restore these are the settlements since the back-up: signed, so they are owed.
    """
    authority = await books.authority()
    assert authority is not None, "the audit looked"
    known: dict[str, str] = {}
    runs: dict[str, tuple[str, int]] = {}
    async for row in books.rows(rows.RECEIPTS):
        known[row["id"]], runs[row["run_id"]] = row["jws"], (row["id"], row["cost"])
    for name, text in files:
        report.looked_at["receipts of others"] += 1
        try:
            verified = verify_receipt(text, trusted_fingerprint=fingerprint(authority.encode()))
        except DomainError as error:
            report.add("held receipt", name, error.detail)
            continue
        receipt = verified.receipt
        if not verified.trusted:
            failed = next(check for check in verified.checks if not check.passed)
            report.add("held receipt", name, f"not ours: {failed.name}: {failed.detail}")
        elif receipt.id in known and known[receipt.id] != json.loads(text)["jws"]:
            report.add("held receipt", receipt.id, "two different receipts were signed under this name")
        elif receipt.id not in known and receipt.run in runs:
            # Settled anew after a restore, from the same evidence: as long as the money agrees, all is well.
            anew, cost = runs[receipt.run]
            if cost != receipt.cost_micros:
                said = f"{receipt.cost_micros} by this one, {cost} by {anew}, of the same run {receipt.run}"
                report.add("superseded receipt", receipt.id, said)
        elif receipt.id not in known:
            owed = (
                f"{receipt.payout_micros} to {receipt.provider}, {receipt.cost_micros} by {receipt.project}"
            )
            said = f"signed by us for the run {receipt.run} of {receipt.job}, and not in the books: {owed}"
            report.add("lost receipt", receipt.id, said)

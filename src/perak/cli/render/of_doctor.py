"""What `perak node doctor` found, and checklists that others signed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from perak.cli.render.parts import at_time, fact_table, new_table, plain
from perak.domain.checklist import BY_NAME, CHECKS, CheckResult

if TYPE_CHECKING:
    from perak.agent.doctor import Diagnosis, Finding
    from perak.agent.sandbox import TierReport
    from perak.wire import api

MARKS = {
    "passed": ("✓", "green"),
    "failed": ("✗", "bold red"),
    "not_run": ("–", "yellow"),
    "ok": ("✓", "green"),
    "limited": ("!", "yellow"),
    "problem": ("✗", "bold red"),
    "unknown": ("?", "yellow"),
}


def diagnosis(found: Diagnosis) -> RenderableType:
    tried = [tier for tier in found.tiers if tier.checks]
    parts: list[RenderableType] = [_tiers(found.tiers)]
    if tried:
        parts += [Text(), _matrix(tried)]
    if notes := [row for tier in tried for row in _notes(tier)]:
        parts += [Text(), _details(notes)]
    parts += [Text(), _findings(found.findings), Text()]
    if found.can_offer:
        parts.append(Text("This machine can be a node.", style="green"))
    else:
        parts.append(
            Text("This machine can't be a node until what is marked ✗ is changed.", style="bold red")
        )
    return Group(*parts)


def checklist(found: api.ChecklistView, *, proven: str) -> RenderableType:
    """A signed checklist; `proven` says what its signature came to."""
    results = [
        CheckResult(name=each.name, outcome=each.outcome, detail=each.detail) for each in found.results
    ]
    table = new_table("", "CHECK", "WHAT IS ATTACKED", "")
    for result in results:
        attacks = BY_NAME[result.name].attacks if result.name in BY_NAME else "(newer than this version)"
        table.add_row(_mark(result.outcome), plain(result.name), plain(attacks), plain(result.detail))
    facts = fact_table(
        ("checklist", found.digest),
        ("node", found.node),
        ("sandbox", f"{found.tier} ({found.runtime})"),
        ("kernel", found.kernel),
        ("agent", found.agent_version),
        ("tried", at_time(datetime.fromtimestamp(found.at / 1000, UTC))),
        ("result", summary(results)),
        ("signature", proven),
    )
    return Group(facts, Text(), table)


def summary(results: Iterable[CheckResult]) -> str:
    outcomes = [result.outcome for result in results]
    passed = f"{outcomes.count('passed')} passed"
    failed = f", {outcomes.count('failed')} failed" if "failed" in outcomes else ""
    return passed + failed + (f", {outcomes.count('not_run')} not run" if "not_run" in outcomes else "")


def _tiers(tiers: Sequence[TierReport]) -> RenderableType:
    table = new_table("", "SANDBOX TIER", "RUNTIME", "CHECKS", "")
    for tier in tiers:
        table.add_row(
            _mark("ok" if tier.available else "problem" if tier is tiers[0] else "limited"),
            plain(tier.tier),
            plain(tier.runtime or "-"),
            summary(tier.checks) if tier.checks else "-",
            plain("offered" if tier.available else f"not offered: {tier.reason}"),
        )
    return table


def _matrix(tiers: Sequence[TierReport]) -> RenderableType:
    outcomes = [{result.name: result.outcome for result in tier.checks} for tier in tiers]
    table = new_table(
        "CHECK", *(tier.tier.upper() for tier in tiers), "WHAT IS ATTACKED, FROM INSIDE AS A JOB"
    )
    for check in CHECKS:
        marks = [_mark(each[check.name]) if check.name in each else Text("") for each in outcomes]
        limit = "" if check.severity == "must" else " (limit)"
        table.add_row(plain(check.name + limit), *marks, plain(check.attacks))
    return table


def _notes(tier: TierReport) -> list[tuple[str, str, str, str]]:
    from perak.agent.doctor import advice_on

    return [
        (
            result.outcome,
            f"{tier.tier}: {result.name}",
            result.detail,
            advice_on(result),
        )
        for result in tier.checks
        if result.outcome != "passed"
    ]


def _details(rows: list[tuple[str, str, str, str]]) -> RenderableType:
    table = new_table("", "NOT PASSED", "WHY", "WHAT TO INSTALL OR CHANGE")
    for outcome, name, why, advice in rows:
        table.add_row(_mark(outcome), plain(name), plain(why), plain(advice))
    return table


def _findings(findings: Sequence[Finding]) -> RenderableType:
    table = new_table("", "MACHINE", "", "WHAT TO INSTALL OR CHANGE")
    for each in findings:
        table.add_row(_mark(each.state), plain(each.name), plain(each.detail), plain(each.advice or ""))
    return table


def _mark(outcome: str) -> Text:
    sign, style = MARKS[outcome]
    return Text(sign, style=style)

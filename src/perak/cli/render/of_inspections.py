"""A device's inspection, for a person to read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from perak.cli.render.of_doctor import MARKS
from perak.cli.render.parts import fact_table, new_table, plain
from perak.domain.hardware.inspection import BY_NAME, Check, DeviceIdentity, DeviceInspection

if TYPE_CHECKING:
    from perak.domain.hardware.grade import Assessment

LEFT_OUT_SHOWN = 400
UNITS = {"share": "", "results": "results that differ"}
"""How people read a unit."""


def inspection(found: DeviceInspection, assessed: Assessment) -> RenderableType:
    """Who it is, what was found check by check, what did not run and why, and what it comes to."""
    seconds = (found.ended_at - found.started_at) / 1000
    parts: list[RenderableType] = [
        Text(f"Device {found.identity.index}: {found.identity.model}", style="bold"),
        _facts(found.identity),
        Text(),
        _checks(each for each in found.checks if each.status != "not_run"),
    ]
    if found.mismatches:
        parts += [Text(), _mismatches(found)]
    parts += [Text(), _not_run(found)]
    verdict = assessed.grade or "ungraded"
    known = assessed.score is not None
    score = f", score {assessed.score:.0f} of 100 (its weights are placeholders)" if known else ""
    parts += [
        Text(),
        Text(f"{len(found.failed)} failed", style="bold red" if found.failed else "green")
        + Text(f"; {found.coverage:.0%} of the checks ran, in {seconds:.1f} s ({found.kind})."),
        Text(f"Against the data sheet: {verdict}{score}."),
        *(plain(f"  {reason}") for reason in assessed.reasons),
        Text(),
    ]
    return Group(*parts)


def _facts(identity: DeviceIdentity) -> RenderableType:
    rows = [
        ("kind", identity.kind),
        ("uuid", identity.uuid),
        ("serial", identity.serial),
        ("driver", identity.driver),
        ("vbios", identity.vbios),
        ("bus", identity.pci_bus),
        ("pci ids", identity.pci_ids or identity.nvml_pci_ids),
        ("memory", _gib(identity.nvml_memory_bytes or identity.opencl_memory_bytes)),
        ("opencl", ", ".join(identity.opencl_platforms) or None),
    ]
    return fact_table(*((name, value) for name, value in rows if value))


def _gib(size_bytes: int | None) -> str | None:
    return None if size_bytes is None else f"{size_bytes / 2**30:.1f} GiB"


def _checks(checks: Iterable[Check]) -> RenderableType:
    table = new_table("", "CHECK", "VALUE", "", "")
    for check in checks:
        mark, style = MARKS[check.status]
        table.add_row(
            Text(mark, style=style),
            plain(check.name),
            plain(value(check)),
            plain(_held_to(check)),
            plain(check.reason),
        )
    return table


def value(check: Check) -> str:
    """What was measured, in its unit, with the spread of several runs."""
    if check.value is None:
        return ""
    spread = f" ± {check.spread:.0%}" if check.spread else ""
    return f"{_figure(check, check.value)}{spread} {UNITS.get(check.unit, check.unit)}".strip()


def _figure(check: Check, figure: float) -> str:
    return f"{figure:.3g}" if check.unit != "share" else f"{100 * figure:.3g}%"


def _held_to(check: Check) -> str:
    if check.threshold is None or (check.status == "passed" and check.threshold == 0):
        return ""
    return f"(limit {_figure(check, check.threshold)})"


def _mismatches(found: DeviceInspection) -> RenderableType:
    table = new_table("BUFFER", "ADDRESS", "WRITTEN", "READ", "BITS")
    for each in found.mismatches[:20]:
        table.add_row(
            str(each.buffer),
            f"{each.address:#012x}",
            f"{each.expected:#010x}",
            f"{each.read:#010x}",
            f"{each.mask:#010x}",
        )
    return table


def _not_run(found: DeviceInspection) -> RenderableType:
    """What did not run, by its reason."""
    by_reason: dict[str, list[str]] = {}
    for check in found.checks:
        if check.status == "not_run":
            by_reason.setdefault(check.reason, []).append(check.name)
    mark, style = MARKS["not_run"]
    table = new_table("", "NOT RUN", "WHY")
    for reason, names in by_reason.items():
        shown = ", ".join(name for name in names if name in BY_NAME)[:LEFT_OUT_SHOWN]
        table.add_row(Text(mark, style=style), plain(shown), plain(reason))
    return table

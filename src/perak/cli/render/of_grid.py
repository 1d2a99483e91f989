"""The grid's hours as a chart, zones as a table, and a month's report."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from perak.cli.render.parts import Fitted, amount, at_time, fact_table, new_table, plain

if TYPE_CHECKING:
    from perak.wire.api.grid import CarbonReport, GridHour, GridZone

BAR_CHARACTERS = 40
UNKNOWN_PLACE = "no figure is known for it: the world's counts. Places are codes such as DE, US-CA or EU"
_STYLES = {"measured": "green", "forecast": "cyan", "yearly average": "yellow"}


def zones(found: Sequence[GridZone]) -> RenderableType:
    table = new_table("ZONE", "FEED", ">NOW g/kWh", "KIND", ">YEAR", "READ", "NOTE")
    for each in found:
        table.add_row(
            plain(each.region),
            plain(_feed(each)),
            f"{each.now.grams_per_kwh:.0f}",
            Text(each.now.kind, style=_STYLES.get(each.now.kind, "")),
            f"{each.yearly_grams_per_kwh:.0f}",
            at_time(each.read_at) if each.read_at else "never",
            plain(each.note or ""),
        )
    return table


def zone(found: GridZone) -> RenderableType:
    facts = fact_table(
        ("zone", found.region),
        ("now", f"{found.now.grams_per_kwh:.0f} g CO2e/kWh, {found.now.kind}"),
        ("source", found.source),
        ("factors", found.factor),
        ("forecast", found.forecast_source),
        ("feed", _feed(found) if found.feed else "none: the year's average counts"),
        ("year", f"{found.yearly_grams_per_kwh:.0f} g CO2e/kWh ({found.yearly_source})"),
        ("note", Text(found.note, style="yellow") if found.note else None),
        ("note", Text(UNKNOWN_PLACE, style="yellow") if _is_unknown(found) else None),
        ("marginal", _marginal(found)),
    )
    if not found.hours:
        return facts
    return Group(facts, Text(), _chart(found.hours, now=found.now))


def _is_unknown(found: GridZone) -> bool:
    return found.feed is None and found.region != "WORLD" and found.yearly_source.startswith("WORLD ")


def _feed(found: GridZone) -> str:
    if found.feed is None:
        return "-"
    untried = "" if found.tried_live else " (not tried live)"
    return f"{found.feed} {found.feed_zone}{untried}"


def _marginal(found: GridZone) -> str | None:
    """Apart from the average, by name: it answers another question."""
    if not found.marginal:
        return None
    first = found.marginal[0]
    return (
        f"{first.grams_per_kwh:.0f} g CO2e/kWh at {first.at.astimezone(UTC):%a %H:%M} "
        f"({found.marginal_source}); shown, never counted"
    )


def _chart(hours: Sequence[GridHour], *, now: GridHour) -> RenderableType:
    """A bar an hour (UTC), from zero; the present one is marked."""
    most = max(max(hour.grams_per_kwh for hour in hours), 1.0)
    table = new_table("UTC", ">g/kWh", "")
    for hour in hours:
        length = max(1, round(hour.grams_per_kwh / most * BAR_CHARACTERS))
        mark = " < now" if hour.at == now.at else ""
        style = _STYLES.get(hour.kind, "")
        table.add_row(
            f"{hour.at.astimezone(UTC):%a %H:%M}",
            f"{hour.grams_per_kwh:.0f}",
            Text("█" * length, style=style) + Text(f" {hour.kind}{mark}", style="dim"),
        )
    return table


def _between(low: float, high: float) -> str:
    return amount(low) if low == high else f"{amount(low)} to {amount(high)}"


def report(found: CarbonReport) -> RenderableType:
    columns = (
        "REGION", "EVIDENCE", "METHOD", ">RUNS", ">kWh", ">±%", ">g/kWh", ">OPERATIONAL kg", ">EMBODIED kg",
        ">AVOIDED kg", ">MOVING DATA kg",
    )  # fmt: skip
    rows = [
        (
            plain(row.region),
            row.region_evidence,
            row.method,
            str(row.runs),
            amount(row.energy_kwh),
            f"{row.energy_uncertainty_percent:.0f}",
            f"{row.grams_per_kwh:.0f}",
            amount(row.location_based_kg),
            _between(row.embodied_low_kg, row.embodied_high_kg),
            _between(row.avoided_low_kg, row.avoided_high_kg),
            _between(row.moved_low_kg, row.moved_high_kg),
        )
        for row in found.rows
    ]
    runs = "1 run" if found.runs == 1 else f"{found.runs} runs"
    whole = (
        f"{found.month}, {runs}: {amount(found.energy_kwh)} kWh, {amount(found.location_based_kg)} kg CO2e "
        "operational (location-based, scope 3 category 1), "
        f"{_between(found.embodied_low_kg, found.embodied_high_kg)} kg embodied. "
        f"{_between(found.moved_low_kg, found.moved_high_kg)} kg may have come from moving data. That and "
        "avoided carbon are in no total."
    )
    table = Fitted(columns, rows, spare=("METHOD", "EVIDENCE", ">AVOIDED kg", ">MOVING DATA kg", ">±%"))
    return Group(table, Text(), Text(whole)) if rows else Text(whole)

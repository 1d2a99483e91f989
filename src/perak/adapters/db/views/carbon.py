"""A month of a project's receipts, summed for a report."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from perak.wire.api.grid import CarbonReport, CarbonRow

SCOPE, CATEGORY = "3", "1 purchased goods and services"
"""GHG Protocol, corporate value chain standard: compute that is rented is a purchased service."""

MONTH = """
select payload #>> '{carbon,region}' as region,
    coalesce(payload #>> '{carbon,region_evidence}', 'declared') as region_evidence,
    case when payload #>> '{carbon,method}' like 'hourly%' then 'hourly average' else 'yearly average' end
        as method,
    count(*) as runs, sum(energy_joules) / 3.6e6 as energy_kwh,
    coalesce(sum(energy_joules * (payload #>> '{energy,uncertainty_percent}')::float8)
        / nullif(sum(energy_joules), 0), 0) as uncertainty,
    coalesce(sum(carbon_grams), 0) / 1000 as operational_kg,
    coalesce(sum(energy_joules * (payload #>> '{carbon,grams_per_kwh}')::float8)
        / nullif(sum(energy_joules), 0), 0) as grams_per_kwh,
    coalesce(sum((payload #>> '{embodied,low_grams}')::float8), 0) / 1000 as embodied_low_kg,
    coalesce(sum((payload #>> '{embodied,high_grams}')::float8), 0) / 1000 as embodied_high_kg,
    count(*) filter (where payload -> 'embodied' is null) as runs_without_embodied,
    coalesce(sum((payload #>> '{avoided,low_grams}')::float8), 0) / 1000 as avoided_low_kg,
    coalesce(sum((payload #>> '{avoided,high_grams}')::float8), 0) / 1000 as avoided_high_kg,
    coalesce(sum((payload #>> '{moved,low_grams}')::float8), 0) / 1000 as moved_low_kg,
    coalesce(sum((payload #>> '{moved,high_grams}')::float8), 0) / 1000 as moved_high_kg,
    string_agg(distinct payload #>> '{carbon,source}', '; ') as sources
from receipt
where project_id = $1 and issued_at >= $2 and issued_at < $3 and energy_joules is not null
group by 1, 2, 3 order by operational_kg desc
"""


async def carbon_report(
    connection: Any, *, project: str, month: str, since: datetime, until: datetime
) -> CarbonReport:
    """What the receipts of [since, until) say, a row for each region, evidence and method."""
    rows = [_row(month, row) for row in await connection.fetch(MONTH, project, since, until)]
    return CarbonReport(
        project=project,
        month=month,
        rows=rows,
        runs=sum(row.runs for row in rows),
        energy_kwh=sum(row.energy_kwh for row in rows),
        location_based_kg=sum(row.location_based_kg for row in rows),
        embodied_low_kg=sum(row.embodied_low_kg for row in rows),
        embodied_high_kg=sum(row.embodied_high_kg for row in rows),
        avoided_low_kg=sum(row.avoided_low_kg for row in rows),
        avoided_high_kg=sum(row.avoided_high_kg for row in rows),
        moved_low_kg=sum(row.moved_low_kg for row in rows),
        moved_high_kg=sum(row.moved_high_kg for row in rows),
    )


def _row(month: str, row: Any) -> CarbonRow:
    return CarbonRow(
        month=month,
        scope=SCOPE,
        category=CATEGORY,
        region=row["region"],
        region_evidence=row["region_evidence"],
        method=row["method"],
        runs=row["runs"],
        energy_kwh=row["energy_kwh"],
        energy_uncertainty_percent=row["uncertainty"],
        grams_per_kwh=row["grams_per_kwh"],
        location_based_kg=row["operational_kg"],
        embodied_low_kg=row["embodied_low_kg"],
        embodied_high_kg=row["embodied_high_kg"],
        runs_without_embodied=row["runs_without_embodied"],
        avoided_low_kg=row["avoided_low_kg"],
        avoided_high_kg=row["avoided_high_kg"],
        moved_low_kg=row["moved_low_kg"],
        moved_high_kg=row["moved_high_kg"],
        sources=row["sources"] or "",
    )

"""The part of `perak audit` that looks at reserved windows: what they hold, and who else has the devices."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from perak.adapters.db import windows as rows

if TYPE_CHECKING:
    from perak.adapters.db.audit import Books
    from perak.server.audit import Report

JOB_ENDED = frozenset({"succeeded", "failed", "cancelled"})
WINDOW_LIVE = frozenset({"booked", "begun"})


async def check_windows(report: Report, books: Books) -> None:
    """Hold each window against its job, its money, and what else has its devices."""
    taken: defaultdict[tuple[str, str], list[tuple[datetime, datetime, str]]] = defaultdict(list)
    async for row in books.rows(rows.AUDITED_WINDOWS):
        report.looked_at["windows"] += 1
        job, live = row["job_id"], row["state"] in WINDOW_LIVE
        if live == (row["job_state"] in JOB_ENDED):
            report.add("window", job, f"it is {row['state']}, and its job is {row['job_state']}")
        if row["state"] in ("cancelled", "lost") and row["cost"]:
            report.add("window", job, f"it was {row['state']}, and {row['cost']} were paid for it")
        whole = _whole(row, row["price"])
        if row["state"] == "booked" and row["held"] != whole:
            report.add("window", job, f"{row['held']} are held for it, and it costs {whole}")
        if row["cost"] > (most := _whole(row, row["most_price"])):
            report.add("window", job, f"{row['cost']} were paid, and all of it costs {most}")
        if live:
            for uuid in row["devices"]:
                taken[row["offer_id"], uuid].append((row["start_at"], row["end_at"], job))
    async for row in books.rows(rows.AUDITED_LEASES):
        end = row["granted_at"] + timedelta(seconds=row["max_duration_seconds"])
        for uuid in row["devices"]:
            taken[row["offer_id"], uuid].append((row["granted_at"], end, row["job_id"]))
    for (_, uuid), claims in taken.items():
        _check_apart(report, uuid, sorted(claims))


def _whole(row: Any, price: int) -> int:
    """Price x devices x time in micro-units, rounded half up (docs/ledger.md)."""
    seconds = round((row["end_at"] - row["start_at"]).total_seconds())
    return int((2 * price * row["devices_milli"] * seconds + 3_600_000) // 7_200_000)


def _check_apart(report: Report, uuid: str, claims: list[tuple[datetime, datetime, str]]) -> None:
    """`claims` in the order of their starts; a window and the lease in it are one job's."""
    for index, (_, end, job) in enumerate(claims):
        for start, _, other in claims[index + 1 :]:
            if start < end and other != job:
                report.add(
                    "device", uuid, f"it is promised to {job} until {end}, and to {other} from {start}"
                )

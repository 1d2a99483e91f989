"""What all the pictures are made of: tables, times, figures and states."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from perak.cli.exits import printable
from perak.domain.ids import is_id
from perak.domain.units import format_duration, format_money

if TYPE_CHECKING:
    from perak.wire import api

SHORT_ID_CHARACTERS = 6
"""30 random bits: enough among the thousand jobs in which a short id is looked for."""

WHOLE_COLUMNS = frozenset({"ID", "AT", "JOB", "KEY", "RECEIPT", "ISSUED"})
"""Ids and times, which nobody can read or copy in pieces: other columns give way to them."""
WIDTH_UNBOUND = 10_000
"""More characters than a row has, for measuring what it wants."""
_PROCESSOR_NOISE = re.compile(r"\((?:R|TM)\)|\bCPU\b|\bProcessor\b|@", re.IGNORECASE)

_STATE_STYLES = {
    "succeeded": "green",
    "running": "cyan",
    "leased": "cyan",
    "failed": "red",
    "cancelled": "yellow",
    "cancelling": "yellow",
    "online": "green",
    "open": "green",
    "suspected": "yellow",
    "paused": "yellow",
    "draining": "yellow",
    "drained": "yellow",
    "waiting": "yellow",
    "delivered": "green",
    "offline": "red",
    "revoked": "red",
}
JOULES_PER_WATT_HOUR = 3600


def short_id(public_id: str) -> str:
    """The end of an id, which tells things of one kind apart."""
    return public_id.partition("@")[0][-SHORT_ID_CHARACTERS:]


def short_subject(text: str) -> str:
    """Of a whole id its kind and its end, like ``node 8s1jny``; a name or anything else as it is."""
    return f"{text.partition('-')[0]} {short_id(text)}" if is_id(text) else text


def new_table(*columns: str) -> Table:
    """A plain table; a column whose name begins with > is for numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        name = column.removeprefix(">")
        whole = name in WHOLE_COLUMNS
        table.add_column(
            name,
            justify="right" if column.startswith(">") else "left",
            overflow="ellipsis" if whole else "fold",
            no_wrap=whole,
        )
    return table


class Fitted:
    """A table that leaves out columns rather than break words in a narrow terminal.

    First go those in which no row says anything, then those of `spare`, the first of them first, until the
    rest fits; below stands what was left out for want of room. What a program reads keeps all.
    """

    def __init__(
        self, columns: Sequence[str], rows: Sequence[Sequence[str | Text]], *, spare: Sequence[str]
    ) -> None:
        self._columns, self._rows, self._spare = tuple(columns), tuple(rows), tuple(spare)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        kept = list(range(len(self._columns)))
        fits = self._width(kept, console, options) <= options.max_width
        if not fits:
            kept = [index for index in kept if any(str(row[index]) not in ("", "-") for row in self._rows)]
        left_out: list[str] = []
        for name in self._spare:
            if self._width(kept, console, options) <= options.max_width:
                break
            index = self._columns.index(name)
            if index in kept:
                kept.remove(index)
                left_out.append(name.removeprefix(">"))
        yield self._table(kept)
        if left_out:
            yield Text(f"Too narrow here for: {', '.join(left_out)}. --json has all.", style="dim")

    def _width(self, kept: Sequence[int], console: Console, options: ConsoleOptions) -> int:
        unbound = options.update(width=WIDTH_UNBOUND)
        return Measurement.get(console, unbound, self._table(kept)).maximum

    def _table(self, kept: Sequence[int]) -> Table:
        table = new_table(*(self._columns[index] for index in kept))
        for row in self._rows:
            table.add_row(*(row[index] for index in kept))
        return table


def fact_table(*rows: tuple[str, str | Text | None]) -> Table:
    """Names and values below each other; what is None is left out."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in rows:
        if value is not None:
            table.add_row(name, value if isinstance(value, Text) else plain(value))
    return table


def plain(text: str) -> Text:
    """Text of others: no markup, no control characters."""
    return Text(printable(text))


def short_device(name: str) -> str:
    """A processor's name without what all of them say: ``Intel Xeon 2.50GHz``; a GPU's as it is."""
    return " ".join(_PROCESSOR_NOISE.sub(" ", name).split()).replace(" ,", ",")


def state_text(state: str) -> Text:
    return Text(printable(state), style=_STATE_STYLES.get(state, ""))


def job_state(job: api.Job) -> Text:
    state = state_text(job.state)
    if job.state == "queued" and job.reservation is not None:
        return state_text("reserved") + Text(f" {job.reservation.start_at.astimezone():%m-%d %H:%M}")
    return state + Text(" (node silent)", style="yellow") if job.node_silent else state


def at_time(at: datetime) -> str:
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def ago(at: datetime, now: datetime) -> str:
    seconds = max(0.0, (now - at).total_seconds())
    if seconds < 60:
        return f"{seconds:.0f} s ago"
    if seconds < 86400:
        return f"{format_duration(seconds)} ago"
    return at.astimezone().strftime("%Y-%m-%d %H:%M")


def lasted(start: datetime | None, end: datetime | None, now: datetime) -> str:
    return "-" if start is None else format_duration(max(0.0, ((end or now) - start).total_seconds()))


def figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def amount(value: float) -> str:
    """Three digits at least and no exponent, so that a small sum does not read as none."""
    if value == 0 or abs(value) >= 1:
        return f"{value:,.3f}" if value else "0"
    return f"{value:.{2 - math.floor(math.log10(abs(value)))}f}"


def in_joules(joules: float) -> str:
    watt_hours = joules / JOULES_PER_WATT_HOUR
    return f"{joules:.3g} J" if watt_hours < 1 else f"{watt_hours:,.1f} Wh"


def in_grams(grams: float) -> str:
    if grams < 1:
        return f"{grams * 1000:.3g} mg CO2e"
    return f"{grams:.3g} g CO2e" if grams < 1000 else f"{grams / 1000:,.2f} kg CO2e"


def in_money(said: Mapping[str, Any], name: str, currency: str) -> str:
    return format_money(int(said.get(name) or 0), currency)


def block(said: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = said.get(name)
    return value if isinstance(value, Mapping) else {}


def optional(value: object) -> str | None:
    return None if value is None else str(value)

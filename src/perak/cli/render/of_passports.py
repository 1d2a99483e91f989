"""Passports and standings of devices on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType

from perak.cli.render.parts import fact_table, new_table, plain

if TYPE_CHECKING:
    from perak.wire.api.devices import StandingView
    from perak.wire.passports import Passport


def summary(passport: Passport) -> RenderableType:
    """Who the device is, its grade with the reasons, its use, its software, and what happened to it."""
    from perak.cli.render.passport_facts import facts_of

    facts = facts_of(passport)
    rows = [
        ("device", facts.title),
        *facts.identity,
        ("grade", facts.grade),
        ("score", facts.score),
        *(("" if number else "why", reason) for number, reason in enumerate(facts.reasons)),
        *((("", facts.caveat),) if facts.caveat else ()),
        *facts.use,
        *((f"runs {name}", last) for name, last in facts.software),
        *facts.proof,
    ]
    history = new_table("DAY", "WHAT", "HOW IT CAME OUT")
    for day, what, how in facts.history:
        history.add_row(day, plain(what), plain(how))
    return Group(fact_table(*((name, plain(value)) for name, value in rows)), history)


def standing_rows(found: Sequence[StandingView]) -> list[tuple[str, str]]:
    """Lines for the owner: each device's grade, and why it is no better."""
    rows: list[tuple[str, str]] = []
    for each in found:
        score = "" if each.score is None else f", score {each.score:.0f}"
        rows.append(("device", f"{each.device}: {each.label}{score} ({each.model or 'unknown model'})"))
        rows += [("", reason) for reason in each.reasons]
        if each.passport:
            rows.append(("passport", each.passport))
    return rows

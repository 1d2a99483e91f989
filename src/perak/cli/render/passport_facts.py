"""What the pages of a passport say, in words: one list for terminal, HTML and PDF."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from perak.domain.hardware.hazard import HOURS_PER_YEAR
from perak.wire.passports import Entry, Passport

INCIDENTS = {
    "thermal": "too hot",
    "lost": "lost",
    "uncorrected": "memory errors",
}
CAVEAT = "The score's weights, and how it moves the rate of failure, are placeholders: no data fits them yet."
_OUTCOMES = {True: "", False: "NOT PASSED: ", None: "not looked at: "}


@dataclass(frozen=True, slots=True)
class Facts:
    """A passport for people. `grade` as they read it, `score` too, ``-``: none; pairs are (name, value)."""

    title: str
    device: str
    grade: str
    score: str
    reasons: tuple[str, ...]
    caveat: str
    """What is still unsure of score and rate of failure; empty: neither is shown."""
    identity: tuple[tuple[str, str], ...]
    use: tuple[tuple[str, str], ...]
    software: tuple[tuple[str, str], ...]
    history: tuple[tuple[str, str, str], ...]
    """(day, what, how it came out), newest first."""
    proof: tuple[tuple[str, str], ...]


def facts_of(passport: Passport) -> Facts:
    """What the newest entries say; nothing is shown that they do not hold."""
    graded = next((each for each in reversed(passport.entries) if _claim(each)), None)
    claim = _claim(graded) if graded else {}
    newest = passport.entries[-1]
    described = graded or newest
    product = described.subject.get("product") or {}
    score = claim.get("score")
    return Facts(
        title=str(product.get("name") or passport.device),
        device=passport.device,
        grade=str(claim.get("label") or "ungraded"),
        score="-" if score is None else f"{score:.0f} of 100",
        reasons=tuple(str(each) for each in claim.get("reasons") or ()),
        caveat="" if score is None else CAVEAT,
        identity=_identity(product),
        use=_use(newest, claim),
        software=tuple(
            (str(each["software"]), f"{each['last']} ({each['note']})")
            for each in product.get("softwareLife") or ()
        ),
        history=tuple(_happened(each) for each in reversed(passport.entries)),
        proof=(
            ("issuer", str((newest.values.get("issuer") or {}).get("id", "-"))),
            ("authority", passport.root_fingerprint or "-"),
            ("newest entry", newest.digest),
            *((each.name, _OUTCOMES[each.passed] + each.detail) for each in passport.checks),
        ),
    )  # fmt: skip


def _claim(entry: Entry) -> dict[str, Any]:
    claims = entry.subject.get("conformityClaim") or [{}]
    return claims[0] if isinstance(claims[0], dict) else {}


def _identity(product: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    known, of_class = product.get("characteristics") or {}, product.get("class") or {}
    memory = known.get("memoryBytes")
    rows = (
        ("class", of_class.get("variant")),
        ("architecture", of_class.get("architecture")),
        ("launched", of_class.get("launched")),
        ("serial number", product.get("serialNumber")),
        ("UUID", known.get("uuid")),
        ("memory", None if memory is None else f"{memory / 2**30:.1f} GiB"),
        ("VBIOS", known.get("vbios")),
        ("PCI ids", known.get("pciIds")),
        ("error correction", {True: "on", False: "off", None: "not told"}[known.get("eccEnabled")]),
        ("power limit", _unit(known.get("powerLimitWatts"), "W")),
    )
    return tuple((name, str(value)) for name, value in rows if value is not None)


def _use(entry: Entry, claim: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    use = entry.subject.get("use") or {}
    joules, rate = use.get("energyJoules"), claim.get("failuresPerHour")
    return (
        ("owners here", str(use.get("owners", "-"))),
        ("leases", str(use.get("leases", "-"))),
        ("time leased", _hours(use.get("hoursLeased"))),
        ("energy drawn", "-" if joules is None else f"{joules / 3.6e6:.1f} kWh"),
        ("runs lost here", str(use.get("lostRuns", "-"))),
        ("wipes after leases", str(use.get("wipes", "-"))),
        (
            "expected failures",
            "-" if rate is None else f"{_few(rate * HOURS_PER_YEAR)} a year, its host's included",
        ),
    )


def _happened(entry: Entry) -> tuple[str, str, str]:
    event = entry.event
    if event.get("kind") == "wiped":
        told = f"{event.get('standard')} {event.get('method')}: {event.get('status')}"
        return (
            entry.at[:10],
            "wiped",
            told if event.get("status") == "passed" else f"{told}, {event.get('reason')}",
        )
    if event.get("kind") == "incident":
        found = event.get("incident")
        what = f"Xid {event.get('code')}" if found == "xid" else INCIDENTS.get(str(found), str(found))
        when = "during a lease" if event.get("leased") else "without a lease"
        return entry.at[:10], f"{what}, {when}", str(event.get("detail"))
    incidents = [_incident(each) for each in event.get("incidents") or ()]
    label = str(_claim(entry).get("label") or "ungraded")
    return (
        entry.at[:10],
        f"inspected ({event.get('inspection')}, {event.get('trigger')})",
        "; ".join([f"{label}, {float(event.get('coverage') or 0):.0%} of the checks ran", *incidents]),
    )


def _incident(told: dict[str, Any]) -> str:
    if told.get("kind") == "xid":
        return f"Xid {told.get('code')}"
    return f"{told.get('check')} failed: {told.get('reason')}"


def _few(count: float) -> str:
    return f"{count:,.0f}" if count >= 10 else f"{count:.2g}"


def _unit(value: float | None, unit: str) -> str | None:
    return None if value is None else f"{value:g} {unit}"


def _hours(hours: float | None) -> str:
    if hours is None:
        return "-"
    return f"{timedelta(hours=hours).days:,} d {hours % 24:.0f} h" if hours >= 24 else f"{hours:.1f} h"


def wrapped(lines: Sequence[str], width: int) -> list[str]:
    """Each line broken into lines of at most `width` characters."""
    import textwrap

    return [part for line in lines for part in (textwrap.wrap(line, width) or [""])]

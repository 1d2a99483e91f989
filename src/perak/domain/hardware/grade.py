"""A device's grade: A, B or C, rejected, or none where it can't be judged, with the reasons in words.

What is missing never passes. Without the memory patterns, the products, a throughput, the temperature after a
soak, or a known model there is no grade; without another check that its kind of card has, the best is B;
without counters of memory errors, "A, no ECC". Thresholds and their sources: `perak.domain.facts.grades`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from perak.domain.facts import grades as facts
from perak.domain.hardware import inspection as names
from perak.domain.hardware.inspection import Check, DeviceInspection
from perak.domain.hardware.reference import Reference, ratios, throughputs
from perak.domain.hardware.specs import find_gpu
from perak.domain.hardware.standing import GRADES

REJECTED = "reject"
SOAK_SECONDS_LEAST = 1_750.0
"""Of the 1,800 s that the thresholds of temperature are for; the last sample lies before the end."""
EVIDENCE_DAYS_MAX = 90
"""A result counts for so long; a card that is rented changes in months, not in days (Titan: years)."""
HOT_CELSIUS = 90.0
"""Where cards slow themselves, by most makers' pages (`perak.domain.hardware.heat`)."""
HEADROOM_CELSIUS = 20.0

MEMORY_PATTERNS = (
    names.MEMORY_MOVING_INVERSIONS, names.MEMORY_ADDRESS, names.MEMORY_RANDOM, names.MEMORY_CHECKERBOARD,
    names.MEMORY_BLOCK_MOVE,
)  # fmt: skip
ESSENTIAL = (*MEMORY_PATTERNS, names.COMPUTE_FP32, names.COMPUTE_STABLE, names.IDENTITY_MEMORY)
"""Without any of these, no grade."""
MISMATCHES = (
    *MEMORY_PATTERNS, names.MEMORY_BIT_FADE,
    names.COMPUTE_FP32, names.COMPUTE_FP16, names.COMPUTE_FP64, names.COMPUTE_STABLE,
)  # fmt: skip
IDENTITY = (
    names.IDENTITY_MODEL, names.IDENTITY_PCI, names.IDENTITY_MEMORY, names.IDENTITY_UNITS,
    names.IDENTITY_BANDWIDTH, names.IDENTITY_FLOPS, names.IDENTITY_UUID, names.IDENTITY_SEVERAL,
)  # fmt: skip
EXPECTED = (names.IDENTITY_PCI, names.IDENTITY_BANDWIDTH, names.MEMORY_BIT_FADE)
"""Without any of these, B at most."""
ECC_COUNTERS = (names.ECC_AGGREGATE_UNCORRECTED, names.ECC_VOLATILE_UNCORRECTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A measured figure and the thresholds of the grades. `c` None: what is beneath B is C."""

    name: str
    what: str
    more_is_better: bool
    a: float
    b: float
    c: float | None
    margin: float
    source: str

    def grade(self, value: float, *, before: str | None) -> str | None:
        """Of this figure alone; None: beneath C. `before`: the card's grade, which noise shouldn't change."""
        for grade, bound in (("A", self.a), ("B", self.b), ("C", self.c)):
            if bound is None:
                return grade
            margin = 0.0
            if before is not None:
                better = GRADES.index(grade) < GRADES.index(before)
                margin = self.margin if better else -self.margin
            if value >= bound + margin if self.more_is_better else value <= bound - margin:
                return grade
        return None


RULES = tuple(
    Rule(name=name, what=what, more_is_better=more, a=a, b=b, c=c, margin=margin, source=source)
    for name, what, more, a, b, c, margin, source in facts.GRADE_RULES
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """What the exchange makes of a device's inspections. `grade`: one of GRADES, REJECTED, or None."""

    grade: str | None
    provisional: bool
    ecc: bool
    score: float | None
    coverage: float
    reasons: tuple[str, ...]
    """Why it is no better, the machine's own limits, and what was not judged."""

    @property
    def rejected(self) -> bool:
        return self.grade == REJECTED


def merged(inspections: Sequence[DeviceInspection]) -> DeviceInspection:
    """One inspection of one device: of each check the newest result that ran, at most EVIDENCE_DAYS_MAX old.

    A quick inspection does not undo a soak, and no mismatch is forgotten before an inspection as thorough as
    the one that found it passed. `inspections` is not empty; the newest one's identity counts.
    """
    recent = _recent(inspections)
    found: dict[str, tuple[Check, int]] = {}
    xids: list[int] = []
    deepest = -1
    for each in recent:
        depth = _DEPTHS.index(each.kind)
        if depth > deepest:
            xids += each.xids
            deepest = depth
        for check in each.checks:
            if check.name not in found or _replaces(check, depth, *found[check.name]):
                found[check.name] = check, depth
    return replace(
        recent[0],
        kind=_DEPTHS[deepest],
        checks=names.complete(check for check, _ in found.values()),
        samples=next((each.samples for each in recent if each.samples), ()),
        xids=tuple(xids),
    )


def _recent(inspections: Sequence[DeviceInspection]) -> list[DeviceInspection]:
    """Newest first, those that still count."""
    ordered = sorted(inspections, key=lambda each: each.ended_at, reverse=True)
    oldest = ordered[0].ended_at - EVIDENCE_DAYS_MAX * 86_400_000
    return [each for each in ordered if each.ended_at >= oldest]


_DEPTHS: tuple[names.Kind, ...] = ("quick", "full", "soak")


def _replaces(older: Check, depth: int, newer: Check, newer_depth: int) -> bool:
    """Whether an older result counts before a newer one of the same check."""
    if older.status == "not_run" or newer.status == "not_run":
        return newer.status == "not_run" and older.status != "not_run"
    if older.name == names.MEMORY_SHARE:
        return older.status == "passed" and newer.status == "failed"
    lasting = older.name in MISMATCHES or older.name in IDENTITY
    return lasting and older.status == "failed" and depth > newer_depth


def assess(
    inspections: Sequence[DeviceInspection], *, reference: Reference | None, before: str | None = None
) -> Assessment:
    """Grade a device by its inspections, of which there is one at least.

    `reference`: its model over the network; None, or of too few cards: the data sheet, provisionally.
    `before`: the grade that it has.
    """
    held = before if before in GRADES else None
    found = merged(inspections)
    recent = _recent(inspections)
    compared = ratios(found, throughputs(recent), reference)
    ecc = all(found.check(each).status != "not_run" for each in ECC_COUNTERS)
    figures, notes = _figures(found, compared.worst)
    provisional = compared.provisional
    score = _score(found, compared.worst, figures.get("pcie"))
    rejections = (*_rejections(found), *_slow(compared.worst, provisional))
    unjudged = _unjudged(found, compared.worst, figures)
    if rejections:
        grade: str | None = REJECTED
        reasons = tuple(f"rejected because {each}" for each in rejections)
    elif unjudged:
        grade = None
        reasons = tuple(f"ungraded because {each}" for each in unjudged)
    else:
        grade, reasons = _graded(found, figures, waited=_waited(recent), before=held)
    if compared.basis:
        notes = (*notes, compared.basis)
    return Assessment(
        grade=grade,
        provisional=provisional,
        ecc=ecc,
        score=score,
        coverage=found.coverage,
        reasons=(*reasons, *notes),
    )


def _graded(
    found: DeviceInspection, figures: dict[str, float], *, waited: bool, before: str | None
) -> tuple[str | None, tuple[str, ...]]:
    """The worst of what each rule says, and why it is no better."""
    votes: list[tuple[str | None, str]] = []
    for rule in RULES:
        value = figures.get(rule.name)
        if value is not None:
            grade = rule.grade(value, before=before)
            votes.append((grade, f"{rule.what.format(_shown(value))} ({rule.source})"))
    votes += [("B", f"{each} was not judged") for each in _missing(found, figures)]
    if waited:
        votes.append(("B", f"a row or page waited for a reset within {EVIDENCE_DAYS_MAX} days (Meta GCM)"))
    order = (*GRADES, None)
    worst = max((order.index(grade) for grade, _ in votes), default=0)
    kept = [
        f"{grade or 'no grade'} because {why}" if grade else f"ungraded because {why} is beneath C"
        for grade, why in votes
        if grade != "A"
    ]
    return order[worst], tuple(kept)


def _waited(recent: Sequence[DeviceInspection]) -> bool:
    """Whether an earlier inspection saw a row or page that waited for a reset."""
    return any(
        (each.value(names.REMAP_PENDING) or 0) + (each.value(names.RETIREMENT_PENDING) or 0) > 0
        for each in recent[1:]
    )


def _figures(found: DeviceInspection, throughput: float | None) -> tuple[dict[str, float], tuple[str, ...]]:
    """What the rules look at, of what was measured; and what is the machine's, not the card's."""
    pcie, notes = _pcie(found)
    links = [found.value(names.NVLINK_INACTIVE), found.value(names.NVLINK_ERRORS)]
    waiting = [found.value(names.REMAP_PENDING), found.value(names.RETIREMENT_PENDING)]
    soaked = (found.value(names.SOAK_SECONDS) or 0.0) >= SOAK_SECONDS_LEAST
    figures = {
        "throughput": throughput,
        "power": found.value(names.SOAK_POWER) if soaked else None,
        "clock_drift": found.value(names.SOAK_CLOCK_DRIFT) if soaked else None,
        "temperature": found.value(names.SOAK_TEMPERATURE) if soaked else None,
        "slowdown": found.value(names.SOAK_SLOWDOWN) if soaked else None,
        "nvlink": sum(each for each in links if each is not None) if any_known(links) else None,
        "pcie": pcie,
        "remap": sum(each for each in waiting if each is not None) if any_known(waiting) else None,
    }
    return {name: value for name, value in figures.items() if value is not None}, notes


def any_known(values: Sequence[float | None]) -> bool:
    return any(each is not None for each in values)


def _pcie(found: DeviceInspection) -> tuple[float | None, tuple[str, ...]]:
    """Rate under load, of what card and slot together have; a note where the slot has less than the card."""
    generation, width = found.value(names.PCIE_GENERATION), found.value(names.PCIE_WIDTH)
    card = (found.identity.pcie_generation_card, found.identity.pcie_width_card)
    slot = (found.identity.pcie_generation_slot, found.identity.pcie_width_slot)
    if generation is None or width is None or card[0] is None or card[1] is None:
        return None, ()
    if slot[0] is None or slot[1] is None:
        if generation >= card[0] and width >= card[1]:
            return 1.0, ()
        link = f"the link runs at generation {generation:g} x{width:g}, the card has {card[0]} x{card[1]}"
        return None, (f"{link}: the slot's own limit is not known, so it is not held against the card",)
    reachable = (min(card[0], slot[0]), min(card[1], slot[1]))
    rate = 2.0 ** (min(generation, reachable[0]) - reachable[0]) * min(width, reachable[1]) / reachable[1]
    if reachable == card:
        return rate, ()
    limit = f"the slot allows PCIe generation {slot[0]} x{slot[1]}, the card has {card[0]} x{card[1]}"
    return rate, (f"{limit}: the machine's limit, not the card's",)


def _rejections(found: DeviceInspection) -> tuple[str, ...]:
    """What no grade makes good."""
    pages = found.value(names.RETIRED_PAGES) or 0
    counted = (
        (found.value(names.REMAP_FAILED), 0, "a row of its memory could not be replaced"),
        (
            found.value(names.ECC_SRAM_THRESHOLD),
            0,
            "its SRAM has passed the driver's own threshold of errors",
        ),
        (found.value(names.SOAK_ERRORS), 0, "new uncorrectable errors came under load"),
        (
            pages,
            facts.RETIRED_PAGES_MOST,
            f"{pages:g} pages of its memory are retired, more than {facts.RETIRED_PAGES_MOST}",
        ),
    )
    failed = {check.name: check for check in found.failed}
    return (
        *(why for value, most, why in counted if value is not None and value > most),
        *(
            f"{names.BY_NAME[name].what} failed: {failed[name].reason or 'a mismatch was found'}"
            for name in MISMATCHES
            if name in failed
        ),
        *(
            f"the driver told Xid {xid}: {facts.XIDS_REJECTED[xid]}"
            for xid in sorted(set(found.xids))
            if xid in facts.XIDS_REJECTED
        ),
        *(
            f"it is not what it says it is: {failed[name].reason or names.BY_NAME[name].what}"
            for name in IDENTITY
            if name in failed
        ),
    )


def _slow(throughput: float | None, provisional: bool) -> tuple[str, ...]:
    """A data sheet alone rejects nobody: how much of it a healthy card reaches is known for few models."""
    if throughput is None or provisional or throughput >= facts.THROUGHPUT_REJECTED:
        return ()
    least = f"less than {facts.THROUGHPUT_REJECTED:.0%}"
    return (f"its throughput is {throughput:.0%} of the median of its model, {least}",)


def _unjudged(
    found: DeviceInspection, throughput: float | None, figures: dict[str, float]
) -> tuple[str, ...]:
    """Why there can be no grade: what didn't run and must have."""
    if found.identity.kind == "cpu":
        return ("it is a processor: grades compare graphics cards",)
    said = []
    for name in ESSENTIAL:
        check = found.check(name)
        if check.status == "not_run":
            said.append(f"{names.BY_NAME[name].what} did not run: {check.reason or 'no reason was told'}")
    if throughput is None:
        said.append("there is no throughput to compare, or nothing to compare it with")
    if (share := found.check(names.MEMORY_SHARE)).status != "passed":
        said.append(f"too little of its memory was tested: {share.reason or 'it is not told how much'}")
    if "temperature" not in figures:
        said.append("no soak of half an hour told its temperature: `perak node inspect --soak 30m` does")
    return tuple(said)


_UNSEEN = {
    "power": "its sustained power",
    "clock_drift": "its clock under load",
    "slowdown": "whether hardware slowed it",
    "nvlink": "its NVLinks",
    "pcie": "its PCIe link",
    "remap": "whether memory waits for a reset",
}


def _missing(found: DeviceInspection, figures: dict[str, float]) -> tuple[str, ...]:
    """What this kind of card has, and nobody looked at: it passes nothing."""
    rules = ["power", "clock_drift", "slowdown"]
    spec = find_gpu(found.identity.model, memory_bytes=found.identity.nvml_memory_bytes)
    if spec is None or "SXM" in spec.variant:
        rules.append("nvlink")
    absent = [_UNSEEN[rule] for rule in rules if rule not in figures]
    if found.check(names.PCIE_WIDTH).status == "not_run":
        absent.append(_UNSEEN["pcie"])
    if "remap" not in figures and found.check(ECC_COUNTERS[0]).status != "not_run":
        absent.append(_UNSEEN["remap"])
    absent += [names.BY_NAME[name].what for name in EXPECTED if found.check(name).status == "not_run"]
    return tuple(absent)


def _score(found: DeviceInspection, throughput: float | None, links: float | None) -> float | None:
    """0 to 100: `100 * M^0.4 * P^0.3 * T^0.2 * L^0.1`; weights of what isn't known go to what is.

    None without throughput and temperature: the rest says too little.
    """
    celsius = found.value(names.SOAK_TEMPERATURE)
    if throughput is None or celsius is None:
        return None
    used = [
        None if pages is None else pages / limit
        for pages, limit in (
            (found.value(names.RETIRED_PAGES), facts.RETIRED_PAGES_LIMIT),
            (found.value(names.REMAPPED_ROWS), facts.REMAPPED_ROWS_LIMIT),
        )
    ]
    known = [each for each in used if each is not None]
    parts = {
        "memory": 1 - min(1.0, max(known)) ** 0.5 if known else None,
        "performance": min(1.0, max(0.0, throughput)),
        "thermal": min(1.0, max(0.0, (HOT_CELSIUS - celsius) / HEADROOM_CELSIUS)),
        "links": links,
    }
    weights = {name: facts.SCORE_WEIGHTS[name] for name, part in parts.items() if part is not None}
    product = 1.0
    for name, weight in weights.items():
        part = parts[name]
        assert part is not None
        product *= part ** (weight / sum(weights.values()))
    return round(100 * product, 1)


def _shown(value: float) -> str:
    return f"{value:.0%}" if 0 < value < 2 and value != 1 else f"{value:g}"

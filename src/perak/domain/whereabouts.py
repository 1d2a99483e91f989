"""Where a node is: a region is a claim, and what there is as evidence for it.

A claim alone is worth little: whoever is paid for clean power has a reason to make it. So a region without
evidence counts, where clean power is preferred, with the worse of what it claims and the world's average;
one that the exchange's own probes bound counts with the dirtiest place that they leave possible.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from perak.domain.carbon.intensity import yearly_intensity
from perak.domain.facts.places import PLACES
from perak.domain.facts.regions import ANYWHERE, GROUPS
from perak.domain.regions import lies_in, normal_region

FIBRE_KM_PER_SECOND = 200_000.0
"""Light in glass of refractive index 1.5: the quickest that a packet can go, there and back over cable."""
EARTH_KM = 6371.0
BOUND_KM_MAX = 3_000.0
"""Beyond it a continent remains possible, which is no evidence for a country."""
JUDGED_MAX = 4096
"""Claims whose judgement is remembered: a market has few nodes for each."""

DECLARED, LATENCY, ADDRESS, OPERATOR = "declared", "latency", "address", "operator"
EVIDENCE = (DECLARED, LATENCY, ADDRESS, OPERATOR)
"""Weakest first. `latency`: the exchange's probes leave only near places possible. `address`: the operator's
table of networks says so. `operator`: the operator has seen it, or its papers."""

EVIDENCE_WORDS = {
    DECLARED: "declared by the provider, nothing supports it",
    LATENCY: "bounded by the time that light needs, from the exchange's own probes",
    ADDRESS: "the operator's table of networks places its address there",
    OPERATOR: "attested by the exchange's operator",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Whereabouts:
    """What is known of where a node is, beside its claim.

    `possible`: the regions that remain possible, of evidence by latency; empty otherwise. `refused`: why the
    claim can't be true; None: nothing contradicts it.
    """

    evidence: str = DECLARED
    detail: str = ""
    possible: tuple[str, ...] = ()
    refused: str | None = None
    at_ms: int | None = None


CLAIMED = Whereabouts()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """What the exchange has seen of a node, beside its claim.

    `km`: how far from the probe at (`latitude`, `longitude`) it can be, by the quickest answer to a probe;
    `address_region`: what the operator's table says of its address; `attested`: what the operator says.
    """

    latitude: float | None = None
    longitude: float | None = None
    km: float | None = None
    address_region: str | None = None
    attested: str | None = None
    at_ms: int | None = None


@lru_cache(maxsize=JUDGED_MAX)
def judge(claim: str, seen: Sighting | None) -> Whereabouts:
    """What supports or contradicts a claimed region. What light contradicts is refused, whoever says it."""
    if seen is None:
        return CLAIMED
    bound = _bound(seen)
    if bound is not None:
        place, km = bound
        least = _least_km(place, claim)
        if least > km:
            return Whereabouts(
                detail=f"{claim} begins {least:.0f} km from the exchange's probe",
                refused=f"the node answers a probe from at most {km:.0f} km away, and {claim} "
                f"is at least {least:.0f} km from it: no signal is as quick",
                at_ms=seen.at_ms,
            )
    for kind, region in ((OPERATOR, seen.attested), (ADDRESS, seen.address_region)):
        if region is not None and lies_in(region, claim):
            return Whereabouts(evidence=kind, detail=f"{region}: {EVIDENCE_WORDS[kind]}", at_ms=seen.at_ms)
    if bound is not None and bound[1] <= BOUND_KM_MAX:
        return Whereabouts(
            evidence=LATENCY,
            detail=f"within {bound[1]:.0f} km of the exchange's probe",
            possible=possible_regions(*bound),
            at_ms=seen.at_ms,
        )
    others = [each for each in (seen.attested, seen.address_region) if each is not None]
    detail = f"the operator has it in {others[0]}" if others else ""
    return Whereabouts(detail=detail, at_ms=seen.at_ms)


def reach_km(round_trip_seconds: float) -> float:
    """How far away what answered can be."""
    return round_trip_seconds / 2 * FIBRE_KM_PER_SECOND


def possible_regions(place: tuple[float, float], km: float) -> tuple[str, ...]:
    """The countries that come within `km` of a place (latitude, longitude in degrees)."""
    return tuple(
        region
        for region, latitude, longitude, radius in PLACES
        if "-" not in region and distance_km(place, (latitude, longitude)) - radius <= km
    )


def distance_km(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Along the great circle; places are (latitude, longitude) in degrees."""
    (lat1, lon1), (lat2, lon2) = ((math.radians(a), math.radians(b)) for a, b in (one, other))
    half = (
        math.sin((lat2 - lat1) / 2) ** 2 + math.cos(lat1) * math.cos(lat2) * math.sin((lon2 - lon1) / 2) ** 2
    )
    return 2 * EARTH_KM * math.asin(min(1.0, math.sqrt(half)))


def _bound(seen: Sighting) -> tuple[tuple[float, float], float] | None:
    if seen.km is None or seen.latitude is None or seen.longitude is None:
        return None
    return (seen.latitude, seen.longitude), seen.km


def _least_km(place: tuple[float, float], claim: str) -> float:
    """How far the claimed region is at least; 0 where it is unknown, or anywhere."""
    region = normal_region(claim)
    if region == ANYWHERE:
        return 0.0
    within = GROUPS.get(region, (region,))
    circles = [row for row in PLACES if row[0] in within]
    if not circles:
        circles = [row for row in PLACES if row[0] == region.partition("-")[0]]
    distances = (distance_km(place, row[1:3]) - row[3] for row in circles)
    return max(0.0, min(distances, default=0.0))


def grams_at_least(region: str, where: Whereabouts) -> float:
    """g/kWh that this node's power counts with at least, whatever the region claims; 0: it is believed."""
    if where.evidence in (ADDRESS, OPERATOR):
        return 0.0
    if where.evidence == LATENCY and where.possible:
        return max(yearly_intensity(each).grams_per_kwh for each in (*where.possible, region))
    return max(yearly_intensity("WORLD").grams_per_kwh, yearly_intensity(region).grams_per_kwh)

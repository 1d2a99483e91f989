"""Where a node is: a region is a claim, and what there is as evidence for it.

A claim alone is worth little: whoever is paid for clean power has a reason to make it. So a region without
evidence counts, where clean power is preferred, with the worse of what it claims and the world's average;
one that the exchange's own probes bound counts with the dirtiest place that they leave possible.
"""

from __future__ import annotations

from dataclasses import dataclass

from perak.domain.carbon.intensity import yearly_intensity

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


def grams_at_least(region: str, where: Whereabouts) -> float:
    """g/kWh that this node's power counts with at least, whatever the region claims; 0: it is believed."""
    if where.evidence in (ADDRESS, OPERATOR):
        return 0.0
    if where.evidence == LATENCY and where.possible:
        return max(yearly_intensity(each).grams_per_kwh for each in (*where.possible, region))
    return max(yearly_intensity("WORLD").grams_per_kwh, yearly_intensity(region).grams_per_kwh)

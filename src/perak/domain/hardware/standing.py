"""What a device's inspections and history say of it, as the market needs it: the exchange's own summary."""

from __future__ import annotations

from dataclasses import dataclass

GRADES = ("A", "B", "C")
"""Best first. A device below C is rejected and not offered; one that can't be judged has no grade."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A device's grade, what was measured on it, and how likely it fails; made by the exchange from signed
    inspections, never taken from an offer.

    Throughputs are medians that were measured, None where they were not: FLOP/s in units of 1e12, bandwidth
    in units of 1e9 bytes/s.
    """

    grade: str | None = None
    """One of GRADES; None: ungraded."""
    provisional: bool = True
    """Judged against the data sheet, as the network has too few cards of the model."""
    ecc: bool = False
    """Its memory's error counters could be read; a card without is at most "A, no ECC"."""
    score: float | None = None
    """0 to 100; None: too little is known."""
    coverage: float = 0.0
    """Share of the checks that ran, 0 to 1."""
    reasons: tuple[str, ...] = ()
    fp32_tflops: float | None = None
    fp16_tflops: float | None = None
    bandwidth_gbs: float | None = None
    failures_per_hour: float | None = None
    """The device's and its host's failures together, expected per hour of a run."""
    passport: str | None = None
    """Digest of the newest entry of its passport, ``sha256:<hex>``."""
    inspected_at_ms: int | None = None

    @property
    def label(self) -> str:
        """The grade as people read it: ``A``, ``A, no ECC``, ``B (provisional)``, ``ungraded``."""
        if self.grade is None:
            return "ungraded"
        without = ", no ECC" if self.grade == "A" and not self.ecc else ""
        return f"{self.grade}{without}{' (provisional)' if self.provisional else ''}"


UNGRADED = Standing()


def suffices(standing: Standing, least: str | None) -> bool:
    """Whether a device is of grade `least` or better; an ungraded one is of none."""
    if least is None:
        return True
    return standing.grade is not None and GRADES.index(standing.grade) <= GRADES.index(least)

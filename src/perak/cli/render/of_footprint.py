"""Energy and carbon on a receipt, each number in one sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from perak.cli.render.parts import block, in_grams, in_joules
from perak.domain.units import format_bytes
from perak.domain.whereabouts import EVIDENCE_WORDS

Row = tuple[str, str | None]


def rows(said: Mapping[str, Any]) -> Iterator[Row]:
    """What an older receipt doesn't say is left out."""
    energy, carbon = block(said, "energy"), block(said, "carbon")
    moved, embodied, avoided, sci = (block(said, name) for name in ("moved", "embodied", "avoided", "sci"))
    yield from _energy(energy)
    yield from _operational(carbon)
    if moved:
        yield from _moved(moved)
    if embodied:
        yield "embodied", _embodied(embodied)
        yield from (("", _part(part)) for part in embodied.get("parts") or ())
    if avoided:
        yield "avoided", _avoided(avoided)
    if sci:
        yield "SCI", _sci(sci)


def _energy(energy: Mapping[str, Any]) -> Iterator[Row]:
    if not energy:
        yield "energy", "not known"
        return
    percent = energy.get("uncertainty_percent")
    spread = f", ± {percent:g} %" if percent is not None else ""
    samples = energy.get("samples")
    read = f", from {samples} readings" if samples is not None else ""
    yield "energy", f"{in_joules(float(energy['joules']))} was drawn by the run{spread}{read}"
    yield "measured by", str(energy.get("method", "-"))
    if energy.get("modelled"):
        yield "modelled", f"{', '.join(energy['modelled'])}: nothing could be read of it all the time"


def _operational(carbon: Mapping[str, Any]) -> Iterator[Row]:
    if not carbon:
        yield "carbon", "not known"
        return
    factor = f"{carbon['grams_per_kwh']:g} g/kWh x PUE {carbon['pue']:g}"
    grams = in_grams(float(carbon["grams"]))
    yield "carbon", f"{grams} came from making that electricity: energy x {factor} (location-based)"
    yield (
        "carbon source",
        f"{carbon.get('method')}, {carbon.get('region')}: {carbon.get('source')} ({carbon.get('year')})",
    )
    evidence = carbon.get("region_evidence")
    if evidence is not None:
        yield "region", f"{carbon.get('region')} is {EVIDENCE_WORDS.get(str(evidence), str(evidence))}"
    if carbon.get("note"):
        yield "note", str(carbon["note"])
    hours = carbon.get("hours") or ()
    if len(hours) > 1:
        least = min(float(hour["grams_per_kwh"]) for hour in hours)
        most = max(float(hour["grams_per_kwh"]) for hour in hours)
        yield "hours", f"it ran in {len(hours)} hours of {least:.0f} to {most:.0f} g/kWh, weighed by energy"


def _moved(moved: Mapping[str, Any]) -> Iterator[Row]:
    size = moved["received_bytes"] + moved["sent_bytes"] + moved["run_bytes"]
    low, high = in_grams(float(moved["low_grams"])), in_grams(float(moved["high_grams"]))
    words = (
        f"{low} to {high} may have come from moving {format_bytes(size)}: x {moved['kwh_per_gb_low']:g} to "
        f"{moved['kwh_per_gb_high']:g} kWh/GB x {moved['grams_per_kwh']:g} g/kWh ({moved['source']}); it is "
        "in no other number"
    )
    yield "data moved", words if size else "nothing that the exchange knows the size of"
    if moved.get("uncounted"):
        yield "not counted", f"{', '.join(moved['uncounted'])}: the exchange doesn't know their size"


def _embodied(embodied: Mapping[str, Any]) -> str:
    low, high = in_grams(float(embodied["low_grams"])), in_grams(float(embodied["high_grams"]))
    return (
        f"{low} to {high} is the run's share of making the hardware: its time over a life of "
        f"{embodied['life_years_long']:g} or {embodied['life_years_short']:g} years"
    )


def _part(part: Mapping[str, Any]) -> str:
    low, high = float(part["low_kg"]), float(part["high_kg"])
    sources = ", ".join(part["sources"])
    return f"{float(part['count']):.3g} x {part['what']}, {low:g} to {high:g} kg each ({sources})"


def _avoided(avoided: Mapping[str, Any]) -> str:
    low, high = in_grams(float(avoided["low_grams"])), in_grams(float(avoided["high_grams"]))
    return (
        f"{low} to {high} of making a new {avoided['instead_of']} for the same work may have been "
        f"avoided, the used card's own share taken off ({avoided['basis']}); it lowers no other number"
    )


def _sci(sci: Mapping[str, Any]) -> str:
    unit = f"{sci['unit']}" if sci.get("count") == 1 else f"{sci['unit']} ({sci['count']:g} of them)"
    return (
        f"{float(sci['low']):.4g} to {float(sci['high']):.4g} g CO2e per {unit}: "
        f"(E {sci['energy_kwh']:.4g} kWh x I {sci['grams_per_kwh']:.4g} g/kWh + M) / R, SCI v1.1"
    )

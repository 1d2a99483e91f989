"""A check of a plan by other code: it shares nothing with the clearing, neither arrays nor formulas.

Rows of text in, as the files have them; plain Python, slow and plain. `benchmarks` and tests use it on every
plan, and `perak market clear` before it writes one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf, isclose

Row = Mapping[str, object]

TOLERANCE = 1e-6
"""Of an amount: sums of many floats are taken in other orders here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What a plan is worth and what changes hands in it; `violations` is empty where it is sound."""

    violations: tuple[str, ...]
    welfare: float
    renters_pay: float
    providers_get: float
    fee: float


def audit(offers: Iterable[Row], jobs: Iterable[Row], plan: Iterable[Row], *, fee: float = 0.0) -> Audit:
    """Check a plan. `fee`: the share of what renters pay that the exchange keeps, 0 to 1."""
    offer_of = {str(row["offer_id"]): row for row in offers}
    job_of = {str(row["job_id"]): row for row in jobs}
    wrong: list[str] = []
    sold: dict[str, float] = defaultdict(float)
    parts: dict[str, list[tuple[Row, float, float]]] = defaultdict(list)
    for row in plan:
        job, offer, devices = str(row["job_id"]), str(row["offer_id"]), _number(row["devices"])
        if job not in job_of or offer not in offer_of:
            wrong.append(f"{job} on {offer}: there is no such job or offer")
            continue
        if devices < 1 or devices != int(devices):
            wrong.append(f"{job} on {offer}: {devices} is no number of devices")
            continue
        sold[offer] += devices
        parts[job].append((offer_of[offer], devices, _number(row["pays_per_device_hour"])))
    for offer, devices in sold.items():
        if devices > _number(offer_of[offer]["devices"]):
            wrong.append(f"{offer} is oversold: {devices:g} of {offer_of[offer]['devices']}")
    total = paid = received = 0.0
    for job, given in parts.items():
        worth, pays, gets = _check_job(job_of[job], given, wrong, fee=fee)
        total, paid, received = total + worth, paid + pays, received + gets
    kept = fee * paid
    if not isclose(paid, received + kept, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
        wrong.append(f"money does not sum to zero: {paid} is paid, {received} received, {kept} kept")
    return Audit(violations=tuple(wrong), welfare=total, renters_pay=paid, providers_get=received, fee=kept)


def _check_job(
    job: Row, given: list[tuple[Row, float, float]], wrong: list[str], *, fee: float
) -> tuple[float, float, float]:
    """(welfare, what its renter pays, what the providers get)."""
    name, devices, group = str(job["job_id"]), _number(job["devices"]), _number(job["devices_per_node"])
    if sum(part for _, part, _ in given) != devices:
        wrong.append(f"{name}: its gang is not whole: {sum(part for _, part, _ in given):g} of {devices:g}")
    by_offer: dict[str, float] = defaultdict(float)
    for offer, part, _ in given:
        by_offer[str(offer["offer_id"])] += part
    wrong.extend(
        f"{name} on {offer}: {part:g} devices are not in groups of {group:g}"
        for offer, part in by_offer.items()
        if group <= 0 or part % group
    )
    first = given[0][0]
    if len({(str(o["model"]), str(o["region"]), str(o["grade"])) for o, _, _ in given}) > 1:
        wrong.append(f"{name}: its devices are of more than one class")
    hours = _number(job["work"]) / (devices * _number(first["performance"]))
    if _number(job.get("memory_gb"), 0.0) > _number(first["memory_gb"]):
        wrong.append(f"{name}: needs {job['memory_gb']} GB, has {first['memory_gb']}")
    if hours > _number(job.get("deadline_h"), inf) * (1 + 1e-12):
        wrong.append(f"{name}: takes {hours} h, beyond its deadline of {job['deadline_h']} h")
    named = {part.strip() for part in str(job.get("regions") or "").split(";") if part.strip()}
    if named and str(first["region"]) not in named:
        wrong.append(f"{name}: may not run in {first['region']}")
    asked = sum(part * hours * _number(offer["price_per_device_hour"]) for offer, part, _ in given)
    pays = sum(part * hours * price for _, part, price in given)
    for offer, _, price in given:
        ask = _number(offer["price_per_device_hour"])
        if price < ask - TOLERANCE * abs(ask):
            wrong.append(f"{name} on {offer['offer_id']}: pays {price}, below the ask of {ask}")
    grams = devices * hours * _number(first["power_w"]) / 1000 * _number(first["carbon_g_per_kwh"])
    carbon_cost = _number(job.get("carbon_price_per_kg"), 0.0) * grams / 1000
    bid = _number(job["value"]) - _number(job.get("delay_cost_per_h"), 0.0) * hours - carbon_cost
    if pays > bid + TOLERANCE * (1 + abs(bid)):
        wrong.append(f"{name}: pays {pays}, above its bid of {bid}")
    return bid - asked, pays, sum((1 - fee) * part * hours * price for _, part, price in given)


def _number(value: object, missing: float | None = None) -> float:
    if value is None or value == "":
        if missing is None:
            raise ValueError("a number is missing")
        return missing
    number = float(str(value))
    return missing if number != number and missing is not None else number

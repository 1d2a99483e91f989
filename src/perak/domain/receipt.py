"""The receipt: the signed account of a finished run, and the exact bytes that are signed.

The bytes are JSON with sorted keys and no spaces, in UTF-8, in the manner of RFC 8785. Money is integer
micro-units of the receipt's currency. Only energy, carbon and their factors are floats, rounded to
FLOAT_DECIMALS. Times are ISO 8601 in UTC with milliseconds.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from perak.domain.errors import InvalidInput
from perak.domain.footprint import (
    Avoided,
    Carbon,
    Embodied,
    EmbodiedPart,
    Energy,
    HourCarbon,
    Moved,
    Sci,
    carbon_miscalculations,
)
from perak.domain.report import Metered, NetworkUse, RunExited
from perak.domain.units import billed_seconds, charge

VERSION = 1
FLOAT_DECIMALS = 6
"""Micrograms and microjoules: a job of a tenth of a second still has a figure that isn't zero."""

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceUse:
    """What part of the node the run had. `kind` is nvidia, amd or cpu; `uuids` are the GPUs'."""

    kind: str
    model: str
    uuids: tuple[str, ...]
    cpu_milli: int
    memory_bytes: int
    disk_bytes: int = 0
    """0: a receipt of before this was said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxUse:
    """How the run was kept apart, and what of that the machine could not enforce, with the reason."""

    tier: str
    runtime: str
    enforced: tuple[str, ...]
    unenforced: dict[str, str] = field(default_factory=dict)
    checklist: str | None = None
    """The digest of how the escape checklist came out in this tier, as the offer said when it was taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Logs:
    """How much the run wrote, and the digest of it (``sha256:<hex>``) where it was taken."""

    size_bytes: int
    sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What a run cost, how long it took and what it emitted.

    `held_micros` is all that was held for the run; it equals cost plus refund. `evidence` is the node's own
    signed report of the end (JWS); None means that nothing was proven, so nothing may be billed.
    """

    version: int = VERSION
    id: str
    issued_at: str
    exchange: str
    currency: str
    job: str
    project: str
    run: str
    lease: str
    epoch: int
    attempt: int
    provider: str
    """The provider's project."""
    node: str
    offer: str
    offer_version: int
    device: DeviceUse
    sandbox: SandboxUse
    started_at: str | None
    ended_at: str
    billed_seconds: int
    price_per_device_hour_micros: int
    devices_milli: int
    cost_micros: int
    fee_micros: int
    payout_micros: int
    held_micros: int
    refunded_micros: int
    exit_code: int | None
    cause: str
    energy: Energy | None
    carbon: Carbon | None
    logs: Logs
    outputs_digest: str | None
    evidence: str | None
    network: NetworkUse | None = None
    """None: the run had no network."""
    readable_by: str | None = None
    """Who could have read the job's data, in words; None: a receipt of before this was said."""
    image: str | None = None
    """``name@sha256:...``; None: the run used the node's own programs."""
    embodied: Embodied | None = None
    """None: a receipt of before this was counted."""
    avoided: Avoided | None = None
    """None: a run without GPUs, or nothing is known to compare with."""
    sci: Sci | None = None
    moved: Moved | None = None
    """None: a receipt of before this was counted."""

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise InvalidInput(
                f"This receipt has version {self.version}; only {VERSION} is understood here. Update Perak."
            )
        for text in (self.issued_at, self.started_at, self.ended_at):
            if text is not None:
                utc_ms(text)


def readable_by(*, encrypted: bool) -> str:
    """The truth about who could have read what: no node has a trusted execution environment yet."""
    if encrypted:
        return (
            "the provider: all of it, as its node has no trusted execution environment; the exchange's "
            "operator: the log and, with its secret file, the work folder, not the outputs"
        )
    return (
        "the provider: all of it, as its node has no trusted execution environment; the exchange's "
        "operator: work folder, outputs and log, which were not encrypted"
    )


_NAMES: dict[type, tuple[str, ...]] = {
    kind: tuple(f.name for f in fields(kind))
    for kind in (
        Receipt,
        DeviceUse,
        SandboxUse,
        Energy,
        Carbon,
        HourCarbon,
        Embodied,
        EmbodiedPart,
        Avoided,
        Sci,
        Moved,
        Logs,
        NetworkUse,
    )
}
"""The fields of what makes a receipt, listed once: every settlement needs them."""

_LATER = frozenset(
    {
        "checklist",
        "disk_bytes",
        "image",
        "network",
        "readable_by",
        "samples",
        "modelled",
        "hours",
        "region_evidence",
        "note",
    }
    | {"embodied", "avoided", "sci", "moved", "uncounted"}
)
"""Fields that came after the first receipts were signed. Where one says nothing it is left out, so that older
receipts keep the very bytes that were signed; a new field belongs here, with a default that says nothing."""

_AS_IT_IS = frozenset({str, int, bool, type(None)})
"""Most of what is on a receipt; a call for each of them would be half the cost of its values."""


def payload(receipt: Receipt) -> dict[str, Json]:
    """The receipt as plain JSON values, floats rounded: what people read and what is signed."""
    plain = _plain(receipt)
    assert isinstance(plain, dict)
    return plain


def canonical_bytes(value: Json) -> bytes:
    """The one text of a JSON value: sorted keys, no spaces, UTF-8. Raises ValueError on NaN and infinity."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def disagreements(receipt: Receipt, body: RunExited | Metered) -> list[str]:
    """The fields in which the receipt and the node's report of the same run differ, in words; empty: none.

    A run that was lost has no report of its end; the last `Metered` then proves how long it lived.
    """
    claimed: dict[str, object] = {"run": receipt.run, "lease": receipt.lease, "epoch": receipt.epoch}
    proven: dict[str, object] = {"run": body.run, "lease": body.lease, "epoch": body.epoch}
    claimed |= {"ended_at": receipt.ended_at, "energy_joules": receipt.energy and receipt.energy.joules}
    claimed["energy_method"] = receipt.energy and receipt.energy.method
    proven |= {
        "energy_joules": round(body.energy_joules, FLOAT_DECIMALS),
        "energy_method": body.energy_method,
    }
    if isinstance(body, Metered):
        claimed["exit_code"] = receipt.exit_code
        proven |= {"ended_at": utc_text(body.until), "exit_code": None}
    else:
        claimed |= {"started_at": receipt.started_at, "exit_code": receipt.exit_code, "cause": receipt.cause}
        claimed |= {"log_bytes": receipt.logs.size_bytes, "outputs_digest": receipt.outputs_digest}
        claimed["network"], proven["network"] = receipt.network, body.network
        claimed["energy_uncertainty"] = receipt.energy and receipt.energy.uncertainty_percent
        proven |= {"ended_at": utc_text(body.ended_at), "exit_code": body.exit_code, "cause": body.cause}
        proven["started_at"] = None if body.started_at is None else utc_text(body.started_at)
        proven |= {"log_bytes": body.log_bytes, "outputs_digest": body.outputs and body.outputs.digest}
        proven["energy_uncertainty"] = round(body.energy_uncertainty_percent, FLOAT_DECIMALS)
    if receipt.energy is not None and receipt.energy.samples is not None:
        claimed["energy_samples"], proven["energy_samples"] = receipt.energy.samples, body.energy_samples
        claimed["energy_modelled"], proven["energy_modelled"] = receipt.energy.modelled, body.energy_modelled
    if receipt.carbon is not None and receipt.carbon.hours and body.energy_hours:
        claimed["energy_hours"] = tuple((each.hour, each.joules) for each in receipt.carbon.hours)
        proven["energy_hours"] = tuple((h, round(joules, FLOAT_DECIMALS)) for h, joules in body.energy_hours)
    return [
        f"{name} is {claimed[name]} on the receipt and {proven[name]} in the report"
        for name in claimed
        if claimed[name] != proven[name]
    ]


def miscalculations(receipt: Receipt) -> list[str]:
    """Where the receipt's money does not add up, in words; empty: it does.

    A cost below price x time is right (a cap, or a fault of the node); above it never is.
    """
    wrong = []
    lived = 0 if receipt.started_at is None else _lived_seconds(receipt.started_at, receipt.ended_at)
    full = charge(
        price_per_device_hour=max(0, receipt.price_per_device_hour_micros),
        devices_milli=max(1, receipt.devices_milli),
        seconds=max(0, receipt.billed_seconds),
    )
    if min(receipt.cost_micros, receipt.fee_micros, receipt.payout_micros, receipt.refunded_micros) < 0:
        wrong.append("an amount is negative")
    if receipt.fee_micros + receipt.payout_micros != receipt.cost_micros:
        wrong.append("fee and payout do not sum to the cost")
    if receipt.cost_micros + receipt.refunded_micros != receipt.held_micros:
        wrong.append("cost and refund do not sum to what was held")
    if receipt.cost_micros > full:
        wrong.append(f"the cost is above price x time, {full} micro-units")
    if not 0 <= receipt.billed_seconds <= lived:
        wrong.append(f"{receipt.billed_seconds} s are billed, and the run lived {lived} s")
    if receipt.evidence is None and receipt.cost_micros:
        wrong.append("there is a cost without evidence of the run")
    return wrong


def carbon_errors(receipt: Receipt) -> list[str]:
    """Where the receipt's energy and carbon do not follow from each other, in words; empty: they do."""
    return carbon_miscalculations(
        receipt.energy, receipt.carbon, receipt.embodied, receipt.avoided, receipt.sci, receipt.moved
    )


def utc_text(at_ms: int) -> str:
    """``2026-03-01T12:00:00.250Z`` of Unix milliseconds. Raises InvalidInput outside the years 1 to 9999."""
    try:
        at = _EPOCH + timedelta(milliseconds=at_ms)
    except OverflowError:
        raise InvalidInput(f"{at_ms} is not a time in milliseconds since 1970") from None
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def utc_ms(text: str) -> int:
    """Unix milliseconds of a time as `utc_text` writes it. Raises InvalidInput."""
    try:
        if not _TIME.fullmatch(text):
            raise ValueError(text)
        return (datetime.fromisoformat(text) - _EPOCH) // timedelta(milliseconds=1)
    except ValueError:
        raise InvalidInput(f"{text[:40]!r} is not a time like 2026-03-01T12:00:00.000Z") from None


def _lived_seconds(started_at: str, ended_at: str) -> int:
    return billed_seconds(utc_ms(started_at), utc_ms(ended_at))


def _plain(value: object) -> Json:
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if (names := _NAMES.get(type(value))) is not None:
        plain: dict[str, Json] = {}
        for name in names:
            each = getattr(value, name)
            if type(each) not in _AS_IT_IS:
                each = _plain(each)
            if each or name not in _LATER:
                plain[name] = each
        return plain
    if isinstance(value, float):
        return round(value, FLOAT_DECIMALS)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    raise AssertionError(f"{value!r} does not belong on a receipt")

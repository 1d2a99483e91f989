"""What a node may say: bounds of every value in a report, whatever program signed it.

A report outside them is refused whole and by name; it can't be stored, billed or shown. Honest agents stay
far inside. Times are bounded by the exchange's clock, money by the ledger's integers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields

from perak.domain.checklist import Checklist
from perak.domain.errors import InvalidInput
from perak.domain.footprint import HOURS_ON_RECEIPT_MAX
from perak.domain.hardware.challenge import BLOCK_LEAVES, LEAVES_MOST, OPENED, Answer
from perak.domain.hardware.inspection import (
    MISMATCHES_KEPT_MAX,
    SAMPLES_KEPT_MAX,
    Check,
    DeviceIdentity,
    DeviceInspection,
)
from perak.domain.hardware.wipe import METHOD, WipeRecord
from perak.domain.isolation import RANKS
from perak.domain.offer import Device, Hours, OfferAsk
from perak.domain.report import (
    FAULTS,
    ChecklistPosted,
    Faulted,
    Health,
    Inspected,
    LogChunk,
    Metered,
    NodeBody,
    OfferPosted,
    OutputBlob,
    Proved,
    Report,
    RunExited,
    RunPreparing,
    RunRefused,
    RunStarted,
    Wiped,
)
from perak.domain.units import BYTES_MAX, DURATION_SECONDS_MAX, MONEY_MAX_MICROS

CLOCK_SKEW_SECONDS_MAX = 300
"""How far a node's clock may be ahead of or behind the exchange's; certificates begin as much in the past."""
DEVICES_MAX = 64
"""No machine holds more GPUs, and no job may ask for more."""
CPU_MILLI_MAX = 10**7
"""Ten thousand cores in one machine."""
POWER_WATTS_MAX = 10_000.0
"""Ten times the most power-hungry card of 2026."""
HOURS_MAX = 21
"""Three openings for each day of the week."""
PYTHONS_MAX = 32
GRANTS_MAX = 16
TIERS_MAX = 8
"""Sandbox tiers; there are fewer kinds."""
LIMITS_NAMED_MAX = 64
"""Limits of a sandbox that an offer or a run names as enforced, and as not enforced."""
CHECKS_MAX = 200
"""Four times as many as there are."""
NAME_CHARACTERS_MAX = 200
"""Models, drivers, methods, tiers, causes: the longest in use have about 60."""
REASON_CHARACTERS_MAX = 2_000
DETAIL_CHARACTERS_MAX = 16_000
"""The end of an installer's output, for people."""
ENERGY_JOULES_MAX = 4e12
"""64 cards of 2 kW for a year: no run can use more."""
CPU_SECONDS_MAX = 4e11
"""Ten thousand cores for a year."""
EXIT_CODE_MAX = 2**31 - 1
OUTPUT_FILES_MAX = 10**7
MISSING_MAX = 50
"""As many outputs as a job may name."""
PATH_CHARACTERS_MAX = 1_024
XID_MAX = 10_000
"""NVIDIA's catalogue ends below 200."""
SENSORS_MAX = 2 * DEVICES_MAX
"""The cards, and as many sensors of the machine's own."""
CELSIUS_LEAST, CELSIUS_MOST = -100.0, 250.0
"""What no room is colder than, and what no chip outlives."""
SOAK_SECONDS_MAX = 30 * 86_400.0
"""A month under load."""
FIGURE_MAX = 1e15
"""Of any check: counted errors, rates, temperatures."""
INTEGER_MAX = 2**62
"""Sums of two still fit the database's 64 bits."""

_REGION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
_PYTHON = re.compile(r"[0-9]{1,2}\.[0-9]{1,2}")
_CAPABILITY = _PYTHON
_TORCH_VARIANT = re.compile(r"cu[0-9]{2,4}")
_HASH = re.compile(r"[0-9a-f]{64}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Implausible(InvalidInput):
    """A report says what can't be: the message names the value and the bound."""

    code = "implausible_report"


def check_report(report: Report, *, now_ms: int) -> None:
    """Raises Implausible where the report says what can't be."""
    latest = now_ms + CLOCK_SKEW_SECONDS_MAX * 1000
    _number("at", report.at, 0, latest)
    if not isinstance(report.body, NodeBody):
        _name("run", report.body.run)
        _name("lease", report.body.lease)
    match report.body:
        case OfferPosted(offer=ask):
            check_offer(ask)
        case Health() as health:
            _check_health(health)
        case ChecklistPosted(checklist=checklist):
            _check_checklist(checklist, latest=latest)
        case Inspected(inspection=inspection):
            _check_inspection(inspection, latest=latest)
        case Wiped(record=record):
            _check_wipe(record, latest=latest)
        case Faulted() as body:
            _check_fault(body)
        case Proved(answer=answer):
            _check_answer(answer)
        case RunPreparing():
            pass  # Its detail is for people: `shown` bounds it.
        case RunStarted() as body:
            _number("started_at", body.started_at, 0, latest)
            _name("tier", body.tier)
            _names("enforced", body.enforced, LIMITS_NAMED_MAX)
            _reasons("unenforced", body.unenforced)
        case LogChunk(offset=offset):
            _number("offset", offset, 0, INTEGER_MAX)
        case Metered() as body:
            _number("until", body.until, 0, latest)
            _number("cpu_seconds", body.cpu_seconds, 0, CPU_SECONDS_MAX)
            if body.memory_bytes is not None:
                _number("memory_bytes", body.memory_bytes, 0, BYTES_MAX)
            _number("energy_joules", body.energy_joules, 0, ENERGY_JOULES_MAX)
            _name("energy_method", body.energy_method)
            _check_energy(body)
        case RunExited() as body:
            _check_exit(body, latest=latest)
        case RunRefused(cause=cause):
            _name("cause", cause)


def shown(detail: str) -> str:
    """What a node says for people, in part the output of other programs: bounded, and without NUL."""
    return detail[:DETAIL_CHARACTERS_MAX].replace("\0", "\N{REPLACEMENT CHARACTER}")


END_MS_MAX = 253_402_300_799_000
"""The end of the year 9999."""


def check_offer(ask: OfferAsk) -> None:
    """Raises Implausible where no machine could be as the offer says."""
    _pattern("region", ask.region, _REGION)
    _name("cpu_model", ask.cpu_model)
    _number("cpu_milli", ask.cpu_milli, 0, CPU_MILLI_MAX)
    _number("memory_bytes", ask.memory_bytes, 0, BYTES_MAX)
    _number("disk_bytes", ask.disk_bytes, 0, BYTES_MAX)
    for name, price in (("price_gpu", ask.price_gpu), ("price_cpu", ask.price_cpu)):
        if price is not None:
            _number(name, price, 0, MONEY_MAX_MICROS)
    _number("min_duration_seconds", ask.min_duration_seconds, 0, DURATION_SECONDS_MAX)
    _number("reclaim_notice_seconds", ask.reclaim_notice_seconds, 0, DURATION_SECONDS_MAX)
    if ask.available_until_ms is not None:
        _number("available_until_ms", ask.available_until_ms, 0, END_MS_MAX)
    _count("devices", ask.devices, DEVICES_MAX)
    for device in ask.devices:
        _check_device(device)
    if len({device.uuid for device in ask.devices}) < len(ask.devices):
        raise Implausible("devices: two of them have the same uuid")
    _count("hours", ask.hours, HOURS_MAX)
    for hours in ask.hours:
        _check_hours(hours)
    _count("pythons", ask.pythons, PYTHONS_MAX)
    for python in ask.pythons:
        _pattern("pythons", python, _PYTHON)
    _count("torch_variants", ask.torch_variants, PYTHONS_MAX)
    for variant in ask.torch_variants:
        _pattern("torch_variants", variant, _TORCH_VARIANT)
    _names("takes", ask.takes, PYTHONS_MAX)
    _reasons("left_out", ask.left_out)
    _name("tier", ask.tier)
    _name("runtime", ask.runtime)
    _names("enforced", ask.enforced, LIMITS_NAMED_MAX)
    _reasons("unenforced", ask.unenforced)
    _check_tiers(ask)
    _names("grants", ask.grants, GRANTS_MAX)


def _check_tiers(ask: OfferAsk) -> None:
    _count("tiers", ask.tiers, TIERS_MAX)
    if ask.tiers and ask.tiers[0].tier != ask.tier:
        raise Implausible(f"tiers: the first must be the default one, {ask.tier[:60]!r}")
    if len({each.tier for each in ask.tiers}) < len(ask.tiers):
        raise Implausible("tiers: two of them have the same name")
    for each in ask.tiers:
        if each.tier not in RANKS:
            raise Implausible(f"tiers: {each.tier[:60]!r} is no sandbox tier")
        _name("tiers.runtime", each.runtime)
        _names("tiers.enforced", each.enforced, LIMITS_NAMED_MAX)
        _reasons("tiers.unenforced", each.unenforced)
        if each.checklist:
            _pattern("tiers.checklist", each.checklist, _DIGEST)


def _check_device(device: Device) -> None:
    _number("devices.index", device.index, 0, 10 * DEVICES_MAX)
    _name("devices.kind", device.kind)
    _name("devices.model", device.model)
    _name("devices.uuid", device.uuid)
    _number("devices.memory_bytes", device.memory_bytes, 0, BYTES_MAX)
    if device.compute_capability is not None:
        _pattern("devices.compute_capability", device.compute_capability, _CAPABILITY)
    _name("devices.driver", device.driver or "")
    if device.cuda is not None:
        _pattern("devices.cuda", device.cuda, _CAPABILITY)
    if device.power_limit_watts is not None:
        _number("devices.power_limit_watts", device.power_limit_watts, 0, POWER_WATTS_MAX)


def _check_hours(hours: Hours) -> None:
    _number("hours.start_minute", hours.start_minute, 0, 1440)
    _number("hours.end_minute", hours.end_minute, 0, 1440)
    _count("hours.weekdays", hours.weekdays, 7)
    for day in hours.weekdays:
        _number("hours.weekdays", day, 1, 7)


def _check_checklist(checklist: Checklist, *, latest: int) -> None:
    """Names of checks may be newer than ours; an outcome is one of three, and no check comes twice."""
    _number("checklist.version", checklist.version, 1, INTEGER_MAX)
    _number("checklist.at", checklist.at, 0, latest)
    for name, text in (
        ("agent_version", checklist.agent_version),
        ("kernel", checklist.kernel),
        ("tier", checklist.tier),
        ("runtime", checklist.runtime),
    ):
        _name(f"checklist.{name}", text)
    if checklist.tier not in RANKS:
        raise Implausible(f"checklist: {checklist.tier[:60]!r} is no sandbox tier")
    _count("checklist.results", checklist.results, CHECKS_MAX)
    for result in checklist.results:
        _name("checklist.results", result.name)
        _text(f"checklist.{result.name}", result.detail, REASON_CHARACTERS_MAX)
    if len({result.name for result in checklist.results}) < len(checklist.results):
        raise Implausible("checklist: two results are of the same check")


def _check_inspection(inspection: DeviceInspection, *, latest: int) -> None:
    """Names of checks may be newer than ours; no check comes twice, and none is passed without a value."""
    _number("inspection.started_at", inspection.started_at, 0, latest)
    _number("inspection.ended_at", inspection.ended_at, inspection.started_at, latest)
    _number("inspection.version", inspection.version, 1, INTEGER_MAX)
    _name("inspection.software", inspection.software)
    _check_identity(inspection.identity)
    _count("inspection.checks", inspection.checks, CHECKS_MAX)
    for check in inspection.checks:
        _check_check(check)
    if len({each.name for each in inspection.checks}) < len(inspection.checks):
        raise Implausible("inspection: two results are of the same check")
    _count("inspection.mismatches", inspection.mismatches, MISMATCHES_KEPT_MAX)
    for mismatch in inspection.mismatches:
        _name("inspection.mismatches", mismatch.check)
        for name, number in (
            ("buffer", mismatch.buffer),
            ("address", mismatch.address),
            ("expected", mismatch.expected),
            ("read", mismatch.read),
            ("mask", mismatch.mask),
        ):
            _number(f"mismatches.{name}", number, 0, INTEGER_MAX)
    _count("inspection.samples", inspection.samples, SAMPLES_KEPT_MAX)
    for sample in inspection.samples:
        _number("samples.at_seconds", sample.at_seconds, 0, SOAK_SECONDS_MAX)
        _names("samples.throttle", sample.throttle, GRANTS_MAX)
        for figure in (sample.clock_mhz, sample.memory_clock_mhz, sample.watts, sample.tflops):
            if figure is not None:
                _number("samples", figure, 0, FIGURE_MAX)
        if sample.celsius is not None:
            _number("samples.celsius", sample.celsius, CELSIUS_LEAST, CELSIUS_MOST)
    _count("inspection.xids", inspection.xids, CHECKS_MAX)
    for xid in inspection.xids:
        _number("inspection.xids", xid, 0, EXIT_CODE_MAX)


def _check_identity(identity: DeviceIdentity) -> None:
    for field in fields(identity):
        value = getattr(identity, field.name)
        if isinstance(value, str):
            _name(f"identity.{field.name}", value)
        elif isinstance(value, tuple):
            _names(f"identity.{field.name}", value, GRANTS_MAX)
        elif value is not None:
            _number(f"identity.{field.name}", value, 0, BYTES_MAX)


def _check_check(check: Check) -> None:
    _name("checks.name", check.name)
    _name("checks.unit", check.unit)
    _name("checks.source", check.source)
    _text(f"checks.{check.name}", check.reason, REASON_CHARACTERS_MAX)
    for number in (check.value, check.threshold, check.spread):
        if number is not None:
            _number(f"checks.{check.name}", number, -FIGURE_MAX, FIGURE_MAX)
    if check.status == "passed" and check.value is None:
        raise Implausible(f"inspection: {check.name} passed without a value; what is missing did not run")


def _check_fault(fault: Faulted) -> None:
    _name("faulted.device", fault.device)
    if fault.kind not in FAULTS or (fault.xid is None) == (fault.kind == "xid"):
        raise Implausible(f"faulted: {fault.kind[:60]!r} with the Xid {fault.xid} is no fault")
    if fault.xid is not None:
        _number("faulted.xid", fault.xid, 1, XID_MAX)


def _check_wipe(record: WipeRecord, *, latest: int) -> None:
    _name("wipe.device", record.device)
    _name("wipe.lease", record.lease)
    _text("wipe.reason", record.reason, REASON_CHARACTERS_MAX)
    if record.method != METHOD:
        raise Implausible(f"wipe: {record.method[:60]!r} is more than overwriting can be: {METHOD}")
    _number("wipe.started_at", record.started_at, 0, latest)
    _number("wipe.ended_at", record.ended_at, record.started_at, latest)
    for number in (
        record.memory_bytes, record.memory_total_bytes, record.local_bytes, record.leftover_words,
    ):  # fmt: skip
        if number is not None:
            _number("wipe", number, 0, BYTES_MAX)


def _check_answer(answer: Answer) -> None:
    """What is opened is compared in full, so only sizes are bounded here."""
    _name("answer.challenge", answer.challenge)
    _text("answer.problem", answer.problem, REASON_CHARACTERS_MAX)
    _count("answer.proofs", answer.proofs, DEVICES_MAX)
    for proof in answer.proofs:
        _name("proofs.device", proof.device)
        _pattern("proofs.root", proof.root, _HASH)
        _number("proofs.seconds", proof.seconds, 0, SOAK_SECONDS_MAX)
        _count("proofs.openings", proof.openings, OPENED)
        for opening in proof.openings:
            _number("openings.block", opening.block, 0, LEAVES_MOST)
            _count("openings.leaves", opening.leaves, BLOCK_LEAVES)
            _names("openings.path", opening.path, LIMITS_NAMED_MAX)


def _check_health(health: Health) -> None:
    _count("sensors", health.sensors, SENSORS_MAX)
    for sensor in health.sensors:
        _name("sensors.id", sensor.id)
        _name("sensors.name", sensor.name)
        _name("sensors.limit_source", sensor.limit_source)
        _number("sensors.celsius", sensor.celsius, CELSIUS_LEAST, CELSIUS_MOST)
        _number("sensors.hot_celsius", sensor.hot_celsius, CELSIUS_LEAST, CELSIUS_MOST)
    if len({sensor.id for sensor in health.sensors}) < len(health.sensors):
        raise Implausible("sensors: two of them have the same id")


def _check_exit(body: RunExited, *, latest: int) -> None:
    if body.started_at is not None:
        _number("started_at", body.started_at, 0, latest)
    _number("ended_at", body.ended_at, 0, latest)
    if body.exit_code is not None:
        _number("exit_code", body.exit_code, -EXIT_CODE_MAX, EXIT_CODE_MAX)
    _name("cause", body.cause)
    _number("cpu_seconds", body.cpu_seconds, 0, CPU_SECONDS_MAX)
    if body.memory_peak_bytes is not None:
        _number("memory_peak_bytes", body.memory_peak_bytes, 0, BYTES_MAX)
    _number("energy_joules", body.energy_joules, 0, ENERGY_JOULES_MAX)
    _name("energy_method", body.energy_method)
    _number("energy_uncertainty_percent", body.energy_uncertainty_percent, 0, 1e6)
    _check_energy(body)
    _number("log_bytes", body.log_bytes, 0, INTEGER_MAX)
    if body.outputs is not None:
        _check_outputs(body.outputs)
    if body.network is not None:
        _number("network.sent_bytes", body.network.sent_bytes, 0, INTEGER_MAX)
        _number("network.received_bytes", body.network.received_bytes, 0, INTEGER_MAX)
        _number("network.refused", body.network.refused, 0, INTEGER_MAX)


def _check_energy(body: Metered | RunExited) -> None:
    """The hours of a run are ascending and sum to its energy, or are not said."""
    _count("energy_hours", body.energy_hours, HOURS_ON_RECEIPT_MAX)
    hours = [hour for hour, _ in body.energy_hours]
    for hour, joules in body.energy_hours:
        _number("energy_hours", hour, 0, INTEGER_MAX)
        _number("energy_hours", joules, 0, ENERGY_JOULES_MAX)
    if hours != sorted(set(hours)):
        raise Implausible("energy_hours: an hour comes twice, or they are out of order")
    total = math.fsum(joules for _, joules in body.energy_hours)
    if hours and not math.isclose(total, body.energy_joules, rel_tol=1e-6, abs_tol=1e-3):
        raise Implausible(f"energy_hours sum to {total:.6g} J, and energy_joules is {body.energy_joules:.6g}")
    if body.energy_samples is not None:
        _number("energy_samples", body.energy_samples, 0, INTEGER_MAX)
    _names("energy_modelled", body.energy_modelled, DEVICES_MAX + 1)


def _check_outputs(outputs: OutputBlob) -> None:
    if outputs.digest is not None:
        _pattern("outputs.digest", outputs.digest, _DIGEST)
    _number("outputs.size_bytes", outputs.size_bytes, 0, BYTES_MAX)
    _number("outputs.file_count", outputs.file_count, 0, OUTPUT_FILES_MAX)
    _count("outputs.missing", outputs.missing, MISSING_MAX)
    for path in outputs.missing:
        _text("outputs.missing", path, PATH_CHARACTERS_MAX)
    _count("outputs.skipped", outputs.skipped, MISSING_MAX)
    for path in outputs.skipped:
        _text("outputs.skipped", path, PATH_CHARACTERS_MAX)


def _number(name: str, value: float, least: float, most: float) -> None:
    if not (math.isfinite(value) if isinstance(value, float) else True) or not least <= value <= most:
        raise Implausible(f"{name} is {_short(value)}; it is from {least:.15g} to {most:.15g}")


def _text(name: str, value: str, characters_max: int) -> None:
    if len(value) > characters_max:
        raise Implausible(f"{name} has {len(value):,} characters; at most {characters_max:,} are taken")
    if "\0" in value:
        raise Implausible(f"{name} holds a NUL character, which no text has")


def _name(name: str, value: str) -> None:
    _text(name, value, NAME_CHARACTERS_MAX)


def _names(name: str, values: tuple[str, ...], most: int) -> None:
    _count(name, values, most)
    for value in values:
        _name(name, value)


def _reasons(name: str, values: Mapping[str, str]) -> None:
    _count(name, values, LIMITS_NAMED_MAX)
    for key, value in values.items():
        _name(name, key)
        _text(name, value, REASON_CHARACTERS_MAX)


def _count(name: str, values: Iterable[object], most: int) -> None:
    count = sum(1 for _ in values)
    if count > most:
        raise Implausible(f"{name} has {count:,} entries; at most {most} are taken")


def _pattern(name: str, value: str, pattern: re.Pattern[str]) -> None:
    if not pattern.fullmatch(value):
        raise Implausible(f"{name} is {value[:60]!r}, which is none")


def _short(value: float) -> str:
    """A number of any size in few characters; Python refuses to write out huge integers."""
    if isinstance(value, int) and value.bit_length() > 200:
        return f"a number of {value.bit_length()} bits"
    return repr(value)

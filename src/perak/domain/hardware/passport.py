"""A device's passport: one verifiable credential after another, each naming the one before by its digest.

Each entry is a W3C Verifiable Credential (data model 2.0), shaped after the UN Transparency Protocol's
Digital Product Passport: the product, what was claimed of it and on what evidence, where it has been. The
exchange signs the bytes (`perak.wire.passports`); nothing here proves anything by itself. Owners are
pseudonyms that hold for one device alone, so that passports don't tell whose cards belong together.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from perak.domain.hardware import inspection as names
from perak.domain.hardware.grade import Assessment
from perak.domain.hardware.inspection import DeviceIdentity, DeviceInspection
from perak.domain.hardware.software import software_life
from perak.domain.hardware.specs import find_gpu
from perak.domain.hardware.standing import Standing
from perak.domain.hardware.wipe import WipeRecord
from perak.domain.receipt import Json

CONTEXT: tuple[Json, ...] = (
    "https://www.w3.org/ns/credentials/v2",
    "https://test.uncefact.org/vocabulary/untp/dpp/0.5.0/",
)
TYPES: tuple[Json, ...] = ("VerifiableCredential", "DigitalProductPassport")
VERSION = 1
KINDS = ("inspected", "wiped", "incident")
"""What an entry may be of."""
MEASURED = (
    names.COPY, names.FP32, names.FP16, names.TENSOR_FP16, names.TENSOR_BF16, names.SOAK_SECONDS,
    names.SOAK_TEMPERATURE, names.SOAK_CLOCK_DRIFT, names.SOAK_POWER, names.RETIRED_PAGES,
    names.REMAPPED_ROWS,
    names.ECC_AGGREGATE_UNCORRECTED, names.MEMORY_SHARE, names.PCIE_WIDTH, names.PCIE_GENERATION,
)  # fmt: skip
"""Figures that an entry shows; the rest is in the evidence that it names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What a device did here up to an entry. `lost_runs`: ended by a fault of it or of its node.

    `energy_joules`: its equal share of what its leases' receipts count; None: there is no lease yet.
    """

    leases: int = 0
    hours_leased: float = 0.0
    energy_joules: float | None = None
    lost_runs: int = 0
    wipes: int = 0
    owners: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an entry stands: whose device it is, and after which entry. Times are Unix milliseconds."""

    exchange: str
    device: str
    seq: int
    previous: str | None
    owner: str
    """A pseudonym, by `owner_pseudonym`."""
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """What befell a device between inspections; `at`: by its node.

    `what`: ``thermal``, or a fault by `perak.domain.hardware.fault.name_of`; `code`: the Xid's.
    """

    what: str
    detail: str
    at: int
    code: int | None = None


def owner_pseudonym(project: str, *, device: str) -> str:
    """The owner's name on this device's passport: the same owner has another on another device's."""
    return "owner-" + hashlib.sha256(f"{project}\n{device}".encode()).hexdigest()[:16]


def entry_digest(credential: str) -> str:
    """``sha256:<hex>`` of a signed entry, by which the next one names it."""
    return f"sha256:{hashlib.sha256(credential.encode()).hexdigest()}"


def wipe_digest(record: WipeRecord) -> str:
    """``sha256:<hex>`` of a wipe's record."""
    text = json.dumps(asdict(record), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def inspected_entry(
    place: Place,
    inspection: DeviceInspection,
    *,
    standing: Standing,
    assessment: Assessment,
    use: Use,
    spread: Mapping[str, Sequence[float]],
    cards: int,
) -> dict[str, Json]:
    """The credential of an inspection. `spread`: deciles of the model's throughputs over `cards`."""
    event: dict[str, Json] = {
        "kind": "inspected",
        "evidence": names.digest(inspection),
        "inspection": inspection.kind,
        "trigger": inspection.trigger,
        "startedAt": _utc(inspection.started_at),
        "endedAt": _utc(inspection.ended_at),
        "software": inspection.software,
        "coverage": round(inspection.coverage, 3),
        "measured": {name: value for name in MEASURED if (value := inspection.value(name)) is not None},
        "incidents": _incidents(inspection),
        "notRun": {each.name: each.reason for each in inspection.checks if each.status == "not_run"},
    }
    grade: dict[str, Json] = {
        "grade": assessment.grade,
        "label": standing.label if not assessment.rejected else "rejected",
        "provisional": assessment.provisional,
        "ecc": assessment.ecc,
        "score": assessment.score,
        "coverage": round(assessment.coverage, 3),
        "reasons": list(assessment.reasons),
        "failuresPerHour": standing.failures_per_hour,
    }
    comparison: dict[str, Json] = {
        "cards": cards,
        "deciles": {name: list(values) for name, values in spread.items()},
    }
    return _credential(place, inspection.identity, event, use, grade=grade, comparison=comparison)


def _incidents(inspection: DeviceInspection) -> list[Json]:
    """What went wrong during an inspection: events of the driver, and checks that failed."""
    xids: list[Json] = [{"kind": "xid", "code": xid} for xid in inspection.xids]
    failed: list[Json] = [
        {"kind": "failed", "check": each.name, "reason": each.reason} for each in inspection.failed
    ]
    return xids + failed


def wiped_entry(
    place: Place, record: WipeRecord, *, identity: DeviceIdentity | None, use: Use
) -> dict[str, Json]:
    """The credential of a wipe, in the words of NIST SP 800-88: "Clear" at most."""
    event: dict[str, Json] = {
        "kind": "wiped",
        "evidence": wipe_digest(record),
        "standard": "NIST SP 800-88 Rev. 1",
        "method": record.method,
        "status": record.status,
        "reason": record.reason,
        "memoryBytes": record.memory_bytes,
        "memoryTotalBytes": record.memory_total_bytes,
        "localBytes": record.local_bytes,
        "leftoverWords": record.leftover_words,
        "startedAt": _utc(record.started_at),
        "endedAt": _utc(record.ended_at),
    }
    return _credential(place, identity, event, use)


def incident_entry(
    place: Place, incident: Incident, *, leased: bool, identity: DeviceIdentity | None, use: Use
) -> dict[str, Json]:
    """The credential of an incident. `leased`: a lease had the device at that time."""
    event: dict[str, Json] = {
        "kind": "incident",
        "incident": "xid" if incident.code is not None else incident.what,
        "code": incident.code,
        "detail": incident.detail,
        "leased": leased,
        "at": _utc(incident.at),
    }
    return _credential(place, identity, event, use)


def _credential(
    place: Place,
    identity: DeviceIdentity | None,
    event: dict[str, Json],
    use: Use,
    *,
    grade: dict[str, Json] | None = None,
    comparison: dict[str, Json] | None = None,
) -> dict[str, Json]:
    subject: dict[str, Json] = {
        "type": ["ProductPassport"],
        "id": f"urn:perak:device:{place.device}",
        "granularityLevel": "item",
        "product": _product(place.device, identity),
        "traceabilityInformation": [event],
        "owner": place.owner,
        "use": {
            "leases": use.leases,
            "hoursLeased": round(use.hours_leased, 3),
            "energyJoules": None if use.energy_joules is None else round(use.energy_joules, 1),
            "lostRuns": use.lost_runs,
            "wipes": use.wipes,
            "owners": use.owners,
        },
    }
    if grade is not None:
        subject["conformityClaim"] = [{"type": ["Claim"], "topic": "condition", **grade}]
    if comparison is not None:
        subject["modelComparison"] = comparison
    return {
        "@context": list(CONTEXT),
        "type": list(TYPES),
        "id": f"urn:perak:passport:{place.device}:{place.seq}",
        "issuer": {"id": f"perak:exchange:{place.exchange}", "name": place.exchange},
        "validFrom": _utc(place.at),
        "credentialSubject": subject,
        "perak": {"version": VERSION, "seq": place.seq, "previous": place.previous},
    }


def _product(device: str, identity: DeviceIdentity | None) -> dict[str, Json]:
    """What the device is, from its newest inspection; where there was none, its id alone."""
    if identity is None:
        return {"type": ["Product"], "id": f"urn:perak:device:{device}"}
    spec = find_gpu(identity.model, memory_bytes=identity.nvml_memory_bytes or identity.opencl_memory_bytes)
    product: dict[str, Json] = {
        "type": ["Product"],
        "id": f"urn:perak:device:{device}",
        "name": identity.model,
        "serialNumber": identity.serial,
        "characteristics": {
            "uuid": identity.uuid,
            "vbios": identity.vbios,
            "driver": identity.driver,
            "pciIds": identity.pci_ids,
            "memoryBytes": identity.nvml_memory_bytes or identity.opencl_memory_bytes,
            "computeCapability": identity.compute_capability,
            "powerLimitWatts": identity.power_limit_watts,
            "eccEnabled": identity.ecc_enabled,
        },
    }
    if spec is not None:
        product["class"] = {
            "variant": spec.variant,
            "architecture": spec.architecture,
            "launched": spec.launched,
            "memoryGib": spec.memory_gib,
            "bandwidthGbs": spec.bandwidth_gbs,
            "fp32Tflops": spec.fp32_tflops,
            "tdpWatts": spec.tdp_watts,
        }
        product["softwareLife"] = [
            {"software": each.software, "last": each.last, "note": each.note, "source": each.source}
            for each in software_life(spec)
        ]
    return product


def _utc(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms // 1000, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

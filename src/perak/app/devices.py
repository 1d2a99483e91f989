"""What nodes report of their devices: graded, remembered on the passport, and shown to the market."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from perak.app.context import Context
from perak.app.effects import Effect, MarketChanged
from perak.app.ports import Transaction
from perak.app.records import DeviceHistory, NewInspection, NodeRecord
from perak.app.refusals import tell_refusal
from perak.domain.hardware import inspection as names
from perak.domain.hardware.grade import REJECTED, Assessment, assess
from perak.domain.hardware.hazard import device_failures_per_hour, host_departures_per_hour
from perak.domain.hardware.inspection import DeviceInspection
from perak.domain.hardware.passport import (
    Place,
    entry_digest,
    inspected_entry,
    owner_pseudonym,
    wiped_entry,
)
from perak.domain.hardware.reference import throughputs
from perak.domain.hardware.specs import find_gpu
from perak.domain.hardware.standing import Standing
from perak.domain.hardware.wipe import WipeRecord
from perak.domain.plausible import shown


async def take_inspection(
    tx: Transaction,
    *,
    node: NodeRecord,
    inspection: DeviceInspection,
    jws: str,
    context: Context,
    now: datetime,
) -> list[Effect]:
    """Keep an inspection, grade its device anew, and write it into the passport; the same again does nothing.

    A UUID that another owner's node offers at this moment belongs to that one: this one's device gets no
    grade and no passport, and its owner is told.
    """
    device = inspection.identity.uuid
    await tx.devices.lock(device)
    new = NewInspection(
        digest=names.digest(inspection),
        inspection=inspection,
        model=class_of(inspection),
        throughputs=throughputs([inspection]),
        jws=jws,
    )
    if not await tx.devices.keep(new, node=node, now=now):
        return []
    if await tx.devices.offered_elsewhere(device, project=node.project):
        why = "another owner's node offers a device of this UUID; a UUID belongs to one device"
        standing = Standing(reasons=(f"ungraded because {why}",), inspected_at_ms=inspection.ended_at)
        changed = await tx.devices.set_standing(
            device, node=node.id, standing=standing, rejected=False, now=now
        )
        await _tell(tx, node, device, why, now=now)
        return [MarketChanged()] if changed else []
    history = await tx.devices.history(device, node=node.id, project=node.project, model=new.model, now=now)
    seen = history.inspections or (inspection,)  # One that comes late may itself be too old to count.
    assessment = assess(seen, reference=history.reference, before=history.grade)
    if unmet := await tx.challenges.unmet(device, node=node.id):
        reasons = tuple(f"rejected because {each}" for each in unmet)
        assessment = replace(assessment, grade=REJECTED, reasons=reasons)
    standing = _standing(inspection, assessment, history)
    place = await place_of(tx, device, node, context, now)
    values = inspected_entry(
        place, inspection, standing=standing, assessment=assessment, use=history.use,
        spread=history.spread, cards=history.reference.cards,
    )  # fmt: skip
    credential = context.sign_passport(values)
    digest = entry_digest(credential)
    await tx.devices.append(place, kind="inspected", digest=digest, credential=credential, node=node, now=now)
    graded = replace(standing, passport=digest)
    changed = await tx.devices.set_standing(
        device, node=node.id, standing=graded, rejected=assessment.rejected, now=now
    )
    if assessment.rejected:
        await _tell(tx, node, device, "; ".join(assessment.reasons), now=now)
    return [MarketChanged()] if changed else []


async def take_wipe(
    tx: Transaction, *, node: NodeRecord, record: WipeRecord, jws: str, context: Context, now: datetime
) -> list[Effect]:
    """Write a wipe into the passport of a device that has one; its owner is told of one that failed."""
    await tx.devices.lock(record.device)
    if record.status != "passed":
        after = f"after the lease {record.lease}" if record.lease else "by hand"
        why = f"its memory was not wiped {after}: {record.reason or record.status}"
        await _tell(tx, node, record.device, why, now=now)
    if not await tx.devices.keep_wipe(record, node=node, jws=jws, now=now):
        return []
    if await tx.devices.offered_elsewhere(record.device, project=node.project):
        return []
    history = await tx.devices.history(record.device, node=node.id, project=node.project, model=None, now=now)
    place = await place_of(tx, record.device, node, context, now)
    identity = history.inspections[-1].identity if history.inspections else None
    credential = context.sign_passport(wiped_entry(place, record, identity=identity, use=history.use))
    digest = entry_digest(credential)
    await tx.devices.append(place, kind="wiped", digest=digest, credential=credential, node=node, now=now)
    return []


def class_of(inspection: DeviceInspection) -> str:
    """What devices are compared with each other: the variant in the table, else the name they claim."""
    identity = inspection.identity
    memory = identity.nvml_memory_bytes or identity.opencl_memory_bytes
    spec = find_gpu(identity.model, memory_bytes=memory)
    return spec.variant if spec is not None else identity.model


def _standing(inspection: DeviceInspection, assessment: Assessment, history: DeviceHistory) -> Standing:
    rates = throughputs(history.inspections)
    of_device = device_failures_per_hour(
        failures=history.class_failures, device_years=history.class_years, score=assessment.score
    )
    of_host = host_departures_per_hour(departures=history.host_departures, hours=history.host_hours)
    return Standing(
        grade=None if assessment.rejected else assessment.grade,
        provisional=assessment.provisional,
        ecc=assessment.ecc,
        score=assessment.score,
        coverage=round(assessment.coverage, 3),
        reasons=assessment.reasons,
        fp32_tflops=rates.get(names.FP32),
        fp16_tflops=rates.get(names.TENSOR_FP16, rates.get(names.FP16)),
        bandwidth_gbs=rates.get(names.COPY),
        failures_per_hour=of_device + of_host,
        inspected_at_ms=inspection.ended_at,
    )


async def place_of(tx: Transaction, device: str, node: NodeRecord, context: Context, now: datetime) -> Place:
    """Where the next entry of a device's passport stands."""
    last = await tx.devices.last_entry(device)
    return Place(
        exchange=context.exchange.name,
        device=device,
        seq=1 if last is None else last[0] + 1,
        previous=None if last is None else last[1],
        owner=owner_pseudonym(node.project, device=device),
        at=int(now.timestamp() * 1000),
    )


async def _tell(tx: Transaction, node: NodeRecord, device: str, why: str, *, now: datetime) -> None:
    await tell_refusal(tx, node=node, subject="device", detail=shown(f"{device}: {why}")[:500], now=now)

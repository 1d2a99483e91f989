"""What befalls devices between their inspections: an entry of the passport, and a new rate of failure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from perak.app.context import Context
from perak.app.devices import place_of
from perak.app.ports import Transaction
from perak.app.records import NodeRecord
from perak.app.refusals import tell_refusal
from perak.domain.hardware.fault import is_minor, meaning_of, name_of, told
from perak.domain.hardware.hazard import device_failures_per_hour, host_departures_per_hour
from perak.domain.hardware.heat import told as heat_told
from perak.domain.hardware.passport import Incident, entry_digest, incident_entry
from perak.domain.plausible import shown
from perak.domain.report import Faulted, Sensor

SAME_AGAIN = timedelta(hours=1)
"""The same incident of a device is written once in this time: a card at its limit turns hot every minute."""
RATED_FOR = timedelta(days=1)
"""A rate is counted again after this long in any case: years without a failure make it better."""


async def take_fault(
    tx: Transaction, *, node: NodeRecord, fault: Faulted, at: datetime, context: Context, now: datetime
) -> None:
    """Write a fault into the device's passport, and tell its owner; not what a program made itself."""
    if is_minor(fault):
        return
    incident = Incident(what=name_of(fault), code=fault.xid, detail=meaning_of(fault), at=_ms(at))
    if await _write(tx, fault.device, incident, node=node, context=context, now=now):
        why = shown(f"{fault.device}: {told(fault)}")[:500]
        await tell_refusal(tx, node=node, subject="device", detail=why, now=now)


async def take_heat(
    tx: Transaction,
    *,
    node: NodeRecord,
    turned_hot: Sequence[Sensor],
    at: datetime,
    context: Context,
    now: datetime,
) -> None:
    """Write into the passports of devices that they reached the temperature at which they slow themselves."""
    for sensor in sorted(turned_hot, key=lambda each: each.id):
        incident = Incident(what="thermal", detail=heat_told(sensor), at=_ms(at))
        await _write(tx, sensor.id, incident, node=node, context=context, now=now)


async def rate_again(tx: Transaction, *, now: datetime, limit: int) -> int:
    """Count the failures per hour of some standings anew, whose last count something has happened since."""
    due = await tx.devices.unrated(rated_before=now - RATED_FOR, limit=limit, now=now)
    for each in due:
        of_device = device_failures_per_hour(
            failures=each.class_failures, device_years=each.class_years, score=each.score
        )
        of_host = host_departures_per_hour(departures=each.host_departures, hours=each.host_hours)
        await tx.devices.rate(
            each.device, node=each.node, failures_per_hour=of_device + of_host, now=now
        )  # fmt: skip
    await tx.devices.show(sorted({each.node for each in due}))
    return len(due)


async def _write(
    tx: Transaction, device: str, incident: Incident, *, node: NodeRecord, context: Context, now: datetime
) -> bool:
    """Whether it was written: only of a device that this node had inspected, and no other owner offers."""
    await tx.devices.lock(device)
    if not await tx.devices.is_of(device, node=node.id):
        return False
    if await tx.devices.has_incident(device, incident.what, since=now - SAME_AGAIN):
        return False
    if await tx.devices.offered_elsewhere(device, project=node.project):
        return False
    leased = await tx.devices.is_leased(device, node=node.id)
    history = await tx.devices.history(device, node=node.id, project=node.project, model=None, now=now)
    identity = history.inspections[-1].identity if history.inspections else None
    place = await place_of(tx, device, node, context, now)
    values = incident_entry(place, incident, leased=leased, identity=identity, use=history.use)
    credential = context.sign_passport(values)
    await tx.devices.append(
        place, kind="incident", digest=entry_digest(credential), credential=credential, node=node, now=now,
        incident=incident.what,
    )  # fmt: skip
    return True


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)

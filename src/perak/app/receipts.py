"""Compose the receipt of a settled run."""

from __future__ import annotations

from datetime import datetime

from perak.app.records import Engagement, ExchangeFacts, RunEnd
from perak.domain.carbon.energy import operational_carbon
from perak.domain.carbon.intensity import yearly_intensity
from perak.domain.footprint import Energy
from perak.domain.offer import OfferAsk
from perak.domain.outcome import Settlement
from perak.domain.receipt import (
    DeviceUse,
    Logs,
    Receipt,
    SandboxUse,
    readable_by,
    utc_text,
)


def compose(
    at: Engagement,
    end: RunEnd,
    money: Settlement,
    *,
    ask: OfferAsk,
    held: int,
    exchange: ExchangeFacts,
    id: str,
    now: datetime,
) -> Receipt:
    """The receipt of a run, from its lease, how it ended, and what was paid."""
    assert end.started_at_ms is not None
    return Receipt(
        id=id,
        issued_at=utc_text(int(now.timestamp() * 1000)),
        exchange=exchange.name,
        currency=exchange.currency,
        job=at.job.id,
        project=at.job.project,
        run=at.run.id,
        lease=at.lease.id,
        epoch=at.lease.epoch,
        attempt=at.run.attempt,
        provider=at.lease.provider,
        node=at.lease.node,
        offer=at.lease.offer,
        offer_version=at.lease.offer_version,
        device=_device(at, ask),
        sandbox=SandboxUse(
            tier=at.run.tier or ask.tier,
            runtime=ask.sandbox(at.run.tier).runtime,
            enforced=at.run.enforced,
            unenforced=at.run.unenforced,
            checklist=at.lease.checklist,
        ),
        started_at=utc_text(end.started_at_ms),
        ended_at=utc_text(end.until_ms),
        billed_seconds=money.billed_seconds,
        price_per_device_hour_micros=at.lease.price,
        devices_milli=at.lease.devices_milli,
        cost_micros=money.cost,
        fee_micros=money.fee,
        payout_micros=money.payout,
        held_micros=held,
        refunded_micros=held - money.cost,
        exit_code=end.exit_code,
        cause=end.reported_cause,
        energy=Energy(
            joules=end.energy_joules,
            method=end.energy_method,
            uncertainty_percent=end.energy_uncertainty_percent,
        ),
        carbon=operational_carbon(end.energy_joules, yearly_intensity(ask.region)),
        logs=Logs(size_bytes=at.run.log_bytes if end.log_bytes is None else end.log_bytes),
        outputs_digest=end.outputs.digest if end.outputs else None,
        network=end.network,
        readable_by=readable_by(encrypted=at.job.spec.encrypt_to is not None),
        image=f"{image.name}@{image.digest}" if (image := at.job.spec.image) else None,
        evidence=end.evidence_jws,
    )


def _device(at: Engagement, ask: OfferAsk) -> DeviceUse:
    used = [d for d in ask.devices if d.uuid in at.lease.devices]
    return DeviceUse(
        kind=used[0].kind if used else "cpu",
        model=used[0].model if used else ask.cpu_model,
        uuids=at.lease.devices,
        cpu_milli=at.lease.cpu_milli,
        memory_bytes=at.lease.memory_bytes,
    )

"""Compose the receipt of a settled run."""

from __future__ import annotations

from datetime import datetime

from perak.app.records import Engagement, ExchangeFacts, RunEnd
from perak.domain.carbon.counting import hardware, moving, operational
from perak.domain.carbon.placement import Grid
from perak.domain.footprint import RUN_UNIT, Avoided, Carbon, Embodied, Energy, Moved, Sci, sci
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
from perak.domain.whereabouts import Whereabouts


def compose(
    at: Engagement,
    end: RunEnd,
    money: Settlement,
    *,
    ask: OfferAsk,
    held: int,
    exchange: ExchangeFacts,
    grid: Grid,
    where: Whereabouts,
    id: str,
    now: datetime,
) -> Receipt:
    """The receipt of a run, from its lease, how it ended, and what was paid."""
    assert end.started_at_ms is not None
    energy, carbon = _energy_and_carbon(end, ask, grid, where)
    embodied, avoided = _hardware(at, end, ask)
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
        sandbox=_sandbox(at, ask),
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
        energy=energy,
        carbon=carbon,
        embodied=embodied,
        avoided=avoided,
        sci=_sci(at, end, energy, carbon, embodied),
        moved=_moved(at, end, carbon),
        logs=Logs(size_bytes=at.run.log_bytes if end.log_bytes is None else end.log_bytes),
        outputs_digest=end.outputs.digest if end.outputs else None,
        network=end.network,
        readable_by=readable_by(encrypted=at.job.spec.encrypt_to is not None),
        image=f"{image.name}@{image.digest}" if (image := at.job.spec.image) else None,
        evidence=end.evidence_jws,
    )


def _energy_and_carbon(end: RunEnd, ask: OfferAsk, grid: Grid, where: Whereabouts) -> tuple[Energy, Carbon]:
    assert end.started_at_ms is not None
    energy = Energy(
        joules=end.energy_joules,
        method=end.energy_method,
        uncertainty_percent=end.energy_uncertainty_percent,
        samples=end.energy_samples,
        modelled=end.energy_modelled,
    )
    carbon = operational(
        end.energy_joules,
        hours=end.energy_hours,
        start=end.started_at_ms / 1000,
        seconds=_seconds(end),
        region=ask.region,
        grid=grid,
        where=where,
    )
    return energy, carbon


def _hardware(at: Engagement, end: RunEnd, ask: OfferAsk) -> tuple[Embodied, Avoided | None]:
    """Of a server, its part of the cores on offer; GPUs belong to a run whole."""
    used = [(d.model, d.memory_bytes) for d in ask.devices if d.uuid in at.lease.devices]
    share = at.lease.cpu_milli / ask.cpu_milli if ask.cpu_milli else 1.0
    return hardware(gpus=used, host_share=share, seconds=_seconds(end))


def _moved(at: Engagement, end: RunEnd, carbon: Carbon) -> Moved:
    """Inputs, images and packages from elsewhere are named: only the node saw how large they were."""
    spec, network = at.job.spec, end.network
    elsewhere = [each.path for each in spec.inputs if not each.url.startswith("job:")]
    elsewhere += ["the image"] if spec.image else []
    elsewhere += ["the Python packages"] if spec.python and spec.python.packages else []
    return moving(
        received_bytes=at.job.brought_bytes,
        sent_bytes=end.outputs.size_bytes if end.outputs else 0,
        run_bytes=network.sent_bytes + network.received_bytes if network else 0,
        grams_per_kwh=carbon.grams_per_kwh,
        uncounted=elsewhere,
    )


def _sci(at: Engagement, end: RunEnd, energy: Energy, carbon: Carbon, embodied: Embodied) -> Sci:
    """Per the renter's functional unit; of a run that did not end well, per run."""
    wanted = at.job.spec.functional_unit if end.exit_code == 0 else None
    unit, count = (wanted.name, wanted.count) if wanted else (RUN_UNIT, 1.0)
    return sci(energy, carbon, embodied, unit=unit, count=count)


def _seconds(end: RunEnd) -> float:
    assert end.started_at_ms is not None
    return max(0.0, (end.until_ms - end.started_at_ms) / 1000)


def _device(at: Engagement, ask: OfferAsk) -> DeviceUse:
    used = [d for d in ask.devices if d.uuid in at.lease.devices]
    return DeviceUse(
        kind=used[0].kind if used else "cpu",
        model=used[0].model if used else ask.cpu_model,
        uuids=at.lease.devices,
        cpu_milli=at.lease.cpu_milli,
        memory_bytes=at.lease.memory_bytes,
        disk_bytes=at.lease.disk_bytes,
    )


def _sandbox(at: Engagement, ask: OfferAsk) -> SandboxUse:
    return SandboxUse(
        tier=at.run.tier or ask.tier,
        runtime=ask.sandbox(at.run.tier).runtime,
        enforced=at.run.enforced,
        unenforced=at.run.unenforced,
        checklist=at.lease.checklist,
    )

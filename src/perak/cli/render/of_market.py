"""Nodes and offers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text

from perak.cli.render.of_passports import standing_rows
from perak.cli.render.parts import (
    Fitted,
    ago,
    at_time,
    fact_table,
    plain,
    short_device,
    short_id,
    state_text,
)
from perak.domain.units import format_bytes, format_duration
from perak.domain.whereabouts import EVIDENCE_WORDS

if TYPE_CHECKING:
    from perak.wire import api
    from perak.wire.api.devices import StandingView


def nodes(found: Iterable[api.Node], *, now: datetime) -> RenderableType:
    rows = [
        (
            short_id(node.id),
            plain(node.name),
            state_text(node.state),
            state_text(node.mode),
            ago(node.last_seen, now) if node.last_seen else "never",
            str(node.live_leases),
            short_id(node.offer) if node.offer else "-",
            plain(node.agent_version or "-"),
        )
        for node in found
    ]
    columns = ("ID", "NAME", "STATE", "MODE", "LAST SEEN", ">LEASES", "OFFER", "AGENT")
    return Fitted(columns, rows, spare=("AGENT", "OFFER", "MODE"))


def node(
    found: api.Node, *, offered: api.Offer | None = None, devices: Sequence[StandingView] = ()
) -> RenderableType:
    """`offered`: what the node offers, for its sandboxes; `devices`: their grades."""
    return fact_table(
        ("node", found.id),
        ("name", found.name),
        ("project", found.project),
        ("state", state_text(found.state)),
        ("mode", state_text(found.mode)),
        ("last seen", at_time(found.last_seen) if found.last_seen else "never"),
        ("enrolled", at_time(found.enrolled_at)),
        ("agent", found.agent_version),
        (
            "notice",
            f"{at_time(found.notice_at)}: {found.notice}" if found.notice and found.notice_at else None,
        ),
        ("offer", found.offer),
        ("live leases", str(found.live_leases)),
        ("taken back", at_time(found.reclaim_at) if found.reclaim_at else None),
        *(("reserved", _window(each)) for each in found.reservations),
        *(_sandboxes(offered) if offered is not None else ()),
        *standing_rows(devices),
        *(("temperature", _temperature(each)) for each in found.temperatures),
        ("read", at_time(found.health_at) if found.temperatures and found.health_at else None),
    )


def _notice(found: api.Node) -> str | None:
    if found.notice is None or found.notice_at is None:
        return None
    return f"{at_time(found.notice_at)}: {found.notice}"


def _window(kept: api.WindowView) -> str:
    what = f"{len(kept.devices)} GPU" if kept.devices else f"{kept.cpu_milli / 1000:g} cores"
    return f"{at_time(kept.start_at)} to {at_time(kept.end_at)}: {what} at {kept.price} per device-hour"


def taken_back(found: api.Node) -> str:
    """When its owner takes a draining node back, to follow its mode."""
    if found.reclaim_at is None:
        return ""
    return f", and is taken back at {at_time(found.reclaim_at)}: what still runs then is stopped"


def reserved_warning(found: api.Node) -> str | None:
    """What a node that takes no work loses; None: nothing is reserved on it."""
    if not found.reservations:
        return None
    count, first = len(found.reservations), found.reservations[0]
    windows = "1 reserved window" if count == 1 else f"{count} reserved windows"
    return (
        f"{windows} on {found.name}, the next from {at_time(first.start_at)}: one that begins while the node "
        "takes no work goes to another offer, or is refunded. `perak node show` lists them; `perak node "
        "resume` in time keeps them."
    )


def _temperature(sensor: api.TemperatureView) -> Text:
    what = f"{sensor.celsius:g} °C of at most {sensor.hot_celsius:g} °C ({sensor.limit_source})"
    return plain(f"{sensor.name}: {what}") + (Text(" HOT", style="red") if sensor.hot else Text())


def offers(found: Iterable[api.Offer]) -> RenderableType:
    columns = (
        "ID", "NODE", "STATE", "REGION", "DEVICES", ">FREE CORES", ">FREE MEMORY", ">GPU/h", ">CORE/h",
        "SANDBOX", ">NOTICE",
    )  # fmt: skip
    rows = [
        (
            short_id(offer.id),
            plain(offer.node_name),
            state_text(offer.state if offer.accepting or offer.state != "open" else "waiting"),
            plain(offer.region),
            plain(short_device(_devices(offer))),
            f"{offer.free_cpu_milli / 1000:g} of {offer.cpu_milli / 1000:g}",
            format_bytes(offer.free_memory_bytes),
            offer.price_gpu or "-",
            offer.price_cpu or "-",
            plain(", ".join(each.tier for each in offer.tiers) or offer.tier),
            format_duration(offer.reclaim_notice_seconds) if offer.reclaim_notice_seconds else "-",
        )
        for offer in found
    ]
    return Fitted(columns, rows, spare=("SANDBOX", ">NOTICE", ">FREE MEMORY", "ID"))


def offer(found: api.Offer) -> RenderableType:
    return fact_table(
        ("offer", found.id),
        ("node", found.node_name),
        ("state", state_text(found.state)),
        ("region", f"{found.region} ({EVIDENCE_WORDS.get(found.region_evidence, found.region_evidence)})"),
        ("region refused", Text(found.region_refused, style="red") if found.region_refused else None),
        ("devices", _devices(found)),
        *(("left out", f"{what}: {why}") for what, why in found.left_out.items()),
        ("cores", f"{found.free_cpu_milli / 1000:g} free of {found.cpu_milli / 1000:g}"),
        ("memory", f"{format_bytes(found.free_memory_bytes)} free of {format_bytes(found.memory_bytes)}"),
        ("disk", f"{format_bytes(found.free_disk_bytes)} free of {format_bytes(found.disk_bytes)}"),
        ("price per GPU-hour", found.price_gpu or "not offered"),
        ("price per core-hour", found.price_cpu or "not offered"),
        ("jobs may have", ", ".join(found.grants) or "no network, no terminals"),
        ("jobs may bring", ", ".join(found.takes) or "their work folder alone"),
        ("shortest job", format_duration(found.min_duration_seconds) if found.min_duration_seconds else None),
        ("until", at_time(found.available_until) if found.available_until else None),
        (
            "notice before an end",
            format_duration(found.reclaim_notice_seconds) if found.reclaim_notice_seconds else None,
        ),
        *_sandboxes(found),
    )


def _sandboxes(found: api.Offer) -> list[tuple[str, str]]:
    """Each tier with what it does not enforce, and what was tried from inside it."""
    rows: list[tuple[str, str]] = []
    for tier in found.tiers:
        rows.append(("sandbox", _sandbox(tier)))
        rows += [("not enforced", f"{limit}: {why}") for limit, why in tier.unenforced.items()]
        if tier.checklist:
            rows.append(("checklist", f"{tier.checklist}  (perak offer checks)"))
    return rows


def _sandbox(tier: api.TierView) -> str:
    return f"{tier.tier} ({tier.runtime}){'' if tier.devices else '; not for GPU jobs'}"


def _devices(offer: api.Offer) -> str:
    gpus = sum(1 for what in offer.left_out if what != "disk" and not what.startswith("sandbox "))
    left_out = f" ({gpus} GPU left out)" if gpus else ""
    if not offer.devices:
        return offer.cpu_model + left_out
    grades: dict[str, list[str]] = {}
    for device in offer.devices:
        grades.setdefault(device.model, []).append(device.grade)
    return ", ".join(f"{len(of)} x {model} ({_grades(of)})" for model, of in grades.items()) + left_out


def _grades(found: Sequence[str]) -> str:
    """Each grade with how many have it: ``ungraded``, or ``2 A, 1 B (provisional)``."""
    counts = {grade: found.count(grade) for grade in sorted(set(found))}
    if len(counts) == 1:
        return found[0]
    return ", ".join(f"{count} {grade}" for grade, count in counts.items())

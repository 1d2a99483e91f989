"""Wallets, entries, receipts and earnings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from perak.cli.render import of_footprint
from perak.cli.render.parts import (
    at_time,
    block,
    fact_table,
    in_grams,
    in_joules,
    in_money,
    new_table,
    optional,
    plain,
    short_id,
)
from perak.domain.units import format_bytes

if TYPE_CHECKING:
    from perak.wire import api


def wallet(found: api.Wallet) -> RenderableType:
    return fact_table(
        ("project", found.project),
        ("available", f"{found.available} {found.currency}"),
        ("held", f"{found.held} {found.currency}"),
        ("earned", f"{found.earned} {found.currency}"),
    )


def entries(found: Iterable[api.EntryView]) -> RenderableType:
    table = new_table("AT", "KIND", ">AMOUNT", "JOB", "NOTE")
    for entry in found:
        table.add_row(
            at_time(entry.at),
            plain(entry.kind),
            Text(entry.amount, style="red" if entry.amount.startswith("-") else "green"),
            short_id(entry.job) if entry.job else "-",
            plain(entry.note or ""),
        )
    return table


def receipts(found: Iterable[api.ReceiptSummary]) -> RenderableType:
    table = new_table("ID", "ISSUED", "JOB", ">COST", ">ENERGY", ">CARBON")
    for receipt in found:
        table.add_row(
            short_id(receipt.id),
            at_time(receipt.issued_at),
            short_id(receipt.job),
            receipt.cost,
            "-" if receipt.energy_joules is None else in_joules(receipt.energy_joules),
            "-" if receipt.carbon_grams is None else in_grams(receipt.carbon_grams),
        )
    return table


def receipt(said: Mapping[str, Any]) -> RenderableType:
    """The whole receipt, one line per figure."""
    currency = str(said.get("currency", ""))
    device, sandbox, logs = (block(said, name) for name in ("device", "sandbox", "logs"))
    devices_milli = said.get("devices_milli")
    rows: list[tuple[str, str | Text | None]] = [
        *((name, optional(said.get(name))) for name in ("id", "issued_at", "exchange", "job", "project")),
        *((name, optional(said.get(name))) for name in ("run", "attempt", "lease", "epoch", "provider")),
        *((name, optional(said.get(name))) for name in ("node", "offer", "offer_version")),
        ("device", f"{device.get('kind', '-')} {device.get('model', '')}"),
        ("cores", f"{int(device.get('cpu_milli') or 0) / 1000:g}"),
        ("memory", format_bytes(int(device.get("memory_bytes") or 0))),
        ("disk", format_bytes(int(device["disk_bytes"])) if device.get("disk_bytes") else None),
        ("sandbox", f"{sandbox.get('tier', '-')} ({sandbox.get('runtime', '-')})"),
        ("image", optional(said.get("image")) or "none"),
        ("enforced", ", ".join(sandbox.get("enforced") or ()) or "nothing"),
    ]
    rows += [("not enforced", f"{name}: {why}") for name, why in (sandbox.get("unenforced") or {}).items()]
    if sandbox.get("checklist"):
        rows.append(("checklist", f"{sandbox['checklist']}  (perak offer checks)"))
    rows += [
        ("started", optional(said.get("started_at")) or "never"),
        ("ended", optional(said.get("ended_at"))),
        ("ended by", optional(said.get("cause"))),
        ("exit code", optional(said.get("exit_code"))),
        ("billed", f"{said.get('billed_seconds', 0)} s"),
        ("price", f"{in_money(said, 'price_per_device_hour_micros', currency)} per device-hour"),
        ("devices", f"{int(devices_milli or 0) / 1000:g}"),
        ("cost", Text(in_money(said, "cost_micros", currency), style="bold")),
        ("fee", f"{in_money(said, 'fee_micros', currency)} of it to the exchange"),
        ("payout", f"{in_money(said, 'payout_micros', currency)} of it to the provider"),
        ("held", in_money(said, "held_micros", currency)),
        ("refunded", in_money(said, "refunded_micros", currency)),
        ("elsewhere", _elsewhere(said)),
        *of_footprint.rows(said),
        ("log", format_bytes(int(logs.get("size_bytes") or 0))),
        ("outputs", optional(said.get("outputs_digest")) or "none"),
        ("network", _traffic(block(said, "network"))),
        ("could be read by", optional(said.get("readable_by"))),
        ("evidence", "signed by the node" if said.get("evidence") else "none: nothing may be billed"),
    ]
    return fact_table(*((name.replace("_", " "), value) for name, value in rows))


def _elsewhere(said: Mapping[str, Any]) -> str | None:
    """The whole bill elsewhere, and what is on it."""
    from perak.domain.hardware.prices import compare_receipt
    from perak.wire.receipts import outputs_bytes

    found = compare_receipt(said, outputs_bytes=outputs_bytes(said))
    return None if found is None else f"{found}. {found.terms}"


def checks(found: Sequence[Any]) -> RenderableType:
    """The checks of a receipt; one that could not be made never looks like one that passed."""
    marks = {True: Text("passed", style="green"), False: Text("FAILED", style="bold red")}
    table = new_table("CHECK", "", "WHAT WAS FOUND")
    for check in found:
        table.add_row(
            plain(check.name), marks.get(check.passed, Text("not made", style="yellow")), plain(check.detail)
        )
    return table


def _traffic(network: Mapping[str, Any]) -> str:
    if not network:
        return "none"
    out, back = (format_bytes(int(network.get(name) or 0)) for name in ("sent_bytes", "received_bytes"))
    refused = network.get("refused")
    return f"{out} out, {back} in" + (f", {refused} requests refused" if refused else "")


def energy_of(said: Mapping[str, Any]) -> str:
    energy = block(said, "energy")
    if not energy:
        return "not known"
    percent = energy.get("uncertainty_percent")
    return in_joules(float(energy["joules"])) + (f" ± {percent:g} %" if percent is not None else "")


def carbon_of(said: Mapping[str, Any]) -> str:
    carbon = block(said, "carbon")
    if not carbon:
        return "not known"
    return f"{in_grams(float(carbon['grams']))} ({carbon.get('method', '')}, {carbon.get('region', '')})"


def earnings(found: api.Earnings) -> RenderableType:
    unit = found.currency
    runs = "1 paid run" if found.runs == 1 else f"{found.runs} paid runs"
    whole = fact_table(
        (
            f"since {found.since}",
            f"{found.earned} {unit} by {runs}",
        ),
        ("fee", f"{found.fee} {unit}; it is {found.fee_percent:g}% of what renters pay"),
        ("earned in all", f"{found.earned_in_all} {unit}"),
        ("paid out", f"{found.paid_out} {unit}"),
        ("balance", f"{found.balance} {unit}"),
    )
    if not found.runs:
        return whole
    nodes, days = (
        new_table("NODE", ">RUNS", ">EARNED", ">FEE"),
        new_table("DAY (UTC)", ">RUNS", ">EARNED", ">FEE"),
    )
    for node in found.nodes:
        nodes.add_row(plain(node.name), str(node.runs), node.earned, node.fee)
    for day in found.days:
        days.add_row(str(day.day), str(day.runs), day.earned, day.fee)
    return Group(whole, Text(), nodes, Text(), days)

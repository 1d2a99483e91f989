"""How things look on a terminal: models in, rich tables and panels out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from perak.cli.exits import printable
from perak.domain.units import format_bytes, format_duration, format_money

if TYPE_CHECKING:
    from perak.wire import api

SHORT_ID_CHARACTERS = 6
"""30 random bits: enough among the thousand jobs in which a short id is looked for."""

_STATE_STYLES = {
    "succeeded": "green",
    "running": "cyan",
    "leased": "cyan",
    "failed": "red",
    "cancelled": "yellow",
    "cancelling": "yellow",
    "online": "green",
    "open": "green",
    "suspected": "yellow",
    "paused": "yellow",
    "draining": "yellow",
    "drained": "yellow",
    "waiting": "yellow",
    "delivered": "green",
    "offline": "red",
    "revoked": "red",
}
JOULES_PER_WATT_HOUR = 3600


def short_id(public_id: str) -> str:
    """The end of an id, which tells things of one kind apart."""
    return public_id.partition("@")[0][-SHORT_ID_CHARACTERS:]


# Jobs


def jobs(found: Iterable[api.Job], *, now: datetime) -> RenderableType:
    table = _table("ID", "NAME", "STATE", "NODE", "SUBMITTED", ">TIME", ">COST")
    for job in found:
        table.add_row(
            short_id(job.id),
            _text(job.name),
            _job_state(job),
            _text(job.node_name or "-"),
            _ago(job.created_at, now),
            _lasted(job.started_at, job.ended_at, now),
            job.cost,
        )
    return table


def job(detail: api.JobDetail, *, now: datetime) -> RenderableType:
    facts = _facts(
        ("job", detail.id),
        ("name", detail.name),
        ("state", _job_state(detail)),
        ("reason", detail.reason),
        ("submitted", _at(detail.created_at)),
        ("time", _lasted(detail.started_at, detail.ended_at, now)),
        ("cost", detail.cost),
        ("held", detail.held),
        ("outputs", f"perak download {short_id(detail.id)}" if detail.has_outputs else None),
        *_left_behind(detail),
    )
    columns = (
        "RUN",
        "NODE",
        "STATE",
        ">PRICE/h",
        ">TIME",
        ">MEMORY",
        ">EXIT",
        "ENDED BY",
        ">COST",
        "RECEIPT",
    )
    runs = _table(*columns)
    for run in detail.runs:
        runs.add_row(
            str(run.attempt),
            _text(run.node_name),
            _state(run.state),
            run.price,
            _lasted(run.started_at, run.ended_at, now),
            _memory(run),
            "-" if run.exit_code is None else str(run.exit_code),
            _text(run.cause or "-"),
            run.cost or "-",
            short_id(run.receipt) if run.receipt else "-",
        )
    steps = _table("AT", "STEP")
    for event in detail.events:
        steps.add_row(_at(event.at), _text(event.detail or event.kind))
    parts: list[RenderableType] = [facts, Text(), runs] if detail.runs else [facts]
    return Group(*parts, Text(), steps)


def _memory(run: api.RunView) -> str:
    """The most that an ended run used, or what a live one uses."""
    known = run.memory_bytes if run.memory_peak_bytes is None else run.memory_peak_bytes
    return "-" if known is None else format_bytes(known)


def _left_behind(detail: api.JobDetail) -> Iterator[tuple[str, str]]:
    """What the last run with outputs did not leave, and what of it can't be taken."""
    last = detail.runs[-1] if detail.runs else None
    if last is not None and last.outputs_missing:
        yield "not found", ", ".join(last.outputs_missing)
    for skipped in last.outputs_skipped if last is not None else ():
        yield "left out", skipped


def ending(detail: api.JobDetail, receipt: api.Receipt | None) -> RenderableType:
    """How a job ended, in a few lines: what `run` closes with."""
    rows: list[tuple[str, str | Text | None]] = [("state", _job_state(detail)), ("reason", detail.reason)]
    if detail.exit_code:
        rows.append(("exit code", str(detail.exit_code)))
    if receipt is None:
        rows.append(("cost", detail.cost))
    else:
        rows += _short_receipt(detail, receipt)
    if detail.has_outputs:
        rows.append(("outputs", f"perak download {detail.name}"))
    rows += _left_behind(detail)
    return Panel(
        _facts(*rows),
        title=_text(detail.name),
        title_align="left",
        box=box.ROUNDED,
        expand=False,
        padding=(0, 1),
    )


def _short_receipt(detail: api.JobDetail, receipt: api.Receipt) -> list[tuple[str, str | Text | None]]:
    said = receipt.receipt
    return [
        ("cost", f"{detail.cost} {said.get('currency', '')}".strip()),
        ("time", format_duration(float(said.get("billed_seconds") or 0)) + " billed"),
        ("energy", _energy(said)),
        ("carbon", _carbon(said)),
        ("sandbox", str(_block(said, "sandbox").get("tier", "-"))),
        ("receipt", f"perak receipt show {short_id(str(said.get('id', '')))}"),
    ]


# Quotes


def quote(quoted: api.Quote) -> RenderableType:
    fitting = [offer for offer in quoted.offers if offer.fits]
    misfits = [offer for offer in quoted.offers if not offer.fits]
    parts: list[RenderableType] = []
    if fitting:
        parts.append(_fitting(fitting, quoted))
    else:
        none = (
            "No offer fits this job as things are." if misfits else "There is no offer on this exchange yet."
        )
        parts.append(Text(none, style="yellow"))
    if misfits:
        parts += [Text(), _misfits(misfits)]
    funds = "which the wallet covers" if quoted.affordable else "which the wallet does not cover"
    hold = f"{quoted.hold} {quoted.currency} will be held, {funds}; what is not used comes back."
    longest = format_duration(quoted.max_duration_seconds)
    if fitting:
        parts += [Text(), Text(f"At most: the cost of its max_duration, {longest}.")]
    compared = {offer.cloud_comparison: None for offer in fitting if offer.cloud_comparison}
    parts += [_text(line) for line in compared]
    parts += [Text(), Text(hold, style="" if quoted.affordable else "red"), Text(quoted.trust, style="dim")]
    return Group(*parts)


def _fitting(offers: Sequence[api.OfferQuote], quoted: api.Quote) -> Table:
    money = (">PRICE", f">{quoted.currency}/h", ">AT MOST")
    columns = ("OFFER", "NODE", "REGION", "DEVICE", *money, ">WATTS", ">gCO2e/h", "SANDBOX", "NOT ENFORCED")
    table = _table(*columns)
    for offer in offers:
        table.add_row(
            short_id(offer.offer),
            _text(offer.node_name),
            _text(offer.region),
            _text(offer.device),
            offer.price or "-",
            offer.per_hour or "-",
            offer.cost_max or "-",
            _figure(offer.energy_watts),
            _figure(offer.carbon_grams_per_hour),
            _text(offer.tier),
            _text(", ".join(offer.unenforced) or "-"),
        )
    return table


def _misfits(offers: Sequence[api.OfferQuote]) -> Table:
    table = _table("DOESN'T FIT", "NODE", "DEVICE", "IN", ">NEEDS", ">HAS", "")
    for offer in offers:
        for index, misfit in enumerate(offer.misfits):
            first = index == 0
            table.add_row(
                short_id(offer.offer) if first else "",
                _text(offer.node_name) if first else "",
                _text(offer.device) if first else "",
                _text(misfit.dimension),
                _text(misfit.needed),
                _text(misfit.available),
                "now only: it waits for room" if misfit.now_only else "",
            )
    return table


# Market


def nodes(found: Iterable[api.Node], *, now: datetime) -> RenderableType:
    table = _table("ID", "NAME", "STATE", "MODE", "LAST SEEN", ">LEASES", "OFFER", "AGENT")
    for node in found:
        table.add_row(
            short_id(node.id),
            _text(node.name),
            _state(node.state),
            _state(node.mode),
            _ago(node.last_seen, now) if node.last_seen else "never",
            str(node.live_leases),
            short_id(node.offer) if node.offer else "-",
            _text(node.agent_version or "-"),
        )
    return table


def node(found: api.Node) -> RenderableType:
    return _facts(
        ("node", found.id),
        ("name", found.name),
        ("project", found.project),
        ("state", _state(found.state)),
        ("mode", _state(found.mode)),
        ("last seen", _at(found.last_seen) if found.last_seen else "never"),
        ("enrolled", _at(found.enrolled_at)),
        ("agent", found.agent_version),
        ("notice", f"{_at(found.notice_at)}: {found.notice}" if found.notice and found.notice_at else None),
        ("offer", found.offer),
        ("live leases", str(found.live_leases)),
        *(("temperature", _temperature(each)) for each in found.temperatures),
        ("read", _at(found.health_at) if found.temperatures and found.health_at else None),
    )


def _temperature(sensor: api.TemperatureView) -> Text:
    what = f"{sensor.celsius:g} °C of at most {sensor.hot_celsius:g} °C ({sensor.limit_source})"
    return _text(f"{sensor.name}: {what}") + (Text(" HOT", style="red") if sensor.hot else Text())


def offers(found: Iterable[api.Offer]) -> RenderableType:
    table = _table(
        "ID",
        "NODE",
        "STATE",
        "REGION",
        "DEVICES",
        ">FREE CORES",
        ">FREE MEMORY",
        ">GPU/h",
        ">CORE/h",
        "SANDBOX",
    )
    for offer in found:
        state = offer.state if offer.accepting or offer.state != "open" else "waiting"
        table.add_row(
            short_id(offer.id),
            _text(offer.node_name),
            _state(state),
            _text(offer.region),
            _text(_devices(offer)),
            f"{offer.free_cpu_milli / 1000:g} of {offer.cpu_milli / 1000:g}",
            format_bytes(offer.free_memory_bytes),
            offer.price_gpu or "-",
            offer.price_cpu or "-",
            _text(", ".join(each.tier for each in offer.tiers) or offer.tier),
        )
    return table


def offer(found: api.Offer) -> RenderableType:
    return _facts(
        ("offer", found.id),
        ("node", found.node_name),
        ("state", _state(found.state)),
        ("price per GPU-hour", found.price_gpu or "not offered"),
        ("price per core-hour", found.price_cpu or "not offered"),
        *(("sandbox", _sandbox(each)) for each in found.tiers),
    )


def _sandbox(tier: api.TierView) -> str:
    missing = f"; not enforced: {', '.join(tier.unenforced)}" if tier.unenforced else ""
    return f"{tier.tier} ({tier.runtime}){missing}{'' if tier.devices else '; not for GPU jobs'}"


def _devices(offer: api.Offer) -> str:
    left_out = f" ({len(offer.left_out)} GPU left out)" if offer.left_out else ""
    if not offer.devices:
        return offer.cpu_model + left_out
    counts: dict[str, int] = {}
    for device in offer.devices:
        counts[device.model] = counts.get(device.model, 0) + 1
    return ", ".join(f"{count} x {model}" for model, count in counts.items()) + left_out


# Money


def wallet(found: api.Wallet) -> RenderableType:
    return _facts(
        ("project", found.project),
        ("available", f"{found.available} {found.currency}"),
        ("held", f"{found.held} {found.currency}"),
        ("earned", f"{found.earned} {found.currency}"),
    )


def entries(found: Iterable[api.EntryView]) -> RenderableType:
    table = _table("AT", "KIND", ">AMOUNT", "JOB", "NOTE")
    for entry in found:
        table.add_row(
            _at(entry.at),
            _text(entry.kind),
            Text(entry.amount, style="red" if entry.amount.startswith("-") else "green"),
            short_id(entry.job) if entry.job else "-",
            _text(entry.note or ""),
        )
    return table


def receipts(found: Iterable[api.ReceiptSummary]) -> RenderableType:
    table = _table("ID", "ISSUED", "JOB", ">COST", ">ENERGY", ">CARBON")
    for receipt in found:
        table.add_row(
            short_id(receipt.id),
            _at(receipt.issued_at),
            short_id(receipt.job),
            receipt.cost,
            "-" if receipt.energy_joules is None else _joules(receipt.energy_joules),
            "-" if receipt.carbon_grams is None else _grams(receipt.carbon_grams),
        )
    return table


def receipt(said: Mapping[str, Any]) -> RenderableType:
    """The whole receipt, one line per figure."""
    currency = str(said.get("currency", ""))
    device, sandbox, energy = (_block(said, name) for name in ("device", "sandbox", "energy"))
    carbon, logs = _block(said, "carbon"), _block(said, "logs")
    devices_milli = said.get("devices_milli")
    rows: list[tuple[str, str | Text | None]] = [
        *((name, _optional(said.get(name))) for name in ("id", "issued_at", "exchange", "job", "project")),
        *((name, _optional(said.get(name))) for name in ("run", "attempt", "lease", "epoch", "provider")),
        *((name, _optional(said.get(name))) for name in ("node", "offer", "offer_version")),
        ("device", f"{device.get('kind', '-')} {device.get('model', '')}"),
        ("cores", f"{int(device.get('cpu_milli') or 0) / 1000:g}"),
        ("memory", format_bytes(int(device.get("memory_bytes") or 0))),
        ("sandbox", f"{sandbox.get('tier', '-')} ({sandbox.get('runtime', '-')})"),
        ("enforced", ", ".join(sandbox.get("enforced") or ()) or "nothing"),
    ]
    rows += [("not enforced", f"{name}: {why}") for name, why in (sandbox.get("unenforced") or {}).items()]
    rows += [
        ("started", _optional(said.get("started_at")) or "never"),
        ("ended", _optional(said.get("ended_at"))),
        ("ended by", _optional(said.get("cause"))),
        ("exit code", _optional(said.get("exit_code"))),
        ("billed", f"{said.get('billed_seconds', 0)} s"),
        ("price", f"{_micros(said, 'price_per_device_hour_micros', currency)} per device-hour"),
        ("devices", f"{int(devices_milli or 0) / 1000:g}"),
        ("cost", Text(_micros(said, "cost_micros", currency), style="bold")),
        ("fee", f"{_micros(said, 'fee_micros', currency)} of it to the exchange"),
        ("payout", f"{_micros(said, 'payout_micros', currency)} of it to the provider"),
        ("held", _micros(said, "held_micros", currency)),
        ("refunded", _micros(said, "refunded_micros", currency)),
        ("energy", _energy(said)),
        ("measured by", _optional(energy.get("method"))),
        ("carbon", _carbon(said)),
        ("carbon factor", _factor(carbon)),
        ("carbon source", _source(carbon)),
        ("log", format_bytes(int(logs.get("size_bytes") or 0))),
        ("outputs", _optional(said.get("outputs_digest")) or "none"),
        ("network", _traffic(_block(said, "network"))),
        ("evidence", "signed by the node" if said.get("evidence") else "none: nothing may be billed"),
    ]
    return _facts(*((name.replace("_", " "), value) for name, value in rows))


def checks(found: Sequence[Any]) -> RenderableType:
    """The checks of a receipt; one that could not be made never looks like one that passed."""
    marks = {True: Text("passed", style="green"), False: Text("FAILED", style="bold red")}
    table = _table("CHECK", "", "WHAT WAS FOUND")
    for check in found:
        table.add_row(
            _text(check.name), marks.get(check.passed, Text("not made", style="yellow")), _text(check.detail)
        )
    return table


def _traffic(network: Mapping[str, Any]) -> str:
    if not network:
        return "none"
    out, back = (format_bytes(int(network.get(name) or 0)) for name in ("sent_bytes", "received_bytes"))
    refused = network.get("refused")
    return f"{out} out, {back} in" + (f", {refused} requests refused" if refused else "")


def _energy(said: Mapping[str, Any]) -> str:
    energy = _block(said, "energy")
    if not energy:
        return "not known"
    percent = energy.get("uncertainty_percent")
    return _joules(float(energy["joules"])) + (f" ± {percent:g} %" if percent is not None else "")


def _carbon(said: Mapping[str, Any]) -> str:
    carbon = _block(said, "carbon")
    if not carbon:
        return "not known"
    return f"{_grams(float(carbon['grams']))} ({carbon.get('method', '')}, {carbon.get('region', '')})"


def _factor(carbon: Mapping[str, Any]) -> str | None:
    if not carbon:
        return None
    return f"{carbon.get('grams_per_kwh'):g} g/kWh x PUE {carbon.get('pue'):g}"


def _source(carbon: Mapping[str, Any]) -> str | None:
    return f"{carbon.get('source')} ({carbon.get('year')})" if carbon else None


# Access


def keys(found: Iterable[api.Key]) -> RenderableType:
    table = _table("ID", "NAME", "ROLES", "PROJECT", "CREATED", "REVOKED")
    for key in found:
        revoked = _at(key.revoked_at) if key.revoked_at else "-"
        table.add_row(
            short_id(key.id),
            _text(key.name),
            ", ".join(key.roles),
            short_id(key.project),
            _at(key.created_at),
            revoked,
        )
    return table


def projects(found: Iterable[api.Project]) -> RenderableType:
    table = _table("ID", "NAME", "CREATED")
    for project in found:
        table.add_row(project.id, _text(project.name), _at(project.created_at))
    return table


# Parts


def webhooks(found: Iterable[api.Webhook]) -> RenderableType:
    table = _table("ID", "ADDRESS", "EVENTS")
    for webhook in found:
        table.add_row(short_id(webhook.id), _text(webhook.url), _text(", ".join(webhook.events)))
    return table


def webhook(found: api.WebhookDetail) -> RenderableType:
    facts = _facts(
        ("webhook", found.id),
        ("address", found.url),
        ("events", ", ".join(found.events)),
        ("added", _at(found.created_at)),
    )
    table = _table("MESSAGE", "EVENT", "AT", "STATE", ">TRIES", "NEXT", "ANSWER")
    for sent in found.deliveries:
        table.add_row(
            _text(sent.id),
            _text(sent.event),
            _at(sent.created_at),
            _state(sent.state),
            str(sent.attempts),
            _at(sent.next_at) if sent.next_at else "-",
            _text(sent.answer or "-"),
        )
    return Group(facts, Text(), table)


def earnings(found: api.Earnings) -> RenderableType:
    unit = found.currency
    whole = _facts(
        (f"since {found.since}", f"{found.earned} {unit} by {found.runs} paid runs"),
        ("fee", f"{found.fee} {unit}; it is {found.fee_percent:g}% of what renters pay"),
        ("earned in all", f"{found.earned_in_all} {unit}"),
        ("paid out", f"{found.paid_out} {unit}"),
        ("balance", f"{found.balance} {unit}"),
    )
    if not found.runs:
        return whole
    nodes, days = _table("NODE", ">RUNS", ">EARNED", ">FEE"), _table("DAY (UTC)", ">RUNS", ">EARNED", ">FEE")
    for node in found.nodes:
        nodes.add_row(_text(node.name), str(node.runs), node.earned, node.fee)
    for day in found.days:
        days.add_row(str(day.day), str(day.runs), day.earned, day.fee)
    return Group(whole, Text(), nodes, Text(), days)


def _table(*columns: str) -> Table:
    """A plain table; a column whose name begins with > is for numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        name = column.removeprefix(">")
        table.add_column(name, justify="right" if column.startswith(">") else "left", overflow="fold")
    return table


def _facts(*rows: tuple[str, str | Text | None]) -> Table:
    """Names and values below each other; what is None is left out."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in rows:
        if value is not None:
            table.add_row(name, value if isinstance(value, Text) else _text(value))
    return table


def _text(text: str) -> Text:
    """Text of others: no markup, no control characters."""
    return Text(printable(text))


def _state(state: str) -> Text:
    return Text(printable(state), style=_STATE_STYLES.get(state, ""))


def _job_state(job: api.Job) -> Text:
    state = _state(job.state)
    return state + Text(" (node silent)", style="yellow") if job.node_silent else state


def _at(at: datetime) -> str:
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _ago(at: datetime, now: datetime) -> str:
    seconds = max(0.0, (now - at).total_seconds())
    if seconds < 60:
        return f"{seconds:.0f} s ago"
    if seconds < 86400:
        return f"{format_duration(seconds)} ago"
    return at.astimezone().strftime("%Y-%m-%d %H:%M")


def _lasted(start: datetime | None, end: datetime | None, now: datetime) -> str:
    return "-" if start is None else format_duration(max(0.0, ((end or now) - start).total_seconds()))


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _joules(joules: float) -> str:
    watt_hours = joules / JOULES_PER_WATT_HOUR
    return f"{joules:.3g} J" if watt_hours < 1 else f"{watt_hours:,.1f} Wh"


def _grams(grams: float) -> str:
    if grams < 1:
        return f"{grams * 1000:.3g} mg CO2e"
    return f"{grams:.3g} g CO2e" if grams < 1000 else f"{grams / 1000:,.2f} kg CO2e"


def _micros(said: Mapping[str, Any], name: str, currency: str) -> str:
    return format_money(int(said.get(name) or 0), currency)


def _block(said: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = said.get(name)
    return value if isinstance(value, Mapping) else {}


def _optional(value: object) -> str | None:
    return None if value is None else str(value)

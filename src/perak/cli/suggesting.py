"""A price for an offer's GPUs, from one's own receipts and the public price history."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING

import click

from perak.cli.app import App
from perak.cli.exits import printable
from perak.domain.errors import DomainError, InvalidInput
from perak.domain.hardware.specs import find_gpu
from perak.domain.market.suggest import MarketBand, Suggestion, suggest
from perak.domain.market.ticker import THIN_TRADES
from perak.domain.units import parse_money

if TYPE_CHECKING:
    from perak.client import Client
    from perak.wire import api

RECEIPTS_MAX = 30
"""One's newest receipts that are looked at for measured power: each is a question to the exchange."""
SECONDS_MIN = 60
"""A shorter run says more of its start than of the card."""


def suggest_for(app: App, client: Client, offer: api.Offer, *, electricity: str, monthly_cost: str) -> None:
    """Print a suggestion for each model of the offer. Raises ClickException where it has no GPU."""
    try:
        per_kwh, monthly = parse_money(electricity), parse_money(monthly_cost)
    except InvalidInput as error:
        raise click.BadParameter(error.detail) from None
    models = {device.model: device.memory_bytes for device in offer.devices}
    if not models:
        raise click.ClickException("This offer has no GPU; cores are cheap to compare by hand: perak prices.")
    exchange, history = client.exchange(), client.prices()
    found: dict[str, Suggestion] = {}
    for model, memory_bytes in models.items():
        suggestion = suggest(
            model,
            electricity_per_kwh=per_kwh,
            monthly_cost=monthly,
            fee_basis_points=round(exchange.fee_percent * 100),
            currency=exchange.currency,
            memory_bytes=memory_bytes,
            measured_watts=_measured(client, model),
            market=_band(history, model, offer.region, memory_bytes),
        )
        if suggestion is not None:
            found[model] = suggestion
    if not found:
        raise click.ClickException(
            f"Nothing is known of the power of {', '.join(models)}; run a job on it first, so that it is "
            "measured."
        )
    if app.as_json:
        click.echo(json.dumps([{"model": model, **asdict(each)} for model, each in found.items()], indent=2))
        return
    for model, each in found.items():
        click.echo("\n".join(printable(line) for line in (model, *each.lines(exchange.currency))))


def _band(history: api.Prices, model: str, region: str, memory_bytes: int | None) -> MarketBand | None:
    """What was paid for the model in the region over the history; None: too few trades."""
    known = find_gpu(model, memory_bytes=memory_bytes)
    name = known.variant if known else model
    cells = [cell for cell in history.cells if (cell.gpu, cell.model, cell.region) == (True, name, region)]
    traded = [cell for cell in cells if cell.median is not None]
    trades = sum(cell.trades for cell in traded)
    if trades < THIN_TRADES:
        return None
    middle = sorted((parse_money(cell.median or "0"), cell.trades) for cell in traded)
    used = [(cell.utilisation, cell.device_hours) for cell in cells if cell.utilisation is not None]
    return MarketBand(
        p10=min(parse_money(cell.p10 or "0") for cell in traded),
        median=_middle(middle, trades),
        p90=max(parse_money(cell.p90 or "0") for cell in traded),
        trades=trades,
        utilisation=sum(share for share, _ in used) / len(used) if used else None,
    )


def _middle(prices: list[tuple[int, int]], trades: int) -> int:
    seen = 0
    for price, count in prices:
        seen += count
        if 2 * seen >= trades:
            return price
    return prices[-1][0]


def _measured(client: Client, model: str) -> tuple[float, ...]:
    """Mean watts of one GPU in one's own runs on the model, as their nodes measured them."""
    watts = []
    try:
        for summary in islice(client.receipts(), RECEIPTS_MAX):
            said = client.receipt(summary.id).receipt
            device, energy, seconds = said.get("device"), said.get("energy"), said.get("billed_seconds")
            if not isinstance(device, dict) or not isinstance(energy, dict) or device.get("model") != model:
                continue
            if seconds and seconds >= SECONDS_MIN and device.get("uuids"):
                watts.append(float(energy["joules"]) / seconds / len(device["uuids"]))
    except DomainError:
        return ()
    return tuple(watts)

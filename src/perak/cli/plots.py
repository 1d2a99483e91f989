"""Pictures of quotes and prices, as files; matplotlib is loaded by whoever asks for one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from perak.cli.render.parts import short_device

if TYPE_CHECKING:
    from perak.wire import api

DOTS_PER_INCH = 120
SIZE_INCHES = (9.0, 6.0)
ENDINGS = ("png", "svg", "pdf")
TIME_UNITS = (("hours", 3600), ("minutes", 60), ("seconds", 1))
CLASSES_MAX = 10
"""More lines than a person can tell apart."""


def plot_quote(path: Path, quoted: api.Quote) -> None:
    """Cost against time, carbon as colour, the Pareto front ringed; of an hour where nothing is known."""
    fitting = [offer for offer in quoted.offers if offer.fits]
    known = [offer for offer in fitting if offer.expected_seconds is not None and offer.expected_cost]
    if not fitting:
        raise click.ClickException("No offer fits, so there is nothing to draw.")
    figure = _figure(path)
    axes = figure.subplots()
    if known:
        longest = max(offer.expected_seconds or 0.0 for offer in known)
        unit, seconds = next((each for each in TIME_UNITS if longest >= 2 * each[1]), TIME_UNITS[-1])
        across = [(offer.expected_seconds or 0.0) / seconds for offer in known]
        up = [float(offer.expected_cost or 0) for offer in known]
        grams = [offer.carbon_grams or 0.0 for offer in known]
        axes.set(xlabel=f"expected {unit}", ylabel=f"expected cost, {quoted.currency}", title="The job")
    else:
        known = fitting
        across = [offer.energy_watts or 0.0 for offer in known]
        up = [float(offer.per_hour or 0) for offer in known]
        grams = [offer.carbon_grams_per_hour or 0.0 for offer in known]
        axes.set(xlabel="watts", ylabel=f"{quoted.currency} an hour", title="An hour: its work is not known")
    dots = axes.scatter(across, up, c=grams, cmap="viridis_r", s=60)
    best = [index for index, offer in enumerate(known) if offer.pareto]
    axes.scatter(
        [across[i] for i in best], [up[i] for i in best], s=180, facecolors="none", edgecolors="crimson",
        label="Pareto front of cost, time and carbon",
    )  # fmt: skip
    for index, offer in enumerate(known):
        axes.annotate(offer.node_name, (across[index], up[index]), xytext=(6, 4), textcoords="offset points")
    figure.colorbar(dots, label="g CO2e")
    # Room above for the names and the legend.
    axes.set_xlim(left=0, right=max(across) * 1.25 or None)
    axes.set_ylim(bottom=0, top=max(up) * 1.25 or None)
    axes.legend()
    figure.savefig(path, dpi=DOTS_PER_INCH)


def plot_prices(path: Path, found: api.Prices) -> None:
    """Medians over time with the band from P10 to P90, and utilisation below, of the busiest classes."""
    classes: defaultdict[str, list[api.PriceCell]] = defaultdict(list)
    drawn = [cell for cell in found.cells if cell.median is not None or cell.utilisation is not None]
    for cell in reversed(drawn):
        graded = f", {cell.grade}" if cell.gpu else ""
        name = f"{short_device(cell.model)}, {cell.region}{graded}"
        classes[name].append(cell)
    busiest = sorted(classes, key=lambda name: -sum(cell.trades for cell in classes[name]))[:CLASSES_MAX]
    if not busiest:
        raise click.ClickException("Nothing happened on the market in that time: there is nothing to draw.")
    figure = _figure(path)
    above, below = figure.subplots(2, 1, sharex=True)
    for name in busiest:
        _draw_class(above, below, name, classes[name])
    above.set(ylabel=f"{found.currency} per device-hour", ylim=(0, None), title="Median, P10 to P90; o: thin")
    above.legend(fontsize="small")
    # Without limits a single hour is drawn as a span of years.
    hours = [cell.hour for name in busiest for cell in classes[name]]
    above.set_xlim(min(hours) - timedelta(minutes=30), max(hours) + timedelta(minutes=30))
    below.set(ylabel="in use", ylim=(0, 1), xlabel="hour (UTC)")
    figure.autofmt_xdate()
    figure.savefig(path, dpi=DOTS_PER_INCH)


def _draw_class(above: Any, below: Any, name: str, cells: Sequence[api.PriceCell]) -> None:
    traded = [cell for cell in cells if cell.median is not None]
    hours = [cell.hour for cell in traded]
    (line,) = above.plot(hours, [float(cell.median or 0) for cell in traded], label=name)
    above.fill_between(
        hours, [float(c.p10 or 0) for c in traded], [float(c.p90 or 0) for c in traded], alpha=0.15,
        color=line.get_color(),
    )  # fmt: skip
    thin = [cell for cell in traded if cell.thin]
    above.scatter([c.hour for c in thin], [float(c.median or 0) for c in thin], color=line.get_color(), s=18)
    used = [cell for cell in cells if cell.utilisation is not None]
    below.plot(
        [c.hour for c in used],
        [c.utilisation for c in used],
        color=line.get_color(),
        marker=".",
        clip_on=False,
    )


def _figure(path: Path) -> Any:
    if path.suffix.lstrip(".") not in ENDINGS:
        raise click.ClickException(f"{path} can't be drawn. End its name in .{', .'.join(ENDINGS)}.")
    try:
        # The figure draws itself without pyplot, which would look for a display.
        from matplotlib.figure import Figure
    except ImportError:
        raise click.ClickException(
            "Drawing needs matplotlib, which is not installed here: pip install 'perak[sim]'."
        ) from None
    return Figure(figsize=SIZE_INCHES, layout="constrained")

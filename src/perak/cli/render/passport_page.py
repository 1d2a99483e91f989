"""A passport as a page to look at: HTML with the plots inside, or a PDF. Needs matplotlib.

Plots show what was measured by the newest inspections whose evidence came along: temperature, clock and power
under load, and the card's throughput among those of its model. Where nothing was measured, the page says so.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure

from perak.cli.render.passport_facts import Facts, facts_of, wrapped
from perak.domain.hardware import inspection as names
from perak.domain.hardware.reference import sheet_throughputs
from perak.domain.hardware.specs import find_gpu

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from perak.domain.hardware.inspection import DeviceInspection
    from perak.wire.passports import Passport

INK, FAINT, SILVER, HOT, COOL, CLOCK = "#1d2430", "#6b7480", "#d9dee4", "#c2452d", "#2d6fb3", "#3b8a5a"
GRADES = {"A": "#2e7d4f", "B": "#8a7a1f", "C": "#b5651d", "r": "#a02c2c"}
A4_INCHES = (8.27, 11.69)
HISTORY_ROWS_MAX = 14
"""More do not fit a sheet; the file has them all."""
REASON_LINES_MAX = 6
NO_SCORE = "-"
ROW = 0.0135
"""Height of a line of facts, of the sheet's."""

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans", "font.size": 8, "text.color": INK, "axes.edgecolor": SILVER,
    "axes.labelcolor": FAINT, "xtick.color": FAINT, "ytick.color": FAINT, "axes.spines.top": False,
    "axes.spines.right": False, "axes.titlesize": 9, "axes.titlelocation": "left", "axes.titleweight": "bold",
    "svg.fonttype": "none", "pdf.fonttype": 42,
}  # fmt: skip


def write_pdf(passport: Passport, file: Path) -> None:
    """One sheet of A4."""
    with mpl.rc_context(STYLE):
        figure = _sheet(passport)
        with PdfPages(file, metadata={"Title": f"Passport of {passport.device}", "Creator": "perak"}) as pdf:
            pdf.savefig(figure)


def write_html(passport: Passport, file: Path) -> None:
    """One file without anything from outside."""
    facts = facts_of(passport)
    with mpl.rc_context(STYLE):
        plots = [_svg(draw, passport) for draw in (_load, _power, _among)]
    file.write_text(_document(facts, plots), encoding="utf-8")


def _sheet(passport: Passport) -> Figure:
    facts = facts_of(passport)
    figure = Figure(figsize=A4_INCHES)
    figure.text(0.07, 0.955, "HARDWARE PASSPORT", fontsize=8, color=FAINT, fontweight="bold")
    figure.text(0.07, 0.93, facts.title, fontsize=17, fontweight="bold")
    figure.text(0.07, 0.914, facts.device, fontsize=8, color=FAINT, family="DejaVu Sans Mono")
    _badge(figure, facts)
    reasons = wrapped(facts.reasons or ("No reason to grade it lower was found.",), 125)
    kept = reasons[:REASON_LINES_MAX] + (["…"] if len(reasons) > REASON_LINES_MAX else [])
    figure.text(0.07, 0.893, "\n".join(kept), fontsize=7.5, va="top", linespacing=1.4)
    lines = len(kept) + bool(facts.caveat)
    figure.text(0.07, 0.893 - len(kept) * 0.0125, facts.caveat, fontsize=6.5, va="top", color=FAINT)
    top = 0.893 - lines * 0.0125 - 0.028
    _pairs(figure, "Identity", facts.identity, left=0.07, top=top)
    _pairs(figure, "In use", facts.use, left=0.53, top=top)
    below = top - (len(facts.use) + 2.2) * ROW
    if facts.software:
        _pairs(figure, "Software that still runs on it", facts.software, left=0.53, top=below)
    for draw, box in (
        (_load, (0.10, 0.43, 0.33, 0.12)),
        (_power, (0.57, 0.43, 0.33, 0.12)),
        (_among, (0.15, 0.29, 0.78, 0.08)),
    ):
        draw(figure.add_axes(box), passport)
    _history(figure, facts)
    _proof(figure, facts)
    return figure


def _badge(figure: Figure, facts: Facts) -> None:
    colour = GRADES.get(facts.grade[:1], FAINT)
    size = 20 if len(facts.grade) < 4 else 11
    box = {"boxstyle": "round,pad=0.5", "facecolor": colour, "edgecolor": "none"}
    figure.text(
        0.92,
        0.945,
        facts.grade,
        fontsize=size,
        fontweight="bold",
        color="white",
        ha="right",
        va="center",
        bbox=box,
    )
    if facts.score != NO_SCORE:
        figure.text(0.93, 0.912, f"score {facts.score}", fontsize=8, ha="right", color=FAINT)


def _pairs(
    figure: Figure, title: str, pairs: Sequence[tuple[str, str]], *, left: float, top: float, width: int = 44
) -> None:
    figure.text(left, top, title, fontsize=9, fontweight="bold")
    for row, (name, value) in enumerate(pairs, 1):
        y = top - 0.006 - row * ROW
        figure.text(left, y, name, color=FAINT, fontsize=7)
        shown = value if len(value) <= width else value[: width - 1] + "…"
        figure.text(left + 0.155, y, shown, fontsize=7)


def _history(figure: Figure, facts: Facts) -> None:
    figure.text(0.07, 0.25, "What happened", fontsize=9, fontweight="bold")
    rows = facts.history[:HISTORY_ROWS_MAX]
    for row, (day, what, how) in enumerate(rows, 1):
        y = 0.247 - row * 0.0115
        figure.text(0.07, y, day, color=FAINT, fontsize=6.5)
        figure.text(0.15, y, what, fontsize=6.5)
        figure.text(0.36, y, how if len(how) < 110 else how[:109] + "…", fontsize=6.5)
    if len(facts.history) > len(rows):
        y = 0.247 - (len(rows) + 1) * 0.0115
        figure.text(
            0.07, y, f"and {len(facts.history) - len(rows)} earlier entries", color=FAINT, fontsize=6.5
        )


def _proof(figure: Figure, facts: Facts) -> None:
    lines = [f"{name}: {value}" for name, value in facts.proof]
    lines.append("This sheet proves nothing by itself: ask for the file and run `perak passport verify`.")
    figure.text(0.07, 0.025, "\n".join(lines), fontsize=5.5, color=FAINT, va="bottom", linespacing=1.35)


def _svg(draw: Callable[[Axes, Passport], None], passport: Passport) -> str:
    figure = Figure(figsize=(5.2, 2.0 if draw is not _among else 1.5), layout="constrained")
    draw(figure.subplots(), passport)
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata={"Date": None}, transparent=True)
    return base64.b64encode(out.getvalue()).decode()


def _soaked(passport: Passport) -> DeviceInspection | None:
    return next((each for each in reversed(passport.inspections) if each.samples), None)


def _load(axes: Axes, passport: Passport) -> None:
    """Temperature and clock of the newest soak."""
    axes.set_title("Temperature and clock under load")
    found = _soaked(passport)
    if found is None:
        _nothing(axes, "no soak is in this file")
        return
    if all(each.celsius is None and each.clock_mhz is None for each in found.samples):
        _nothing(axes, "nothing on this machine told either during the soak")
        return
    minutes = [each.at_seconds / 60 for each in found.samples]
    axes.plot(minutes, [_number(each.celsius) for each in found.samples], color=HOT, lw=1.4)
    axes.axhspan(80, 85, color="#f6e3de", lw=0)
    axes.text(0.01, 82.5, "B", color=HOT, fontsize=6, va="center", transform=axes.get_yaxis_transform())
    axes.text(0.01, 89, "C", color=HOT, fontsize=6, va="center", transform=axes.get_yaxis_transform())
    axes.set(xlabel="minutes", ylim=(20, 100))
    axes.set_ylabel("°C", color=HOT)
    other = axes.twinx()
    other.plot(minutes, [_number(each.clock_mhz) for each in found.samples], color=CLOCK, lw=1.2)
    other.set_ylabel("MHz", color=CLOCK)
    _from_zero(other, 1.15)
    other.spines["right"].set_visible(True)


def _power(axes: Axes, passport: Passport) -> None:
    """Power and FP32 of the newest soak."""
    axes.set_title("Power and FP32 throughput under load")
    found = _soaked(passport)
    if found is None:
        _nothing(axes, "no soak is in this file")
        return
    minutes = [each.at_seconds / 60 for each in found.samples]
    axes.plot(minutes, [_number(each.watts) for each in found.samples], color=COOL, lw=1.4)
    if found.identity.power_limit_watts:
        limit = found.identity.power_limit_watts
        axes.axhline(limit, color=FAINT, lw=0.8, ls=":")
        axes.annotate(
            f"limit {limit:.0f} W",
            (1, limit),
            xycoords=axes.get_yaxis_transform(),
            xytext=(-2, 2),
            textcoords="offset points",
            fontsize=6,
            color=FAINT,
            ha="right",
        )
    axes.set(xlabel="minutes")
    if any(each.watts is not None for each in found.samples):
        axes.set_ylabel("W", color=COOL)
        _from_zero(axes, 1.1)
    else:
        axes.set_title("FP32 throughput under load")
        axes.set_yticks([])
    other = axes.twinx()
    other.plot(minutes, [_number(each.tflops) for each in found.samples], color=INK, lw=1.0)
    other.set_ylabel("TFLOP/s", color=INK)
    _from_zero(other, 1.6)
    other.spines["right"].set_visible(True)


def _among(axes: Axes, passport: Passport) -> None:
    """Bandwidth and FP32 of the card among those of its model, as shares of the median or the data sheet."""
    graded = [each for each in passport.entries if each.event.get("kind") == "inspected"]
    if not graded:
        axes.set_title("Among cards of its model")
        _nothing(axes, "it was never inspected")
        return
    newest = graded[-1]
    measured = newest.event.get("measured") or {}
    comparison = newest.subject.get("modelComparison") or {}
    deciles = comparison.get("deciles") or {}
    basis = f"{comparison.get('cards')} cards of its model (pale: all of them, dark: eight in ten)"
    if not deciles:
        spec = find_gpu(str((newest.subject.get("product") or {}).get("name")))
        expected = sheet_throughputs(spec) if spec else {}
        deciles, basis = (
            {name: [value] * 11 for name, value in expected.items()},
            "what its data sheet leads to expect",
        )
    if not deciles:
        axes.set_title("Among cards of its model")
        _nothing(axes, "nothing to compare it with: no data sheet, and too few of its model")
        return
    axes.set_title(f"Against {basis}")
    rows = [
        (label, name) for label, name in (("bandwidth", names.COPY), ("FP32", names.FP32)) if name in deciles
    ]
    for at, (_, name) in enumerate(rows):
        values, middle = deciles[name], deciles[name][5]
        axes.barh(at, (values[-1] - values[0]) / middle, left=values[0] / middle, height=0.5, color=SILVER)
        axes.barh(at, (values[9] - values[1]) / middle, left=values[1] / middle, height=0.5, color="#b6c0cb")
        axes.plot([1, 1], [at - 0.25, at + 0.25], color=FAINT, lw=1)
        if name in measured:
            axes.plot(measured[name] / middle, at, "D", color=HOT, ms=6)
            unit = names.BY_NAME[name].unit
            axes.annotate(
                f"{measured[name]:g} {unit}",
                (measured[name] / middle, at),
                xytext=(6, 3),
                textcoords="offset points",
                fontsize=7,
            )
    for bound, grade in ((0.95, "A"), (0.90, "B"), (0.78, "C")):
        axes.axvline(bound, color=GRADES[grade], lw=0.8, ls="--")
        axes.annotate(
            grade,
            (bound, len(rows) - 0.5),
            xytext=(-3, 0),
            textcoords="offset points",
            color=GRADES[grade],
            fontsize=7,
            ha="right",
        )
    axes.set_yticks(range(len(rows)), [label for label, _ in rows])
    axes.set(xlim=(0.6, 1.25), ylim=(-0.6, len(rows) - 0.2))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")


def _from_zero(axes: Axes, room: float) -> None:
    """An axis that begins at nothing, so that a drop looks as large as it is."""
    _, top = axes.get_ylim()
    axes.set_ylim(0, top * room)


def _nothing(axes: Axes, why: str) -> None:
    axes.text(0.5, 0.5, why, ha="center", va="center", color=FAINT, transform=axes.transAxes)
    axes.set_xticks([])
    axes.set_yticks([])


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _document(facts: Facts, plots: Sequence[str]) -> str:
    e = html.escape
    colour = GRADES.get(facts.grade[:1], FAINT)
    images = "".join(f'<img alt="plot" src="data:image/svg+xml;base64,{plot}">' for plot in plots)
    reasons = "".join(f"<li>{e(each)}</li>" for each in facts.reasons)
    score = f"<small>score {e(facts.score)}</small>" if facts.score != NO_SCORE else ""
    software = f"<h2>Software that still runs on it</h2>{_table(facts.software)}" if facts.software else ""
    reasons = reasons or "<li>No reason to grade it lower was found.</li>"
    caveat = f'<p class="caveat">{e(facts.caveat)}</p>' if facts.caveat else ""
    history = "".join(
        f"<tr><td>{e(day)}</td><td>{e(what)}</td><td>{e(how)}</td></tr>" for day, what, how in facts.history
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Passport of {e(facts.title)}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: {INK}; max-width: 60rem;
  margin: 2rem auto; padding: 0 1rem }}
h1 {{ margin: 0; font-size: 1.8rem }} h2 {{ font-size: 1rem; margin: 1.6rem 0 .4rem }}
.device, .proof, .caveat, th {{ color: {FAINT} }} .caveat {{ font-size: .8rem }}
.device {{ font-family: monospace; overflow-wrap: anywhere }}
.badge {{ float: right; background: {colour}; color: white; font-weight: bold; border-radius: .5rem;
  padding: .4rem .9rem; font-size: 1.4rem; text-align: right }}
.badge small {{ display: block; font-weight: normal; font-size: .8rem }}
.columns {{ display: flex; flex-wrap: wrap; gap: 0 3rem }} .columns > * {{ flex: 1 1 20rem }}
table {{ border-collapse: collapse }} td, th {{ text-align: left; vertical-align: top;
  padding: .1rem 1rem .1rem 0; font-weight: normal; overflow-wrap: anywhere }}
td:first-child {{ white-space: nowrap }}
@media (min-width: 45rem) {{ .history td:nth-child(2) {{ white-space: nowrap }} }}
.plots > img {{ min-width: 0; max-width: 32rem }} .proof {{ font-size: .8rem }}
</style></head><body>
<div class="badge">{e(facts.grade)}{score}</div>
<div class="device">HARDWARE PASSPORT</div><h1>{e(facts.title)}</h1>
<div class="device">{e(facts.device)}</div>
<ul>{reasons}</ul>{caveat}
<div class="columns"><div><h2>Identity</h2>{_table(facts.identity)}</div>
<div><h2>In use</h2>{_table(facts.use)}
{software}</div></div>
<h2>Measured</h2><div class="columns plots">{images}</div>
<h2>What happened</h2><table class="history">{history}</table>
<div class="proof"><h2>Proof</h2>{_table(facts.proof)}
<p>This page proves nothing by itself: ask for the file and run <code>perak passport verify</code>.</p></div>
</body></html>
"""


def _table(pairs: Sequence[tuple[str, str]]) -> str:
    rows = "".join(f"<tr><th>{html.escape(a)}</th><td>{html.escape(b)}</td></tr>" for a, b in pairs)
    return f"<table>{rows}</table>"

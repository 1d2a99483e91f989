"""Draw docs/hazard.svg: how Titan's GPUs failed, what a Weibull makes of it, and what it foretold."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from perak.domain.facts.titan import TITAN_FAILURES, TITAN_GPUS
from perak.domain.hardware.hazard import CLASS_PRIOR
from perak.sim.weibull import fit_yearly

INK, FAINT, OLD, NEW, GUESS = "#1d2430", "#6b7480", "#c2452d", "#2d6fb3", "#b5651d"


def main() -> None:
    mpl.rcParams.update(
        {"svg.fonttype": "none", "svg.hashsalt": "perak", "font.size": 9, "axes.edgecolor": FAINT}
    )
    shares = {batch: [each / 100 for each in yearly] for batch, yearly, _, _ in TITAN_FAILURES}
    gpus = {batch: at_work for batch, _, at_work, _ in TITAN_FAILURES}
    figure = Figure(figsize=(7.2, 3.2), layout="constrained")
    axes = figure.subplots()
    for batch, colour in (("old", OLD), ("reworked", NEW)):
        fit = fit_yearly(shares[batch], devices=gpus[batch])
        years = range(1, len(shares[batch]) + 1)
        axes.plot(years, [100 * each for each in shares[batch]], "o", color=colour)
        low, high = fit.sampling
        label = f"{batch} batch: Weibull, k {fit.k:.2f} ({low:.2f} to {high:.2f})"
        axes.plot(years, [100 * fit.failing_in(year) for year in years], color=colour, label=label)
    early = fit_yearly(shares["old"][:3], devices=TITAN_GPUS)
    axes.plot([3, 4], [100 * early.failing_in(year) for year in (3, 4)], "--", color=GUESS)
    axes.plot(4, 100 * early.failing_in(4), "x", color=GUESS, label="year 4, by a Weibull of years 1 to 3")
    rate = CLASS_PRIOR.after(events=sum(shares["old"][:3]) * TITAN_GPUS, exposure=3.0 * TITAN_GPUS).mean
    axes.plot(4, 100 * rate, "+", color=INK, label="year 4, by the exchange's rate after years 1 to 3")
    axes.set(xlabel="year in service", ylabel="failed in that year, %", ylim=(0, 56))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left", fontsize=8)
    target = Path(__file__).parents[1] / "docs" / "hazard.svg"
    figure.savefig(target, metadata={"Date": None})
    text = "\n".join(line.rstrip() for line in target.read_text().splitlines())
    target.write_text(text + "\n")


if __name__ == "__main__":
    main()

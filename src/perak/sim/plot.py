"""Plots as files; matplotlib is loaded by whoever asks for one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from perak.domain.errors import InvalidInput
from perak.sim.shift import Schedule

DOTS_PER_INCH = 120
SIZE_INCHES = (9.0, 6.0)
ENDINGS = ("png", "svg", "pdf")


def plot_schedules(path: Path, schedules: Sequence[Schedule], *, title: str) -> None:
    """The intensity above, and below it the CPUs at work by hour, for each schedule; written to `path`."""
    if path.suffix.lstrip(".") not in ENDINGS:
        raise InvalidInput(f"{path} is no plot that can be written. End it in .{', .'.join(ENDINGS)}.")
    # The figure draws itself without pyplot, which would look for a display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    intensity = schedules[0].intensity
    above.stairs(intensity, color="0.4")
    above.set(title=title, ylabel="g CO2e per kWh", ylim=(0, None))
    last = 0
    for schedule in schedules:
        busy = schedule.cpus_by_hour()
        below.stairs(busy, label=schedule.setting.policy)
        last = max(last, int(np.flatnonzero(busy)[-1]) + 1)
    below.set(xlabel="hours from the start", ylabel="CPUs at work", xlim=(0, last), ylim=(0, None))
    below.legend(loc="upper right")
    figure.savefig(path, dpi=DOTS_PER_INCH)

"""What could be saved by starting later within a slack: every start hour of a trace, at once.

The setting is that of Sukprasert et al., "On the Limitations of Carbon-Aware Temporal and Spatial Workload
Shifting in the Cloud" (EuroSys 2024): a job of L hours may start in any of the next `slack + 1` hours, and
nothing wraps over the trace's end. Intensities are g/kWh, a row an hour and a column a zone.
"""

from __future__ import annotations

import numpy as np

from perak.domain.carbon.shifting import Floats

SLACK_HOURS = 24
LENGTHS_HOURS = (1, 6, 12, 24, 48)
"""Job lengths in the paper's table."""


def mean_savings(intensity: Floats, length: int, *, slack: int = SLACK_HOURS) -> Floats:
    """Mean saving of each zone over all start hours against starting at once, in g/kWh; all is known."""
    jobs = _job_means(intensity, length)
    starts = jobs.shape[0] - slack
    assert starts > 0, "the trace has room for a job that waits for the whole slack"
    best = jobs[:starts].copy()
    for wait in range(1, slack + 1):
        np.minimum(best, jobs[wait : wait + starts], out=best)
    return np.asarray((jobs[:starts] - best).mean(axis=0), dtype=np.float64)


def saved_by_forecast(
    actual: Floats, forecasts: Floats, *, first: int, length: int, slack: int = SLACK_HOURS
) -> tuple[float, float]:
    """Mean saving in g/kWh of one zone where a forecast chooses the start, and where perfect knowledge does.

    Row i of `forecasts` is for the hours `first + i` and following, made before the first of them.
    """
    jobs = _job_means(actual[:, None], length)[first:, 0]
    starts = min(jobs.size - slack, forecasts.shape[0])
    assert starts > 0, "the trace has room for a job that waits for the whole slack"
    assert forecasts.shape[1] >= slack + length, "a forecast reaches to the end of the last job"
    options = np.lib.stride_tricks.sliding_window_view(jobs, slack + 1)[:starts]
    total = np.zeros((starts, forecasts.shape[1] + 1))
    np.cumsum(forecasts[:starts], axis=1, out=total[:, 1:])
    chosen = (total[:, length : length + slack + 1] - total[:, : slack + 1]).argmin(axis=1)
    at_once = float(options[:, 0].mean())
    return (
        at_once - float(options[np.arange(starts), chosen].mean()),
        at_once - float(options.min(axis=1).mean()),
    )


def _job_means(intensity: Floats, length: int) -> Floats:
    """Mean intensity over `length` hours from each start hour."""
    total = np.zeros((intensity.shape[0] + 1, intensity.shape[1]))
    np.cumsum(intensity, axis=0, out=total[1:])
    return (total[length:] - total[:-length]) / length

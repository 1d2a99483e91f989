"""Savings by deferral as in "On the Limitations …" (EuroSys 2024), and what our forecast gets of them.

123 zones of 2022, 24 h of slack, jobs of 1 to 48 h. The forecast's features and constants were chosen on
every third zone in the trace's order; the others are held out, and reported apart.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

from benchmarks.data import INTENSITY_2022, missing

PUBLISHED = {1: 57.38, 6: 46.47, 12: 31.37, 24: 13.28, 48: 8.63}
CHOSEN_ON_EVERY = 3


def measure() -> Iterator[tuple[str, float, str]]:
    reason = missing(INTENSITY_2022)
    if reason is not None:
        print(reason, file=sys.stderr)
        return
    from perak.domain.carbon.deferral import mean_savings
    from perak.domain.carbon.forecast import backtest, decaying_profile, persistence, seasonal_naive
    from perak.sim.forecast_error import by_model, captured, errors_by_zone
    from perak.sim.traces import read_intensity

    trace = read_intensity(INTENSITY_2022)
    intensity = trace.grams_per_kwh
    began, cpu = time.perf_counter(), time.process_time()
    savings = {length: float(mean_savings(intensity, length).mean()) for length in PUBLISHED}
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    for length, published in PUBLISHED.items():
        yield f"eurosys24_{length}h_saving", round(savings[length], 2), "g/kWh"
        yield f"eurosys24_{length}h_off_published", round(100 * (savings[length] / published - 1), 2), "%"
    yield "eurosys24_sweep_seconds", round(seconds, 2), "s"
    yield "eurosys24_sweep_cpu_seconds", round(cpu_seconds, 2), "s"

    zones = range(len(trace.zones))
    chosen_on = [zone for zone in zones if zone % CHOSEN_ON_EVERY == 0]
    held_out = [zone for zone in zones if zone % CHOSEN_ON_EVERY]
    began, cpu = time.perf_counter(), time.process_time()
    for name, forecasts in (
        ("forecast", backtest(intensity, zones=zones)),
        ("week_mean_with_decay", by_model(intensity, decaying_profile, zones)),
        ("seasonal_naive", by_model(intensity, seasonal_naive, zones)),
        ("persistence", by_model(intensity, persistence, zones)),
        ("forecast_held_out", backtest(intensity, zones=held_out, learn_from=chosen_on)),
        ("week_mean_with_decay_held_out", by_model(intensity, decaying_profile, held_out)),
    ):
        for length, (ours, perfect) in captured(intensity, forecasts).items():
            yield f"eurosys24_{length}h_captured_by_{name}", round(100 * ours / perfect, 1), "%"
    errors = list(errors_by_zone(trace, trace.zones))
    for model in ("ours", "seasonal_naive", "persistence", "decaying_profile"):
        mean = sum(getattr(error, model) for error in errors) / len(errors)
        yield f"eurosys24_day_ahead_error_{model}", round(mean, 2), "g/kWh"
    better = sum(error.ours < error.persistence for error in errors)
    yield "eurosys24_zones_where_forecast_beats_persistence", better, "zones"
    yield (
        "eurosys24_zones_where_forecast_beats_seasonal_naive",
        (sum(error.ours < error.seasonal_naive for error in errors)),
        "zones",
    )
    yield "eurosys24_forecast_cpu_seconds", round(time.process_time() - cpu, 1), "s"

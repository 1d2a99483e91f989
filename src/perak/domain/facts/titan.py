"""How GPUs failed in a large machine over years: rows of facts.

Columns: batch, share of the GPUs that failed in each of its years in service (percent, year by year), source.
Titan had 18,688 GPUs (Tesla K20X) at a time; the shares of a year are of those at work in it.
"""

_SOURCE = "Ostrouchov et al., GPU Lifetimes on Titan Supercomputer, SC20: yearly failures by batch"

TITAN_GPUS = 18_688

Row = tuple[str, tuple[float, ...], str]

TITAN_FAILURES: tuple[Row, ...] = (
    ("old", (0.09, 0.82, 11.9, 13.4, 12.5, 15.1), _SOURCE),
    ("reworked", (0.22, 0.20, 0.46), _SOURCE),
)
"""The old batch's boards had a resistor that corroded; the reworked ones had another."""

FAILURES_PER_GPU_YEAR: tuple[tuple[str, float, str], ...] = (
    ("StepFun", 0.052, "StepFun's report on 400 servers: GPU failures per GPU-year"),
    ("Llama 3", 0.091, "arXiv 2407.21783: 148 faulty GPUs and 72 of their memories among 16,384 in 54 days"),
)
"""Others' rates, to compare the prior with."""

"""How GPUs failed in a large machine over years: rows of facts.

Columns: batch, share of the GPUs that failed in each of its years in service (percent, year by year), about
how many GPUs (Tesla K20X) of the batch were at work in each, source of the shares.
"""

_SOURCE = "Ostrouchov et al., GPU Lifetimes on Titan Supercomputer, SC20: yearly failures by batch"

TITAN_GPUS = 18_688
"""In the machine at a time, in nodes of one each."""
TITAN_REWORKED = 11_000
"""About as many were replaced by reworked ones in much of 2017, its year 4 (introduction of the paper)."""

Row = tuple[str, tuple[float, ...], tuple[int, ...], str]

_LEFT = TITAN_GPUS - TITAN_REWORKED

TITAN_FAILURES: tuple[Row, ...] = (
    ("old", (0.09, 0.82, 11.9, 13.4, 12.5, 15.1),
     (TITAN_GPUS, TITAN_GPUS, TITAN_GPUS, (TITAN_GPUS + _LEFT) // 2, _LEFT, _LEFT), _SOURCE),
    ("reworked", (0.22, 0.20, 0.46), (TITAN_REWORKED, TITAN_REWORKED, TITAN_REWORKED), _SOURCE),
)  # fmt: skip
"""The old batch's boards had a resistor that corroded; the reworked ones had another. The reworked batch's
third year was cut short by the machine's end in 2019: fewer were at work in it than is written here."""

FAILURES_PER_GPU_YEAR: tuple[tuple[str, float, str], ...] = (
    ("StepFun", 0.052, "StepFun's report on 400 servers: GPU failures per GPU-year"),
    ("Llama 3", 0.091, "arXiv 2407.21783: 148 faulty GPUs and 72 of their memories among 16,384 in 54 days"),
)
"""Others' rates, to compare the prior with."""

"""What a device must show for which grade: rows of thresholds with their sources.

Columns of GRADE_RULES: name, what is said of a value, whether more is better, thresholds of A, B and C
(None: C has none, everything beneath B is C), margin by which a card that has a grade already must pass or
miss a threshold (so that noise doesn't change grades), source. Beneath C there is no grade. Table of
2026-11.
"""

_VARIATION = "arXiv 2208.11035: 8% mean, 22% most variation between healthy cards of a model"
_META = "Meta GCM health checks, facebookresearch/gcm"

Row = tuple[str, str, bool, float, float, float | None, float, str]

THROUGHPUT_REJECTED = 0.67
"""Of the median of its model; 22% is the most that healthy cards differed by (arXiv 2208.11035), and half as
much again is no variation any more."""

GRADE_RULES: tuple[Row, ...] = (
    ("throughput", "the throughput is {} of the median of its model", True, 0.95, 0.90, 0.78, 0.01,
     _VARIATION),
    ("power", "the sustained power reached {} of its limit", True, 0.90, 0.80, 0.75, 0.01,
     "DCGM target_power_min_ratio, 0.75, for C"),
    ("clock_drift", "the clock lost {} MHz in the soak", False, 30, 75, None, 3, _META),
    ("temperature", "the core reached {} °C after 1,800 s", False, 80, 85, None, 1, _META),
    ("slowdown", "hardware slowed {} of the soak", False, 0, 0, 0, 0, _META),
    ("nvlink", "{} NVLink errors or links that are down were counted", False, 0, 0, None, 0,
     f"{_META}; NVIDIA DGX health validation"),
    ("pcie", "PCIe runs at {} of what card and slot have", True, 1, 1, None, 0,
     "StepFun's report on 400 servers: 25 of 158 GPU faults"),
    ("remap", "{} rows or pages wait for a reset", False, 0, 0, None, 0, _META),
)  # fmt: skip

XIDS_REJECTED: dict[int, str] = {
    48: "a double-bit error in its memory",
    64: "a row or page of its memory could not be retired",
    79: "it fell off the bus",
    95: "an uncontained error in its memory",
}
"""NVIDIA, "XID Errors": what needs a reset at least, and mostly another card."""
XIDS_ENDING: dict[int, str] = XIDS_REJECTED | {
    62: "its own controller halted",
    74: "its link to another card failed",
    94: "an error in its memory that ended the program",
    119: "its system processor did not answer",
    120: "its system processor failed",
    140: "an error in its memory that was not recovered from",
}
"""Those after which a run can't go on: NVIDIA's Xid catalogue (docs.nvidia.com/deploy/xid-errors, 2026-09)
asks for a new start of the program that met it (94), the card, or the machine. Others of hardware (63, a row
replaced; 92, many corrected errors) let programs go on."""
XIDS_MINOR = frozenset({13, 31, 43, 45})
"""NVIDIA, "XID Errors": of a program's own making; they say nothing against the card."""

RETIRED_PAGES_MOST = 10
"""NVIDIA "Dynamic Page Retirement" counts a card as due for return well before its table of 64 is full."""
RETIRED_PAGES_LIMIT = 64
"""As many pages as a card can retire (NVIDIA "Dynamic Page Retirement")."""
REMAPPED_ROWS_LIMIT = 512
"""As many rows as A100 and newer can replace (NVIDIA "GPU Memory Error Management")."""

SCORE_WEIGHTS = {"memory": 0.4, "performance": 0.3, "thermal": 0.2, "links": 0.1}
"""Placeholders, chosen without data: to be fitted when the network has failures enough."""

COPY_REACHED: dict[str, float] = {
    "K80": 0.80,
    "M60": 0.79,
    "P100": 0.70,
    "P4": 0.84,
    "V100": 0.83,
    "T4": 0.69,
}
"""Bandwidth that a copy reaches, of the data sheet's: arXiv 1903.07486 (Jia et al., 2019)."""
COPY_REACHED_DEFAULT = 0.80
"""Their median, for the rest."""
FLOPS_REACHED_DEFAULT = 0.90
"""Of the data sheet's boost rate, which a card under load holds only where its power limit lets it."""

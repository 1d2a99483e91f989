"""What clouds charge for a GPU: rows of facts, to compare an offer with.

Columns: GPU model, memory in GiB, then US$ per GPU-hour on demand in micro-units: median over hyperscalers,
their cheapest, and AWS's spot price (None: not found); then how many hyperscaler prices the median is of, the
date, and the source. One GPU's share of the whole machine's price. There is no row for CPUs: no dated source.
"""

_CATALOG = "skypilot-catalog 2c3d7ea, schema v9"

Row = tuple[str, int, int, int, int | None, int, str, str]

CLOUD_PRICES: tuple[Row, ...] = (
    ("T4", 16, 526_000, 526_000, 215_000, 1, "autumn 2026", f"AWS g4dn ({_CATALOG})"),
    ("V100", 16, 3_060_000, 3_060_000, 371_000, 1, "autumn 2026", f"AWS p3 ({_CATALOG})"),
    ("A10G", 24, 1_574_000, 1_504_000, None, 3, "autumn 2026", f"AWS g5 in three regions ({_CATALOG})"),
    ("A100", 40, 3_072_150, 2_744_700, 1_237_000, 2, "2026-11-09",
     f"AWS p4d, Azure NDasr ({_CATALOG}; datareceipts)"),
    ("A100", 80, 3_673_000, 3_430_900, None, 3, "2026-11-09",
     f"AWS p4de, Azure NC, GCP a2 ({_CATALOG}; datareceipts)"),
    ("L40S", 48, 3_004_240, 2_242_080, None, 2, "autumn 2026", f"AWS g6e in two sizes ({_CATALOG})"),
    ("H100", 80, 10_979_000, 6_880_000, None, 3, "2026-11-09",
     "AWS p5, Azure ND, GCP a3 (datareceipts; silybench)"),
)  # fmt: skip

"""What others charge for a GPU by the hour: rows of facts, each with its source and its day.

Columns: kind of seller, seller and product, GPU variant (as in `gpus`), US$ per GPU-hour in micro-units (one
GPU's share of the whole machine's price), the day on which the source read it, the source. A price without a
day, or a spot price of an unknown one, has no row.
"""

HYPERSCALER, SPOT, SPECIALIST, MARKETPLACE = "hyperscaler", "spot", "specialist", "marketplace"
"""On demand at a hyperscaler, its interruptible price, on demand at a specialist, and a marketplace's ask."""
KINDS = (HYPERSCALER, SPOT, SPECIALIST, MARKETPLACE)

_VANTAGE = "instances.vantage.sh, us-east-1, as in github.com/tsaol/aws-gpu 77fcd9f"
_RECEIPTS = "github.com/datareceipts/data-receipts, 109"
_SILYBENCH = "github.com/tgarg01/silybench-data 045df3b, derived/csv/gpu_prices.csv"
_PRIVUM = "huggingface.co/datasets/privum/ai-compute-prices"
_LANTERN = "huggingface.co, lantern-works"
_EVANGELIST = "github.com/api-evangelist, price pages of the seller"

Row = tuple[str, str, str, int, str, str]

PRICES: tuple[Row, ...] = (
    (HYPERSCALER, "AWS p2.xlarge", "K80 12GB (one of two GPUs)", 900_000, "2025-11-30", _VANTAGE),
    (HYPERSCALER, "AWS g3s.xlarge", "M60 8GB (one of two GPUs)", 750_000, "2025-11-30", _VANTAGE),
    (HYPERSCALER, "AWS p3.2xlarge", "V100 SXM2 16GB", 3_060_000, "2025-11-30", _VANTAGE),
    (HYPERSCALER, "AWS p3dn.24xlarge", "V100 SXM2 32GB", 3_901_500, "2026-01-21", _VANTAGE),
    (HYPERSCALER, "AWS g4dn.xlarge", "T4 16GB", 526_000, "2025-11-30", _VANTAGE),
    (HYPERSCALER, "AWS g5.xlarge", "A10G 24GB", 1_006_000, "2025-11-30", _VANTAGE),
    (HYPERSCALER, "AWS g6.xlarge", "L4 24GB", 804_800, "2025-11-30", _VANTAGE),
    (HYPERSCALER, "AWS g6e.xlarge", "L40S 48GB", 1_861_000, "2025-11-30", _VANTAGE),
    (HYPERSCALER, "AWS p4d.24xlarge", "A100 SXM4 40GB", 2_744_700, "2026-11-09", _RECEIPTS),
    (HYPERSCALER, "Azure ND96asr_v4", "A100 SXM4 40GB", 3_399_600, "2026-11-09", _RECEIPTS),
    (HYPERSCALER, "AWS p4de.24xlarge", "A100 SXM4 80GB", 3_430_900, "2026-11-09", _RECEIPTS),
    (HYPERSCALER, "Azure NC24ads_A100_v4", "A100 PCIe 80GB", 3_673_000, "2026-11-09", _RECEIPTS),
    (HYPERSCALER, "AWS p5.48xlarge", "H100 SXM5 80GB", 6_880_000, "2026-11-09", _RECEIPTS),
    (HYPERSCALER, "Azure ND96isr_H100_v5", "H100 SXM5 80GB", 12_290_000, "2026-11-09", _RECEIPTS),
    (HYPERSCALER, "GCP a3-highgpu-1g us-central1", "H100 SXM5 80GB", 10_979_100, "2026-09-26", _SILYBENCH),
    (HYPERSCALER, "AWS p5en.48xlarge", "H200 SXM5 141GB", 7_912_000, "2025-11-30", _VANTAGE),
    (SPOT, "GCP a3-highgpu-1g spot us-central1", "H100 SXM5 80GB", 6_571_000, "2026-09-26", _SILYBENCH),
    (SPECIALIST, "Lambda 1x A10", "A10 24GB", 1_290_000, "2026-09-25", _SILYBENCH),
    (SPECIALIST, "Lambda 1x A100 40GB", "A100 SXM4 40GB", 1_990_000, "2026-09-25", _SILYBENCH),
    (SPECIALIST, "Lambda 8x A100 80GB", "A100 SXM4 80GB", 2_790_000, "2026-09-25", _SILYBENCH),
    (SPECIALIST, "RunPod secure, A100 SXM", "A100 SXM4 80GB", 1_590_000, "2026-09-25", _SILYBENCH),
    (SPECIALIST, "RunPod secure, A100 PCIe", "A100 PCIe 80GB", 1_590_000, "2026-09-25", _SILYBENCH),
    (SPECIALIST, "RunPod secure, A100 80GB", "A100 SXM4 80GB", 1_790_000, "2026-11-09", _RECEIPTS),
    (SPECIALIST, "Nebius L40S", "L40S 48GB", 1_550_000, "2026-09-25", _SILYBENCH),
    (SPECIALIST, "RunPod secure, L40S", "L40S 48GB", 1_090_000, "2026-09-25", _SILYBENCH),
    (SPECIALIST, "Lambda 8x H100 SXM", "H100 SXM5 80GB", 3_990_000, "2026-09-25", _SILYBENCH),
    (SPECIALIST, "Nebius HGX H100", "H100 SXM5 80GB", 3_850_000, "2026-09-25", _SILYBENCH),
    (SPECIALIST, "RunPod secure, H100 SXM", "H100 SXM5 80GB", 3_490_000, "2026-09-25", _SILYBENCH),
    (SPECIALIST, "RunPod secure, H100", "H100 SXM5 80GB", 3_990_000, "2026-11-09", _RECEIPTS),
    (SPECIALIST, "Lambda 1x H100 PCIe", "H100 PCIe 80GB", 3_290_000, "2026-09-25", _SILYBENCH),
    (SPECIALIST, "RunPod secure, H100 PCIe", "H100 PCIe 80GB", 2_890_000, "2026-09-25", _SILYBENCH),
    (SPECIALIST, "Nebius HGX H200", "H200 SXM5 141GB", 4_500_000, "2026-09-25", _SILYBENCH),
    (SPECIALIST, "RunPod secure, H200", "H200 SXM5 141GB", 4_590_000, "2026-09-25", _SILYBENCH),
    (SPECIALIST, "RunPod secure, RTX 4090", "RTX 4090 24GB", 740_000, "2026-09-25", _SILYBENCH),
    (MARKETPLACE, "RunPod community, A100 40GB", "A100 SXM4 40GB", 1_000_000, "2026-08-19", _PRIVUM),
    (MARKETPLACE, "RunPod community, A100 SXM", "A100 SXM4 80GB", 1_390_000, "2026-09-25", _SILYBENCH),
    (MARKETPLACE, "RunPod community, A100 PCIe", "A100 PCIe 80GB", 1_190_000, "2026-09-25", _SILYBENCH),
    (MARKETPLACE, "Vast, median of verified", "A100 SXM4 80GB", 1_704_300, "2026-10-29", _LANTERN),
    (MARKETPLACE, "Akash A100 SXM4", "A100 SXM4 80GB", 1_710_000, "2026-09-20", _EVANGELIST),
    (MARKETPLACE, "RunPod community, L40S", "L40S 48GB", 790_000, "2026-09-25", _SILYBENCH),
    (MARKETPLACE, "RunPod community, H100 SXM", "H100 SXM5 80GB", 2_690_000, "2026-09-25", _SILYBENCH),
    (MARKETPLACE, "RunPod community, H100 PCIe", "H100 PCIe 80GB", 1_990_000, "2026-09-25", _SILYBENCH),
    (MARKETPLACE, "Vast, median of verified", "H100 SXM5 80GB", 2_402_400, "2026-10-19", _SILYBENCH),
    (MARKETPLACE, "Akash H100", "H100 SXM5 80GB", 2_710_000, "2026-09-20", _EVANGELIST),
    (MARKETPLACE, "SF Compute H100, average", "H100 SXM5 80GB", 2_110_000, "2026-09-20", _EVANGELIST),
    (MARKETPLACE, "RunPod community, H200", "H200 SXM5 141GB", 3_590_000, "2026-09-25", _SILYBENCH),
    (MARKETPLACE, "RunPod community, RTX 4090", "RTX 4090 24GB", 340_000, "2026-09-25", _SILYBENCH),
    (MARKETPLACE, "OpenRelay RTX 3090", "RTX 3090 24GB", 180_000, "2026-09-20", _EVANGELIST),
)

EGRESS = (90_000, "2026-04-27", "leanopstech.com, AWS Data Transfer Pricing in 2026: the first 10 TB a month")
"""US$ in micro-units that a hyperscaler takes for each GB that leaves it, the day, the source. What comes in
is free there, and the first 100 GB a month, which an account of any size has used, are not counted."""

STORAGE = (80_000, "2026-09-29", "aws.amazon.com/ebs/pricing, gp3 in US East (N. Virginia)")
"""US$ in micro-units for each GB-month of disk, the day, the source: for machines that bring none."""

HOURS_A_MONTH = 730.0
"""Of a GB-month, as the year divides: AWS counts the month's own hours."""

DISKLESS = frozenset({"AWS p2.xlarge", "AWS g3s.xlarge", "AWS p3.2xlarge"})
"""Products of PRICES without a disk of their own (`EBS only` in _VANTAGE); others are taken to bring one, as
most do, which errs in their favour."""

CPU_SELLER = "AWS Fargate, Linux on x86"
CPU = (40_478, 4_446, "2026-09-29", "aws.amazon.com/fargate/pricing, US East (N. Virginia)")
"""US$ in micro-units per vCPU-hour and per GB-hour of memory, cut to whole micro-units, the day, the source.
It is sold in shapes, which are not counted, and brings 20 GB of disk (aws.amazon.com/blogs/containers, "AWS
Fargate adds support for larger ephemeral volumes")."""
CPU_SECONDS_MIN = 60
"""It bills by the second and a minute at least, as read there on the same day."""

"""For which compute capabilities PyTorch's wheels hold kernels: rows of facts, Linux x86-64.

Columns: first and last minor release of torch, CUDA variant (as in its version, ``2.14.0+cu126``), whether
PyPI's wheel is this variant, architectures built in (+PTX: newer ones are translated), source. Read 2026-11.
Releases before the first row and after the last are not known here. None of this was tried on a card.
"""

_MATRIX = "RELEASE.md, PyTorch CUDA Support Matrix"
_BUILD = "TORCH_CUDA_ARCH_LIST in .ci/manywheel/build_cuda.sh, 00c7a38"
_NOW = f"{_MATRIX} (pulls 175253, 182849, 197555, 2026-09)"
_PLAN = "plan for 2.15, issue 190385 (2026-07)"

Row = tuple[str, str, str, bool, str, str]

TORCH_WHEELS: tuple[Row, ...] = (
    ("2.8", "2.8", "cu126", False, "5.0 6.0 7.0 7.5 8.0 8.6 9.0", _BUILD),
    ("2.8", "2.8", "cu128", True, "7.0 7.5 8.0 8.6 9.0 10.0 12.0", _BUILD),
    ("2.8", "2.8", "cu129", False, "7.0 7.5 8.0 8.6 9.0 10.0 12.0+PTX", _BUILD),
    ("2.9", "2.10", "cu126", False, "5.0 6.0 7.0 7.5 8.0 8.6 9.0", f"{_MATRIX} (pull 164471, 2025-10)"),
    ("2.9", "2.10", "cu128", True, "7.0 7.5 8.0 8.6 9.0 10.0 12.0", f"{_MATRIX} (pull 164471, 2025-10)"),
    ("2.9", "2.10", "cu130", False, "7.5 8.0 8.6 9.0 10.0 12.0+PTX", f"{_MATRIX} (pull 164471, 2025-10)"),
    # The matrix names 9.0 for cu126, the build script of 2.11 leaves it out: the less is taken.
    ("2.11", "2.14", "cu126", False, "5.0 6.0 7.0 7.5 8.0 8.6", _NOW),
    ("2.11", "2.11", "cu128", False, "7.5 8.0 8.6 9.0 10.0 12.0", f"{_MATRIX} (pull 175253, 2026-02)"),
    ("2.11", "2.14", "cu130", True, "7.5 8.0 8.6 9.0 10.0 12.0", _NOW),
    ("2.12", "2.14", "cu132", False, "7.5 8.0 8.6 9.0 10.0 12.0", _NOW),
    # 2.15 has no cu126, and with it nothing for cards before Turing.
    ("2.15", "2.15", "cu130", False, "7.5 8.0 8.6 9.0 10.0 12.0", _PLAN),
    ("2.15", "2.15", "cu132", True, "7.5 8.0 8.6 9.0 10.0 12.0", _PLAN),
)  # fmt: skip
"""Which variant PyPI's wheel is was read in the wheels' own requirements, release by release, 2026-11-22:
CUDA 12.8 in 2.8 to 2.10, 13.0 in 2.11 to 2.14, 13.2 in 2.15. +PTX, which the matrix notes for cu130 on Linux,
is not counted on later than 2.10: it was to be dropped for PyPI (pull 175253)."""

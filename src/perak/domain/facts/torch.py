"""For which compute capabilities PyTorch's wheels hold kernels: rows of facts, Linux x86-64.

Columns: first and last minor release of torch, CUDA variant (as in its version, ``2.14.0+cu126``), whether
PyPI's wheel is this variant, architectures built in (+PTX: newer ones are translated), source. Read 2026-11.
Releases before the first row and after the last are not known here. None of this was tried on a card.
"""

_MATRIX = "RELEASE.md, PyTorch CUDA Support Matrix"
_BUILD = "TORCH_CUDA_ARCH_LIST in .ci/manywheel/build_cuda.sh, 00c7a38"

Row = tuple[str, str, str, bool, str, str]

TORCH_WHEELS: tuple[Row, ...] = (
    ("2.8", "2.8", "cu126", False, "5.0 6.0 7.0 7.5 8.0 8.6 9.0", _BUILD),
    ("2.8", "2.8", "cu128", True, "7.0 7.5 8.0 8.6 9.0 10.0 12.0", _BUILD),
    ("2.8", "2.8", "cu129", False, "7.0 7.5 8.0 8.6 9.0 10.0 12.0+PTX", _BUILD),
    ("2.9", "2.10", "cu126", False, "5.0 6.0 7.0 7.5 8.0 8.6 9.0", f"{_MATRIX} (pull 164471, 2025-10)"),
    ("2.9", "2.10", "cu128", True, "7.0 7.5 8.0 8.6 9.0 10.0 12.0", f"{_MATRIX} (pull 164471, 2025-10)"),
    ("2.9", "2.10", "cu130", False, "7.5 8.0 8.6 9.0 10.0 12.0+PTX", f"{_MATRIX} (pull 164471, 2025-10)"),
    # The matrix names 9.0 for cu126, the build script of 2.11 leaves it out: the less is taken.
    ("2.11", "2.14", "cu126", False, "5.0 6.0 7.0 7.5 8.0 8.6", f"{_MATRIX} (pulls 175253, 197555, 2026-09)"),
    ("2.11", "2.11", "cu128", False, "7.5 8.0 8.6 9.0 10.0 12.0", f"{_MATRIX} (pull 175253, 2026-02)"),
    ("2.11", "2.13", "cu130", True, "7.5 8.0 8.6 9.0 10.0 12.0", f"{_MATRIX} (pull 182849, 2026-05)"),
    ("2.14", "2.14", "cu130", False, "7.5 8.0 8.6 9.0 10.0 12.0", f"{_MATRIX} (pull 197555, 2026-09)"),
    ("2.14", "2.14", "cu132", True, "7.5 8.0 8.6 9.0 10.0 12.0", "issue 190355 (2026-07): PyPI's is cu132"),
    # 2.15 is to have no cu126 (issue 190385), and with it nothing for cards before Turing.
)  # fmt: skip
"""PyPI's before 2.14: cu128 in 2.8 to 2.10 (vllm-project/vllm#34867), cu130 since 2.11 (pytorch#175253)."""

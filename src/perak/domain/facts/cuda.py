"""Which driver a program built with CUDA needs: rows of facts, Linux.

Columns: major release of the CUDA toolkit, first driver branch that runs what any minor release of it built,
source. Read 2026-11-23. Within a major release older drivers run newer programs ("minor version
compatibility"), but translate no PTX of a toolkit newer than themselves.
"""

_TABLE = "docs.nvidia.com/deploy/cuda-compatibility, Minor Version Compatibility, table 1"

CUDA_DRIVERS: tuple[tuple[int, int, str], ...] = (
    (11, 450, _TABLE),
    (12, 525, _TABLE),
    (13, 580, _TABLE),
)

"""Which releases of AI software still run on an architecture: rows of facts, Linux x86-64. Read 2026-11.

CUDA: compute capability from and to, last release of the toolkit that builds for it (None: the newest still
does), last driver branch, source. ROCM: LLVM targets, last release whose documentation lists them as
supported (None: the newest does), source. BUILDS: package, its variants as pip's names, oldest compute
capability that they run on, CUDA major release, source.
"""

_CUDA_13 = "CUDA 13.0 release notes: Maxwell, Pascal and Volta are removed; CUDA 12.9 is their last"
_CUDA_12 = "CUDA 12.0 release notes: Kepler is removed"
_CUDA_11 = "CUDA 11.0 release notes: sm_30 and sm_32 are removed"

CudaRow = tuple[str, str, str | None, str | None, str]

CUDA: tuple[CudaRow, ...] = (
    ("3.0", "3.2", "10.2", "R470", _CUDA_11),
    ("3.5", "3.7", "11.8", "R470", _CUDA_12),
    ("5.0", "6.2", "12.9", "R580", _CUDA_13),
    ("7.0", "7.2", "12.9", "R580", _CUDA_13),
    ("7.5", "12.9", None, None, "CUDA 13 release notes: Turing and newer"),
)

_ROCM = "rocm.docs.amd.com, system requirements and release notes"

RocmRow = tuple[tuple[str, ...], str | None, str]

ROCM: tuple[RocmRow, ...] = (
    (("gfx803",), "3.x", f"{_ROCM}: not among the supported GPUs from 4.0 on"),
    (("gfx900",), "4.5", f"{_ROCM}: removed after 4.5"),
    (("gfx906",), "5.7", f"{_ROCM} of 5.6: no new features beyond 5.7, fixes until the middle of 2024"),
    (("gfx908", "gfx90a", "gfx942", "gfx1030", "gfx1100"), None, f"{_ROCM}: supported in 6.x"),
    (("gfx950", "gfx1201"), None, f"{_ROCM}: supported in 7.x"),
)
"""Less certain than CUDA's: what AMD no longer lists often runs for some releases more (of gfx906 it is told
up to 6.3), and part of what it lists lacks libraries. Nobody tried it here, and no job is refused by it."""

_JAX = "docs.jax.dev, Installing JAX: CUDA 13 wheels for 7.5 and newer, CUDA 12 wheels for 5.2 and newer"
_CUPY = "docs.cupy.dev, Installation: cupy-cudaNNx is built for CUDA NN"
_TENSORFLOW = "tensorflow.org, Install TensorFlow with pip: kernels for 6.0 and newer, CUDA 12"

BuildRow = tuple[str, tuple[str, ...], str, int, str]

BUILDS: tuple[BuildRow, ...] = (
    ("jax", ("jax[cuda13]", "jax[cuda13-local]", "jax-cuda13-plugin", "jax-cuda13-pjrt"), "7.5", 13, _JAX),
    ("jax", ("jax[cuda12]", "jax[cuda12-local]", "jax-cuda12-plugin", "jax-cuda12-pjrt", "jax[cuda]"), "5.2",
     12, _JAX),
    ("cupy", ("cupy-cuda13x",), "7.5", 13, f"{_CUPY}; {_CUDA_13}"),
    ("cupy", ("cupy-cuda12x",), "5.0", 12, f"{_CUPY}; {_CUDA_12}"),
    ("cupy", ("cupy-cuda11x",), "3.5", 11, f"{_CUPY}; {_CUDA_11}"),
    ("tensorflow", ("tensorflow[and-cuda]",), "6.0", 12, _TENSORFLOW),
)  # fmt: skip
"""Wheels that carry machine code for cards; the first of a package is the newest."""

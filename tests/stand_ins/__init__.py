"""Stand-ins for what a machine without a card lacks: NVIDIA's two libraries and the nodes of its cards."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

SOURCES = Path(__file__).parent
NULL_DEVICE = os.makedev(1, 3)
"""What the nodes lead to: opening, reading and writing harm nobody."""
CONTROL = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools")


def uuid(card: int) -> str:
    """As the stand-ins name a card."""
    return f"GPU-00000000-0000-0000-0000-00000000000{card}"


def make_driver(root: Path, *, cards: int = 2, library: bool = True, **macros: object) -> Path:
    """A "driver root" with `cards` cards in `root`; `macros` are the C sources'. Skips where it can't."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler for the stand-in driver")
    (root / "dev").mkdir(parents=True)
    (root / "lib").mkdir()
    for name in (*CONTROL, *(f"nvidia{card}" for card in range(cards))):
        try:
            os.mknod(root / "dev" / name, 0o666 | stat.S_IFCHR, NULL_DEVICE)
        except PermissionError:
            pytest.skip("device nodes can't be made here")
        (root / "dev" / name).chmod(0o666)
    flags = [f"-D{name}={value}" for name, value in ({"CARDS": cards} | macros).items()]
    for source, name in (("nvml.c", "libnvidia-ml.so.1"), ("cuda.c", "libcuda.so.1")):
        if name == "libcuda.so.1" and not library:
            continue
        build = ["-shared", "-fPIC", "-O1", f"-Wl,-soname,{name}", "-o", str(root / "lib" / name)]
        subprocess.run([compiler, *build, *flags, str(SOURCES / source)], check=True)
    for path in (root, *root.rglob("*")):
        if path.is_dir() or path.suffix == ".1":
            path.chmod(0o755)
    return root

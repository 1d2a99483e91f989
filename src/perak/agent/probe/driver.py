"""What of the NVIDIA driver a run with devices sees: its libraries, nodes, and the least of /proc and /sys.

Nothing of a device that the run has not leased is bound. docs/gpu.md says what is bound, why, and what was
tried on which card.
"""

from __future__ import annotations

import logging
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from perak.agent.sandbox.spec import Mount

log = logging.getLogger(__name__)

ROOT_VARIABLE = "PERAK_NVIDIA_ROOT"
"""Where the driver lies if not in `/`: a folder with dev/ and libraries, such as a driver container's
/run/nvidia/driver (the "driver root" of NVIDIA's container toolkit)."""

MANAGEMENT_LIBRARY = "libnvidia-ml.so.1"
LIBRARY_FOLDERS = (
    "usr/local/nvidia/lib64", "usr/local/nvidia/lib", "usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu",
    "usr/lib64", "usr/lib", "run/opengl-driver/lib", "opt/nvidia/lib64", "lib",
)  # fmt: skip
"""Where drivers lie that no linker cache knows: containers of clouds, NixOS, runfile installations."""
LIBRARIES = (
    "libcuda", "libcudadebugger", "libnvidia-ml", "libnvidia-cfg", "libnvidia-ptxjitcompiler",
    "libnvidia-nvvm", "libnvidia-gpucomp", "libnvidia-opencl", "libnvidia-compiler", "libnvidia-allocator",
    "libnvidia-fatbinaryloader", "libnvidia-pkcs11",
)  # fmt: skip
"""What libnvidia-container mounts for its capabilities "compute" and "utility" (nvc_info.c); no graphics."""
LIBRARY_TARGET = "/run/nvidia/lib"

CONTROL_NODES = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools")
"""What every CUDA program opens besides the device's own node."""

PROC_FOLDER = "/proc/driver/nvidia"
PROC_FILES = ("params", "version", "registry")
"""What libnvidia-container shows of the driver's /proc, with the devices' own folders (nvc_mount.c)."""
SYS_FOLDERS = (
    "sys/devices/system/cpu", "sys/devices/system/node",
    "sys/module/nvidia", "sys/module/nvidia_uvm",
)  # fmt: skip
"""Without any /sys cuInit ends with 304 under bubblewrap (truefoundry/trueforge#466). libcuda reads the NUMA
nodes (a trace in NVIDIA/cuda-checkpoint#10; google/gvisor#12876) and the modules (systemd/systemd#38018)."""
PCI_FILES = (
    "class", "config", "device", "local_cpulist", "numa_node",
    "subsystem_device", "subsystem_vendor", "vendor",
)  # fmt: skip
"""Of the PCI device's folder; not its memory (`resource0`), which no run has a use for."""

MODPROBE_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceAccess:
    """What a sandbox gets to reach devices. `masks`: folders that are emptied before `mounts` are made."""

    nodes: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    masks: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """An installed driver. `libraries` is None where the sandbox sees them anyway: in /usr, and in the
    linker's cache; then `in_usr` is where, for a run in an image, which has a /usr of its own."""

    root: Path = Path("/")
    libraries: Path | None = None
    in_usr: Path | None = None

    @classmethod
    def find(cls, env: Mapping[str, str] | None = None) -> Driver | None:
        """The driver of this machine; None where there is none."""
        env = os.environ if env is None else env
        root = Path(env.get(ROOT_VARIABLE) or "/")
        places = [] if root == Path("/") else _folders(root)
        places += [Path(word) for word in env.get("LD_LIBRARY_PATH", "").split(":") if word]
        found = _first(places)
        if found is None and (cached := _cached()) is not None:
            seen = _is_seen(cached)
            return cls(
                root=root, libraries=None if seen else cached.parent, in_usr=cached.parent if seen else None
            )
        found = found or _first(_folders(Path("/")))
        return None if found is None else cls(root=root, libraries=found)

    def for_image(self) -> Driver:
        """The same driver, as a run in an image gets it: with its libraries mounted one by one."""
        return replace(self, libraries=self.libraries or self.in_usr)

    def load(self) -> None:
        """Load the management library from where it lies, so that whoever asks for its name gets it."""
        import ctypes

        if self.libraries is not None:
            ctypes.CDLL(str(self.libraries / MANAGEMENT_LIBRARY), mode=ctypes.RTLD_GLOBAL)

    def make_nodes(self) -> None:
        """Let the driver's own helper make /dev/nvidia-uvm, which it does only when CUDA is first used.

        In the sandbox nobody could: the helper is setuid root.
        """
        helper = shutil.which("nvidia-modprobe", path=f"{os.environ.get('PATH', '')}:/usr/bin:/sbin")
        if self.root != Path("/") or helper is None or (self.root / "dev/nvidia-uvm").exists():
            return
        try:
            subprocess.run([helper, "-u", "-c=0"], check=False, timeout=MODPROBE_SECONDS, capture_output=True)
        except (OSError, subprocess.TimeoutExpired) as error:
            log.warning("nvidia-modprobe could not make /dev/nvidia-uvm: %s", error)

    def node(self, name: str) -> str:
        """The path of a device node on this machine."""
        return str(self.root / "dev" / name)

    def access(self, *, minors: Iterable[int], uuids: Iterable[str], bus_ids: Iterable[str]) -> DeviceAccess:
        """What a run with these devices, and no others, gets."""
        nodes = [self.node(f"nvidia{minor}") for minor in minors]
        nodes += [path for name in CONTROL_NODES if Path(path := self.node(name)).exists()]
        bus_ids = tuple(bus_ids)
        visible = ",".join(uuids)
        env = {"CUDA_VISIBLE_DEVICES": visible, "NVIDIA_VISIBLE_DEVICES": visible}
        if self.libraries is not None:
            env["LD_LIBRARY_PATH"] = LIBRARY_TARGET
        has_proc = Path(PROC_FOLDER).is_dir()
        return DeviceAccess(
            nodes=tuple(nodes),
            mounts=(*self._libraries(), *(_proc(bus_ids) if has_proc else ()), *self._sys(bus_ids)),
            masks=(PROC_FOLDER,) if has_proc else (),
            env=env,
        )

    def _libraries(self) -> Iterator[Mount]:
        """The driver's files alone, each under the name that programs look for."""
        if self.libraries is None:
            return
        for path in sorted(self.libraries.glob("lib*.so*")):
            if path.name.split(".so")[0].rstrip("0123456789") in LIBRARIES and path.is_file():
                yield Mount(source=str(path.resolve()), target=f"{LIBRARY_TARGET}/{path.name}")

    def _sys(self, bus_ids: tuple[str, ...]) -> Iterator[Mount]:
        for name in SYS_FOLDERS:
            if (path := self.root / name).is_dir() or (path := Path("/", name)).is_dir():
                yield Mount(source=str(path), target=f"/{name}")
        for bus_id in bus_ids:
            for name in PCI_FILES:
                path = Path("/sys/bus/pci/devices", bus_id, name)
                if path.is_file():
                    yield Mount(source=str(path), target=str(path))


def _proc(bus_ids: tuple[str, ...]) -> Iterator[Mount]:
    for name in (*PROC_FILES, *(f"gpus/{bus_id}" for bus_id in bus_ids)):
        if (path := Path(PROC_FOLDER, name)).exists():
            yield Mount(source=str(path), target=str(path))


def bus_id(text: str) -> str:
    """NVML's name of a place on the bus, ``00000000:3B:00.0``, as the kernel writes it: ``0000:3b:00.0``."""
    return text.lower()[-len("0000:00:00.0") :]


def _folders(root: Path) -> list[Path]:
    return [root / name for name in LIBRARY_FOLDERS]


def _first(folders: Iterable[Path]) -> Path | None:
    return next((folder for folder in folders if (folder / MANAGEMENT_LIBRARY).is_file()), None)


def _is_seen(library: Path) -> bool:
    return Path("/usr") in library.resolve().parents


def _cached() -> Path | None:
    """The management library of this machine's architecture in the linker's cache."""
    program = shutil.which("ldconfig", path=f"{os.environ.get('PATH', '')}:/sbin:/usr/sbin")
    if program is None:
        return None
    try:
        done = subprocess.run([program, "-p"], capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    flag = {"x86_64": "x86-64", "aarch64": "AArch64"}.get(platform.machine(), "")
    for line in done.stdout.splitlines():
        name, _, path = line.strip().partition(" => ")
        if name.split(" ")[0] == MANAGEMENT_LIBRARY and flag in name and Path(path).is_file():
            return Path(path)
    return None

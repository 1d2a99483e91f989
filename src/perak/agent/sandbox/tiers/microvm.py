"""The tier `microvm`: the job has a kernel of its own, in a virtual machine of QEMU's.

The machine gets the node's own kernel image and a small initramfs (busybox and the modules that it takes to
mount a 9p share); its files are the tree that the outer wall lays out, its console the run's log. QEMU is the
run's own user inside the wall and needs /dev/kvm: emulating the processor instead (TCG) takes ten times as
long for everything, so that is not offered.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from perak.agent.sandbox import bwrap
from perak.agent.sandbox.spec import RunSpec
from perak.agent.sandbox.tier import Tier
from perak.agent.sandbox.tiers import oci, wall
from perak.agent.sandbox.tiers.base import Candidate, Places, Runtime, Start, job_command, stages
from perak.domain.isolation import MEMORY_BYTES_MIN

KVM = Path("/dev/kvm")
MODULES = ("virtio_pci", "virtio_console", "9pnet_virtio", "9p")
"""What Debian's kernel has as modules of what the machine needs, in the order in which they are loaded."""

FIRMWARE = ("/usr/share/qemu", "/usr/share/seabios")
"""Where distributions have the BIOS; QEMU by itself looks beside its program."""

QEMU_BYTES = 128 << 20
"""Of the run's memory for QEMU itself; the rest, the same at least, is the machine's."""

_INIT = """#!/bin/busybox sh
b=/bin/busybox
$b mount -t devtmpfs dev /dev
for module in {modules}; do $b insmod /modules/$module; done
$b mount -t 9p -o trans=virtio,version=9p2000.L,msize=524288 tree /tree
$b mount -t 9p -o trans=virtio,version=9p2000.L,ro files /files
$b mount -t 9p -o trans=virtio,version=9p2000.L,cache=none out /out
$b mount -t proc proc /proc
$b mount -t proc proc /tree/proc
$b mount -t devtmpfs dev /tree/dev
$b mkdir -p /dev/pts /dev/shm
export b
$b mount -t devpts pts /tree/dev/pts
. /files/start
"""

_START = """
$b cp $b /tree/dev/busybox
(while $b sleep 0.2; do if [ -e /out/stop ]; then $b kill -TERM -1; break; fi; done) &
$b touch /out/started
{{
    $b env -i {environment} \\
        $b chroot /tree /dev/busybox sh -c 'cd "$0" && exec "$@"' {command} </dev/null
    echo $? >/out/code
}} 2>&1 | $b cat >/dev/vport0p1
$b reboot -f
"""
"""Through a pipe, as in every tier: on a terminal programs write otherwise."""

_FORWARD = """
mkfifo {out}/never && exec 3<>{out}/never
{qemu} <&3 3<&- &
child=$!
trap 'touch {out}/stop' TERM
while :; do
    wait $child
    kill -0 $child 2>/dev/null || break
done
exit $(cat {out}/code 2>/dev/null || echo 125)
"""
"""QEMU's standard input never ends, for at its end it would close the port that is the log. 125 is what
container tools answer when it was not the job that failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine(Candidate):
    """QEMU, with the kernel and the initramfs to start in it."""

    kernel: Path
    initramfs: Path


class Microvm(Runtime):
    """QEMU with KVM. `accelerator` is for the tests of what no machine without KVM would run."""

    tier: Tier = "microvm"
    job_uid = 0
    own_kernel = True
    no_devices: str | None = (
        "a GPU would have to be given to the virtual machine whole (VFIO), which isn't built"
    )

    def __init__(self, *, accelerator: str = "kvm") -> None:
        self.accelerator = accelerator

    def candidates(self, programs: Path) -> Iterator[Candidate]:
        """The node's own QEMU, where it also has a kernel image with its modules, and busybox."""
        found = kernels()
        busybox = shutil.which("busybox", path=oci.SEARCH)
        if not found or busybox is None:
            return
        for qemu in oci.find(f"qemu-system-{os.uname().machine}"):
            kernel, modules = found[0]
            image = initramfs(programs, Path(busybox), modules)
            yield Machine(
                path=qemu.path,
                version=f"{qemu.version}, kernel {modules.name}",
                origin=qemu.origin,
                kernel=kernel,
                initramfs=image,
            )

    def missing(self) -> str:
        """What a machine commonly lacks, and where TCG stands."""
        return (
            "install qemu-system-x86, busybox-static and a kernel image with 9p (Debian: linux-image-amd64); "
            "it also needs /dev/kvm: emulation without it is too slow to offer"
        )

    def why_not(self) -> str | None:
        """What is known without starting a machine."""
        if self.accelerator != "kvm":
            return None
        if not KVM.exists():
            return (
                "there is no /dev/kvm, and a machine that is emulated (TCG) is too slow to offer: turn "
                "virtualization on in the firmware, or nested virtualization where this is a virtual machine"
            )
        if not KVM.stat().st_mode & stat.S_IWOTH:
            return '/dev/kvm is closed to the runs\' users: allow it (udev: KERNEL=="kvm", MODE="0666")'
        return None

    def start(self, spec: RunSpec, at: Places, candidate: Candidate) -> Start:
        """A machine for each stage. Raises ValueError where the run has too little memory, or a network."""
        assert isinstance(candidate, Machine)
        if spec.network_allow:
            raise ValueError(f"{spec.run_id}: a microvm has no network device, so no way to the run's proxy")
        memory = spec.memory_bytes - QEMU_BYTES
        if (least := MEMORY_BYTES_MIN["microvm"]) > spec.memory_bytes:
            raise ValueError(f"{spec.run_id}: a microvm takes {least >> 20} MiB of memory at least")
        arguments, job = wall.build(
            bwrap.arguments(spec, scratch=at.scratch, own_etc=at.own_etc, scripts=at.scripts),
            at=at,
            runtime=candidate,
        )
        arguments += ["--ro-bind", str(candidate.kernel), "/kernel"]
        arguments += ["--ro-bind", str(candidate.initramfs), "/initramfs"]
        if self.accelerator == "kvm":
            arguments += ["--dev-bind", str(KVM), str(KVM)]
        names = stages(spec)
        for stage in names:
            arguments += ["--dir", f"{wall.STATE}/{stage}"]
        cores = max(1, -(-spec.cpu_milli // 1000))
        qemu = self._qemu(memory_mib=memory >> 20, cores=cores)
        return Start(
            arguments=arguments,
            programs={stage: ["/bin/sh", "-c", _forward(qemu, stage)] for stage in names},
            files={f"{stage}/start": _start(job, job_command(spec, stage)) for stage in names},
            seccomp=False,
            stop_by="runtime",
            marks={stage: f"state/{stage}/started" for stage in names},
        )

    def _qemu(self, *, memory_mib: int, cores: int) -> list[str]:
        argv = [wall.PROGRAM, "-machine", "q35", "-accel", self.accelerator, "-nodefaults", "-no-user-config"]
        argv += ["-cpu", "host" if self.accelerator == "kvm" else "max", "-display", "none", "-no-reboot"]
        argv += ["-m", f"{memory_mib}M", "-smp", str(cores), "-kernel", "/kernel", "-initrd", "/initramfs"]
        argv += ["-append", "quiet panic=-1 reboot=t tsc=reliable rdinit=/init"]
        argv += ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]
        for folder in FIRMWARE:
            argv += ["-L", folder]
        argv += ["-device", "virtio-serial-pci", "-chardev", "stdio,id=log,signal=off"]
        argv += ["-device", "virtserialport,chardev=log"]
        return argv


def kernels() -> list[tuple[Path, Path]]:
    """Kernel images that all may read, with their folders of modules that know 9p; the newest first."""
    found = [
        (image, modules)
        for image in Path("/boot").glob("vmlinuz-*")
        if image.stat().st_mode & stat.S_IROTH
        and (modules := Path("/lib/modules", image.name.removeprefix("vmlinuz-"))).is_dir()
        and any(modules.glob("kernel/fs/9p/9p.ko*"))
    ]
    return sorted(found, key=lambda each: each[0].stat().st_mtime, reverse=True)


def initramfs(programs: Path, busybox: Path, modules: Path) -> Path:
    """The first file system of the machine, made where it isn't there yet."""
    names = _load_order(modules)
    entries = {
        "init": (0o755, _INIT.format(modules=" ".join(Path(name).name for name in names)).encode()),
        "bin/busybox": (0o755, busybox.read_bytes()),
        **{f"modules/{Path(name).name}": (0o644, (modules / name).read_bytes()) for name in names},
    }
    content = _cpio(("bin", "modules", "dev", "proc", "tree", "files", "out"), entries)
    target = programs / f"microvm-{hashlib.sha256(content).hexdigest()[:16]}.img"
    if not target.exists():
        draft = programs / f".{target.name}.{os.getpid()}"
        draft.write_bytes(content)
        draft.chmod(0o644)
        draft.rename(target)
    return target


def _load_order(modules: Path) -> list[str]:
    """The modules and all that they need, by modules.dep, each after what it needs."""
    needs: dict[str, list[str]] = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        name, _, rest = line.partition(":")
        needs[name] = rest.split()
    order: list[str] = []
    for wanted in MODULES:
        for name in (each for each in needs if Path(each).name == f"{wanted}.ko"):  # none: it is built in
            order += [each for each in (*reversed(needs[name]), name) if each not in order]
    return order


def _cpio(folders: tuple[str, ...], files: dict[str, tuple[int, bytes]]) -> bytes:
    """An archive in the format that kernels unpack (newc; kernel docs, driver-api/early-userspace)."""
    entries = [(name, stat.S_IFDIR | 0o755, b"") for name in folders]
    entries += [(name, stat.S_IFREG | mode, data) for name, (mode, data) in files.items()]
    out = bytearray()
    for number, (name, mode, data) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        numbers = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        out += b"070701" + b"".join(b"%08X" % each for each in numbers) + name.encode() + b"\0"
        out += b"\0" * (-len(out) % 4) + data
        out += b"\0" * (-len(out) % 4)
    return bytes(out)


def _start(job: wall.Job, command: list[str]) -> str:
    shm = [f"$b mount -t tmpfs -o mode=1777,size={size} shm /tree{path}" for path, size in job.tmpfs.items()]
    environment = shlex.join(f"{name}={value}" for name, value in job.env.items())
    return "\n".join([*shm, _START.format(environment=environment, command=shlex.join([job.cwd, *command]))])


def _forward(qemu: list[str], stage: str) -> str:
    out = f"{wall.STATE}/{stage}"
    shares = []
    for tag, path, option in (
        ("tree", wall.ROOT, ",multidevs=remap"),
        ("files", f"{wall.FILES}/{stage}", ",readonly=on"),
        ("out", out, ""),
    ):
        shares += ["-fsdev", f"local,id={tag},path={path},security_model=none{option}"]
        shares += ["-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]
    return _FORWARD.format(qemu=shlex.join([*qemu, *shares]), out=out)

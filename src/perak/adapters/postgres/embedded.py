"""Start and stop the embedded PostgreSQL of one state folder."""

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NewType
from urllib.parse import quote

from perak.adapters.postgres.account import server_account
from perak.adapters.postgres.binaries import Binaries, find_binaries
from perak.adapters.postgres.cluster import ensure_cluster, ensure_role
from perak.adapters.postgres.config import DATABASE, ROLE, write_config
from perak.adapters.postgres.errors import AlreadyRunning, PostgresFailed
from perak.adapters.postgres.layout import Layout, prepare_layout
from perak.adapters.postgres.leftovers import end_leftovers

DatabaseUrl = NewType("DatabaseUrl", str)
"""A `postgresql://` URL, as asyncpg and libpq understand it. It carries the password: never log it."""

START_TIMEOUT_SECONDS = 60.0  # Half a second as a rule; recovery after a power cut may take longer.
FAST_SHUTDOWN_SECONDS = 30.0  # It ends connections and writes a checkpoint.
QUIT_SECONDS = 5.0
POLL_SECONDS = 0.01
KEPT_LOG_FILES = 5  # Of 10 MB each at most; older ones go at each start.
_READY_LINE = 7  # postmaster.pid's eighth line is the server's status (PostgreSQL's pidfile.h).
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class EmbeddedPostgres:
    """The server of one state folder: `start` returns its URL, `stop` ends it, and the data stays.

    Started from the main thread it also ends, in order, when its owner is killed. Started from another
    thread it outlives a killed owner, because Linux ties that signal to the thread; the next `start` ends it.
    Not safe to share between threads.
    """

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._layout: Layout | None = None
        self._lock: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> DatabaseUrl:
        """Start the server, at the first time with a new cluster, and wait until it takes connections.

        Raises a `PostgresUnavailable`, after which nothing of it is running.
        """
        assert self._process is None, "start() was called twice"
        server = server_account()
        layout = self._layout = prepare_layout(self._state_dir, server)
        self._lock = _acquire(layout)
        try:
            binaries = find_binaries(layout.home, server)
            end_leftovers(layout)
            ensure_cluster(layout, binaries, server)
            write_config(layout)
            _prune_logs(layout.log)
            self._process = _spawn(binaries, layout)
            _wait_until_ready(self._process, layout)
            return _url(layout, ensure_role(layout, binaries))
        except BaseException:
            self.stop()
            raise

    @property
    def ready(self) -> bool:
        """Whether the server takes connections now."""
        if self._process is None or self._layout is None or self._process.poll() is not None:
            return False
        return _says_ready(self._layout, self._process.pid)

    def stop(self) -> None:
        """End the server in order and wait for it; harmless when it is not running."""
        if self._process is not None:
            _shut_down(self._process)
            self._process = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        if self._layout is not None and self._layout.socket_dir.parent != self._layout.home:
            _remove_if_empty(self._layout.socket_dir)

    def __enter__(self) -> DatabaseUrl:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def server_url(state_dir: Path) -> DatabaseUrl | None:
    """The URL of a server that somebody else runs in the state folder; None where none takes connections."""
    layout = prepare_layout(state_dir, server_account())
    try:
        pid = int(layout.pid_file.read_text().split("\n", 1)[0])
        os.kill(pid, 0)
        password = layout.password.read_text().strip()
    except (OSError, ValueError):
        return None
    return _url(layout, password) if _says_ready(layout, pid) else None


def _acquire(layout: Layout) -> int:
    """Take the state folder's lock, which the kernel frees when we end, however we end."""
    lock = os.open(layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(lock, 32, 0).decode().strip() or "unknown"
        os.close(lock)
        raise AlreadyRunning(
            f"Another process ({owner}) already runs the database in {layout.home}. Stop it first, or give "
            "this one a state folder of its own."
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def _prune_logs(folder: Path) -> None:
    for old in sorted(folder.glob("postgresql-*.log"))[:-KEPT_LOG_FILES]:
        old.unlink(missing_ok=True)


def _spawn(binaries: Binaries, layout: Layout) -> subprocess.Popen[bytes]:
    """Start the server in a session of its own, so that a Ctrl-C reaches it only through `stop`."""
    with layout.start_log.open("wb") as log:
        return subprocess.Popen(
            [binaries.postgres, "-c", f"config_file={layout.config}"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env={"LC_ALL": "C"},
            umask=0o077,
            start_new_session=True,
            preexec_fn=_end_with_parent(),
            **server_account().identity,
        )


def _end_with_parent() -> Callable[[], object] | None:
    """Return what makes the child shut down when its parent is killed, or None where that is not safe."""
    if not sys.platform.startswith("linux") or threading.current_thread() is not threading.main_thread():
        return None
    prctl = ctypes.CDLL(None).prctl  # Looked up here: the child may not take locks between fork and exec.
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


def _wait_until_ready(process: subprocess.Popen[bytes], layout: Layout) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while not _says_ready(layout, process.pid):
        if process.poll() is not None:
            raise PostgresFailed(f"The database server did not start: {_last_words(layout)}")
        if time.monotonic() > deadline:
            raise PostgresFailed(
                f"The database server was not ready within {START_TIMEOUT_SECONDS:.0f} s. If it recovers "
                f"from a crash, start again; see {layout.log}. Its last words: {_last_words(layout)}"
            )
        time.sleep(POLL_SECONDS)


def _says_ready(layout: Layout, pid: int) -> bool:
    try:
        lines = layout.pid_file.read_text().splitlines()
    except OSError:
        return False
    return len(lines) > _READY_LINE and lines[0] == str(pid) and lines[_READY_LINE].strip() == "ready"


def _last_words(layout: Layout) -> str:
    logs = [layout.start_log, *sorted(layout.log.glob("postgresql-*.log"))[-1:]]
    said = "".join(path.read_text(errors="replace")[-800:] for path in logs if path.exists())
    return said.strip() or "nothing"


def _shut_down(process: subprocess.Popen[bytes]) -> None:
    """Fast, then immediate shutdown (the next start recovers), then the end of patience."""
    steps = ((signal.SIGINT, FAST_SHUTDOWN_SECONDS), (signal.SIGQUIT, QUIT_SECONDS))
    for number, patience in steps:
        process.send_signal(number)
        try:
            process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            continue
        return
    process.kill()
    process.wait()


def _url(layout: Layout, password: str) -> DatabaseUrl:
    return DatabaseUrl(f"postgresql://{ROLE}:{password}@/{DATABASE}?host={quote(str(layout.socket_dir))}")


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:  # Already gone, or the server still holds its socket there.
        return

"""Where the embedded PostgreSQL keeps what, and who may enter.

::

    <state>/postgres/       owner: us; others may pass through, not list
        lock                held while a process of ours owns the server
        password            ours alone (0600)
        etc/                configuration, written at each start; the server reads it and can't change it
        start.log           what the server said before its own log was open
        data/  log/  run/   the server's alone (0700): cluster, logs, socket
        install-<version>/  the programs, only where the server's user can't reach the wheel itself
        new/                a cluster that is being made; moved to data/ when complete

Nothing that we write as root lies in a folder that the server's user can write to, so that a server taken
over by an attacker can't point us at somebody else's file.
"""

import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from perak.adapters.postgres.account import Account
from perak.adapters.postgres.errors import ClosedFolder

# sockaddr_un.sun_path holds 108 bytes with its final zero (unix(7)).
SOCKET_PATH_LIMIT_BYTES = 107
# Names the socket file only; there is no TCP listener.
SOCKET_PORT = 5432


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one state folder's server."""

    home: Path
    socket_dir: Path

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def new(self) -> Path:
        return self.home / "new"

    @property
    def config(self) -> Path:
        return self.home / "etc" / "postgresql.conf"

    @property
    def hba(self) -> Path:
        return self.home / "etc" / "pg_hba.conf"

    @property
    def ident(self) -> Path:
        return self.home / "etc" / "pg_ident.conf"

    @property
    def log(self) -> Path:
        return self.home / "log"

    @property
    def start_log(self) -> Path:
        return self.home / "start.log"

    @property
    def password(self) -> Path:
        return self.home / "password"

    @property
    def lock(self) -> Path:
        return self.home / "lock"

    @property
    def pid_file(self) -> Path:
        return self.data / "postmaster.pid"

    @property
    def socket(self) -> Path:
        return self.socket_dir / f".s.PGSQL.{SOCKET_PORT}"


def prepare_layout(state_dir: Path, server: Account) -> Layout:
    """Create the folders of `state_dir` with the permissions above; existing ones are put right.

    Raises `ClosedFolder` when a folder above the state folder shuts out the server's user: we never open a
    folder that is not our own.
    """
    state_dir = Path(os.path.abspath(state_dir))
    state_dir.mkdir(parents=True, exist_ok=True)
    if server.dropped:
        _require_open_parents(state_dir, server)
        state_dir.chmod(state_dir.stat().st_mode | stat.S_IXOTH)
    home = state_dir / "postgres"
    passage = 0o711 if server.dropped else 0o700
    _own_folder(home, passage)
    _own_folder(home / "etc", 0o755 if server.dropped else 0o700)
    layout = Layout(home, _socket_dir(home, server))
    for folder in (layout.log, layout.socket_dir):
        _server_folder(folder, server)
    return layout


def hand_over(folder: Path, to: Account) -> None:
    """Give `folder` and all that is in it to `to`, without following links."""
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.chown(os.path.join(parent, name), to.uid, to.gid, follow_symlinks=False)
    os.chown(folder, to.uid, to.gid, follow_symlinks=False)


def _require_open_parents(state_dir: Path, server: Account) -> None:
    for parent in state_dir.parents:
        if not parent.stat().st_mode & stat.S_IXOTH:
            raise ClosedFolder(
                f"The database server runs under a user of its own (uid {server.uid}), which can't reach "
                f"{state_dir}, because {parent} is closed to other users. Choose a state folder outside of "
                f"it, such as /var/lib/perak, or let others pass through: chmod o+x {parent}"
            )


def _own_folder(folder: Path, mode: int) -> None:
    folder.mkdir(mode=mode, exist_ok=True)
    folder.chmod(mode)


def _server_folder(folder: Path, server: Account) -> None:
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (server.uid, os.geteuid()):
            raise ClosedFolder(
                f"{folder} exists and belongs to uid {found.st_uid}, not to the database server "
                f"(uid {server.uid}). Find out who made it, remove it and start again."
            ) from None
    os.chown(folder, server.uid, server.gid, follow_symlinks=False)
    folder.chmod(0o700)


def _socket_dir(home: Path, server: Account) -> Path:
    """Return `run/`, or a folder with a short name elsewhere when that path is too long for a socket."""
    usual = home / "run"
    if len(os.fsencode(usual / f".s.PGSQL.{SOCKET_PORT}.lock")) <= SOCKET_PATH_LIMIT_BYTES:
        return usual
    runtime = Path("/run") if server.dropped else Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    if not (runtime.is_absolute() and os.access(runtime, os.W_OK)):
        runtime = Path(tempfile.gettempdir())
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    return runtime / f"perak-{server.uid}-{digest}"

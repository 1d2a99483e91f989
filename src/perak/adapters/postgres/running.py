"""The database of a `perak up`, whether it runs or not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from perak.adapters.postgres.account import server_account
from perak.adapters.postgres.binaries import find_binaries
from perak.adapters.postgres.embedded import DatabaseUrl, EmbeddedPostgres, server_url
from perak.domain.errors import NotFound


@contextlib.contextmanager
def database_of(state_dir: Path) -> Iterator[DatabaseUrl]:
    """The URL of the state folder's database; a server that does not run is started for the time.

    Raises NotFound where there is none.
    """
    if not (state_dir / "postgres" / "password").exists():
        raise NotFound(
            f"there is no database of a `perak up` in {state_dir}; name its --state-dir, or the exchange's "
            "--database"
        )
    if (url := server_url(state_dir)) is not None:
        yield url
        return
    with EmbeddedPostgres(state_dir) as url:
        yield url


def tools(state_dir: Path) -> Path:
    """The folder of `pg_dump` and `pg_restore`, of the server's own version."""
    return find_binaries(state_dir / "postgres", server_account()).folder

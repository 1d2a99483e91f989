"""What can go wrong between a client and an exchange, as one tree.

::

    PerakError                      its text says what happened, why, and what to do
    ├── ConfigError                 it is not known which exchange to use, or a profile is broken
    ├── InvalidArgument             a value that no exchange would take; nothing was sent
    ├── ExchangeUnreachable         no connection, or it broke and stayed broken
    ├── NotAnExchange               something else answered
    ├── DownloadDamaged             what came down is not what the exchange announced
    └── ExchangeError               the exchange answered with a problem (RFC 9457)
        ├── InvalidRequest          400, 422
        ├── NotAuthenticated        401
        ├── InsufficientFunds       402
        ├── NotAllowed              403
        ├── NotFound                404
        ├── Conflict                409
        ├── TooLarge                413
        ├── TooManyRequests         429
        └── ExchangeFailed          5xx: not the client's doing

Beside them, a job file that can't be understood raises `perak.wire.jobfile.JobFileError`, and a folder that
can't be packed or unpacked `perak.wire.archive.ArchiveError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perak.wire.api import Problem


class PerakError(Exception):
    """Anything that the client reports. `code` is stable and machine readable."""

    code = "error"

    def __init__(self, detail: str, *, code: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        if code is not None:
            self.code = code


class ConfigError(PerakError):
    """It is not known which exchange to use, or with which key, or a profile can't be read."""

    code = "config"


class InvalidArgument(PerakError):
    """A value that no exchange would take; nothing was sent."""

    code = "invalid_input"


class ExchangeUnreachable(PerakError):
    """There is no connection to the exchange."""

    code = "unreachable"

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(
            f"The exchange at {url} can't be reached: {reason}. Is it running? Start one here with "
            "`perak up`, or choose another with `perak login URL` or PERAK_URL."
        )
        self.url = url
        self.reason = reason


class NotAnExchange(PerakError):
    """Something answered that does not speak this protocol."""

    code = "not_an_exchange"


class DownloadDamaged(PerakError):
    """What came down is not what the exchange announced."""

    code = "download_damaged"


class ExchangeError(PerakError):
    """The exchange refused. `problem` is its whole answer."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail, code=problem.code)
        self.problem = problem


class InvalidRequest(ExchangeError):
    """The exchange could not understand the request."""


class NotAuthenticated(ExchangeError):
    """There is no key, or it is unknown or revoked."""


class InsufficientFunds(ExchangeError):
    """The wallet does not cover what must be held."""


class NotAllowed(ExchangeError):
    """The key lacks the role."""


class NotFound(ExchangeError):
    """No such thing in this project."""


class Conflict(ExchangeError):
    """The thing is not in a state that allows this."""


class TooLarge(ExchangeError):
    """Over a limit of the exchange."""


class TooManyRequests(ExchangeError):
    """Over the rate limit."""


class ExchangeFailed(ExchangeError):
    """The exchange failed or is not ready."""


_BY_STATUS: dict[int, type[ExchangeError]] = {
    400: InvalidRequest,
    401: NotAuthenticated,
    402: InsufficientFunds,
    403: NotAllowed,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    422: InvalidRequest,
    429: TooManyRequests,
}


def error_of(problem: Problem) -> ExchangeError:
    """The error for a problem, by its status."""
    kind = ExchangeFailed if problem.status >= 500 else _BY_STATUS.get(problem.status, ExchangeError)
    return kind(problem)

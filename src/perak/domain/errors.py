"""What can go wrong, as one tree.

::

    DomainError                 an expected refusal; the message says what to do next
    ├── InvalidInput            the request can't be understood (400)
    │   └── NotSupportedYet     understood, not built yet (400)
    ├── NotAuthenticated        no valid key (401)
    ├── InsufficientFunds       the wallet does not cover the hold (402)
    ├── NotAllowed              the key lacks the role (403)
    ├── NotFound                no such thing in this project (404)
    ├── Conflict                the thing is not in a state that allows it (409)
    │   └── IllegalTransition   a lifecycle has no such step
    ├── TooSlow                 the request did not come whole in time (408)
    ├── TooLarge                over a named limit (413)
    ├── TooManyRequests         over the rate limit (429)
    └── Unavailable             try again later (503)

An `assert` marks our own bug; a `DomainError` never does.
"""

from __future__ import annotations


class DomainError(Exception):
    """An expected refusal. `code` is stable and machine readable; `detail` is for people."""

    code = "error"

    def __init__(self, detail: str, *, code: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        if code is not None:
            self.code = code


class InvalidInput(DomainError):
    """The request can't be understood; the message names the place."""

    code = "invalid_input"


class NotSupportedYet(InvalidInput):
    """The request is understood and belongs to the design, but is not built yet."""

    code = "not_supported_yet"


class NotAuthenticated(DomainError):
    """There is no key, or it is unknown or revoked."""

    code = "not_authenticated"


class InsufficientFunds(DomainError):
    """The wallet does not cover what must be held."""

    code = "insufficient_funds"


class NotAllowed(DomainError):
    """The key is valid but lacks the role."""

    code = "not_allowed"


class NotFound(DomainError):
    """No such thing, or it belongs to another project (the two are not told apart)."""

    code = "not_found"


class Conflict(DomainError):
    """The thing is not in a state that allows this."""

    code = "conflict"


class IllegalTransition(Conflict):
    """A lifecycle has no such step from its present state."""

    code = "illegal_transition"


class TooSlow(DomainError):
    """The request did not come whole in time."""

    code = "too_slow"


class TooLarge(DomainError):
    """Over a named limit."""

    code = "too_large"


class TooManyRequests(DomainError):
    """Over the rate limit of this key or address."""

    code = "too_many_requests"


class Unavailable(DomainError):
    """A part that is needed is not there at the moment; try again later."""

    code = "unavailable"

"""Public ids: ``job-01k9f3v2m8q7zx4t5r@home`` is a job of the exchange named ``home``.

The middle part is 48 bits of milliseconds and 42 random bits in Crockford's base 32, so ids of one
kind sort by time. The exchange's own name is in every id, so that several exchanges can meet later.
"""

from __future__ import annotations

import re

from perak.domain.errors import InvalidInput

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_LENGTH = 18
RANDOM_BITS = 42

KINDS = ("project", "key", "invite", "node", "offer", "quote", "job", "lease", "run", "receipt", "webhook")
EXCHANGE_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}\Z")
_ID = re.compile(r"([a-z]+)-([0-9a-hjkmnp-tv-z]{18})@([a-z][a-z0-9-]{0,30})\Z")


def new_id(kind: str, *, exchange: str, now_ms: int, random: int) -> str:
    """A new id of `kind`; `random` gives at least 42 random bits."""
    assert kind in KINDS
    value = (now_ms & (2**48 - 1)) << RANDOM_BITS | random & (2**RANDOM_BITS - 1)
    digits = [_ALPHABET[value >> shift & 31] for shift in range(5 * (_LENGTH - 1), -1, -5)]
    return f"{kind}-{''.join(digits)}@{exchange}"


def check_id(text: str, kind: str) -> str:
    """The same text if it is an id of `kind`; raises InvalidInput."""
    match = _ID.match(text)
    if match is None or match[1] != kind:
        raise InvalidInput(f"{text[:80]!r} is not the id of a {kind}; it looks like {kind}-01k9…@exchange")
    return text


def is_id(text: str) -> bool:
    """Whether `text` is a whole public id of any kind."""
    match = _ID.match(text)
    return match is not None and match[1] in KINDS

"""Invites: the one text that lets a machine become a node.

An invite carries where the exchange is, the fingerprint of its authority, so that the first contact is
already safe, and a secret that works once. People copy it by hand: ``perak-invite-v1.<base64url>``.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from perak.domain.errors import InvalidInput

PREFIX = "perak-invite-v1."
MAX_INVITE_CHARACTERS = 2_048
"""A URL, a fingerprint and a secret take about 250; longer texts are not read."""

_FINGERPRINT = re.compile(r"sha256:[0-9a-f]{64}")
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")


class InviteError(InvalidInput):
    """A text is not an invite that can be used; the message says what to do."""

    code = "invalid_invite"


@dataclass(frozen=True, slots=True, kw_only=True)
class Invite:
    """Where to enrol, whom to trust there, and the secret that opens the door once."""

    url: str
    fingerprint: str
    """Of the exchange's authority, ``sha256:<hex>``."""
    secret: str = field(repr=False)

    def encode(self) -> str:
        """The invite as one word, to be pasted whole."""
        fields = {"url": self.url, "ca": self.fingerprint, "secret": self.secret}
        text = json.dumps(fields, separators=(",", ":")).encode()
        return PREFIX + base64.urlsafe_b64encode(text).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> Invite:
        """The invite that `text` is; spaces and line breaks from pasting are ignored. Raises InviteError."""
        if len(text) > MAX_INVITE_CHARACTERS:
            raise InviteError(f"This text is too long for an invite ({len(text):,} characters). {_RETRY}")
        word = "".join(text.split())
        if not word.startswith(PREFIX):
            raise InviteError(f"An invite starts with {PREFIX!r}, this text does not. {_RETRY}")
        fields = _fields(word.removeprefix(PREFIX))
        invite = cls(url=fields["url"], fingerprint=fields["ca"], secret=fields["secret"])
        _check(invite)
        return invite


_RETRY = "Copy it again whole, or ask for a new one: perak node invite"


def _fields(encoded: str) -> dict[str, str]:
    if not _BASE64URL.fullmatch(encoded):
        raise InviteError(f"This invite holds characters that no invite has. {_RETRY}")
    try:
        fields = json.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    except (ValueError, RecursionError):
        raise InviteError(f"This invite is cut short or damaged. {_RETRY}") from None
    if not isinstance(fields, dict) or any(
        not isinstance(fields.get(name), str) for name in ("url", "ca", "secret")
    ):
        raise InviteError(f"This invite lacks its URL, fingerprint or secret. {_RETRY}")
    return fields


def _check(invite: Invite) -> None:
    try:
        parts = urlsplit(invite.url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise InviteError(f"The URL in this invite can't be used: {invite.url[:200]!r}. {_RETRY}")
    if not _FINGERPRINT.fullmatch(invite.fingerprint):
        raise InviteError(f"The fingerprint in this invite is not one. {_RETRY}")
    if not invite.secret:
        raise InviteError(f"This invite holds no secret. {_RETRY}")

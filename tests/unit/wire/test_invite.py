"""Invites survive copying; anything else is refused with advice."""

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perak.wire.invite import PREFIX, Invite, InviteError

FINGERPRINT = "sha256:" + "ab" * 32
INVITE = Invite(url="https://exchange.example:8443", fingerprint=FINGERPRINT, secret="once")
untimed = settings(deadline=None)


def _packed(value: object) -> str:
    return PREFIX + base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


@untimed
@given(secret=st.text(min_size=1, max_size=100))
def test_an_invite_comes_back(secret: str) -> None:
    invite = Invite(url="http://[::1]:8080", fingerprint=FINGERPRINT, secret=secret)
    assert Invite.decode(invite.encode()) == invite


def test_breaks_from_pasting_are_ignored() -> None:
    text = INVITE.encode()
    assert Invite.decode(f"  {text[:40]}\n  {text[40:]}\n") == INVITE


@untimed
@given(text=st.text(max_size=300) | st.text(max_size=300).map(PREFIX.__add__))
def test_garbage_is_an_invite_error(text: str) -> None:
    with pytest.raises(InviteError, match="perak node invite"):
        Invite.decode(text)


@pytest.mark.parametrize("cut", [20, 60, 100])
def test_a_cut_invite_says_so(cut: int) -> None:
    with pytest.raises(InviteError, match="again whole"):
        Invite.decode(INVITE.encode()[:cut])


@pytest.mark.parametrize(
    "fields",
    [
        [],
        {"url": "https://x", "ca": FINGERPRINT},
        {"url": 1, "ca": FINGERPRINT, "secret": "s"},
        {"url": "file:///etc/passwd", "ca": FINGERPRINT, "secret": "s"},
        {"url": "https://x:notaport", "ca": FINGERPRINT, "secret": "s"},
        {"url": "https://x", "ca": "sha256:short", "secret": "s"},
        {"url": "https://x", "ca": FINGERPRINT, "secret": ""},
    ],
)
def test_a_wrong_field_is_refused(fields: object) -> None:
    with pytest.raises(InviteError):
        Invite.decode(_packed(fields))


def test_the_secret_stays_out_of_logs() -> None:
    assert "once" not in repr(INVITE)

"""The small parts of the exchange: presence, ids, settings, the place in a stream, the secret's vault."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from perak.domain.errors import InvalidInput
from perak.domain.ids import check_id
from perak.server.child import Child, Plan
from perak.server.clock import NewId
from perak.server.follow import Place
from perak.server.identity import SecretFileError, Vault
from perak.server.presence import Presence
from perak.server.settings import Settings, is_loopback, parse_listen


def test_ids_of_one_process_grow() -> None:
    new_id = NewId("home")
    ids = [new_id("job") for _ in range(2000)]
    assert ids == sorted(set(ids))
    assert check_id(ids[0], "job").endswith("@home")


def test_the_same_agent_takes_over_and_another_waits() -> None:
    presence = Presence(suspect_after_seconds=15)
    hung_up: list[str] = []
    first = presence.enter("node", "agent-1", lambda: hung_up.append("first"))
    assert first is not None
    assert presence.enter("node", "agent-2", lambda: hung_up.append("second")) is None
    assert hung_up == []
    again = presence.enter("node", "agent-1", lambda: hung_up.append("again"))
    assert again is not None
    assert hung_up == ["first"]
    presence.leave(first)  # The old session ends late: the new one stays.
    assert len(presence) == 1
    again.spoke_at -= 60
    assert list(presence.silent(15)) == [again]
    assert presence.enter("node", "agent-2", lambda: None) is not None


def test_last_seen_times_are_taken_once_and_lost_sessions_end() -> None:
    presence = Presence(suspect_after_seconds=15)
    at = datetime(2026, 11, 2, tzinfo=UTC)
    hung_up: list[str] = []
    sessions = []
    for node in ("b", "a"):
        session = presence.enter(node, "agent", lambda node=node: hung_up.append(node))  # type: ignore[misc]
        assert session is not None
        presence.spoke(session, at)
        sessions.append((node, session.number, at))
    seen = presence.take_seen()
    assert seen == sorted(sessions)
    assert presence.take_seen() == []
    presence.hang_up_lost(seen, held={"b"})  # The row of the other node has another session's number.
    assert hung_up == ["a"]


@given(st.integers(1, 10**9 - 1), st.integers(0, 10**18 - 1), st.integers(0, 10**18 - 1))
def test_a_place_survives_its_text(attempt: int, offset: int, event: int) -> None:
    place = Place(attempt, offset, event)
    assert Place.parse(str(place)) == place


@pytest.mark.parametrize("text", ["1", "1.2", "a.b.c", "1.2.3.4", "-1.0.0", "1.0.0\n", "9" * 50])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        Place.parse(text)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("127.0.0.1:8470", ("127.0.0.1", 8470)),
        ("[::1]:80", ("::1", 80)),
        (":0", ("127.0.0.1", 0)),
        ("gpu.example.org:443", ("gpu.example.org", 443)),
    ],
)
def test_addresses_to_listen_on(text: str, parsed: tuple[str, int]) -> None:
    assert parse_listen(text) == parsed


@pytest.mark.parametrize("text", ["8470", "host:", "host:99999", "host:http"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_listen(text)


@pytest.mark.parametrize(
    ("host", "tls"),
    [("127.0.0.1", False), ("::1", False), ("localhost", False), ("0.0.0.0", True), ("10.0.0.1", True)],
)
def test_tls_is_on_beyond_loopback(host: str, tls: bool) -> None:
    assert is_loopback(host) is not tls
    assert Settings(database="", state_dir=Path("/x"), host=host).with_tls is tls


def test_another_secret_opens_nothing() -> None:
    sealed = Vault([Fernet.generate_key()]).seal(b"key")
    with pytest.raises(SecretFileError, match="another secret"):
        Vault([Fernet.generate_key()]).open(sealed)


def test_a_part_that_goes_on_dying_is_started_ever_later() -> None:
    child = Child(Plan("part", (), {}))
    child._started_at = 1e12  # Just now, and never stable.
    assert [child.next_wait((1, 2, 5), stable_seconds=60) for _ in range(4)] == [1, 2, 5, 5]
    child._started_at = 0
    assert child.next_wait((1, 2, 5), stable_seconds=0) == 1


def test_a_plan_keeps_all_but_the_option_that_is_replaced() -> None:
    plan = Plan("exchange", ("exchange", "--listen", "127.0.0.1:0", "--fund", "1"), {"SECRET": "x"})
    assert plan.replaced("--listen", "127.0.0.1:81").arguments == (
        "exchange", "--listen", "127.0.0.1:81", "--fund", "1",
    )  # fmt: skip
    assert "x" not in repr(plan).replace("exchange", "")

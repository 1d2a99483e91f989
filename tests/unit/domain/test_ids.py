"""Public ids sort by time, name their kind and exchange, and nothing else passes for one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perak.domain.errors import InvalidInput
from perak.domain.ids import EXCHANGE_NAME, KINDS, RANDOM_BITS, check_id, is_id, new_id

kinds = st.sampled_from(KINDS)
exchanges = st.from_regex(r"[a-z][a-z0-9-]{0,30}", fullmatch=True)
times = st.integers(0, 2**48 - 1)
randoms = st.integers(0, 2**RANDOM_BITS - 1)


@given(kind=kinds, exchange=exchanges, now=times, random=st.integers(0, 2**64))
def test_a_new_id_is_an_id_of_its_kind_and_exchange_only(
    kind: str, exchange: str, now: int, random: int
) -> None:
    id = new_id(kind, exchange=exchange, now_ms=now, random=random)
    assert is_id(id)
    assert check_id(id, kind) == id
    assert id.endswith(f"@{exchange}")
    for other in set(KINDS) - {kind}:
        with pytest.raises(InvalidInput, match=f"not the id of a {other}"):
            check_id(id, other)


@given(first=st.tuples(times, randoms), second=st.tuples(times, randoms))
def test_ids_sort_as_their_times_do_and_none_collide(first: tuple[int, int], second: tuple[int, int]) -> None:
    ids = [new_id("job", exchange="home", now_ms=now, random=random) for now, random in (first, second)]
    assert (ids[0] < ids[1]) == (first < second)
    assert (ids[0] == ids[1]) == (first == second)


GOOD = "job-01k9f3v2m8q7zx4t5r@home"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "job-",
        GOOD + "\n",
        " " + GOOD,
        GOOD.upper(),
        GOOD.replace("01k9", "0lk9"),
        GOOD.removesuffix("@home"),
        GOOD + "@away",
        GOOD.replace("home", "-home"),
        GOOD.replace("home", "h" * 32),
        GOOD.replace("5r@", "5rr@"),
        GOOD.replace("job", "task"),
    ],
)
def test_what_only_looks_like_an_id_is_refused(text: str) -> None:
    assert is_id(GOOD)
    assert not is_id(text)
    with pytest.raises(InvalidInput):
        check_id(text, "job")


def test_an_endless_text_is_not_repeated_to_its_sender() -> None:
    with pytest.raises(InvalidInput) as refused:
        check_id("x" * 10**6, "job")
    assert len(refused.value.detail) < 200


@pytest.mark.parametrize("name", ["", "Home", "1home", "home\n", "ho me", "h" * 32, "ho@me"])
def test_names_that_no_exchange_may_have(name: str) -> None:
    assert EXCHANGE_NAME.match(name) is None

"""Secrets in a job's output, however it is cut."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from perak.agent.shim.scrub import SCRUBBED_BYTES_MIN, SCRUBBED_PIECE_BYTES, Scrub

# Few letters, so that secrets meet and overlap; no asterisks, which stand for what was blotted out.
LETTERS = st.sampled_from(b"ab\n")
SECRETS = st.lists(st.lists(LETTERS, min_size=1, max_size=20).map(bytes), min_size=1, max_size=4)


def scrubbed(values: Sequence[bytes], parts: Sequence[bytes]) -> bytes:
    scrub = Scrub(list(values))
    return b"".join([*(scrub.feed(part) for part in parts), scrub.end()])


@given(
    values=SECRETS,
    pieces=st.lists(st.one_of(st.lists(LETTERS, max_size=9).map(bytes), st.integers(0, 3)), max_size=12),
    cuts=st.sets(st.integers(0, 200)),
)
@example(values=[b"aaaaaaa"], pieces=[b"aaaaaaaaaaaaaa"], cuts={3, 4, 9})
@example(values=[b"abababa", b"bababab"], pieces=[b"abababababab"], cuts={7})
def test_any_cut_gives_the_same_bytes_and_no_secret_stays(
    values: list[bytes], pieces: list[bytes | int], cuts: set[int]
) -> None:
    text = b"".join(values[each % len(values)] if isinstance(each, int) else each for each in pieces)
    bounds = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    whole = scrubbed(values, [text])
    assert scrubbed(values, [text[a:b] for a, b in itertools.pairwise(bounds)]) == whole
    assert scrubbed(values, [bytes([each]) for each in text]) == whole
    assert len(whole) == len(text)
    assert all(new in (old, ord("*")) for old, new in zip(text, whole, strict=True))
    for value in values:
        if len(value.strip(b"\n")) >= SCRUBBED_BYTES_MIN:
            assert value.strip(b"\n") not in whole


@given(value=st.binary(min_size=6, max_size=40), before=st.binary(max_size=7), after=st.binary(max_size=7))
def test_a_secret_within_base64_is_found_at_each_place(value: bytes, before: bytes, after: bytes) -> None:
    value = value.strip(b"\r\n*")
    if len(value) < SCRUBBED_BYTES_MIN:
        return
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        text = encode(before + value + after)
        whole = scrubbed([value], [text])
        assert whole.count(b"*") >= 8 * len(value) // 6 - 2


def test_a_key_of_many_lines_is_found_line_by_line_and_as_a_whole() -> None:
    key = b"-----BEGIN KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQEF\n-----END KEY-----\n"
    assert scrubbed([key], [b"> ", key]) == b"> " + b"\n".join(b"*" * len(e) for e in key.split(b"\n"))
    assert scrubbed([key], [b"  kqhkiG9w0BAQEF\r\n"]) == b"  **************\r\n"


def test_a_long_secret_is_found_by_its_pieces_and_little_is_held_back() -> None:
    long = bytes(range(33, 42)) * 300
    scrub = Scrub([long])
    shown = scrub.feed(b"x" * 10_000 + long[:2000])
    assert len(shown) > 10_000 + 2000 - SCRUBBED_PIECE_BYTES
    assert shown + scrub.feed(long[2000:]) + scrub.end() == b"x" * 10_000 + b"*" * len(long)


def test_what_is_held_too_long_is_shown_but_not_much_of_a_secret() -> None:
    scrub = Scrub([b"swordfish-1234"])
    assert scrub.feed(b"password: sw") == b"password: "
    assert scrub.show_at < float("inf")
    assert scrub.show() == b"sw"
    assert scrub.show_at == float("inf")
    # What is shown is remembered: the rest of the value is found.
    assert scrub.feed(b"ordf") == b""
    assert scrub.show() == b"****"
    assert scrub.feed(b"ish-1234 ok") == b"******** ok"
    assert scrub.feed(b"swing") == b"swing"


@pytest.mark.parametrize("value", [b"", b"true", b"12345\n"])
def test_short_values_do_not_blot_out_words(value: bytes) -> None:
    assert scrubbed([value], [b"true 12345"]) == b"true 12345"

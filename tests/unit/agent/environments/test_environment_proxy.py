"""The proxy's rules: which requests it understands, and where they may go."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perak.agent.environments.proxy import check_allowed
from perak.agent.network.http import READ_ONLY, ProxyRequest, RefusedRequest, parse_request

ALLOWED = frozenset({("pypi.org", 443), ("mirror.example", 8080)})


def decide(head: bytes) -> ProxyRequest:
    request = parse_request(head, READ_ONLY)
    check_allowed(request, ALLOWED)
    return request


def test_the_index_may_be_reached() -> None:
    assert decide(b"CONNECT PyPI.org:443 HTTP/1.1\r\nHost: x").address == ("pypi.org", 443)
    plain = decide(
        b"GET http://mirror.example:8080/simple/six/?a=b HTTP/1.1\r\nHost: other.example\r\nAccept: x"
    )
    assert (plain.method, plain.path) == ("GET", "/simple/six/?a=b")
    assert ("Accept", "x") in plain.headers


@pytest.mark.parametrize(
    "head",
    [
        b"CONNECT example.org:443 HTTP/1.1",
        b"CONNECT pypi.org:22 HTTP/1.1",
        b"CONNECT pypi.org.example.org:443 HTTP/1.1",
        b"CONNECT 169.254.169.254:80 HTTP/1.1",
        b"CONNECT [::1]:443 HTTP/1.1",
        b"CONNECT pypi.org HTTP/1.1",
        b"CONNECT user@pypi.org:443 HTTP/1.1",
        b"GET http://example.org/ HTTP/1.1",
        b"GET http://mirror.example/ HTTP/1.1",
        b"GET http://pypi.org@example.org/ HTTP/1.1",
        b"GET https://pypi.org/ HTTP/1.1",
        b"GET file:///etc/passwd HTTP/1.1",
        b"GET / HTTP/1.1\r\nHost: pypi.org",
        b"POST http://mirror.example:8080/ HTTP/1.1",
        b"GET http://mirror.example:99999/ HTTP/1.1",
        b"GET http://mirror.example:8080/",
        b"\xff\xfe",
        b"",
    ],
)
def test_nothing_else_may(head: bytes) -> None:
    with pytest.raises(RefusedRequest):
        decide(head)


@given(st.binary(max_size=200) | st.from_regex(rb"(CONNECT|GET) \S{0,60} HTTP/1\.1", fullmatch=True))
def test_whatever_arrives_is_allowed_or_refused(head: bytes) -> None:
    with contextlib.suppress(RefusedRequest):
        assert decide(head).address in ALLOWED

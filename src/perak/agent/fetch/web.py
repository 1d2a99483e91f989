"""GET over HTTP with bounded redirects, for a thread; ``http.client``, as `perak.agent.blobs` says why."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urljoin, urlsplit

from perak.agent.fetch.reach import NotReachable, Reach
from perak.domain.errors import DomainError, Unavailable

REDIRECTS_MAX = 5
"""A registry sends one to its store, and that perhaps one to a mirror."""
REDIRECTS = frozenset({301, 302, 303, 307, 308})
URL_LENGTH_MAX = 8192
"""Signed links of stores have some 2,000 characters."""
_WORTH_ANOTHER_TRY = frozenset({408, 425, 429})


class Refusal(DomainError):
    """A server answered, and not with what was asked for. `status` is HTTP's."""

    code = "fetch_refused"

    def __init__(self, detail: str, *, status: int, challenge: str | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.challenge = challenge


@contextmanager
def get(
    url: str, *, reach: Reach, headers: Mapping[str, str] | None = None
) -> Iterator[http.client.HTTPResponse]:
    """The answer to GET, 200 or 206, after redirects. `Authorization` goes to the first host alone.

    Raises Refusal where the server says no, NotReachable where a redirect leads where we don't go, and
    Unavailable after a cut or a plea to come back later.
    """
    sent = dict(headers or {})
    for _ in range(REDIRECTS_MAX + 1):
        response, link = _request(url, reach, sent)
        try:
            if response.status not in REDIRECTS:
                _check(url, response)
                yield response
                return
            target = _redirect(url, response.getheader("Location") or "")
        finally:
            link.close()
        if _origin(target) != _origin(url):
            sent.pop("Authorization", None)
        url = target
    raise Refusal(f"{_host(url)} redirects more than {REDIRECTS_MAX} times", status=310)


def read(response: http.client.HTTPResponse, *, limit_bytes: int) -> bytes:
    """At most `limit_bytes` of an answer; Unavailable after a cut."""
    try:
        return response.read(limit_bytes)
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"the connection was cut: {error!r}") from None


def _request(
    url: str, reach: Reach, headers: Mapping[str, str]
) -> tuple[http.client.HTTPResponse, http.client.HTTPConnection]:
    scheme, host, port = _origin(url)
    parts = urlsplit(url)
    link = reach.connect(host, port, tls=scheme == "https")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        # What came compressed could not be checked, nor gone on with.
        link.request("GET", path, headers={"Accept-Encoding": "identity", **headers})
        return link.getresponse(), link
    except ssl.SSLCertVerificationError as error:
        link.close()
        raise Refusal(
            f"{host} has no certificate that is trusted here: {error.verify_message}", status=0
        ) from None
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        link.close()
        raise Unavailable(f"{host} does not answer: {error!r}") from None
    except BaseException:
        link.close()
        raise


def _redirect(url: str, location: str) -> str:
    target = urljoin(url, location)
    if not location or len(target) > URL_LENGTH_MAX:
        raise Refusal(f"{_host(url)} redirects to nowhere", status=310)
    if _origin(url)[0] == "https" and _origin(target)[0] != "https":
        raise NotReachable(f"{_host(url)} redirects from https to {target[:80]!r}, which is not followed")
    return target


def _origin(url: str) -> tuple[str, str, int]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme not in ("http", "https") or any(ord(c) <= 32 or ord(c) == 127 for c in url):
        raise NotReachable(f"{url[:80]!r} is no address that can be fetched")
    return parts.scheme, host, port or (443 if parts.scheme == "https" else 80)


def _host(url: str) -> str:
    return urlsplit(url).hostname or "?"


def _check(url: str, response: http.client.HTTPResponse) -> None:
    status = response.status
    if status in (200, 206):
        return
    if status >= 500 or status in _WORTH_ANOTHER_TRY:
        raise Unavailable(f"{_host(url)} can't answer now ({status} {response.reason})")
    raise Refusal(
        f"{_host(url)} answers {status} {response.reason}",
        status=status,
        challenge=response.getheader("WWW-Authenticate"),
    )

"""How the clients speak HTTP: connections kept warm, one authority pinned, and faults told apart."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import httpx

from perak.client.calls import Reply
from perak.client.config import Target
from perak.client.errors import ConfigError, DownloadDamaged
from perak.client.flows import Fetch, Unreached, Upload

JSON_TIMEOUT_SECONDS = 30.0
"""An exchange answers in milliseconds; one that is paused by its machine gets this long."""
CONNECT_TIMEOUT_SECONDS = 5.0
POOL_TIMEOUT_SECONDS = 120.0
"""Waiting for a free connection is our own doing: many calls at once queue here."""
CONNECTIONS_MAX = 64
KEEPALIVE_SECONDS = 60.0
"""A person types the next command within a minute; the exchange closes idle ones earlier if it likes."""
CHUNK_BYTES = 256 * 1024

TIMEOUT = httpx.Timeout(JSON_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS, pool=POOL_TIMEOUT_SECONDS)
LIMITS = httpx.Limits(
    max_connections=CONNECTIONS_MAX,
    max_keepalive_connections=CONNECTIONS_MAX,
    keepalive_expiry=KEEPALIVE_SECONDS,
)


def client_options(target: Target) -> dict[str, Any]:
    """The arguments that httpx.Client and httpx.AsyncClient share."""
    headers = {"User-Agent": f"perak/{version('perak')}", "Accept": "application/json"}
    if target.api_key is not None:
        if not target.api_key.isascii() or not target.api_key.isprintable():
            raise ConfigError("The API key holds characters that no key has. Copy it again whole.")
        headers["Authorization"] = f"Bearer {target.api_key}"
    return {
        "base_url": target.url,
        "headers": headers,
        "timeout": TIMEOUT,
        "limits": LIMITS,
        "verify": ssl_context(target),
        # Proxies of the environment are for the outside world, never for this machine.
        "trust_env": not target.is_loopback,
        "follow_redirects": False,
    }


def ssl_context(target: Target) -> ssl.SSLContext:
    """Trust the pinned authority alone, else the system's; none at all where no TLS is spoken."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if target.ca_certificate is not None:
        try:
            context.load_verify_locations(cadata=target.ca_certificate)
        except ssl.SSLError as error:
            raise ConfigError(
                f"The certificate kept for {target.url} is broken ({error.reason}). `perak login` again."
            ) from None
    elif target.url.startswith("https:"):
        # Loading the system's authorities takes tens of milliseconds, so only where it is needed.
        context.load_default_certs()
    return context


def unreached(error: httpx.TransportError) -> Unreached:
    """Why no answer came, in words. A certificate that is not trusted won't be at the next try either."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Unreached(
                f"its certificate is not trusted ({cause.verify_message}); `perak login` shows and pins it",
                True,
            )
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
        return Unreached(str(error), True)
    if isinstance(error, httpx.TimeoutException):
        return Unreached("it did not answer in time")
    if isinstance(error, httpx.ConnectError) and "refused" in str(error).lower():
        return Unreached("nothing listens there")
    return Unreached(str(error) or type(error).__name__)


def patient(read_seconds: float) -> httpx.Timeout:
    """The usual timeouts with another one for silence while reading."""
    return httpx.Timeout(
        read_seconds, connect=CONNECT_TIMEOUT_SECONDS, pool=POOL_TIMEOUT_SECONDS, write=JSON_TIMEOUT_SECONDS
    )


def reply_of(response: httpx.Response) -> Reply:
    """An answer that has been read whole."""
    return Reply(status=response.status_code, headers=response.headers, content=response.content)


def chunks(step: Upload) -> Iterator[bytes]:
    """The body of an upload, telling its progress as it goes."""
    sent = 0
    while chunk := step.source.read(CHUNK_BYTES):
        yield chunk
        sent += len(chunk)
        if step.progress is not None:
            step.progress(sent, step.size_bytes)


class Sink:
    """Where a download goes, bounded and telling its progress."""

    def __init__(self, step: Fetch, response: httpx.Response) -> None:
        length = response.headers.get("content-length", "")
        self._total = int(length) if length.isdigit() else None
        self._step = step
        self._received = 0

    def write(self, chunk: bytes) -> None:
        """Keep a chunk. Raises DownloadDamaged over the limit."""
        self._received += len(chunk)
        if self._received > self._step.limit_bytes:
            raise DownloadDamaged(
                f"The exchange sends more than the {self._step.limit_bytes} bytes that outputs may have."
            )
        self._step.sink.write(chunk)
        if self._step.progress is not None:
            self._step.progress(self._received, self._total)

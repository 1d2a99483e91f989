"""The part of HTTP that a forward proxy speaks: the head of a request, refusals, and copying bytes."""

import asyncio
import urllib.parse
from collections.abc import Collection, Coroutine
from dataclasses import dataclass
from typing import Any

HEAD_BYTES_MAX = 16 * 1024

DROPPED_HEADERS = ("connection", "proxy-connection", "proxy-authorization", "keep-alive", "host")
"""They are between a client and its proxy, or ours to say."""

READ_ONLY = ("GET", "HEAD")
METHODS = (*READ_ONLY, "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class ProxyRequest:
    """The first lines of a request: CONNECT with no `path`, or a plain method."""

    method: str
    address: Address
    path: str = ""
    headers: tuple[tuple[str, str], ...] = ()


class RefusedRequest(Exception):
    """A request that the proxy answers with `status` instead of carrying it out."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def parse_request(head: bytes, methods: Collection[str] = METHODS) -> ProxyRequest:
    """Read a request's head. Raises `RefusedRequest` for what isn't CONNECT or one of `methods` as a proxy
    gets them.
    """
    try:
        line, *rest = head.decode("ascii").split("\r\n")
        method, target, version = line.split(" ")
    except ValueError:
        raise RefusedRequest("400 Bad Request", "a request that can't be read") from None
    if not version.startswith("HTTP/1."):
        raise RefusedRequest("400 Bad Request", f"protocol {version!r}")
    try:
        if method == "CONNECT":
            host, _, port = target.rpartition(":")
            return ProxyRequest(method, (host.strip("[]").lower(), int(port)))
        parts = urllib.parse.urlsplit(target)
        port_number = parts.port or 80
    except ValueError:
        raise RefusedRequest("400 Bad Request", f"target {target!r}") from None
    if method not in methods or parts.scheme != "http" or not parts.hostname:
        raise RefusedRequest("403 Forbidden", f"{method} {target!r}")
    path = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
    headers = tuple(
        (name.strip(), value.strip()) for name, _, value in (each.partition(":") for each in rest) if value
    )
    return ProxyRequest(method, (parts.hostname.lower(), port_number), path, headers)


def authority(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def first_of(*work: Coroutine[Any, Any, None]) -> None:
    """Run until the first ends, then end the others: when either side of a tunnel closes, it is over."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        # A side that was cut off is how tunnels end; nobody needs to hear of it.
        await asyncio.gather(*tasks, return_exceptions=True)


async def answer(writer: asyncio.StreamWriter, status: str, reason: str) -> None:
    body = f"{reason}\n".encode("ascii", "replace")
    lines = [
        f"HTTP/1.1 {status}",
        "Content-Type: text/plain",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    try:
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + body)
        await writer.drain()
    except OSError:
        pass  # The other side has gone; there is nobody to tell.

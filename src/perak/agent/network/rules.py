"""What a job may reach: the addresses that it named, and of those only public ones."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

Address = tuple[str, int]
"""(host, port): a name or an IP address, without brackets."""

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""RFC 6052: the last four bytes are an IPv4 address, which a gateway on the way would reach."""
METADATA = frozenset({ipaddress.ip_address("168.63.129.16")})
"""Answered by the cloud itself though the address looks public: Azure's wire server (Microsoft, "What is IP
address 168.63.129.16?"). The others' lie in link-local or shared ranges."""
SITE_LOCAL = ipaddress.IPv6Network("fec0::/10")
"""RFC 3879 deprecated it; routers that were set up before still know it."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What a job file's `network.allow` names: ``host:port``, or ``*.host:port`` for names below host."""

    exact: frozenset[Address]
    below: frozenset[Address]

    @classmethod
    def of(cls, allow: Iterable[str]) -> Rules:
        """The rules of checked texts, as `perak.wire.jobfile` lets them through."""
        exact, below = set(), set()
        for text in allow:
            host, _, port = text.rpartition(":")
            if host.startswith("*."):
                below.add((host[2:], int(port)))
            else:
                exact.add((host, int(port)))
        return cls(frozenset(exact), frozenset(below))

    def permit(self, address: Address) -> bool:
        """Whether the job named this address. A name's last dot, case and spelling must not matter."""
        host, port = address[0].rstrip(".").lower(), address[1]
        if (host, port) in self.exact:
            return True
        labels = host.split(".")
        return any((".".join(labels[n:]), port) in self.below for n in range(1, len(labels)))


def is_public(text: str) -> bool:
    """Whether an IP address is one of the public Internet's, and so are those that it may stand for.

    Not public: private, shared, loopback, link-local (where clouds keep their metadata), multicast, reserved
    and unspecified ones (IANA's special-purpose registries), also inside IPv6 (mapped, 6to4, Teredo, NAT64).
    """
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return _is_public(address) and all(_is_public(each) for each in _inside(address))


def _is_public(address: IpAddress) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and (address.ipv4_mapped or address in NAT64):
        return True  # what it stands for decides
    if address in METADATA or address in SITE_LOCAL:
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _inside(address: IpAddress) -> list[ipaddress.IPv4Address]:
    """The IPv4 addresses that an IPv6 address stands for."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in NAT64:
        found.append(ipaddress.IPv4Address(address.packed[-4:]))
    return [each for each in found if each is not None]

"""Which IP addresses are the public Internet's: what strangers may have us dial, and what not."""

from __future__ import annotations

import ipaddress

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""RFC 6052: the last four bytes are an IPv4 address, which a gateway on the way would reach."""
METADATA = frozenset({ipaddress.ip_address("168.63.129.16")})
"""Answered by the cloud itself though the address looks public: Azure's wire server (Microsoft, "What is IP
address 168.63.129.16?"). The others' lie in link-local or shared ranges."""
SITE_LOCAL = ipaddress.IPv6Network("fec0::/10")
"""RFC 3879 deprecated it; routers that were set up before still know it."""


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

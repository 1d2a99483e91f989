"""How many connections there may be, of one address and in all: a stranger takes no more than his share.

A connection costs some kilobytes and an open file as long as it lasts, also one that never says anything or
drips (`patience` cuts it after a while). Agents' sessions and requests count alike.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from dataclasses import dataclass

TOTAL_MAX = 20_000
"""2,000 agents take 2,000; ten such fleets still fit into 1 GiB."""
PER_ADDRESS_MAX = 1_000
"""Racks of hundreds of machines stand behind one address, each with a session and now and then a transfer."""
SPARE_FILES = 256
"""Beside the connections: database, blobs, libraries. Of the open files that the system lets us have."""
IPV6_NETWORK_BITS = 64
"""One customer has a whole network of so many bits (RFC 6177), so that counts as an address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """What an operator allows. Behind a proxy all come from one address: there the two are the same."""

    total: int = TOTAL_MAX
    per_address: int = PER_ADDRESS_MAX


RETRY_AFTER_SECONDS = 10
"""Agents try again by their own back-off."""


@dataclass(frozen=True, slots=True)
class Full:
    """Why a connection is not taken."""

    reason: str


@dataclass(slots=True)
class Seat:
    """One counted connection."""

    _connections: Connections
    _network: str

    def leave(self) -> None:
        """The connection has ended; call it once."""
        self._connections.leave(self._network)


class Connections:
    """The open connections of one replica, counted by address."""

    def __init__(self, limits: ConnectionLimits, *, files_max: int) -> None:
        self._total_max = max(1, min(limits.total, files_max - SPARE_FILES))
        self._per_address_max = limits.per_address
        self._open: Counter[str] = Counter()
        self._total = 0

    def enter(self, address: str) -> Seat | Full:
        """Count a new connection, or say why there is no room for it."""
        network = network_of(address)
        if self._total >= self._total_max:
            return Full(f"this exchange serves {self._total_max:,} connections already; try again later")
        if self._open[network] >= self._per_address_max:
            return Full(
                f"{self._per_address_max:,} connections are open from this address already; close some, or "
                "ask the operator to raise --connections-per-address"
            )
        self._open[network] += 1
        self._total += 1
        return Seat(self, network)

    def leave(self, network: str) -> None:
        self._total -= 1
        self._open[network] -= 1
        if not self._open[network]:
            del self._open[network]

    def __len__(self) -> int:
        return self._total


def network_of(address: str) -> str:
    """The address, or its network for IPv6; an address that can't be read counts as it is."""
    if ":" not in address:
        return address
    try:
        number = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if number.ipv4_mapped is not None:
        return str(number.ipv4_mapped)
    return str(ipaddress.IPv6Network((number, IPV6_NETWORK_BITS), strict=False))

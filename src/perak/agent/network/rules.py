"""What a job may reach: the addresses that it named."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

Address = tuple[str, int]
"""(host, port): a name or an IP address, without brackets."""


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

"""Where nodes are seen to be: how quickly they answer, and from which network.

A probe is a WebSocket ping in the node's own session, answered by the agent itself. The quickest answer
counts: whatever slows one down (a busy machine, a detour) only makes the node seem further away.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from perak.adapters.db.database import PgTransaction
from perak.adapters.db.grid import write_sighting
from perak.adapters.feeds.config import GridFile
from perak.app.effects import Effect, MarketChanged, NodeChanged
from perak.domain.whereabouts import Sighting, judge, reach_km
from perak.server import clock

PROBES_EACH_SESSION = 24
"""Two minutes of beats; then the node is probed now and then."""
PROBE_EVERY_BEATS = 60
BETTER_BY = 0.95
"""An answer is news when it is this much quicker than the quickest before."""


@dataclass(slots=True)
class _Seen:
    seconds: float | None = None
    address: str | None = None
    beats: int = 0


@dataclass(slots=True)
class Sightings:
    """What this replica has seen of the nodes with a session here; nothing where the operator set nothing."""

    file: GridFile
    _seen: dict[str, _Seen] = field(default_factory=dict)
    _news: set[str] = field(default_factory=set)

    @property
    def wanted(self) -> bool:
        return bool(self.file.place or self.file.addresses or self.file.attested)

    def connected(self, node: str, address: str | None) -> None:
        """A session began: what was seen in the last one may be of another place."""
        if self.wanted:
            self._seen[node] = _Seen(address=address)
            self._news.add(node)

    def left(self, node: str) -> None:
        self._seen.pop(node, None)
        self._news.discard(node)

    def beat(self, node: str) -> bool:
        """Whether to probe now."""
        seen = self._seen.get(node)
        if seen is None or self.file.place is None:
            return False
        seen.beats += 1
        return seen.beats <= PROBES_EACH_SESSION or seen.beats % PROBE_EVERY_BEATS == 0

    def answered(self, node: str, seconds: float) -> None:
        seen = self._seen.get(node)
        if seen is not None and (seen.seconds is None or seconds < seen.seconds * BETTER_BY):
            seen.seconds = seconds
            self._news.add(node)

    def take_news(self) -> list[tuple[str, Sighting]]:
        """What is new since the last call, by node."""
        nodes, self._news = sorted(self._news), set()
        return [(node, self._sighting(node, self._seen[node])) for node in nodes if node in self._seen]

    def take_back(self, news: list[tuple[str, Sighting]]) -> None:
        """These could not be written: they are news still."""
        self._news.update(node for node, _ in news)

    def _sighting(self, node: str, seen: _Seen) -> Sighting:
        place = self.file.place if seen.seconds is not None else None
        return Sighting(
            latitude=place[0] if place else None,
            longitude=place[1] if place else None,
            km=reach_km(seen.seconds) if place and seen.seconds is not None else None,
            address_region=self._address_region(seen.address),
            attested=(self.file.attested or {}).get(node),
            at_ms=int(clock.now().timestamp() * 1000),
        )

    def _address_region(self, address: str | None) -> str | None:
        """Of the most exact network that the address is in."""
        try:
            ip = ipaddress.ip_address(address or "")
        except ValueError:
            return None
        within = [
            (net.prefixlen, region)
            for net, region in self.file.addresses
            if net.version == ip.version and ip in net
        ]
        return max(within)[1] if within else None


async def keep_sightings(tx: PgTransaction, news: list[tuple[str, Sighting]]) -> tuple[None, list[Effect]]:
    """Write them down; the owner of a node whose claim can't be true is told, and it gets no new work."""
    effects: list[Effect] = []
    for node, sighting in news:
        await write_sighting(tx.connection, node, sighting)
        offer = await tx.offers.of_node(node)
        where = None if offer is None else judge(offer.ask.region, sighting)
        if offer is not None and where is not None and where.refused is not None:
            text = (
                f"the region {offer.ask.region} is refused: {where.refused}. Correct `region` in the "
                "provider file; until then the node gets no new work"
            )
            await tx.nodes.notice(node, text=text, now=clock.now())
        effects += [NodeChanged(node), MarketChanged()]
    return None, effects

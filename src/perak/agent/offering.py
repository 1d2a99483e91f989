"""Keeps the exchange's copy of this node's offer as it is now, with the checklists that it names."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from perak.agent.probe.ask import NothingToOffer
from perak.agent.probe.tiers import Tiers
from perak.domain.errors import DomainError
from perak.domain.offer import OfferAsk
from perak.domain.report import Body, ChecklistPosted, OfferPosted

log = logging.getLogger(__name__)

TIERS_CHECK_SECONDS = 0.5
"""How soon a sandbox tier that was just tried is offered, while there are others to try."""


@dataclass(slots=True, kw_only=True)
class Offering:
    """Posts the offer. `ask` makes the one of now; `on_ready` is called once, when the exchange has one."""

    ask: Callable[[], OfferAsk]
    tiers: Tiers | None
    report: Callable[[Body], int]
    check_seconds: float
    on_ready: Callable[[], None] | None = None
    _posted: tuple[int, OfferAsk] | None = None
    """(number of its report, ask) that was posted last."""
    _checklists_posted: set[str] = field(default_factory=set)
    _acked: int = 0

    def grants(self, what: str) -> bool:
        """Whether the offer that was posted lets jobs have `what` (`perak.domain.offer.GRANTS`)."""
        return self._posted is not None and what in self._posted[1].grants

    def welcomed(self, acked: int) -> None:
        """A session begins, and the exchange has all reports up to `acked`: it is told the offer again."""
        self._acked = acked
        self._post(again=True)

    def acknowledged(self, acked: int) -> None:
        """The exchange has all reports up to this number."""
        self._acked = acked
        if self.on_ready is not None and self._posted is not None and acked >= self._posted[0]:
            self.on_ready()
            self.on_ready = None

    async def watch(self) -> None:
        """Post the offer when it changes, for ever; the first time is a welcome's."""
        while True:
            known = self.tiers is None or self.tiers.known()
            await asyncio.sleep(self.check_seconds if known else TIERS_CHECK_SECONDS)
            self.look()

    def look(self) -> None:
        """Post the offer now if it changed since it was last posted."""
        if self._posted is not None:
            self._post(again=False)

    def _post(self, *, again: bool) -> None:
        """Post the offer if it changed; `again`: also if not, unless the same is still on its way."""
        posted = self._posted
        try:
            ask = self.ask()
        except NothingToOffer as error:
            log.error("nothing is offered any more: %s", error)
            if posted is None:
                return
            ask = replace(posted[1], devices=(), price_cpu=None, price_gpu=None)
        except DomainError as error:
            log.error("the offer stays as it was: %s", error)
            if posted is None:
                return
            ask = posted[1]
        if posted is not None and posted[1] == ask and (not again or posted[0] > self._acked):
            return
        self._post_checklists(ask, again=again)
        self._posted = (self.report(OfferPosted(offer=ask)), ask)

    def _post_checklists(self, ask: OfferAsk, *, again: bool) -> None:
        """Before the offer that names them; `again`: also those that were sent before."""
        found = self.tiers.checklists() if self.tiers is not None else {}
        for tier in ask.tiers:
            if tier.checklist in found and (again or tier.checklist not in self._checklists_posted):
                self.report(ChecklistPosted(checklist=found[tier.checklist]))
                self._checklists_posted.add(tier.checklist)

"""How much of this machine's disk is for what jobs bring along, and where that may come from."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from perak.agent.fetch.reach import Reach
from perak.agent.fetch.room import size_of
from perak.agent.inputs.s3 import DEFAULT_REGION, S3Settings

if TYPE_CHECKING:
    from perak.agent.provider import Provider
    from perak.agent.settings import AgentSettings

CACHE_BYTES_MIN = 2 * 10**9
"""With less room no common image fits, and none is promised."""
IMAGES_SHARE, IMAGES_BYTES_MAX = 5, 100 * 10**9
"""A fifth of the free disk, where the provider says nothing: most of it stays scratch."""
INPUTS_SHARE, INPUTS_BYTES_MAX = 10, 50 * 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """Bytes for images and inputs, 0: none are taken; `to_grow_bytes`: what of that isn't filled yet."""

    images_bytes: int
    inputs_bytes: int
    to_grow_bytes: int
    reach: Reach
    s3: S3Settings

    @classmethod
    def of(cls, provider: Provider, settings: AgentSettings) -> Self:
        """As the provider says, else by the room that there is now."""
        state_dir = settings.state_dir
        filled = size_of(state_dir / "images") + size_of(state_dir / "inputs")
        room = shutil.disk_usage(state_dir).free + filled - provider.reserve_disk_bytes
        images = _limit(provider.cache_images_bytes, room // IMAGES_SHARE, IMAGES_BYTES_MAX)
        inputs = _limit(provider.cache_inputs_bytes, room // INPUTS_SHARE, INPUTS_BYTES_MAX)
        timeout_seconds = settings.limits.http_timeout_seconds
        return cls(
            images_bytes=images,
            inputs_bytes=inputs,
            to_grow_bytes=max(0, images + inputs - filled),
            reach=Reach(private_hosts=frozenset(provider.private_hosts), timeout_seconds=timeout_seconds),
            s3=S3Settings(
                endpoint=provider.s3_endpoint,
                region=provider.s3_region or DEFAULT_REGION,
                timeout_seconds=timeout_seconds,
            ),
        )

    @property
    def takes(self) -> tuple[str, ...]:
        """As an offer says it (`perak.domain.offer.TAKES`)."""
        images = ("image",) if self.images_bytes else ()
        return (*images, "https", "s3", "job") if self.inputs_bytes else images


def _limit(said: int | None, share: int, most: int) -> int:
    if said is not None:
        return said
    return min(share, most) if share >= CACHE_BYTES_MIN else 0

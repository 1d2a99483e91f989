"""What jobs may bring with them: a store each for images, inputs and Python environments, or why not."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from perak.agent.blobs import Blobs
from perak.agent.brought import Brought
from perak.agent.fetch.download import Downloads
from perak.agent.sandbox import RunSpec, Sandbox
from perak.agent.settings import AgentSettings
from perak.agent.work import EnvironmentMaker

if TYPE_CHECKING:
    from perak.agent.images.images import Images
    from perak.agent.inputs.inputs import Inputs

log = logging.getLogger(__name__)

INSTALL_UID = 60_590
"""Who installs packages when the agent is root: in the range that systemd keeps free (UIDS-GIDS.md), below
the runs' own."""
UNPACK_UID = 60_591
"""Who unpacks images and archives when the agent is root; in the same range."""


def images(settings: AgentSettings, sandbox: Sandbox, brought: Brought) -> Images | None:
    """None, with the reason in the log, where jobs can bring no images."""
    from perak.agent.images.images import ImageLimits, Images

    if not brought.images_bytes:
        log.warning("no images are taken: too little room for them; see `cache:` in the provider file")
        return None

    def in_use() -> set[str]:
        return {Path(spec.image.root).name for spec in _specs(sandbox) if spec.image is not None}

    try:
        return Images(
            settings.state_dir,
            uid=UNPACK_UID if os.geteuid() == 0 else None,
            reach=brought.reach,
            downloads=Downloads(attempts_max=settings.limits.transfer_attempts_max),
            limits=ImageLimits(cache_bytes=brought.images_bytes),
            in_use=in_use,
        )
    except OSError as error:
        log.warning("no images are taken: %s", error)
        return None


def inputs(settings: AgentSettings, sandbox: Sandbox, brought: Brought, blobs: Blobs) -> Inputs | None:
    """None, with the reason in the log, where jobs can bring no inputs."""
    from perak.agent.inputs.inputs import InputLimits, Inputs

    if not brought.inputs_bytes:
        log.warning("no inputs are taken: too little room for them; see `cache:` in the provider file")
        return None

    def in_use() -> set[str]:
        folder = str(settings.state_dir / "inputs")
        sources = (mount.source for spec in _specs(sandbox) for mount in spec.inputs)
        return {Path(each).relative_to(folder).parts[0] for each in sources if each.startswith(f"{folder}/")}

    try:
        return Inputs(
            settings.state_dir,
            uid=UNPACK_UID if os.geteuid() == 0 else None,
            reach=brought.reach,
            downloads=Downloads(attempts_max=settings.limits.transfer_attempts_max),
            limits=InputLimits(cache_bytes=brought.inputs_bytes),
            outputs=blobs,
            s3_settings=brought.s3,
            in_use=in_use,
        )
    except OSError as error:
        log.warning("no inputs are taken: %s", error)
        return None


def environments(state_dir: Path, sandbox: Sandbox) -> EnvironmentMaker | None:
    """None, with the reason in the log, where jobs can get no Python environments."""
    from perak.agent.environments import Environments

    def in_use() -> set[str]:
        return {Path(mount.source).name for spec in _specs(sandbox) for mount in spec.mounts}

    try:
        return Environments(
            state_dir,
            bwrap=sandbox.host.binary,
            uid=INSTALL_UID if os.geteuid() == 0 else None,
            in_use=in_use,
        )
    except (ValueError, OSError) as error:
        log.warning("no Python environments are offered: %s", error)
        return None


def _specs(sandbox: Sandbox) -> Iterator[RunSpec]:
    """What the runs that are here were asked to be."""
    for status in sandbox.find():
        with contextlib.suppress(KeyError, OSError, ValueError):
            yield sandbox.load(status.run_id)

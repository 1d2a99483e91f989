"""A real registry on loopback, and nodes to pull to."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.images.image_world import NodeImages, RegistryServer, serve_registry


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with serve_registry(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture
def node(registry: RegistryServer) -> Iterator[NodeImages]:
    state_dir = Path(tempfile.mkdtemp(prefix="perak-images-", dir="/var/tmp"))
    state_dir.chmod(0o711)
    yield NodeImages(state_dir, private={registry.address})
    shutil.rmtree(state_dir)

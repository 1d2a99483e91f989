"""A real registry on loopback, and a node's images in a folder that other users can enter."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from integration.images.image_samples import Built, push
from perak.agent.fetch.download import Downloads
from perak.agent.fetch.reach import Reach
from perak.agent.images.images import ImageLimits, Images
from perak.agent.sandbox import ImageRoot

UNPACK_UID = 60_591
TOOLS = ("docker-registry", "skopeo")


@dataclass
class RegistryServer:
    """Debian's docker-registry."""

    address: str
    folder: Path

    def push(self, image: Built, name: str, *, credentials: str | None = None) -> str:
        """The pinned name of the image after it was pushed as `name`."""
        layout = Path(tempfile.mkdtemp(dir=self.folder))
        push(image, f"{self.address}/{name}:latest", layout / "layout", credentials=credentials)
        return f"{self.address}/{name}@{image.digest}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def serve_registry(folder: Path, *, extra: str = "") -> Iterator[RegistryServer]:
    for tool in TOOLS:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed; `apt install docker-registry skopeo`")
    port = free_port()
    config = folder / "config.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n{extra}"
    )
    with (folder / "registry.log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(config)], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield RegistryServer(f"127.0.0.1:{port}", folder)
    finally:
        process.terminate()
        process.wait(10)


@dataclass
class NodeImages:
    """Makes `Images` in one state folder, as a restarted agent would."""

    state_dir: Path
    private: set[str] = field(default_factory=set)
    lines: list[str] = field(default_factory=list)

    def open(self, **changes: Any) -> Images:
        fields: dict[str, Any] = {
            "uid": UNPACK_UID if os.geteuid() == 0 else None,
            "reach": Reach(private_hosts=frozenset(self.private), timeout_seconds=5),
            "downloads": Downloads(attempts_max=3, retry_seconds=0.01),
            "limits": ImageLimits(cache_bytes=10**9),
        }
        return Images(self.state_dir, **(fields | changes))

    def ensure(self, image: str, *, credentials: str | None = None, **changes: Any) -> ImageRoot:
        return self.open(**changes).ensure(image, credentials=credentials, say=self.lines.append)

    def leftovers(self) -> list[str]:
        """Every file that is on the disk."""
        return sorted(
            str(each.relative_to(self.state_dir)) for each in self.state_dir.rglob("*") if not each.is_dir()
        )

"""A node's inputs, and where they come from."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perak.agent.fetch.download import Downloads
from perak.agent.fetch.reach import Reach
from perak.agent.inputs.inputs import InputLimits, Inputs
from perak.agent.inputs.s3 import S3Credentials, S3Settings
from perak.agent.sandbox import Mount
from perak.wire.session import InputOrder
from stand_ins.sly_server import SlyServer

UNPACK_UID = 60_591


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tar_of(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o640
            tar.addfile(info, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), mtime=0)


@dataclass
class Storage:
    """An S3-speaking server with the bucket `public`."""

    url: str

    def put(self, key: str, data: bytes) -> str:
        """The object's address after it was stored."""
        request = urllib.request.Request(f"{self.url}/public/{key}", data=data, method="PUT")
        request.add_header("Content-Type", "application/octet-stream")  # else it is read as a form
        request.add_header("x-amz-acl", "public-read")
        urllib.request.urlopen(request, timeout=20).close()
        return f"s3://public/{key}"


@dataclass
class Web:
    """An https server."""

    server: SlyServer

    def put(self, path: str, data: bytes) -> str:
        self.server.pages[path] = data
        return f"https://{self.server.address}{path}"


@dataclass
class EarlierOutputs:
    """The exchange's side of an earlier job's outputs."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, int]] = field(default_factory=list)

    @contextmanager
    def open_input(self, lease: str, digest: str, offset: int) -> Iterator[tuple[Iterator[bytes], int]]:
        self.asked.append((lease, offset))
        yield iter([self.blobs[digest][offset:]]), offset


@dataclass
class NodeInputs:
    """Makes `Inputs` in one state folder, as a restarted agent would."""

    state_dir: Path
    private: set[str] = field(default_factory=set)
    lines: list[str] = field(default_factory=list)
    outputs: EarlierOutputs = field(default_factory=EarlierOutputs)

    def ensure(
        self,
        inputs: Mapping[str, tuple[str, str | None]],
        *,
        s3: str | None = None,
        credentials: S3Credentials | None = None,
        **changes: Any,
    ) -> list[Mount]:
        fields: dict[str, Any] = {
            "uid": UNPACK_UID if os.geteuid() == 0 else None,
            "reach": Reach(private_hosts=frozenset(self.private), timeout_seconds=5),
            "downloads": Downloads(attempts_max=3, retry_seconds=0.01),
            "limits": InputLimits(cache_bytes=10**9),
            "outputs": self.outputs,
            "s3_settings": S3Settings(endpoint=s3, timeout_seconds=5),
        }
        wanted = tuple(
            InputOrder(path=path, url=url, digest=digest, credentials=credentials and "STORE")
            for path, (url, digest) in inputs.items()
        )
        made = Inputs(self.state_dir, **(fields | changes))
        known = {"STORE": credentials} if credentials else {}
        return list(made.ensure("lease-1", wanted, say=self.lines.append, credentials=known))

    def one(self, path: str, url: str, digest: str | None = None, **changes: Any) -> Mount:
        (mount,) = self.ensure({path: (url, digest)}, **changes)
        return mount

    def leftovers(self) -> list[str]:
        found = (each for each in self.state_dir.rglob("*") if not each.is_dir())
        return sorted(str(each.relative_to(self.state_dir)) for each in found)

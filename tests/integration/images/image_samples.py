"""Images made by hand: layers as tars, hostile ones too, packed into an OCI layout that skopeo pushes."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from backports import zstd

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"


@dataclass
class Layer:
    """A tar that is built entry by entry."""

    _buffer: io.BytesIO = field(default_factory=io.BytesIO)
    _tar: tarfile.TarFile = field(init=False)

    def __post_init__(self) -> None:
        self._tar = tarfile.TarFile(fileobj=self._buffer, mode="w", format=tarfile.PAX_FORMAT)

    def add(self, name: str, content: bytes = b"", *, mode: int = 0o644, **fields: Any) -> Layer:
        info = tarfile.TarInfo(name)
        info.mode, info.size = mode, len(content)
        for key, value in fields.items():
            setattr(info, key, value)
        self._tar.addfile(info, io.BytesIO(content))
        return self

    def folder(self, name: str) -> Layer:
        return self.add(name, mode=0o755, type=tarfile.DIRTYPE)

    def link(self, name: str, target: str) -> Layer:
        return self.add(name, type=tarfile.SYMTYPE, linkname=target)

    def hard_link(self, name: str, target: str) -> Layer:
        return self.add(name, type=tarfile.LNKTYPE, linkname=target)

    @property
    def tar(self) -> bytes:
        self._tar.close()
        return self._buffer.getvalue()


def busybox_layer() -> Layer:
    """A root that can run shell scripts: Debian's static busybox and its links."""
    if not Path("/bin/busybox").exists():
        pytest.skip("busybox is not installed; `apt install busybox-static`")
    layer = Layer()
    for name in ("bin", "etc", "root", "usr"):
        layer.folder(name)
    layer.add("bin/busybox", Path("/bin/busybox").read_bytes(), mode=0o755)
    for name in (
        "sh",
        "cat",
        "ls",
        "id",
        "pwd",
        "env",
        "echo",
        "test",
        "touch",
        "mount",
        "sha256sum",
        "stat",
    ):
        layer.link(f"bin/{name}", "busybox")
    layer.add("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nalice:x:1234:1235::/home/alice:/bin/sh\n")
    layer.add("etc/group", b"root:x:0:\nartists:x:77:\n")
    layer.add("etc/os-release", b"ID=tiny\n")
    return layer


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "+gzip": lambda data: gzip.compress(data, 6, mtime=0),
    "+zstd": zstd.compress,
    "": lambda data: data,
}


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass(frozen=True)
class Built:
    """An image as blobs. `digest` is its manifest's; `blobs` by digest."""

    digest: str
    blobs: dict[str, bytes]

    def write(self, folder: Path) -> Path:
        """The OCI layout of this image in `folder`."""
        blobs = folder / "blobs" / "sha256"
        blobs.mkdir(parents=True)
        for digest, data in self.blobs.items():
            (blobs / digest.removeprefix("sha256:")).write_bytes(data)
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        media_type = json.loads(self.blobs[self.digest])["mediaType"]
        index = {
            "schemaVersion": 2,
            "manifests": [
                {
                    "mediaType": media_type,
                    "digest": self.digest,
                    "size": len(self.blobs[self.digest]),
                    "annotations": {"org.opencontainers.image.ref.name": "it"},
                }
            ],
        }
        (folder / "index.json").write_text(json.dumps(index))
        return folder


def build(
    layers: Iterable[bytes],
    *,
    config: Mapping[str, Any] | None = None,
    packing: str = "+gzip",
    architecture: str = "amd64",
    diff_ids: list[str] | None = None,
) -> Built:
    """An image of these tars, the lowest first."""
    tars = list(layers)
    packed = [PACKERS[packing](tar) for tar in tars]
    configuration = json.dumps(
        {
            "architecture": architecture,
            "os": "linux",
            "config": dict(config or {}),
            "rootfs": {"type": "layers", "diff_ids": diff_ids or [digest_of(tar) for tar in tars]},
        }
    ).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(configuration, OCI_CONFIG),
            "layers": [descriptor(each, OCI_LAYER + packing) for each in packed],
        }
    ).encode()
    return Built(digest_of(manifest), {digest_of(each): each for each in (*packed, configuration, manifest)})


def index_of(images: Mapping[str, Built]) -> Built:
    """An image index over one image for each architecture."""
    manifests = [
        descriptor(image.blobs[image.digest], OCI_MANIFEST)
        | {"platform": {"os": "linux", "architecture": architecture}}
        for architecture, image in images.items()
    ]
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}).encode()
    blobs = {digest: data for image in images.values() for digest, data in image.blobs.items()}
    return Built(digest_of(index), blobs | {digest_of(index): index})


def descriptor(data: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


def push(image: Built, to: str, folder: Path, *, credentials: str | None = None) -> None:
    """Push with skopeo, as it is."""
    layout = image.write(folder)
    command = ["skopeo", "copy", "--all", "--quiet", "--preserve-digests", "--dest-tls-verify=false"]
    command += ["--dest-creds", credentials] if credentials else []
    subprocess.run(
        [*command, f"oci:{layout}:it", f"docker://{to}"], check=True, capture_output=True, text=True
    )

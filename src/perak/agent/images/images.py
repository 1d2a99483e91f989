"""From ``name@sha256:...`` to the root folder of a run: pull, verify, unpack, merge, keep, evict.

images/ layers/ KEY/tree    a layer's files, unpacked once (key: hex digest of the packed layer)
        roots/ KEY/         an image's files, as hard links to its layers' (key: hex digest that was pinned)
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from perak.agent.fetch.cache import ANYBODY, Cache
from perak.agent.fetch.download import Downloads
from perak.agent.fetch.progress import Teller
from perak.agent.fetch.reach import Reach
from perak.agent.images.process import Limits, Unpacker
from perak.agent.images.registry import Registry
from perak.agent.images.trees import Refused
from perak.agent.sandbox import ImageRoot
from perak.agent.sandbox.process import boot_id
from perak.domain.errors import DomainError, Unavailable
from perak.domain.units import format_bytes
from perak.wire.images import Blob, Config, ImageError, Manifest, Reference, parse_config, parse_manifest

IMAGE_BYTES_MAX = 30 * 2**30
"""Unpacked. The largest of the usual CUDA images has 20 GB."""
IMAGE_FILES_MAX = 600_000
"""A full Python stack with CUDA has some 150,000."""
UNPACKED_TIMES = 3
"""What layers take unpacked, about: room for so much is made before a pull."""
ROOT_ENTRY_BYTES = 512
"""What a hard link and its share of a folder take, about."""

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64le", "riscv64": "riscv64"}
"""The kernel's names and those of images (Go's)."""

Say = Callable[[str], None]


class ImageRefused(DomainError):
    """The image can't be had, or not be used; the message says why."""

    code = "image_refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """What an image may take, and what all of them may."""

    cache_bytes: int
    image_bytes: int = IMAGE_BYTES_MAX
    files: int = IMAGE_FILES_MAX


class Images:
    """The images of a node. Its methods may be called from several threads at once."""

    def __init__(
        self,
        state_dir: Path,
        *,
        uid: int | None,
        reach: Reach,
        downloads: Downloads,
        limits: ImageLimits,
        in_use: Callable[[], set[str]] = set,
    ) -> None:
        """Keep images under `state_dir`/images and unpack as `uid` (None: as ourselves, not root).

        `in_use` names the roots that runs use now.
        """
        self.root = state_dir.resolve() / "images"
        self._layers = Cache(self.root / "layers")
        self._roots = Cache(self.root / "roots")
        self.root.chmod(0o711)
        self._image_bytes = min(limits.image_bytes, limits.cache_bytes)
        self._unpacker = Unpacker(uid=uid, limits=Limits(bytes=self._image_bytes, files=limits.files))
        self._reach = reach
        self._downloads = downloads
        self._limits = limits
        self._in_use = in_use
        self._drop_unsynced()

    def ensure(self, image: str, *, credentials: str | None, say: Say) -> ImageRoot:
        """The root of `image` (``name@sha256:...``), pulled if it isn't there.

        Blocks meanwhile; `say` gets lines for the renter. Raises ImageRefused, Unavailable.
        """
        try:
            reference = Reference.parse(image)
            if reference.digest is None:
                raise ImageError(f"it is not pinned: name it by digest, as {image}@sha256:...")
            return self._ensure(reference, reference.digest, credentials, say)
        except Unavailable:
            raise
        except DomainError as error:
            raise ImageRefused(f"the image {image} can't be used: {error.detail}") from None
        except Refused as error:
            raise ImageRefused(f"the image {image} is refused: {error}") from None

    def _ensure(self, reference: Reference, digest: str, credentials: str | None, say: Say) -> ImageRoot:
        key = _hex(digest)
        with self._roots.lock(key):
            found = self._roots.find(key)
            # What is nobody's secret needs no registry; the others must show that they may read it.
            if found is not None and ANYBODY in found.record["sources"]:
                return self._image_root(key, found.record)
            registry = Registry(reference, reach=self._reach, credentials=credentials)
            manifest = self._manifest(registry, digest)
            source = ANYBODY if registry.is_public else reference.source
            if found is not None and found.may_be_given_to(reference.source):
                return self._image_root(key, found.record)
            config = parse_config(registry.small_blob(manifest.config.digest))
            if len(config.diff_ids) != len(manifest.layers):
                raise ImageError("its configuration and its manifest name different numbers of layers")
            self._pull(registry, manifest, config, source, say)
            if found is not None:
                # Made from elsewhere; now all of it was shown to be there for whoever asks here.
                self._roots.add_source(found, source)
                return self._image_root(key, found.record)
            record = self._merge(key, manifest, config, source, say)
        self._tidy()
        return self._image_root(key, record)

    def _manifest(self, registry: Registry, digest: str) -> Manifest:
        """The manifest for this machine; an index is gone through once."""
        machine = platform.machine()
        architecture = ARCHITECTURES.get(machine, machine)
        found = parse_manifest(registry.manifest(digest), architecture=architecture)
        if isinstance(found, str):
            found = parse_manifest(registry.manifest(found), architecture=architecture)
        if isinstance(found, str):
            raise ImageError("its index leads to another index")
        return found

    def _pull(self, registry: Registry, manifest: Manifest, config: Config, source: str, say: Say) -> None:
        reference = registry.reference
        whole = sum(layer.size_bytes for layer in manifest.layers)
        if whole > self._image_bytes:
            most = format_bytes(self._image_bytes)
            raise ImageError(f"it has {format_bytes(whole)} packed, and {most} is the limit on this node")
        say(f"pulling {reference.source}: {len(manifest.layers)} layers, {format_bytes(whole)}")
        self._tidy(to_come_bytes=whole * UNPACKED_TIMES)
        teller = Teller(say, f"pulling {reference.source}", whole)
        unpacked_bytes = 0
        for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=True):
            key = _hex(layer.digest)
            with self._layers.lock(key):
                there = self._layers.find(key)
                if there is None or not there.may_be_given_to(reference.source):
                    self._fetch(registry, layer, teller)
                    if there is None:
                        left = self._image_bytes - unpacked_bytes
                        self._unpack(self._packed(registry, layer), layer, diff_id, source, left, say)
                    else:
                        self._layers.add_source(there, source)
                    self._packed(registry, layer).unlink(missing_ok=True)
                if (made := self._layers.find(key)) is not None:
                    unpacked_bytes += made.size_bytes
            teller.done(layer.size_bytes)

    def _fetch(self, registry: Registry, layer: Blob, teller: Teller) -> None:
        try:
            self._downloads.fetch(
                lambda offset: registry.open_blob(layer.digest, offset),
                self._packed(registry, layer),
                digest=layer.digest,
                limit_bytes=layer.size_bytes,
                progress=teller.now,
            )
        except Unavailable as error:
            raise Unavailable(f"the layer {layer.digest[:19]}: {error.detail}") from None
        except DomainError as error:
            raise ImageError(f"its layer {layer.digest[:19]}: {error.detail}") from None

    def _unpack(
        self, packed: Path, layer: Blob, diff_id: str, source: str, left_bytes: int, say: Say
    ) -> None:
        key = _hex(layer.digest)
        with self._layers.draft() as draft:
            (draft / "layer").mkdir(mode=0o711)
            (draft / "layer").chmod(0o711)
            try:
                limits = Limits(bytes=left_bytes, files=self._limits.files)
                done = replace(self._unpacker, limits=limits).unpack(
                    packed, self._unpacker.own(draft / "layer" / "tree"), diff_id=diff_id
                )
            except Refused as error:
                packed.unlink(missing_ok=True)
                raise Refused(f"its layer {layer.digest[:19]}: {error}") from None
            implicit = draft / "layer" / "implicit"
            implicit.write_bytes("\0".join(done["implicit"]).encode("utf-8", "surrogateescape"))
            implicit.chmod(0o644)
            record = {"bytes": done["bytes"], "files": done["files"], "sources": [source]}
            # The root that is made of it brings it to the disk: one wait for all layers.
            self._layers.adopt(draft / "layer", key, record | {"boot": boot_id()}, sync=False)
        for count, what in (
            (done["privileged"], "files lost their setuid or setgid bit"),
            (done["left_out"], "device nodes and pipes were left out"),
        ):
            if count:
                say(f"layer {layer.digest[:19]}: {count:,} {what}")

    def _merge(self, key: str, manifest: Manifest, config: Config, source: str, say: Say) -> dict[str, Any]:
        layers = [_hex(layer.digest) for layer in manifest.layers]
        say(f"putting {len(layers)} layers together")
        with self._roots.draft() as draft:
            target = self._unpacker.own(draft / "root")
            done = self._unpacker.merge(
                self.root, layers, target, user=config.user, working_dir=config.working_dir
            )
            record = {
                "bytes": done["files"] * ROOT_ENTRY_BYTES,
                "sources": [source],
                "layers": layers,
                "argv": [*config.entrypoint, *config.cmd],
                "env": config.env,
                "uid": done["uid"],
                "gid": done["gid"],
                "cwd": _cwd(config.working_dir),
            }
            self._roots.adopt(target, key, record)
        return record

    def _tidy(self, *, to_come_bytes: int = 0) -> None:
        """Drop layers that no image has, then images with theirs, the longest unused first, until all fit."""
        limit_bytes = max(0, self._limits.cache_bytes - to_come_bytes)
        in_use = self._in_use()
        roots = self._roots.entries()
        left_bytes = sum(each.size_bytes for each in roots)
        self._layers.evict(limit_bytes=limit_bytes - left_bytes, in_use=self._needed())
        for root in roots:
            layers_bytes = sum(each.size_bytes for each in self._layers.entries())
            if left_bytes + layers_bytes <= limit_bytes:
                return
            if self._roots.is_idle(root, in_use):
                self._roots.drop(root.key)
                left_bytes -= root.size_bytes
                self._layers.evict(limit_bytes=limit_bytes - left_bytes, in_use=self._needed())

    def _drop_unsynced(self) -> None:
        """Layers that no root has made durable, of before the machine stopped: they may have holes."""
        needed = self._needed()
        for layer in self._layers.entries():
            if layer.key not in needed and layer.record.get("boot") != boot_id():
                self._layers.drop(layer.key)

    def _needed(self) -> set[str]:
        return {layer for root in self._roots.entries() for layer in root.record["layers"]}

    def _image_root(self, key: str, record: dict[str, Any]) -> ImageRoot:
        return ImageRoot(
            root=str(self._roots.path(key)),
            argv=tuple(record["argv"]),
            env=dict(record["env"]),
            uid=record["uid"],
            gid=record["gid"],
            cwd=record["cwd"],
        )

    def _packed(self, registry: Registry, layer: Blob) -> Path:
        return self._layers.packed(_hex(layer.digest), registry.reference.source)


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")


def _cwd(working_dir: str) -> str:
    parts = [part for part in working_dir.split("/") if part not in ("", ".", "..")]
    return "/" + "/".join(parts)

"""What both ends must understand of container registries: names, manifests, and how one asks who we are.

Sources: OCI distribution specification 1.1 (names, manifests), OCI image specification 1.1 (index, manifest,
config), and the token scheme of Docker's registry (https://distribution.github.io/distribution/spec/auth/token/).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from perak.domain.errors import InvalidInput

DEFAULT_REGISTRY = "docker.io"
REGISTRY_HOSTS = {"docker.io": "registry-1.docker.io", "index.docker.io": "registry-1.docker.io"}
"""Docker Hub's name and its API are two hosts."""
MANIFEST_BYTES_MAX = 4 * 2**20
"""What the specification asks registries to take at least; real ones have a few kB."""
LAYERS_MAX = 256
"""Docker itself stops at 127."""
INDEX = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFEST = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
ACCEPT = ", ".join((*INDEX, *MANIFEST))

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_REGISTRY = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[0-9]{1,5})?")
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_PARAMETER = re.compile(r'([a-zA-Z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,]+))')


class ImageError(InvalidInput):
    """An image, or what a registry says of it, can't be used; the message says why."""

    code = "invalid_image"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Where an image lies. `registry`: ``host[:port]`` as people name it; `digest` counts before `tag`."""

    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, name: str) -> Reference:
        """``[registry/]repository[:tag][@sha256:...]``, as the job file has checked it. Raises ImageError."""
        name, _, digest = name.partition("@")
        first, slash, rest = name.partition("/")
        if slash and ("." in first or ":" in first or first == "localhost"):
            registry, path = first, rest
        else:
            registry, path = DEFAULT_REGISTRY, name
        repository, _, tag = path.partition(":")
        if registry in REGISTRY_HOSTS and "/" not in repository:
            repository = f"library/{repository}"
        is_named = _REGISTRY.fullmatch(registry) and _REPOSITORY.fullmatch(repository)
        if not is_named or (tag and not _TAG.fullmatch(tag)) or (digest and not _DIGEST.fullmatch(digest)):
            raise ImageError(f"{name[:80]!r} is not an image; write it like pytorch/pytorch:2.9")
        return cls(registry=registry, repository=repository, tag=tag or None, digest=digest or None)

    @property
    def host(self) -> str:
        """``host[:port]`` of the registry's API."""
        return REGISTRY_HOSTS.get(self.registry, self.registry)

    @property
    def source(self) -> str:
        """Registry and repository: who may read one manifest of it may read its blobs."""
        return f"{self.registry}/{self.repository}"

    @property
    def manifest_path(self) -> str:
        return f"/v2/{self.repository}/manifests/{self.digest or self.tag or 'latest'}"

    def blob_path(self, digest: str) -> str:
        return f"/v2/{self.repository}/blobs/{digest}"


@dataclass(frozen=True, slots=True)
class Challenge:
    """How a registry wants to be asked: scheme ("basic", "bearer") and its parameters."""

    scheme: str
    parameters: dict[str, str]

    @classmethod
    def parse(cls, header: str) -> Challenge:
        """The value of WWW-Authenticate. Raises ImageError for a scheme that isn't known."""
        scheme, _, rest = header.strip().partition(" ")
        if scheme.lower() not in ("basic", "bearer"):
            raise ImageError(f"the registry wants an authentication that is not known here: {scheme[:40]!r}")
        found = {name.lower(): quoted or plain for name, quoted, plain in _PARAMETER.findall(rest[:4096])}
        return cls(scheme.lower(), found)


@dataclass(frozen=True, slots=True)
class Blob:
    """A content-addressed part of an image."""

    digest: str
    size_bytes: int
    media_type: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """One platform's image: its configuration and its layers, the lowest first."""

    config: Blob
    layers: tuple[Blob, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What an image says about running it. `diff_ids`: digests of the unpacked layers' archives."""

    diff_ids: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""


def parse_manifest(data: bytes, *, architecture: str) -> Manifest | str:
    """The manifest in `data`, or the digest of the one for `architecture` where `data` is an index.

    Architectures are Go's names (amd64, arm64). Raises ImageError.
    """
    tree = _object(data, "manifest")
    media_type = tree.get("mediaType", "")
    if media_type in INDEX or "manifests" in tree:
        return _platform(tree, architecture)
    layers = tree.get("layers")
    if not isinstance(layers, list) or not isinstance(tree.get("config"), dict):
        raise ImageError(
            f"its manifest is of a kind that is not known here ({str(media_type)[:80] or 'none'})"
        )
    if len(layers) > LAYERS_MAX:
        raise ImageError(f"it has {len(layers):,} layers; at most {LAYERS_MAX} are taken")
    return Manifest(_blob(tree["config"]), tuple(_blob(each) for each in layers))


def parse_config(data: bytes) -> Config:
    """The image's configuration. Raises ImageError."""
    tree = _object(data, "configuration")
    rootfs, run = tree.get("rootfs"), tree.get("config") or {}
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(run, dict) or not _texts(diff_ids):
        raise ImageError("its configuration names no layers: it is not the image of a container")
    texts = {name: run.get(name) or [] for name in ("Env", "Entrypoint", "Cmd")}
    words = {name: run.get(name) or "" for name in ("User", "WorkingDir")}
    if not all(map(_texts, texts.values())) or not all(isinstance(each, str) for each in words.values()):
        raise ImageError("its configuration is damaged: environment, program, user or folder is no text")
    pairs = (each.partition("=") for each in texts["Env"])
    return Config(
        diff_ids=tuple(diff_ids or ()),
        env={name: value for name, _, value in pairs if name and "\0" not in name + value},
        entrypoint=tuple(texts["Entrypoint"]),
        cmd=tuple(texts["Cmd"]),
        user=words["User"],
        working_dir=words["WorkingDir"],
    )


def _platform(index: dict[str, Any], architecture: str) -> str:
    there = set()
    for each in index.get("manifests") or []:
        platform = each.get("platform") if isinstance(each, dict) else None
        if not isinstance(platform, dict) or platform.get("os") != "linux":
            continue
        there.add(str(platform.get("architecture"))[:20])
        if platform.get("architecture") == architecture:
            return _blob(each).digest
    raise ImageError(
        f"there is none for linux/{architecture}; its architectures are {', '.join(sorted(there)) or 'none'}"
    )


def _blob(tree: object) -> Blob:
    if isinstance(tree, dict):
        digest, size = tree.get("digest"), tree.get("size")
        if isinstance(digest, str) and _DIGEST.fullmatch(digest) and isinstance(size, int) and size >= 0:
            return Blob(digest, size, str(tree.get("mediaType", "")))
    raise ImageError("its manifest is damaged: a part has no sha256 digest or no size")


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        tree = None
    if not isinstance(tree, dict):
        raise ImageError(f"its {what} is damaged: it is not a JSON object")
    return tree


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) and "\0" not in each for each in value)

"""Names, manifests and challenges of container registries."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perak.wire.images import (
    INDEX,
    MANIFEST,
    Challenge,
    ImageError,
    Manifest,
    Reference,
    parse_config,
    parse_manifest,
)

DIGEST = "sha256:" + "0f" * 32
OTHER = "sha256:" + "1e" * 32


@pytest.mark.parametrize(
    ("name", "host", "path"),
    [
        ("debian", "registry-1.docker.io", "/v2/library/debian/manifests/latest"),
        ("debian:12", "registry-1.docker.io", "/v2/library/debian/manifests/12"),
        ("pytorch/pytorch:2.9", "registry-1.docker.io", "/v2/pytorch/pytorch/manifests/2.9"),
        ("docker.io/debian", "registry-1.docker.io", "/v2/library/debian/manifests/latest"),
        ("ghcr.io/a/b/c:x", "ghcr.io", "/v2/a/b/c/manifests/x"),
        ("localhost/a", "localhost", "/v2/a/manifests/latest"),
        ("registry.lan:5000/a:1", "registry.lan:5000", "/v2/a/manifests/1"),
        (f"registry.lan:5000/a:1@{DIGEST}", "registry.lan:5000", f"/v2/a/manifests/{DIGEST}"),
    ],
)
def test_a_name_leads_to_its_registry(name: str, host: str, path: str) -> None:
    found = Reference.parse(name)
    assert (found.host, found.manifest_path) == (host, path)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "a/",
        "host.example/",
        "A/b",
        "[::1]:5000/a",
        "h.example:99999999/a",
        "a/../b",
        "h.x/a:b:c",
        "a@sha256:0",
    ],
)
def test_what_is_no_image_is_refused(name: str) -> None:
    with pytest.raises(ImageError):
        Reference.parse(name)


@given(st.text(max_size=80))
def test_whatever_is_parsed_has_a_plain_host_and_path(text: str) -> None:
    try:
        found = Reference.parse(text)
    except ImageError:
        return
    assert not set(found.host + found.manifest_path) & set(" \r\n?#%\\")
    assert ".." not in found.manifest_path.split("/")


def test_a_challenge_is_read_with_its_quotes() -> None:
    found = Challenge.parse('Bearer realm="https://auth.example/token",service="a, b", scope=pull')
    assert found.scheme == "bearer"
    assert found.parameters == {"realm": "https://auth.example/token", "service": "a, b", "scope": "pull"}
    with pytest.raises(ImageError, match="not known here"):
        Challenge.parse("Negotiate abc")


def test_an_index_leads_to_the_own_architecture() -> None:
    index = {
        "mediaType": INDEX[0],
        "manifests": [
            {"digest": OTHER, "size": 1, "platform": {"os": "windows", "architecture": "amd64"}},
            {"digest": OTHER, "size": 1, "platform": {"os": "unknown", "architecture": "unknown"}},
            {"digest": DIGEST, "size": 1, "platform": {"os": "linux", "architecture": "amd64"}},
        ],
    }
    assert parse_manifest(json.dumps(index).encode(), architecture="amd64") == DIGEST
    with pytest.raises(ImageError, match="none for linux/arm64; its architectures are amd64"):
        parse_manifest(json.dumps(index).encode(), architecture="arm64")


def manifest(**changes: Any) -> bytes:
    part = {"digest": DIGEST, "size": 5, "mediaType": "x"}
    return json.dumps({"mediaType": MANIFEST[0], "config": part, "layers": [part]} | changes).encode()


def test_a_manifest_names_configuration_and_layers() -> None:
    found = parse_manifest(manifest(), architecture="amd64")
    assert isinstance(found, Manifest)
    assert [each.digest for each in (found.config, *found.layers)] == [DIGEST, DIGEST]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        manifest(layers="all"),
        manifest(layers=[{"digest": "md5:0", "size": 1}]),
        manifest(layers=[{"digest": DIGEST, "size": -1}]),
        manifest(layers=[{"digest": f"{DIGEST}/../x", "size": 1}]),
        manifest(config=None),
        manifest(layers=[{"digest": DIGEST, "size": 1}] * 300),
        json.dumps({"manifests": [1, {"platform": 2}]}).encode(),
    ],
    ids=range(10),
)
def test_a_damaged_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError):
        parse_manifest(data, architecture="amd64")


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"rootfs": {"diff_ids": [1]}},
        {"rootfs": {"diff_ids": []}, "config": {"Env": ["A=1", 2]}},
        {"rootfs": {"diff_ids": []}, "config": {"Cmd": "sh"}},
        {"rootfs": {"diff_ids": []}, "config": {"User": 7}},
        {"rootfs": {"diff_ids": []}, "config": {"Entrypoint": ["a\0b"]}},
        {"rootfs": {"diff_ids": []}, "config": []},
    ],
    ids=range(7),
)
def test_a_damaged_configuration_is_refused(tree: dict[str, Any]) -> None:
    if tree.get("config") == []:
        assert parse_config(json.dumps(tree).encode()).cmd == (), "an empty block says nothing"
        return
    with pytest.raises(ImageError):
        parse_config(json.dumps(tree).encode())

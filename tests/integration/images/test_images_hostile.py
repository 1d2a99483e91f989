"""Images made to do harm: each is refused with its reason, and leaves nothing behind."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest
from backports import zstd

from integration.images.image_samples import Built, Layer, build, busybox_layer, digest_of
from integration.images.image_world import NodeImages, RegistryServer
from perak.agent.images.images import ImageLimits, ImageRefused
from stand_ins.sly_server import SlyServer

ESCAPES = {
    "a path upwards": (Layer().add("../../escaped", b"x"), "leads out of its folder"),
    "a path upwards inside": (Layer().add("a/b/../../../escaped", b"x"), "leads out of its folder"),
    "a folder upwards": (Layer().folder("..").add("ok", b""), "leads out of its folder"),
    "through an absolute link": (Layer().link("d", "/var/tmp").add("d/escaped", b"x"), "a link or no folder"),
    "through a relative link": (Layer().link("d", "../../..").add("d/escaped", b"x"), "a link or no folder"),
    "through two links": (
        Layer().folder("a").link("a/up", "..").link("b", "a/up").add("b/up/escaped", b"x"),
        "a link or no folder",
    ),
    "over a link to a folder": (Layer().link("d", "/var/tmp").folder("d"), "twice, once as a folder"),
    "a hard link out": (Layer().hard_link("shadow", "../../../../etc/shadow"), "leads out of its folder"),
    "a hard link to what isn't its own": (Layer().hard_link("shadow", "/etc/shadow"), "no file of it"),
    "a hard link through a link": (
        Layer().link("d", "/etc").hard_link("shadow", "d/shadow"),
        "no file of it",
    ),
    "a hard link to a link": (
        Layer().link("l", "/etc/shadow").hard_link("shadow", "l"),
        "to what is no file",
    ),
    "a name too long": (Layer().add("x" * 300, b""), "too long"),
    "too deep": (Layer().add("/".join("d" * 200), b""), "folders deep"),
    "an endless header": (Layer().add("x", b"", pax_headers={"comment": "y" * 2_000_000}), "a header of"),
    "taking away what is above": (Layer().folder("d").add("d/.wh...", b""), "takes away"),
}


@pytest.mark.parametrize("how", ESCAPES)
def test_no_way_leads_out(how: str, registry: RegistryServer, node: NodeImages) -> None:
    layer, why = ESCAPES[how]
    before = sorted(os.listdir("/var/tmp"))

    with pytest.raises(ImageRefused, match=why):
        node.ensure(registry.push(build([layer.tar]), "hostile"))

    assert not list(node.state_dir.rglob("*escaped*"))
    assert not Path("/var/tmp/escaped").exists()
    assert sorted(os.listdir("/var/tmp")) == before or "escaped" not in os.listdir("/var/tmp")
    assert _half_made(node) == []


def test_an_absolute_name_is_taken_below_the_root(registry: RegistryServer, node: NodeImages) -> None:
    root = node.ensure(registry.push(build([Layer().add("/etc/absolute", b"x").tar]), "absolute")).root

    assert (Path(root) / "etc/absolute").exists()
    assert not Path("/etc/absolute").exists()


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_a_bomb_is_defused(packing: str, registry: RegistryServer, node: NodeImages) -> None:
    zeros = Layer().add("zeros", bytes(110 * 2**20)).tar
    packed = gzip.compress(zeros, 6) if packing == "gzip" else zstd.compress(zeros)
    image = _with_layer(packed, diff_id=digest_of(zeros), media_type=f"+{packing}")

    with pytest.raises(ImageRefused, match="like a bomb"):
        node.ensure(registry.push(image, "bomb"))

    assert node.leftovers() == []


def test_a_window_that_fills_the_memory_is_refused(registry: RegistryServer, node: NodeImages) -> None:
    tar = Layer().add("x", os.urandom(1000)).tar
    options = {
        zstd.CompressionParameter.window_log: 30,
        zstd.CompressionParameter.enable_long_distance_matching: 1,
    }
    compressor = zstd.ZstdCompressor(options=options)
    packed = compressor.compress(tar) + compressor.flush()  # a stream, so its window stands in the header

    with pytest.raises(ImageRefused, match="damaged"):
        node.ensure(registry.push(_with_layer(packed, diff_id=digest_of(tar), media_type="+zstd"), "window"))


def test_a_layer_with_too_many_files_is_refused(registry: RegistryServer, node: NodeImages) -> None:
    """A million of them, in the archive's own words: the limit ends it long before."""
    image = _with_layer(_many_files(1_000_000), diff_id=digest_of(b""), media_type="+gzip")

    with pytest.raises(ImageRefused, match="more than 2,000 files"):
        node.ensure(registry.push(image, "crowd"), limits=ImageLimits(cache_bytes=10**9, files=2_000))

    assert node.leftovers() == []


def test_many_layers_can_not_add_up_to_more(registry: RegistryServer, node: NodeImages) -> None:
    layers = []
    for number in range(3):
        layer = Layer()
        for name in range(80):
            layer.add(f"{number}-{name}", b"")
        layers.append(layer.tar)

    with pytest.raises(ImageRefused, match="its layers have more than 200 files"):
        node.ensure(registry.push(build(layers), "sum"), limits=ImageLimits(cache_bytes=10**9, files=200))

    assert _half_made(node) == []


def test_many_layers_can_not_add_up_to_more_bytes(registry: RegistryServer, node: NodeImages) -> None:
    layers = [Layer().add(f"{number}", b"%d" % number * 60_000).tar for number in range(3)]

    name = registry.push(build(layers), "bytes")
    with pytest.raises(ImageRefused, match="bytes, which is the limit here"):
        node.ensure(name, limits=ImageLimits(cache_bytes=10**9, image_bytes=150_000))

    assert _half_made(node) == []


def test_what_is_larger_than_the_node_takes_is_refused(registry: RegistryServer, node: NodeImages) -> None:
    small = ImageLimits(cache_bytes=10**9, image_bytes=100_000)
    name = registry.push(build([Layer().add("large", os.urandom(200_000)).tar]), "large")
    with pytest.raises(ImageRefused, match="is the limit on this node"):
        node.ensure(name, limits=small)
    name = registry.push(build([Layer().add("large", b"x" * 200_000).tar]), "large")
    with pytest.raises(ImageRefused, match="more than 100,000 bytes"):
        node.ensure(name, limits=small)

    assert node.leftovers() == []


def test_wrong_bytes_are_never_unpacked(node: NodeImages) -> None:
    image = build([busybox_layer().tar])
    layer = _layer_of(image)
    with SlyServer(image.blobs) as server:
        node.private.add(server.address)
        server.blobs[layer] = os.urandom(len(image.blobs[layer]))
        with pytest.raises(ImageRefused, match=f"and {layer} was asked for"):
            node.ensure(f"{server.address}/wrong@{image.digest}")
        server.blobs[image.digest] = image.blobs[image.digest] + b" "
        with pytest.raises(ImageRefused, match=r"where .* was asked for"):
            node.ensure(f"{server.address}/wrong@{image.digest}")

    assert node.leftovers() == []


def test_a_longer_layer_than_announced_is_not_read_to_its_end(node: NodeImages) -> None:
    image = build([busybox_layer().tar])
    layer = _layer_of(image)
    with SlyServer(image.blobs) as server:
        node.private.add(server.address)
        server.blobs[layer] = image.blobs[layer] + bytes(10_000_000)
        with pytest.raises(ImageRefused, match="larger than"):
            node.ensure(f"{server.address}/longer@{image.digest}")

    assert node.leftovers() == []


def test_a_content_other_than_the_configuration_says_is_refused(
    registry: RegistryServer, node: NodeImages
) -> None:
    image = build([busybox_layer().tar], diff_ids=[digest_of(b"another")])

    with pytest.raises(ImageRefused, match="its content has the digest"):
        node.ensure(registry.push(image, "other"))

    assert node.leftovers() == []


@pytest.mark.parametrize("packing", ["gzip", "plain"])
def test_a_truncated_layer_is_refused(packing: str, registry: RegistryServer, node: NodeImages) -> None:
    tar = Layer().add("first", b"x").add("large", os.urandom(100_000)).tar
    packed = gzip.compress(tar)[:50_000] if packing == "gzip" else tar[:50_000]

    with pytest.raises(ImageRefused, match="damaged"):
        node.ensure(registry.push(_with_layer(packed, diff_id=digest_of(tar)), "truncated"))

    assert node.leftovers() == []


def test_what_is_no_archive_is_refused(registry: RegistryServer, node: NodeImages) -> None:
    with pytest.raises(ImageRefused, match="damaged"):
        node.ensure(registry.push(_with_layer(os.urandom(5000), diff_id=digest_of(b"")), "noise"))

    assert node.leftovers() == []


def test_an_endless_redirect_ends(node: NodeImages) -> None:
    image = build([busybox_layer().tar])
    with SlyServer(image.blobs) as server:
        node.private.add(server.address)
        server.redirects["/blobs/"] = f"http://{server.address}$path"
        with pytest.raises(ImageRefused, match="redirects more than 5 times"):
            node.ensure(f"{server.address}/round@{image.digest}")

    assert node.leftovers() == []


def test_a_redirect_into_the_providers_network_is_not_followed(node: NodeImages) -> None:
    """Nor are the registry's credentials taken along to another host."""
    image = build([busybox_layer().tar])
    with SlyServer(image.blobs) as server, SlyServer(image.blobs) as inside, SlyServer(image.blobs) as store:
        node.private |= {server.address, store.address}
        server.credentials = "ann:right"
        name = f"{server.address}/lured@{image.digest}"
        for target in (
            f"http://{inside.address}$path",
            f"https://{inside.address}$path",
            "file:///etc/passwd",
        ):
            server.redirects["/blobs/"] = target
            with pytest.raises(ImageRefused, match=r"no TLS|not on the public internet|no address"):
                node.ensure(name, credentials="ann:right")
        server.redirects["/blobs/"] = f"http://{store.address}$path"
        node.ensure(name, credentials="ann:right")

        assert inside.served == []
        assert set(store.authorizations) == {None}


def test_a_private_registry_is_only_asked_where_the_provider_says_so(node: NodeImages) -> None:
    image = build([busybox_layer().tar])
    with SlyServer(image.blobs) as server:
        for host in (server.address, f"localhost:{server.port}", f"[::1]:{server.port}"):
            with pytest.raises(ImageRefused, match=r"not on the public internet|is not an image"):
                node.ensure(f"{host}/inside@{image.digest}")

        assert server.served == []


def _with_layer(packed: bytes, *, diff_id: str, media_type: str = "+gzip") -> Built:
    """An image around a layer that is packed already."""
    plain = build([b""], packing="", diff_ids=[diff_id])
    manifest = json.loads(plain.blobs[plain.digest])
    manifest["layers"][0] = {
        "mediaType": f"application/vnd.oci.image.layer.v1.tar{media_type}",
        "digest": digest_of(packed),
        "size": len(packed),
    }
    text = json.dumps(manifest).encode()
    config = manifest["config"]["digest"]
    return Built(
        digest_of(text), {digest_of(text): text, digest_of(packed): packed, config: plain.blobs[config]}
    )


def _many_files(count: int) -> bytes:
    """So many empty files in a gzip of few bytes: one thousand entries, again and again."""
    block = Layer()
    for number in range(1000):
        block.add(f"f{number:06d}")
    body = block.tar[: 1000 * 512]
    members = gzip.compress(body, 9)
    return members * (count // 1000)


def _layer_of(image: Built) -> str:
    digest: str = json.loads(image.blobs[image.digest])["layers"][0]["digest"]
    return digest


def _half_made(node: NodeImages) -> list[str]:
    """What is neither a whole layer nor a whole root."""
    return [each for each in node.leftovers() if "/drafts/" in each or "/partial/" in each]

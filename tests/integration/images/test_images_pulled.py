"""Images from a real registry: what a root holds, what is shared, what is gone on with."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest

from integration.images.image_samples import Layer, build, busybox_layer, index_of
from integration.images.image_world import NodeImages, RegistryServer, serve_registry
from perak.agent.images.images import ImageLimits, ImageRefused
from perak.domain.errors import Unavailable
from stand_ins.sly_server import SlyServer

CONFIG = {
    "Env": ["PATH=/bin", "GREETING=hello there"],
    "Entrypoint": ["/bin/sh"],
    "Cmd": ["-c", "id"],
    "User": "alice:artists",
    "WorkingDir": "/srv/app",
}


@pytest.mark.parametrize("packing", ["+gzip", "+zstd", ""])
def test_an_image_becomes_a_root_with_its_words(
    packing: str, registry: RegistryServer, node: NodeImages
) -> None:
    image = build([busybox_layer().tar, Layer().add("etc/motd", b"hi").tar], config=CONFIG, packing=packing)

    found = node.ensure(registry.push(image, "whole"))

    root = Path(found.root)
    assert (root / "etc/motd").read_bytes() == b"hi"
    assert os.access(root / "bin/busybox", os.X_OK)
    assert found.argv == ("/bin/sh", "-c", "id")
    assert found.env == {"PATH": "/bin", "GREETING": "hello there"}
    assert (found.uid, found.gid, found.cwd) == (1234, 77, "/srv/app")
    assert (root / "srv/app").is_dir()
    assert all((root / name).is_dir() for name in ("proc", "dev", "tmp", "run", "var/tmp", "work", "job"))
    assert any("2 layers" in line for line in node.lines)


def test_upper_layers_replace_and_take_away(registry: RegistryServer, node: NodeImages) -> None:
    lower = Layer().folder("d").add("d/kept", b"1").add("d/gone", b"2").folder("o").add("o/old", b"3")
    lower.add("file-then-folder", b"4").folder("folder-then-file").add("folder-then-file/x", b"5")
    lower.folder("usr").folder("usr/lib").link("lib", "usr/lib").link("out", "/../../../etc")
    upper = Layer().add("d/.wh.gone").folder("o").add("o/.wh..wh..opq").add("o/new", b"6").add("d/kept", b"7")
    upper.folder("file-then-folder").add("file-then-folder/y", b"8").add("folder-then-file", b"9")
    upper.add("lib/through", b"10").add("out/inside", b"11")

    root = Path(node.ensure(registry.push(build([lower.tar, upper.tar]), "layers")).root)

    assert (root / "d/kept").read_bytes() == b"7"
    assert os.listdir(root / "d") == ["kept"]
    assert os.listdir(root / "o") == ["new"]
    assert (root / "file-then-folder/y").read_bytes() == b"8"
    assert (root / "folder-then-file").read_bytes() == b"9"
    assert (root / "usr/lib/through").read_bytes() == b"10", "a folder passed through follows a lower link"
    assert (root / "etc/inside").read_bytes() == b"11", "and never above the root"
    assert not Path("/etc/inside").exists()


def test_what_gives_power_does_not_survive(registry: RegistryServer, node: NodeImages) -> None:
    layer = Layer().add("su", b"#!", mode=0o6755).folder("sticky")
    layer.add("null", type=b"3", devmajor=1, devminor=3, mode=0o666).add("disk", type=b"4", devmajor=8)
    layer.add("pipe", type=b"6").add("secret", b"s", mode=0o600)
    layer.add(
        "capable", b"x", mode=0o755, pax_headers={"SCHILY.xattr.security.capability": "\x01\x00\x00\x02"}
    )

    root = Path(node.ensure(registry.push(build([layer.tar]), "power")).root)

    assert (root / "su").stat().st_mode & 0o7777 == 0o555
    assert not any((root / name).exists() for name in ("null", "disk", "pipe"))
    assert (root / "secret").stat().st_mode & 0o444 == 0o444, "the run is another user than the unpacker"
    assert os.listxattr(root / "capable") == []
    owners = {each.lstat().st_uid for each in root.rglob("*")}
    assert 0 not in owners, "nothing was unpacked as root"
    told = "\n".join(node.lines)
    assert "1 files lost their setuid" in told
    assert "3 device nodes and pipes were left out" in told


def test_layers_are_unpacked_once_and_shared(registry: RegistryServer, node: NodeImages) -> None:
    base = busybox_layer().tar
    first = node.ensure(registry.push(build([base, Layer().add("a", b"a").tar]), "first"))
    second = node.ensure(registry.push(build([base, Layer().add("b", b"b").tar]), "second"))

    files = [Path(each.root) / "bin/busybox" for each in (first, second)]
    assert files[0].stat().st_ino == files[1].stat().st_ino
    assert first.root != second.root


def test_a_root_is_found_again_without_the_registry(registry: RegistryServer, node: NodeImages) -> None:
    name = registry.push(build([busybox_layer().tar]), "again")
    first = node.ensure(name)
    node.private.clear()  # now the registry can't be reached any more

    assert node.ensure(name) == first


def test_each_node_takes_what_fits_it_of_an_index(registry: RegistryServer, node: NodeImages) -> None:
    here = build([Layer().add("which", b"here").tar])
    there = build([Layer().add("which", b"there").tar], architecture="s390x")

    root = node.ensure(registry.push(index_of({"s390x": there, _own_architecture(): here}), "many")).root
    assert (Path(root) / "which").read_bytes() == b"here"

    with pytest.raises(ImageRefused, match="its architectures are s390x"):
        node.ensure(registry.push(index_of({"s390x": there}), "foreign"))


def test_a_closed_registry_gives_only_to_who_may_read(
    tmp_path: Path, registry: RegistryServer, node: NodeImages
) -> None:
    """A cached image of a closed registry is no one's who only knows its digest."""
    (tmp_path / "htpasswd").write_text("ann:$2b$04$abcdefghijklmnopqrstuuFmEfrkTQnczNzw475xE2VhDrK1uwJiC\n")
    auth = f"auth: {{htpasswd: {{realm: closed, path: {tmp_path}/htpasswd}}}}\n"
    with serve_registry(tmp_path, extra=auth) as closed:
        node.private.add(closed.address)
        image = build([Layer().add("private", os.urandom(100)).tar])
        name = closed.push(image, "private", credentials="ann:right")

        with pytest.raises(ImageRefused, match="asks for credentials, and gave none"):
            node.ensure(name)
        with pytest.raises(ImageRefused, match="does not take those that were given"):
            node.ensure(name, credentials="ann:wrong")
        assert node.leftovers() == []

        found = node.ensure(name, credentials="ann:right")
        assert (Path(found.root) / "private").exists()
        with pytest.raises(ImageRefused, match="asks for credentials"):
            node.ensure(name)


def test_a_layer_known_by_digest_alone_is_fetched_again(tmp_path: Path, node: NodeImages) -> None:
    """Who names another's layer in an image of its own must have its bytes, not just its digest."""
    secret = build([Layer().add("private", os.urandom(100)).tar])
    with SlyServer(secret.blobs) as closed:
        closed.credentials = "ann:right"
        node.private.add(closed.address)
        node.ensure(f"{closed.address}/private@{secret.digest}", credentials="ann:right")
    manifest, config, layer = secret.digest, *_parts_of(secret)
    with SlyServer({manifest: secret.blobs[manifest], config: secret.blobs[config]}) as thief:
        node.private.add(thief.address)

        with pytest.raises(ImageRefused, match="404"):
            node.ensure(f"{thief.address}/stolen@{manifest}")
        thief.blobs[layer] = secret.blobs[layer]  # who has the bytes may have them
        node.ensure(f"{thief.address}/owned@{manifest}")


def test_a_cut_pull_goes_on_where_it_was(node: NodeImages) -> None:
    layer = Layer().add("large", os.urandom(3_000_000)).tar
    image = build([layer], packing="")
    with SlyServer(image.blobs) as server:
        node.private.add(server.address)
        server.cut_after_bytes = 1_000_000

        root = node.ensure(f"{server.address}/large@{image.digest}").root

        offsets = [offset for offset in server.offsets if offset]
        assert offsets, "it asked for the rest"
        assert offsets == sorted(set(offsets)), "and never for the same part twice"
        assert (Path(root) / "large").stat().st_size == 3_000_000


def test_a_restarted_agent_goes_on_too(node: NodeImages) -> None:
    image = build([Layer().add("large", os.urandom(3_000_000)).tar], packing="")
    with SlyServer(image.blobs) as server:
        node.private.add(server.address)
        server.cut_after_bytes, server.cuts_left = 1_000_000, 10**6
        server.refuses_ranges_after = 1
        with pytest.raises(Unavailable):
            node.ensure(f"{server.address}/large@{image.digest}")
        there = max(each.stat().st_size for each in node.state_dir.rglob("partial/*"))
        server.cut_after_bytes, server.refuses_ranges_after = None, None
        server.offsets.clear()

        node.ensure(f"{server.address}/large@{image.digest}")

        assert there > 0
        assert server.offsets[-1] == there


def test_two_jobs_that_want_the_same_pull_it_once(node: NodeImages) -> None:
    image = build([busybox_layer().tar])
    with SlyServer(image.blobs) as server:
        node.private.add(server.address)
        images = node.open()
        found: list[str] = []

        def pull() -> None:
            name = f"{server.address}/same@{image.digest}"
            found.append(images.ensure(name, credentials=None, say=node.lines.append).root)

        threads = [threading.Thread(target=pull) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

        assert len(set(found)) == 1
        assert len(found) == 4
        (layer,) = [each for each in _parts_of(image) if len(image.blobs[each]) > 10_000]
        assert server.served.count(f"/v2/same/blobs/{layer}") == 1


def test_the_longest_unused_image_leaves_and_never_one_in_use(
    registry: RegistryServer, node: NodeImages
) -> None:
    names = [
        registry.push(build([Layer().add("content", os.urandom(400_000)).tar]), f"evicted-{number}")
        for number in range(4)
    ]
    small = ImageLimits(cache_bytes=2_200_000)
    roots = [Path(node.ensure(name).root) for name in names[:3]]
    _make_old(node.state_dir)
    os.utime(roots[2].with_suffix(".json"), (2, 2))
    newest = Path(node.ensure(names[3], limits=small, in_use=lambda: {roots[0].name}).root)

    # To the 1.2 MB that are there come 400 kB packed, for which thrice as much is made free.
    assert roots[0].exists(), "a run uses it"
    assert not roots[1].exists()
    assert roots[2].exists(), "no more is dropped than must be"
    assert newest.exists()
    layers = list((node.state_dir / "images/layers").glob("*/tree"))
    assert len(layers) == 3, "its layer left with it"


def test_an_image_without_a_digest_is_refused(node: NodeImages) -> None:
    with pytest.raises(ImageRefused, match="not pinned"):
        node.ensure("docker.io/library/debian:12")


def test_a_layer_that_may_have_holes_is_not_used_after_a_power_cut(node: NodeImages) -> None:
    """Layers are brought to the disk with the root that is made of them."""
    layer, second = Layer().add("a", b"a").tar, Layer().add("b", b"b").tar
    image = build([layer, second])
    with SlyServer(image.blobs) as server:
        node.private.add(server.address)
        name = f"{server.address}/cut@{image.digest}"
        server.blobs.pop(_parts_of(image)[2])
        with pytest.raises(ImageRefused, match="404"):
            node.ensure(name)
        server.blobs.update(image.blobs)
        (record,) = (node.state_dir / "images/layers").glob("*.json")
        record.write_text(record.read_text().replace('"boot": "', '"boot": "an-earlier-'))
        server.served.clear()

        node.ensure(name)

        assert f"/v2/cut/blobs/{_parts_of(image)[1]}" in server.served


def test_an_interrupted_unpacking_leaves_nothing_that_counts(
    registry: RegistryServer, node: NodeImages
) -> None:
    """What an agent that was killed left half made is cleared, and made again."""
    image = build([busybox_layer().tar])
    name = registry.push(image, "killed")
    root = Path(node.ensure(name).root)
    shutil.copytree(root, node.state_dir / "images/roots/drafts/dead", symlinks=True)
    root.with_suffix(".json").unlink()

    assert Path(node.ensure(name).root) == root
    assert os.listdir(node.state_dir / "images/roots/drafts") == []


def _parts_of(image: object) -> list[str]:
    import json

    manifest = json.loads(image.blobs[image.digest])  # type: ignore[attr-defined]
    return [manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])]


def _own_architecture() -> str:
    import platform

    return {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]


def _make_old(folder: Path) -> None:
    for each in folder.rglob("*.json"):
        os.utime(each, (1, 1))

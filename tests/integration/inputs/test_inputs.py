"""Inputs from https, from S3 and from earlier jobs: what is mounted, shared, gone on with and refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from input_world import NodeInputs, Storage, Web, digest_of, tar_of

from perak.agent.inputs.inputs import InputFailed, InputLimits
from perak.agent.sandbox import Mount
from perak.domain.errors import Unavailable

DATA = os.urandom(3_000_000)


def test_a_file_from_the_web_is_mounted_at_its_place(web: Web, node: NodeInputs) -> None:
    mount = node.one("data/set.bin", web.put("/set.bin", DATA), digest_of(DATA))

    assert mount.target == "/work/data/set.bin"
    assert Path(mount.source).read_bytes() == DATA
    assert Path(mount.source).stat().st_mode & 0o777 == 0o444
    assert any("fetching the input data/set.bin" in line for line in node.lines)


def test_a_file_named_for_a_folder_goes_into_it(web: Web, node: NodeInputs) -> None:
    mount = node.one("data/", web.put("/my%20set.bin", DATA), digest_of(DATA))

    assert mount.target == "/work/data/my set.bin"


@pytest.mark.parametrize("name", ["set.tar.gz", "set.tgz"])
def test_an_archive_is_unpacked_where_a_folder_is_named(name: str, web: Web, node: NodeInputs) -> None:
    packed = tar_of({"a/b": b"inside", "top": b"t"})
    url = web.put(f"/{name}", packed)

    tree = node.one("data/", url, digest_of(packed))
    whole = node.one("data.tgz", url, digest_of(packed))

    assert tree.target == "/work/data"
    assert (Path(tree.source) / "a/b").read_bytes() == b"inside"
    assert (Path(tree.source) / "a/b").stat().st_mode & 0o444 == 0o444
    assert Path(whole.source).read_bytes() == packed


def test_an_object_of_s3_comes_with_and_without_a_digest(storage: Storage, node: NodeInputs) -> None:
    url = storage.put("plain.bin", DATA)

    pinned = node.one("in", url, digest_of(DATA), s3=storage.url)
    loose = node.one("in", url, s3=storage.url)

    assert Path(pinned.source).read_bytes() == Path(loose.source).read_bytes() == DATA
    assert any(digest_of(DATA) in line and "pin" in line for line in node.lines)


def test_an_object_that_changed_is_fetched_again(storage: Storage, node: NodeInputs) -> None:
    url = storage.put("changing.bin", b"first")
    first = node.one("in", url, s3=storage.url)
    storage.put("changing.bin", b"second")

    assert Path(node.one("in", url, s3=storage.url).source).read_bytes() == b"second"
    assert Path(first.source).read_bytes() == b"first", "a run that has it keeps what it has"


def test_what_s3_does_not_have_is_said(storage: Storage, node: NodeInputs) -> None:
    with pytest.raises(InputFailed, match="has no such object"):
        node.one("in", "s3://public/missing", s3=storage.url)
    with pytest.raises(InputFailed, match="names a folder"):
        node.one("in", "s3://public/folder/", s3=storage.url)


def test_outputs_of_an_earlier_job_whole_or_in_part(node: NodeInputs) -> None:
    packed = tar_of({"out/model/weights": b"w", "out/log": b"l"})
    digest = digest_of(packed)
    node.outputs.blobs[digest] = packed

    whole, folder, file = node.ensure(
        {
            "before/": ("job:job-1@local", digest),
            "model": ("job:job-1@local/out/model", digest),
            "log": ("job:job-1@local/out/log", digest),
        }
    )

    assert (Path(whole.source) / "out/log").read_bytes() == b"l"
    assert (Path(folder.source) / "weights").read_bytes() == b"w"
    assert Path(file.source).read_bytes() == b"l"
    assert len(node.outputs.asked) == 1, "they share what was fetched once"
    for part in ("missing", "out/../../..", "out/log/deeper"):
        with pytest.raises(InputFailed, match="have no"):
            node.one("x", f"job:job-1@local/{part}", digest)


def test_links_in_outputs_lead_nowhere(node: NodeInputs) -> None:
    import gzip
    import io
    import tarfile

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, target in (("up", "../../../../etc"), ("out", "/etc/shadow")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    packed = gzip.compress(buffer.getvalue())
    node.outputs.blobs[digest_of(packed)] = packed

    for part in ("up/shadow", "up", "out"):
        with pytest.raises(InputFailed, match="have no"):
            node.one("x", f"job:job-1@local/{part}", digest_of(packed))


def test_jobs_that_name_the_same_share_it(web: Web, node: NodeInputs) -> None:
    url = web.put("/set.bin", DATA)
    first = node.one("a", url, digest_of(DATA))
    second = node.one("b", url, digest_of(DATA))

    assert first.source == second.source
    assert web.server.served.count("/set.bin") == 1


def test_a_digest_alone_is_no_key_to_what_others_brought(web: Web, node: NodeInputs) -> None:
    """Who names another's digest must name a place that has the bytes."""
    node.one("a", web.put("/private.bin", DATA), digest_of(DATA))

    with pytest.raises(InputFailed, match="404"):
        node.one("b", f"https://{web.server.address}/elsewhere.bin", digest_of(DATA))

    has_it = node.one("b", web.put("/copy.bin", DATA), digest_of(DATA))
    assert Path(has_it.source).read_bytes() == DATA


def test_a_cut_is_gone_on_from(web: Web, node: NodeInputs) -> None:
    url = web.put("/set.bin", DATA)
    web.server.cut_after_bytes = 1_000_000

    mount = node.one("in", url, digest_of(DATA))

    assert Path(mount.source).read_bytes() == DATA
    assert [offset for offset in web.server.offsets if offset], "it asked for the rest"


def test_a_restarted_agent_goes_on(web: Web, node: NodeInputs) -> None:
    url = web.put("/set.bin", DATA)
    web.server.cut_after_bytes, web.server.refuses_ranges_after = 1_000_000, 0
    with pytest.raises(Unavailable, match="tried 3 times"):
        node.one("in", url, digest_of(DATA))
    web.server.cut_after_bytes, web.server.refuses_ranges_after = None, None
    web.server.offsets.clear()

    node.one("in", url, digest_of(DATA))

    assert web.server.offsets == [1_000_000]


def test_wrong_bytes_are_never_mounted(web: Web, node: NodeInputs) -> None:
    with pytest.raises(InputFailed, match="what came has the digest"):
        node.one("in", web.put("/set.bin", DATA), digest_of(b"another"))

    assert node.leftovers() == []


def test_more_than_the_node_takes_is_refused_early(web: Web, storage: Storage, node: NodeInputs) -> None:
    small = InputLimits(cache_bytes=1_000_000)
    with pytest.raises(InputFailed, match="larger than 1,000,000 bytes"):
        node.one("in", web.put("/set.bin", DATA), digest_of(DATA), limits=small)
    with pytest.raises(InputFailed, match="this node takes"):
        node.one("in", storage.put("large.bin", DATA), s3=storage.url, limits=small)
    bomb = tar_of({"zeros": bytes(20_000_000)})
    with pytest.raises(InputFailed, match="more than 1,000,000 bytes"):
        node.one("in/", web.put("/bomb.tar.gz", bomb), digest_of(bomb), limits=small)

    assert node.leftovers() == []


def test_nothing_of_the_providers_network_is_fetched(web: Web, node: NodeInputs) -> None:
    url = web.put("/set.bin", DATA)
    web.server.redirects["/lure"] = f"https://localhost:{web.server.port}/set.bin"
    with pytest.raises(InputFailed, match="not on the public internet"):
        node.one("in", f"https://{web.server.address}/lure", digest_of(DATA))
    web.server.redirects["/lure"] = f"http://{web.server.address}/set.bin"
    with pytest.raises(InputFailed, match="from https to"):
        node.one("in", f"https://{web.server.address}/lure", digest_of(DATA))
    node.private.clear()
    web.server.served.clear()
    for host in (web.server.address, "169.254.169.254", "10.0.0.1", "[::ffff:127.0.0.1]", "[fe80::1]"):
        with pytest.raises(InputFailed, match="not on the public internet"):
            node.one("in", f"https://{host}/latest/meta-data", digest_of(DATA))

    assert url
    assert web.server.served == []


def test_a_server_without_a_trusted_certificate_is_refused(
    web: Web, node: NodeInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")

    with pytest.raises(InputFailed, match="no certificate that is trusted here"):
        node.one("in", web.put("/set.bin", DATA), digest_of(DATA))


def test_the_longest_unused_leaves_and_never_one_in_use(web: Web, node: NodeInputs) -> None:
    mounts: list[Mount] = []
    for number in range(3):
        data = os.urandom(400_000)
        limits = InputLimits(cache_bytes=900_000)
        for record in (node.state_dir / "inputs").glob("*.json"):
            os.utime(record, (1, 1))
        used = {Path(mounts[0].source).parent.name} if mounts else set()
        url = web.put(f"/{number}.bin", data)
        mounts.append(node.one("in", url, digest_of(data), limits=limits, in_use=lambda used=used: used))

    assert [Path(mount.source).exists() for mount in mounts] == [True, False, True]

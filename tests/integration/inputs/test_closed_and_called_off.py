"""Objects that only some may read, zip archives of strangers, and fetches that nobody waits for any more."""

from __future__ import annotations

import io
import json
import re
import stat
import subprocess
import sys
import threading
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from input_world import NodeInputs, Web, digest_of

from perak.agent.fetch.wanted import NotWanted, as_long_as
from perak.agent.inputs.inputs import InputFailed
from perak.agent.inputs.s3 import S3Credentials, credentials_of
from perak.domain.errors import InvalidInput

DATA = b"only for some" * 1000
MAY_READ = {"Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}], "Version": "2012-10-17"}


@pytest.fixture(scope="module")
def closed() -> Iterator[tuple[str, S3Credentials]]:
    """moto's server with the object s3://closed/set.bin, and the one key that may read it."""
    boto3 = pytest.importorskip("boto3")
    command = [sys.executable, "-u", "-m", "moto.server", "--host", "127.0.0.1", "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        (url,) = next(
            found for line in server.stderr if (found := re.findall(r"http://127\.0\.0\.1:\d+", line))
        )
        threading.Thread(target=server.stderr.read, daemon=True).start()
        asks = {"endpoint_url": url, "region_name": "us-east-1"}
        first = {"aws_access_key_id": "anybody", "aws_secret_access_key": "anything"}
        iam = boto3.client("iam", **asks, **first)
        iam.create_user(UserName="renter")
        iam.put_user_policy(UserName="renter", PolicyName="reads", PolicyDocument=json.dumps(MAY_READ))
        key = iam.create_access_key(UserName="renter")["AccessKey"]
        store = boto3.client("s3", **asks, **first)
        store.create_bucket(Bucket="closed")
        store.put_object(Bucket="closed", Key="set.bin", Body=DATA)
        # From here on who asks is looked at.
        ask = urllib.request.Request(f"{url}/moto-api/reset-auth", data=b"0")
        ask.add_header("Content-Type", "text/plain")  # else it is read as a form
        urllib.request.urlopen(ask, timeout=20).close()
        yield url, S3Credentials(key["AccessKeyId"], key["SecretAccessKey"])
    finally:
        server.kill()
        server.wait()


def test_a_closed_object_is_read_with_the_jobs_own_key(
    closed: tuple[str, S3Credentials], node: NodeInputs
) -> None:
    url, credentials = closed
    mount = node.one("in", "s3://closed/set.bin", s3=url, credentials=credentials)
    assert Path(mount.source).read_bytes() == DATA


def test_what_one_key_brought_is_nobody_elses(closed: tuple[str, S3Credentials], node: NodeInputs) -> None:
    url, credentials = closed
    node.one("in", "s3://closed/set.bin", digest_of(DATA), s3=url, credentials=credentials)
    wrong = S3Credentials(credentials.key_id, "not-this-one")
    with pytest.raises(InputFailed, match="takes other credentials for it"):
        node.one("in", "s3://closed/set.bin", digest_of(DATA), s3=url, credentials=wrong)
    with pytest.raises(InputFailed, match="does not show it to everybody"):
        node.one("in", "s3://closed/set.bin", digest_of(DATA), s3=url)


@pytest.mark.parametrize("value", [b"", b"key", b"key:", b":secret", b"\xff:\xff"])
def test_a_secret_that_is_no_key_is_refused(value: bytes) -> None:
    with pytest.raises(InvalidInput, match="no key-id:secret-key"):
        credentials_of(value)


def zip_of(files: dict[str, bytes], *, modes: dict[str, int] | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type, info.create_system = zipfile.ZIP_DEFLATED, 3
            info.external_attr = (modes or {}).get(name, stat.S_IFREG | 0o644) << 16
            archive.writestr(info, content)
    return buffer.getvalue()


def put(web: Web, node: NodeInputs, packed: bytes) -> Path:
    return Path(node.one("data/", web.put("/set.zip", packed), digest_of(packed)).source)


def test_a_zip_is_unpacked_where_a_folder_is_named(web: Web, node: NodeInputs) -> None:
    modes = {"run.sh": stat.S_IFREG | 0o4755, "link": stat.S_IFLNK | 0o777, "pipe": stat.S_IFIFO | 0o644}
    files = {"a/b": b"inside", "empty/": b"", "run.sh": b"#!", "link": b"a/b", "pipe": b""}
    tree = put(web, node, zip_of(files, modes=modes))
    assert (tree / "a/b").read_bytes() == b"inside"
    assert stat.S_IMODE((tree / "run.sh").stat().st_mode) == 0o555
    assert (tree / "link").readlink() == Path("a/b")
    assert sorted(each.name for each in tree.iterdir()) == ["a", "empty", "link", "run.sh"]


@pytest.mark.parametrize(
    ("files", "modes", "says"),
    [
        ({"../up": b""}, {}, "leads out of its folder"),
        ({"a/../../up": b""}, {}, "leads out of its folder"),
        ({"out": b"/etc", "out/x": b"y"}, {"out": stat.S_IFLNK | 0o777}, "which is a link"),
        ({"long": b"x" * 5000}, {"long": stat.S_IFLNK | 0o777}, "to nowhere"),
        ({"bomb": bytes(200 << 20)}, {}, "like a bomb"),
        ({"a": b"1", "a/b": b"2"}, {}, "which is a link or no folder"),
    ],
)
def test_a_hostile_zip_is_refused_and_leaves_nothing(
    files: dict[str, bytes], modes: dict[str, int], says: str, web: Web, node: NodeInputs
) -> None:
    with pytest.raises(InputFailed, match=says):
        put(web, node, zip_of(files, modes=modes))
    assert node.leftovers() == []


def test_damaged_and_locked_zips_are_refused(web: Web, node: NodeInputs) -> None:
    good = zip_of({"a": b"content" * 100})
    locked = bytearray(good)
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        locked[good.index(mark) + at] |= 1
    flipped = bytearray(good)
    flipped[40] ^= 0xFF
    for packed, says in ((good[:-30], "damaged"), (bytes(locked), "encrypted"), (bytes(flipped), "damaged")):
        with pytest.raises(InputFailed, match=says):
            put(web, node, packed)
    assert node.leftovers() == []


def test_a_fetch_ends_with_the_wish_for_it_and_is_gone_on_with_later(web: Web, node: NodeInputs) -> None:
    data = bytes(range(256)) * (1 << 14)
    url, asked = web.put("/large.bin", data), iter([True, True, False])
    with as_long_as(lambda: next(asked)), pytest.raises(NotWanted):
        node.one("in", url, digest_of(data))
    assert 0 < sum(Path(node.state_dir, each).stat().st_size for each in node.leftovers()) < len(data)
    assert Path(node.one("in", url, digest_of(data)).source).read_bytes() == data
    assert web.server.offsets[-1] > 0


def test_nobody_waits_for_the_next_try(web: Web, node: NodeInputs) -> None:
    """The pause between two tries would be longer than any test may take."""
    from perak.agent.fetch.download import Downloads

    web.server.cut_after_bytes = 10
    url, wanted = web.put("/cut.bin", DATA), threading.Event()
    wanted.set()
    threading.Timer(0.3, wanted.clear).start()
    with as_long_as(wanted.is_set), pytest.raises(NotWanted):
        node.one("in", url, digest_of(DATA), downloads=Downloads(attempts_max=99, retry_seconds=1000.0))

"""The parsers, each as a function of bytes that returns, or raises what it says it raises; all else is a bug.

`SEEDS` are whole, valid inputs that a fuzzer starts from, and broken ones that once found something.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from perak.agent.images.trees import Refused
from perak.agent.images.unpacker import _unpack as unpack_layer
from perak.domain import units
from perak.domain.errors import DomainError
from perak.domain.footprint import Energy
from perak.domain.ids import new_id
from perak.domain.offer import OfferAsk
from perak.domain.plausible import check_report
from perak.domain.receipt import DeviceUse, Logs, Receipt, SandboxUse, utc_text
from perak.domain.report import LogChunk, Metered, OfferPosted
from perak.server.follow import Place
from perak.wire import session as wire
from perak.wire import yamltree
from perak.wire.archive import ArchiveError, unpack
from perak.wire.identity import (
    Authority,
    chain_from_pem,
    issue_exchange_certificate,
    issue_node_certificate,
    verify_chain,
)
from perak.wire.images import Reference, parse_config, parse_manifest
from perak.wire.invite import Invite
from perak.wire.jobfile import parse_job
from perak.wire.receipts import readable, receipt_file, sign_receipt, verify_receipt
from perak.wire.signing import SigningKey, peek_header, peek_payload, sign, verify

NOW = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)
KEY = SigningKey.from_seed(b"f" * 32)
AUTHORITY = Authority.create("test", now=NOW)
NODE = new_id("node", exchange="test", now_ms=NOW_MS, random=1)
CHAIN = (
    issue_node_certificate(AUTHORITY, node_id=NODE, public_key=KEY.public_bytes, now=NOW),
    AUTHORITY.certificate_der,
)
TREE_BYTES_MAX, FILES_MAX = 1 << 20, 100
"""An archive of the fuzzer unpacks to no more."""


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def job_file(data: bytes) -> None:
    try:
        tree, positions = yamltree.read_yaml(data)
    except yamltree.YamlError:
        return
    if isinstance(tree, dict):
        parse_job(tree, workdir_digest=None, positions=positions)


def job_tree(data: bytes) -> None:
    """What the API takes: any JSON object."""
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(tree, dict):
        parse_job(tree, workdir_digest=None)


def frame(data: bytes) -> None:
    wire.decode_from_agent(data)


def frame_of_exchange(data: bytes) -> None:
    wire.decode_from_exchange(data)


def report(data: bytes) -> None:
    """The payload of a report, as if its signature were right: decoded, and checked for what can't be."""
    check_report(wire.decode_report(data, jws=""), now_ms=NOW_MS)


def hello(data: bytes) -> None:
    wire.decode_hello(data)


def node_request(data: bytes) -> None:
    wire.decode_request(data)


def token(data: bytes) -> None:
    """A JWS, and the certificates in it."""
    text = _text(data)
    peek_payload(text)
    verify_chain(peek_header(text).chain, at=NOW)
    verify(text, KEY.public_bytes, typ=wire.REPORT_TYPE)


def certificates(data: bytes) -> None:
    verify_chain((data, AUTHORITY.certificate_der), at=NOW)


def certificate_text(data: bytes) -> None:
    chain_from_pem(_text(data))


def receipt(data: bytes) -> None:
    """A receipt file, and what its readable part says, signed anew: so the fuzzer gets past the signature."""
    with contextlib.suppress(DomainError):
        verify_receipt(data)
    try:
        shown = json.loads(data)["receipt"]
        signed = json.dumps(shown, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        signed.encode()
    except (ValueError, KeyError, TypeError, RecursionError):
        return
    jws = sign(KEY, signed.encode(), typ="perak-receipt+jwt", chain=CHAIN)
    readable(jws)
    verify_receipt(receipt_file(jws))


def invite(data: bytes) -> None:
    Invite.decode(_text(data))


def archive(data: bytes) -> None:
    with tempfile.TemporaryDirectory(prefix="perak-fuzz-") as folder:
        dest = Path(folder) / "inside" / "dest"
        dest.parent.mkdir()
        try:
            unpack(io.BytesIO(data), dest, limit_bytes=TREE_BYTES_MAX, limit_files=FILES_MAX)
        finally:
            outside = [path for path in Path(folder).iterdir() if path.name != "inside"]
            assert not outside, f"it wrote outside its folder: {outside}"


def layer(data: bytes) -> None:
    """What the confined process does with a layer, without its confinement: it must need none."""
    with tempfile.TemporaryDirectory(prefix="perak-fuzz-") as folder:
        dest = Path(folder) / "inside" / "dest"
        dest.mkdir(parents=True)
        request = {"packed_bytes": len(data), "limit_bytes": TREE_BYTES_MAX, "limit_files": FILES_MAX}
        request |= {"target": str(dest), "plain": False, "diff_id": None}
        try:
            unpack_layer(request, io.BytesIO(data))
        finally:
            outside = [path for path in Path(folder).iterdir() if path.name != "inside"]
            assert not outside, f"it wrote outside its folder: {outside}"
            assert [path.name for path in dest.parent.iterdir()] == ["dest"]


def image_manifest(data: bytes) -> None:
    refused = list[DomainError]()
    for parse in (lambda: parse_manifest(data, architecture="amd64"), lambda: parse_config(data)):
        try:
            parse()
        except DomainError as error:
            refused.append(error)
    if len(refused) == 2:
        raise refused[0]


def image_name(data: bytes) -> None:
    assert ".." not in Reference.parse(_text(data)).manifest_path.split("/")


def quantities(data: bytes) -> None:
    """Each of the readers of quantities; refused where none of them can read it."""
    text, refused = _text(data), list[DomainError]()
    parsers = (
        units.parse_bytes, units.parse_cpu, units.parse_duration, units.parse_money, units.parse_price,
    )  # fmt: skip
    for parse in parsers:
        try:
            value: Any = parse(text)
        except DomainError as error:
            refused.append(error)
        else:
            assert value >= 0
    units.at_least(text)
    if len(refused) == len(parsers):
        raise refused[0]


def event_id(data: bytes) -> None:
    text = _text(data)
    place = Place.parse(text)
    assert Place.parse(str(place)) == place


@dataclass(frozen=True, slots=True)
class Target:
    """A parser, the refusals that it may raise, and inputs to start from."""

    parse: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    refusals: tuple[type[Exception], ...] = (DomainError,)

    def __call__(self, data: bytes) -> bool:
        """Whether the bytes were read; False where they were refused. Any other error is a bug."""
        try:
            self.parse(data)
        except self.refusals:
            return False
        return True


def _report(body: Any, seq: int = 1) -> bytes:
    return wire.encode_report(seq=seq, node=NODE, at=NOW_MS, body=body)


_OFFER = OfferPosted(
    offer=OfferAsk(
        region="DE", cpu_model="x", cpu_milli=2000, memory_bytes=10**9, disk_bytes=10**9, price_cpu=1
    )
)
_METERED = Metered(
    run="run-1", lease="lease-1", epoch=1, until=NOW_MS, cpu_seconds=1.0, memory_bytes=1,
    energy_joules=1.5, energy_method="model",
)  # fmt: skip
_CHUNK = LogChunk(run="run-1", lease="lease-1", epoch=1, offset=0, data=b"\xff\0")
_JWS = sign(KEY, _report(_METERED), typ=wire.REPORT_TYPE, chain=CHAIN).encode()
_JOB = b"""name: train
run: |
  python train.py
env: {EPOCHS: 5}
python: {version: "3.11", packages: [numpy>=2]}
resources: {gpu: [V100], gpu_memory: 16GB.., cpu: 500m, memory: 2GiB}
outputs: [out/, "*.pt"]
limits: {max_price: 0.40/h, max_cost: 5.00, max_duration: 1h30m}
retry: {max_attempts: 3, on: [node_lost]}
"""
_TREE = {
    "name": "x",
    "run": "true",
    "resources": {"cpu": 0.5, "memory": "1GB"},
    "limits": {"max_cost": "1.5"},
}


def _receipt_file() -> bytes:
    """A whole receipt that verifies, but for its authority."""
    receipt = Receipt(
        id="receipt-1", issued_at=utc_text(NOW_MS), exchange="test", currency="USD", job="job-1",
        project="project-1", run="run-1", lease="lease-1", epoch=1, attempt=1, provider="project-2",
        node=NODE, offer="offer-1", offer_version=1,
        device=DeviceUse(kind="cpu", model="x", uuids=(), cpu_milli=250, memory_bytes=1),
        sandbox=SandboxUse(tier="bubblewrap", runtime="", enforced=("network",)),
        started_at=utc_text(NOW_MS - 1_000), ended_at=utc_text(NOW_MS), billed_seconds=1,
        price_per_device_hour_micros=360_000, devices_milli=250, cost_micros=25, fee_micros=0,
        payout_micros=25, held_micros=100, refunded_micros=75, exit_code=None, cause="node_lost",
        energy=Energy(joules=1.5, method="model", uncertainty_percent=100.0), carbon=None,
        logs=Logs(size_bytes=0), outputs_digest=None, evidence=_JWS.decode(),
    )  # fmt: skip
    leaf = issue_exchange_certificate(AUTHORITY, public_key=KEY.public_bytes, now=NOW)
    return receipt_file(sign_receipt(receipt, key=KEY, chain=(leaf, AUTHORITY.certificate_der))).encode()


def _tar(*, hostile: bool) -> bytes:
    import tarfile

    good = (("a", tarfile.REGTYPE, ""), ("d", tarfile.DIRTYPE, ""), ("l", tarfile.SYMTYPE, "a"))
    evil = (("../evil", tarfile.REGTYPE, ""), ("x", tarfile.SYMTYPE, "/etc"))

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=0) as tar:
        for name, kind, link in good + evil if hostile else good:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            tar.addfile(info)
    return out.getvalue()


TARGETS: Mapping[str, Target] = {
    "job_file": Target(job_file, (_JOB, b"a: &a [*a]", b"name: x\nrun: y\nresources: {cpu: .nan}", b"\xff")),
    "job_tree": Target(
        job_tree, (json.dumps(_TREE).encode(), b'{"name":"x","run":"\\ud800"}', b'{"\\u0000":NaN}')
    ),
    "frame": Target(frame, (b'{"type":"beat","at":1}', wire.encode(wire.Hello(jws="a.b.c")), b"[" * 2_000)),
    "frame_of_exchange": Target(
        frame_of_exchange, (wire.encode(wire.Desired(leases=())), wire.encode(wire.Ack(seq=1)))
    ),
    "report": Target(
        report,
        (_report(_OFFER), _report(_METERED), _report(_CHUNK), _report(_METERED).replace(b"1.5", b"1e308")),
    ),
    "hello": Target(
        hello,
        (
            wire.encode(
                wire.HelloBody(nonce="n", node=NODE, agent_version="1", boot_id="b", agent_id="a", at=NOW_MS)
            ),
        ),
    ),
    "node_request": Target(
        node_request,
        (
            wire.encode(wire.RequestPayload(node=NODE, method="GET", path="/", at=NOW_MS)),
            wire.encode(wire.RequestPayload(node=NODE, method="GET", path="/", at=9**99)),
        ),
    ),
    "token": Target(token, (_JWS, _JWS[:-3], b"e30.e30.e30", b"a.b")),
    "certificates": Target(certificates, (CHAIN[0], CHAIN[1], b"0\x03\x02\x01\x05")),
    "certificate_text": Target(
        certificate_text, (AUTHORITY.certificate_pem, b"-----BEGIN CERTIFICATE-----\n")
    ),
    "receipt": Target(
        receipt,
        (_receipt_file(), b'{"receipt":{},"jws":"e30.e30.e30"}', b'{"receipt":{"version":1},"jws":""}'),
    ),
    "invite": Target(
        invite,
        (
            Invite(url="https://x:1", fingerprint="sha256:" + "0" * 64, secret="s").encode().encode(),
            b"perak-invite-v1.e30",
            b"perak-invite-v1.A",
        ),
    ),
    "archive": Target(
        archive,
        (_tar(hostile=False), _tar(hostile=True), _tar(hostile=False)[:300], b"\x1f\x8b"),
        (DomainError, ArchiveError),
    ),
    "layer": Target(
        layer,
        (
            _tar(hostile=False),
            _tar(hostile=True),
            _tar(hostile=False)[:300],
            b"\x28\xb5\x2f\xfd",
            bytes(1024),
        ),
        (Refused,),
    ),
    "image_manifest": Target(
        image_manifest,
        (
            b'{"config":{"digest":"sha256:%s","size":1},"layers":[]}' % (b"0" * 64),
            b'{"manifests":[{"platform":{"os":"linux","architecture":"amd64"}}]}',
            b'{"rootfs":{"diff_ids":[]},"config":{"Env":["A=b"],"Cmd":["sh"],"User":"x"}}',
            b'{"config":' * 5000,
        ),
    ),
    "image_name": Target(image_name, (b"docker.io/a/b:c", b"h:5000/a@sha256:" + b"0" * 64, b"a/../b", b"")),
    "quantities": Target(quantities, (b"1h30m", b"16GB..", b"0.40/h", b"250m", b"1e999999", b"nan", b"-1")),
    "event_id": Target(event_id, (b"1.2.3", b"999999999.0.0", b"0.0.0")),
}

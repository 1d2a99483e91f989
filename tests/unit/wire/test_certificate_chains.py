"""Certificates: what a chain proves, and every way in which it must not."""

import contextlib
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perak.domain.errors import InvalidInput
from perak.wire.identity import (
    CLOCK_SKEW,
    NODE_CERT_LIFETIME,
    Authority,
    IdentityError,
    chain_from_pem,
    chain_to_pem,
    fingerprint,
    from_pem,
    issue_exchange_certificate,
    issue_node_certificate,
    issue_server_certificate,
    to_pem,
    verify_chain,
)
from perak.wire.signing import SealKey, SigningKey

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
NODE = "node-01k9f3v2m8q7zx4t5r@home"
KEY = SigningKey.from_seed(bytes(32))
HOME = Authority.create("home", now=NOW)
AWAY = Authority.create("away", now=NOW)
NODE_DER = issue_node_certificate(HOME, node_id=NODE, public_key=KEY.public_bytes, now=NOW)
CHAIN = (NODE_DER, HOME.certificate_der)


def test_a_node_chain_proves_the_node() -> None:
    found = verify_chain(CHAIN, at=NOW, trusted_fingerprint=HOME.fingerprint)
    assert (found.kind, found.subject_id, found.exchange) == ("node", NODE, "home")
    assert found.public_key == KEY.public_bytes
    assert found.root_fingerprint == HOME.fingerprint
    assert found.not_after == NOW + NODE_CERT_LIFETIME


def test_an_exchange_chain_proves_the_exchange() -> None:
    der = issue_exchange_certificate(HOME, public_key=KEY.public_bytes, now=NOW)
    found = verify_chain((der, HOME.certificate_der), at=NOW)
    assert (found.kind, found.subject_id, found.exchange) == ("exchange", "home", "home")


@pytest.mark.parametrize(
    ("at", "valid"),
    [
        (NOW - CLOCK_SKEW, True),
        (NOW - CLOCK_SKEW - timedelta(seconds=1), False),
        (NOW + NODE_CERT_LIFETIME, True),
        (NOW + NODE_CERT_LIFETIME + timedelta(seconds=1), False),
    ],
)
def test_a_chain_holds_within_its_time_only(at: datetime, valid: bool) -> None:
    if valid:
        verify_chain(CHAIN, at=at)
    else:
        with pytest.raises(IdentityError, match="valid from"):
            verify_chain(CHAIN, at=at)


def test_another_authority_is_not_trusted() -> None:
    with pytest.raises(IdentityError, match="another exchange"):
        verify_chain(CHAIN, at=NOW, trusted_fingerprint=AWAY.fingerprint)


def test_an_authority_of_the_same_name_is_not_the_same() -> None:
    twin = Authority.create("home", now=NOW)
    with pytest.raises(IdentityError, match="not issued by"):
        verify_chain((NODE_DER, twin.certificate_der), at=NOW)


def test_a_node_is_no_authority() -> None:
    with pytest.raises(IdentityError, match="authority"):
        verify_chain((NODE_DER, NODE_DER), at=NOW)


@pytest.mark.parametrize("chain", [(), (NODE_DER,), (*CHAIN, AWAY.certificate_der)])
def test_a_chain_has_two_certificates(chain: tuple[bytes, ...]) -> None:
    with pytest.raises(IdentityError, match="2 certificates"):
        verify_chain(chain, at=NOW)


def test_an_authority_names_only_its_own_nodes() -> None:
    with pytest.raises(IdentityError, match="another exchange"):
        issue_node_certificate(AWAY, node_id=NODE, public_key=KEY.public_bytes, now=NOW)


def test_an_authority_that_names_others_nodes_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perak.wire.identity._exchange_of_node", lambda _: "away")
    forged = issue_node_certificate(AWAY, node_id=NODE, public_key=KEY.public_bytes, now=NOW)
    monkeypatch.undo()
    with pytest.raises(IdentityError, match="no right"):
        verify_chain((forged, AWAY.certificate_der), at=NOW)


def test_a_server_certificate_signs_nothing_here() -> None:
    server = issue_server_certificate(HOME, hosts=["localhost"], now=NOW)
    with pytest.raises(IdentityError, match="something else"):
        verify_chain((from_pem(server.chain_pem), HOME.certificate_der), at=NOW)


@pytest.mark.parametrize("name", ["", "Home", "a" * 32, "ex@change"])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(IdentityError):
        Authority.create(name, now=NOW)


def test_a_node_certificate_needs_a_node() -> None:
    with pytest.raises(InvalidInput, match="node"):
        issue_node_certificate(HOME, node_id="job-1@home", public_key=KEY.public_bytes, now=NOW)
    with pytest.raises(IdentityError, match="32 bytes"):
        issue_node_certificate(HOME, node_id=NODE, public_key=b"short", now=NOW)


GENUINE = verify_chain((NODE_DER, HOME.certificate_der), at=NOW)


@settings(deadline=None)
@given(garbage=st.binary(max_size=300), place=st.integers(min_value=0, max_value=len(NODE_DER) - 1))
def test_garbage_is_an_identity_error(garbage: bytes, place: int) -> None:
    with pytest.raises(InvalidInput):
        verify_chain((garbage, HOME.certificate_der), at=NOW)
    changed = NODE_DER[:place] + bytes([NODE_DER[place] ^ 1]) + NODE_DER[place + 1 :]
    # One bit is nobody's: how many bits of the signature's last byte are unused. It changes nothing it says.
    with contextlib.suppress(InvalidInput):
        assert verify_chain((changed, HOME.certificate_der), at=NOW) == GENUINE


@settings(deadline=None)
@given(place=st.integers(min_value=0, max_value=len(HOME.certificate_der) - 1), value=st.integers(0, 255))
def test_a_damaged_authority_is_an_identity_error(place: int, value: int) -> None:
    der = HOME.certificate_der
    with contextlib.suppress(InvalidInput):
        verify_chain((NODE_DER, der[:place] + bytes([value]) + der[place + 1 :]), at=NOW)


def test_an_authority_on_an_unknown_curve_is_an_identity_error() -> None:
    """Its key parses: that nobody can compute with it shows only when the signature is checked."""
    p256, unknown = bytes.fromhex("06082a8648ce3d030107"), bytes.fromhex("06082a8648ce3d030187")
    assert p256 in HOME.certificate_der
    with pytest.raises(IdentityError):
        verify_chain((NODE_DER, HOME.certificate_der.replace(p256, unknown)), at=NOW)


def test_an_authority_comes_back_from_its_files() -> None:
    again = Authority.from_pem(HOME.certificate_pem, HOME.key_pem)
    der = issue_node_certificate(again, node_id=NODE, public_key=KEY.public_bytes, now=NOW)
    assert verify_chain((der, HOME.certificate_der), at=NOW).subject_id == NODE
    with pytest.raises(IdentityError, match="does not belong"):
        Authority.from_pem(HOME.certificate_pem, AWAY.key_pem)
    with pytest.raises(IdentityError, match="damaged"):
        Authority.from_pem(b"", HOME.key_pem)


def test_a_chain_comes_back_from_its_pem() -> None:
    assert chain_from_pem(chain_to_pem(CHAIN)) == CHAIN
    for text in ("", "é", chain_to_pem(CHAIN)[:100]):
        with pytest.raises(IdentityError, match="not a chain"):
            chain_from_pem(text)


def test_a_fingerprint_is_the_same_for_both_forms() -> None:
    assert fingerprint(to_pem(NODE_DER)) == fingerprint(NODE_DER)
    assert fingerprint(HOME.certificate_pem) == HOME.fingerprint


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
def test_tls_clients_accept_a_server_certificate(host: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A whole handshake in memory, with the client's strictest checks and only our authority trusted."""
    now = datetime.now(UTC)  # OpenSSL has no other clock
    authority = Authority.create("home", now=now)
    server = issue_server_certificate(authority, hosts=["localhost", "127.0.0.1", "::1"], now=now)
    folder = tmp_path_factory.mktemp("tls")
    (folder / "chain.pem").write_bytes(server.chain_pem)
    (folder / "key.pem").write_bytes(server.key_pem)
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(folder / "chain.pem", folder / "key.pem")
    client_side = ssl.create_default_context(cadata=authority.certificate_pem.decode())
    client_side.verify_flags |= ssl.VERIFY_X509_STRICT
    assert _handshake(server_side, client_side, host) == "TLSv1.3"


def _handshake(server_side: ssl.SSLContext, client_side: ssl.SSLContext, host: str) -> str | None:
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_side.wrap_bio(down, up, server_hostname=host)
    server = server_side.wrap_bio(up, down, server_side=True)
    done: set[ssl.SSLObject] = set()
    for side in [client, server] * 4:
        try:
            side.do_handshake()
            done.add(side)
        except ssl.SSLWantReadError:
            continue
    assert done == {client, server}
    return client.version()


def test_a_seal_key_has_32_bytes() -> None:
    assert len(SealKey.generate().public_bytes) == 32

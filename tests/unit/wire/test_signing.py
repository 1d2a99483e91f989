"""Keys and JWS: what was signed comes back, and nothing else does."""

import base64
import json
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import OKPKey

from perak.wire.signing import (
    MAX_TOKEN_BYTES,
    RECEIPT_TYP,
    REPORT_TYP,
    SealKey,
    SignatureError,
    SigningKey,
    key_id,
    peek_header,
    sign,
    verify,
)

KEY = SigningKey.from_seed(bytes(32))
OTHER = SigningKey.from_seed(bytes([1]) * 32)

untimed = settings(deadline=None)  # the first example loads the libraries


@untimed
@given(payload=st.binary(max_size=2_000))
def test_what_was_signed_comes_back(payload: bytes) -> None:
    assert verify(sign(KEY, payload, typ=REPORT_TYP), KEY.public_bytes, typ=REPORT_TYP) == payload


@untimed
@given(payload=st.binary(max_size=200), chain=st.lists(st.binary(min_size=1, max_size=40), max_size=2))
def test_a_token_has_the_bytes_that_the_library_would_sign(payload: bytes, chain: list[bytes]) -> None:
    header: dict[str, object] = {"alg": "Ed25519", "kid": KEY.kid, "typ": REPORT_TYP}
    if chain:
        header["x5c"] = [base64.b64encode(der).decode() for der in chain]
    key = OKPKey.import_key(Ed25519PrivateKey.from_private_bytes(bytes(32)))
    theirs = jws.serialize_compact(header, payload, key, algorithms=["Ed25519"])
    assert sign(KEY, payload, typ=REPORT_TYP, chain=chain) == theirs


@untimed
@given(place=st.integers(min_value=0), letter=st.sampled_from("ABab01-_.= é"))
def test_any_changed_character_is_refused_or_harmless(place: int, letter: str) -> None:
    """A last base64 character has spare bits, so another text may decode alike; the payload never differs."""
    token = sign(KEY, b'{"seq":1}', typ=REPORT_TYP)
    place %= len(token)
    changed = token[:place] + letter + token[place + 1 :]
    try:
        assert verify(changed, KEY.public_bytes, typ=REPORT_TYP) == b'{"seq":1}'
    except SignatureError:
        return


def test_a_changed_payload_is_refused() -> None:
    header, _, signature = sign(KEY, b"paid 1", typ=REPORT_TYP).split(".")
    forged = f"{header}.{base64.urlsafe_b64encode(b'paid 2').decode().rstrip('=')}.{signature}"
    with pytest.raises(SignatureError, match="changed after signing"):
        verify(forged, KEY.public_bytes, typ=REPORT_TYP)


def test_another_key_is_refused() -> None:
    with pytest.raises(SignatureError, match="another key"):
        verify(sign(OTHER, b"x", typ=REPORT_TYP), KEY.public_bytes, typ=REPORT_TYP)


def test_a_report_never_passes_for_a_receipt() -> None:
    with pytest.raises(SignatureError, match="perak-receipt"):
        verify(sign(KEY, b"x", typ=REPORT_TYP), KEY.public_bytes, typ=RECEIPT_TYP)


@pytest.mark.parametrize("algorithm", ["none", "EdDSA", "HS256"])
def test_other_algorithms_are_refused(algorithm: str) -> None:
    _, payload, signature = sign(KEY, b"x", typ=REPORT_TYP).split(".")
    header = json.dumps({"alg": algorithm, "kid": KEY.kid, "typ": REPORT_TYP}).encode()
    token = f"{base64.urlsafe_b64encode(header).decode().rstrip('=')}.{payload}.{signature}"
    with pytest.raises(SignatureError):
        verify(token, KEY.public_bytes, typ=REPORT_TYP)
    with pytest.raises(SignatureError):
        peek_header(token)


@pytest.mark.parametrize(
    "extra",
    [
        {"crit": ["b64"], "b64": False},
        {"b64": False},
        {"jwk": {"kty": "OKP"}},
        {"jku": "https://example.org"},
        {"x5c": ["!"]},
        {"x5c": "AAAA"},
        {"typ": 1},
    ],
    ids=str,
)
def test_a_header_with_more_than_ours_is_refused(extra: dict[str, object]) -> None:
    header = json.dumps({"alg": "Ed25519", "kid": KEY.kid, "typ": REPORT_TYP} | extra).encode()
    signing_input = f"{base64.urlsafe_b64encode(header).decode().rstrip('=')}.eA"
    signature = KEY._private.sign(signing_input.encode())
    token = f"{signing_input}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"
    with pytest.raises(SignatureError):
        peek_header(token)
    if extra != {"x5c": ["!"]}:  # certificates are looked at by peek_header alone
        with pytest.raises(SignatureError):
            verify(token, KEY.public_bytes, typ=REPORT_TYP)


@untimed
@given(text=st.text(max_size=200))
def test_garbage_is_a_signature_error(text: str) -> None:
    with pytest.raises(SignatureError):
        verify(text, KEY.public_bytes, typ=REPORT_TYP)
    with pytest.raises(SignatureError):
        peek_header(text)


@untimed
@given(
    header=st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda x: st.lists(x, max_size=3))
)
def test_a_header_of_any_json_is_a_signature_error(header: object) -> None:
    token = f"{base64.urlsafe_b64encode(json.dumps(header).encode()).decode().rstrip('=')}.e30.AAAA"
    with pytest.raises(SignatureError):
        verify(token, KEY.public_bytes, typ=REPORT_TYP)
    with pytest.raises(SignatureError):
        peek_header(token)


def test_a_huge_token_is_not_parsed() -> None:
    with pytest.raises(SignatureError, match="at most"):
        verify("a" * (MAX_TOKEN_BYTES + 1), KEY.public_bytes, typ=REPORT_TYP)


def test_the_header_names_the_key_and_carries_the_chain() -> None:
    header = peek_header(sign(KEY, b"x", typ=REPORT_TYP, chain=[b"leaf" * 200, b"root" * 200]))
    assert (header.kid, header.typ) == (KEY.kid, REPORT_TYP)
    assert header.chain == (b"leaf" * 200, b"root" * 200)


def test_the_key_id_is_the_thumbprint_of_rfc_8037() -> None:
    """Appendix A.3 of RFC 8037 gives this key and its RFC 7638 thumbprint."""
    public_key = base64.urlsafe_b64decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo=")
    assert key_id(public_key) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


@pytest.mark.parametrize("kind", [SigningKey, SealKey])
def test_a_key_is_kept_for_its_owner_only(kind: type[SigningKey] | type[SealKey], tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    key = kind.generate()
    key.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert kind.load(path).public_bytes == key.public_bytes
    assert [found.name for found in tmp_path.iterdir()] == ["key.pem"]


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    KEY.save(tmp_path / "key.pem")
    with pytest.raises(FileExistsError):
        OTHER.save(tmp_path / "key.pem")
    assert SigningKey.load(tmp_path / "key.pem").public_bytes == KEY.public_bytes


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    KEY.save(path)
    path.chmod(0o644)
    with pytest.raises(SignatureError, match="chmod 600"):
        SigningKey.load(path)


def test_keys_of_the_wrong_kind_are_named(tmp_path: Path) -> None:
    SealKey.generate().save(tmp_path / "seal.pem")
    with pytest.raises(SignatureError, match="Ed25519"):
        SigningKey.load(tmp_path / "seal.pem")
    KEY.save(tmp_path / "sign.pem")
    with pytest.raises(SignatureError, match="X25519"):
        SealKey.load(tmp_path / "sign.pem")


def test_a_key_does_not_show_itself() -> None:
    assert KEY._private.private_bytes_raw().hex() not in repr(KEY)

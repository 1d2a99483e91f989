"""age files: what is written opens with the key, with `age` itself, and with nothing else."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perak.client import encryption as own
from perak.client.errors import ConfigError, PerakError
from perak.wire.encryption import MAGIC, EncryptionError, Key, check_recipient, decrypt, encrypt


def sealed(plain: bytes, *keys: Key) -> bytes:
    target = io.BytesIO()
    made = encrypt(io.BytesIO(plain), target, to=[key.recipient for key in keys])
    assert made.size_bytes == len(target.getvalue())
    assert made.digest == f"sha256:{hashlib.sha256(target.getvalue()).hexdigest()}"
    return target.getvalue()


def opened(text: bytes, key: Key) -> bytes:
    target = io.BytesIO()
    decrypt(io.BytesIO(text), target, identity=key.identity)
    return target.getvalue()


@given(plain=st.binary(max_size=200_000))
def test_either_key_opens_it_and_another_does_not(plain: bytes) -> None:
    first, second, other = (Key.generate() for _ in range(3))
    text = sealed(plain, first, second)
    assert text.startswith(MAGIC)
    assert opened(text, first) == opened(text, second) == plain
    with pytest.raises(EncryptionError, match="does not open"):
        opened(text, other)
    with pytest.raises(EncryptionError):
        opened(text[:-1], first)


def test_a_mistyped_recipient_is_noticed() -> None:
    good = Key.generate().recipient
    assert check_recipient(good) == good
    bad = good[:-1] + ("q" if good[-1] != "q" else "p")
    for text in (bad, "age1", "", "AGE-SECRET-KEY-1"):
        with pytest.raises(EncryptionError, match="no age recipient"):
            check_recipient(text)


def test_a_key_does_not_show_its_private_half() -> None:
    key = Key.generate()
    assert key.identity not in repr(key)


@pytest.mark.skipif(shutil.which("age") is None, reason="age is not installed (Debian: apt install age)")
def test_age_itself_opens_what_we_write_and_we_what_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    key = own.own_key()
    (tmp_path / "ours").write_bytes(sealed(b"what we wrote", key))
    age = ["age", "--decrypt", "--identity", str(own.key_file()), str(tmp_path / "ours")]
    assert subprocess.run(age, capture_output=True, check=True).stdout == b"what we wrote"
    theirs = subprocess.run(
        ["age", "--recipient", key.recipient], input=b"what it wrote", capture_output=True, check=True
    )
    assert opened(theirs.stdout, key) == b"what it wrote"


def test_ones_own_key_is_made_once_and_kept_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    target = io.BytesIO()
    with pytest.raises(PerakError, match="no key on this machine"):
        own.decrypt_own(io.BytesIO(sealed(b"x", Key.generate())), target)
    key = own.own_key()
    assert own.own_key() == key
    assert own.key_file().stat().st_mode & 0o777 == 0o600
    own.decrypt_own(io.BytesIO(sealed(b"x", key)), target)
    assert target.getvalue() == b"x"
    own.key_file().chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        own.own_key()
    own.key_file().chmod(0o600)
    own.key_file().write_text("nonsense\n")
    with pytest.raises(ConfigError, match="age identity"):
        own.own_key()

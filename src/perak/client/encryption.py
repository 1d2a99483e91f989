"""The renter's own key: made when it is first needed, kept on this machine, and never sent.

The file is what `age-keygen` writes, so that ``age -d -i age.key`` opens what comes back, without Perak.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path
from typing import BinaryIO

from perak.client.errors import ConfigError, PerakError
from perak.client.paths import config_file
from perak.wire.encryption import EncryptionError, Key, decrypt

FILE = "age.key"


def key_file() -> Path:
    """Beside the profiles."""
    return config_file().with_name(FILE)


def own_key() -> Key:
    """The key of this user on this machine, made if there is none. Raises ConfigError."""
    return _load() or _make()


def decrypt_own(source: BinaryIO, target: BinaryIO) -> None:
    """Open what was encrypted to this user. Raises PerakError."""
    key = _load()
    try:
        if key is None:
            raise EncryptionError("there is no key on this machine")
        decrypt(source, target, identity=key.identity)
    except EncryptionError as error:
        raise PerakError(
            f"The outputs are encrypted and can't be opened here: {error.detail}. Bring the key of whoever "
            f"submitted the job to {key_file()}, or download there.",
            code="encrypted",
        ) from None


def _load() -> Key | None:
    path = key_file()
    try:
        with path.open("rb") as stream:
            mode, text = stat.S_IMODE(os.fstat(stream.fileno()).st_mode), stream.read(4096).decode()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} can't be read ({error}); it holds your key for `encrypt`") from None
    if mode & 0o077:
        raise ConfigError(f"{path} holds a key and can be read by others. Run: chmod 600 {path}")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    try:
        (identity,) = lines
        return Key.of(identity)
    except (ValueError, EncryptionError):
        raise ConfigError(f"{path} does not hold one age identity; restore it, or move it away") from None


def _make() -> Key:
    """Whole or not at all, and one only: of two at once, the first stays."""
    path, key = key_file(), Key.generate()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(handle, "w") as stream:
            stream.write(f"# public key: {key.recipient}\n{key.identity}\n")
            stream.flush()
            os.fsync(stream.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        os.unlink(draft)
    kept = _load()
    assert kept is not None, "it was written above"
    return kept

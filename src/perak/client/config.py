"""Which exchange to talk to, with which key, and whose certificate to expect.

What is given in the call comes first, then PERAK_URL, PERAK_API_KEY and PERAK_PROFILE, then the default
profile, then a `perak up` that runs on this machine. A key kept for one URL is never sent to another.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from perak.client.errors import ConfigError
from perak.client.paths import config_file, local_file

FILE_BYTES_MAX = 2**20
"""A profile takes about 1 kB."""
NAME_MAX = 63

_NO_EXCHANGE = (
    "It is not known which exchange to use. Start one on this machine with `perak up`, or choose one with "
    "`perak login URL`, or set PERAK_URL and PERAK_API_KEY."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An exchange as a client needs it. `ca_certificate` (PEM) is the only authority trusted, if given."""

    url: str
    api_key: str | None = None
    ca_certificate: str | None = None
    source: str = "given"
    """What chose it, for people: given, PERAK_URL, profile NAME, perak up."""

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.url)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What `perak login` remembers of an exchange."""

    url: str
    api_key: str
    ca_fingerprint: str | None = None
    ca_certificate: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiles:
    """The file of profiles."""

    default: str | None = None
    by_name: Mapping[str, Profile] = field(default_factory=dict)


def resolve(*, url: str | None = None, api_key: str | None = None, profile: str | None = None) -> Target:
    """The exchange to use. Raises ConfigError if there is none or what is kept can't be read."""
    env_url, env_key = os.environ.get("PERAK_URL") or None, os.environ.get("PERAK_API_KEY") or None
    if profile is None and url is None and env_url is None:
        profile, api_key = os.environ.get("PERAK_PROFILE") or None, api_key or env_key
    if profile is not None:
        kept = _named(load_profiles(), profile)
        given = url or kept.url
        same = normal_url(given) == kept.url
        return _target(given, api_key or (kept.api_key if same else env_key), kept if same else None, profile)
    given_url = url or env_url
    if given_url is None:
        return _from_this_machine(api_key or env_key)
    return _for_url(normal_url(given_url), api_key or env_key, "given" if url else "PERAK_URL")


def normal_url(url: str) -> str:
    """``http(s)://host[:port]`` without what follows. Raises ConfigError."""
    text = url if "://" in url else f"{'http' if is_loopback(f'//{url}') else 'https'}://{url}"
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        valid = False
    if not valid or parts.query or parts.fragment or parts.username is not None:
        raise ConfigError(
            f"{url!r} is not the address of an exchange; write it like https://perak.example.org"
        )
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}"


def is_loopback(url: str) -> bool:
    """Whether the address never leaves this machine."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    return host == "localhost" or host == "::1" or host.startswith("127.")


def load_profiles() -> Profiles:
    """What `perak login` wrote; empty if it never did. Raises ConfigError."""
    path = config_file()
    text = _read_private(path)
    if text is None:
        return Profiles()
    try:
        tree = tomllib.loads(text)
        kept = {name: _profile(block) for name, block in tree.get("profiles", {}).items()}
        default = tree.get("default")
    except (tomllib.TOMLDecodeError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"{path} can't be understood ({error}). Repair it, or remove it and `perak login` again."
        ) from None
    return Profiles(default=default if default in kept else None, by_name=kept)


def save_profile(name: str, profile: Profile) -> Path:
    """Keep `profile` under `name` and make it the default; the file is readable by its user only."""
    if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii() or len(name) > NAME_MAX:
        raise ConfigError(f"{name!r} is not a name for a profile; use letters, digits, '-' and '_'")
    kept = {**load_profiles().by_name, name: profile}
    lines = [f"default = {json.dumps(name)}", ""]
    for each, values in kept.items():
        lines.append(f"[profiles.{each}]")
        lines += [
            # JSON's strings are TOML's basic strings for all that a URL, a key or a PEM can hold.
            f"{key} = {json.dumps(value)}"
            for key in ("url", "api_key", "ca_fingerprint", "ca_certificate")
            if (value := getattr(values, key)) is not None
        ]
        lines.append("")
    path = config_file()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    _write_private(path, "\n".join(lines))
    return path


def local_exchange() -> Target | None:
    """The `perak up` that runs on this machine for this user, if there is one."""
    path = local_file()
    try:
        text = _read_private(path)
        if text is None:
            return None
        tree = json.loads(text)
        if not _is_alive(int(tree["pid"])):
            return None
        return Target(
            url=normal_url(tree["url"]),
            api_key=str(tree["api_key"]),
            ca_certificate=tree.get("ca_certificate"),
            source="perak up",
        )
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{path} can't be understood ({error!r}). Restart `perak up`.") from None


def _from_this_machine(api_key: str | None) -> Target:
    """The default profile, else a local `perak up`."""
    profiles = load_profiles()
    if profiles.default is not None:
        kept = profiles.by_name[profiles.default]
        return _target(kept.url, api_key or kept.api_key, kept, profiles.default)
    local = local_exchange()
    if local is None:
        raise ConfigError(_NO_EXCHANGE)
    return Target(
        url=local.url,
        api_key=api_key or local.api_key,
        ca_certificate=local.ca_certificate,
        source=local.source,
    )


def _for_url(url: str, api_key: str | None, source: str) -> Target:
    """What is kept for `url`, with `api_key` before the kept one."""
    if api_key is not None and url.startswith("http:"):
        return Target(url=url, api_key=api_key, source=source)  # Nothing that is kept could add to it.
    for kept in load_profiles().by_name.values():
        if kept.url == url:
            return Target(
                url=url, api_key=api_key or kept.api_key, ca_certificate=kept.ca_certificate, source=source
            )
    local = local_exchange() if is_loopback(url) else None
    if local is not None and local.url == url:
        return Target(
            url=url, api_key=api_key or local.api_key, ca_certificate=local.ca_certificate, source=source
        )
    return Target(url=url, api_key=api_key, source=source)


def _target(url: str, api_key: str | None, kept: Profile | None, name: str) -> Target:
    return Target(
        url=normal_url(url),
        api_key=api_key,
        ca_certificate=kept.ca_certificate if kept else None,
        source=f"profile {name}",
    )


def _named(profiles: Profiles, name: str) -> Profile:
    if name not in profiles.by_name:
        known = ", ".join(profiles.by_name) or "none"
        raise ConfigError(
            f"There is no profile {name!r} (known: {known}). Make it with `perak login URL --as {name}`."
        )
    return profiles.by_name[name]


def _profile(block: Mapping[str, str]) -> Profile:
    return Profile(
        url=normal_url(block["url"]),
        api_key=block["api_key"],
        ca_fingerprint=block.get("ca_fingerprint"),
        ca_certificate=block.get("ca_certificate"),
    )


def _read_private(path: Path) -> str | None:
    """The text of a file that holds a key, or None. Raises ConfigError if others could read or change it."""
    try:
        with path.open("rb") as stream:
            status = os.fstat(stream.fileno())
            data = stream.read(FILE_BYTES_MAX)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    if status.st_uid not in (0, os.geteuid()):
        raise ConfigError(f"{path} belongs to another user and is not trusted. Remove it.")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise ConfigError(f"{path} holds a key and can be read by others. Run: chmod 600 {path}")
    return data.decode(errors="replace")


def _write_private(path: Path, text: str) -> None:
    """Replace the file as a whole; mkstemp makes it mode 0600."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as stream:
            stream.write(text)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

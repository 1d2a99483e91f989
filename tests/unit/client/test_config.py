"""Which exchange is used, and that a key never goes anywhere else."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from perak.client import config, paths
from perak.client.config import Profile, Target, resolve, save_profile
from perak.client.errors import ConfigError

HOME = Profile(url="https://home.example", api_key="home-key", ca_certificate="PEM\nhome", ca_fingerprint="f")
WORK = Profile(url="https://work.example:8470", api_key="work-key")


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("PERAK_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("PERAK_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "state").mkdir()
    return tmp_path


def local_up(pid: int | None = None, mode: int = 0o600) -> None:
    file = paths.local_file()
    told = {"url": "http://127.0.0.1:8470", "api_key": "local-key", "pid": pid or os.getpid()}
    file.write_text(json.dumps(told))
    file.chmod(mode)


def two_profiles() -> None:
    save_profile("work", WORK)
    save_profile("home", HOME)


def test_nothing_known_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"perak up.*perak login"):
        resolve()


def test_a_local_perak_is_found_by_itself() -> None:
    local_up()

    assert resolve() == Target(url="http://127.0.0.1:8470", api_key="local-key", source="perak up")


def test_a_local_perak_that_ended_is_not() -> None:
    local_up(pid=2**22 + 1)

    with pytest.raises(ConfigError, match="not known which exchange"):
        resolve()


def test_the_profile_of_the_last_login_comes_before_it() -> None:
    local_up()
    two_profiles()

    assert resolve() == Target(
        url=HOME.url, api_key="home-key", ca_certificate="PEM\nhome", source="profile home"
    )


def test_the_environment_comes_before_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    two_profiles()
    monkeypatch.setenv("PERAK_PROFILE", "work")
    assert resolve().url == WORK.url
    monkeypatch.setenv("PERAK_URL", "https://third.example/")
    monkeypatch.setenv("PERAK_API_KEY", "env-key")

    assert resolve() == Target(url="https://third.example", api_key="env-key", source="PERAK_URL")


def test_what_is_given_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    two_profiles()
    monkeypatch.setenv("PERAK_URL", "https://third.example")
    monkeypatch.setenv("PERAK_API_KEY", "env-key")

    assert resolve(url="https://fourth.example", api_key="given").api_key == "given"
    assert resolve(profile="work").api_key == "work-key"
    assert resolve(profile="work", api_key="given").api_key == "given"


def test_a_kept_key_goes_to_its_own_exchange_only() -> None:
    two_profiles()
    local_up()

    assert resolve(url="https://evil.example").api_key is None
    assert resolve(url="https://evil.example", profile="home").api_key is None
    assert resolve(url="https://evil.example", profile="home").ca_certificate is None
    assert resolve(url="HTTPS://Home.example/").api_key == "home-key"
    assert resolve(url="http://127.0.0.1:8470").api_key == "local-key"
    assert resolve(url="http://127.0.0.1:8471").api_key is None


def test_a_broken_file_is_no_hindrance_where_all_is_given() -> None:
    save_profile("home", HOME).write_text("default = ")

    assert resolve(url="http://127.0.0.1:1", api_key="given").api_key == "given"


def test_an_unknown_profile_names_the_known() -> None:
    two_profiles()

    with pytest.raises(ConfigError, match=r"known: work, home"):
        resolve(profile="nope")


def test_files_with_keys_are_private() -> None:
    path = save_profile("home", HOME)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        resolve()
    path.unlink()
    local_up(mode=0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        resolve()


@pytest.mark.parametrize("text", ["default = ", "[profiles.a]\nurl = 3\n", "profiles = 3\n"])
def test_a_broken_file_says_so(text: str) -> None:
    path = save_profile("home", HOME)
    path.write_text(text)

    with pytest.raises(ConfigError):
        resolve()


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("localhost:8470", "http://localhost:8470"),
        ("127.0.0.1:8470/", "http://127.0.0.1:8470"),
        ("perak.example", "https://perak.example"),
        ("https://Perak.Example:443/Base/", "https://perak.example:443/Base"),
    ],
)
def test_addresses_are_understood(given: str, url: str) -> None:
    assert config.normal_url(given) == url


@pytest.mark.parametrize(
    "given", ["", "ftp://x", "https://", "https://u:p@x", "https://x?y", "http://x:99999"]
)
def test_what_is_no_address_is_refused(given: str) -> None:
    with pytest.raises(ConfigError, match="not the address"):
        config.normal_url(given)


def test_state_lies_where_the_system_expects_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PERAK_STATE_DIR")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert paths.state_dir() == Path("/state/perak")
    monkeypatch.setenv("XDG_STATE_HOME", "relative is to be ignored")
    assert paths.state_dir() == Path.home() / ".local/state/perak"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert paths.state_dir() == Path("/var/lib/perak")

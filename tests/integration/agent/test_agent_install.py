"""The agent as a service: a stand-in for systemctl records what it is told, and real folders and links."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from perak.agent.install import UNIT, Places, Systemctl, install, uninstall, unit_text, upgrade
from perak.domain.errors import Conflict, InvalidInput

SYSTEMCTL = """#!/bin/sh
echo "$@" >> {calls}
case "$*" in
*is-active*) if [ -e {current}/broken ]; then echo activating; exit 3; else echo active; fi;;
esac
"""


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    places = Places(unit=tmp_path / "units" / UNIT, software=tmp_path / "software", state=tmp_path / "state")
    tools = tmp_path / "tools"
    tools.mkdir()
    script = tools / "systemctl"
    script.write_text(SYSTEMCTL.format(calls=tmp_path / "calls", current=places.current))
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    return places


def good(folder: Path) -> None:
    (folder / "bin").mkdir(parents=True)
    perak = folder / "bin/perak"
    perak.write_text("#!/bin/sh\n")
    perak.chmod(0o755)


def broken(folder: Path) -> None:
    good(folder)
    (folder / "broken").touch()


def calls(places: Places) -> list[str]:
    return (places.software.parent / "calls").read_text().splitlines()


def installed(places: Places, **more: str | None) -> bool:
    invite = more.get("invite")
    return install(
        places, ["--region", "DE"], invite=invite, make=good, systemctl=Systemctl(user=False), ready_seconds=1
    )


def test_it_is_enabled_and_started_and_the_invite_is_in_no_file_after(places: Places) -> None:
    assert installed(places, invite="perak1.secret")
    assert calls(places)[:2] == ["daemon-reload", f"enable {UNIT}"]
    assert f"restart --no-block {UNIT}" in calls(places)
    text = places.unit.read_text()
    assert "KillMode=process" in text
    assert "secret" not in text
    assert not places.invite_file.exists()


def test_an_upgrade_switches_and_keeps_the_version_before(places: Places) -> None:
    installed(places)
    first = places.current.resolve()
    new = upgrade(places, make=good, systemctl=Systemctl(user=False), ready_seconds=1)
    assert places.current.resolve() == new != first
    assert first.exists()
    upgrade(places, make=good, systemctl=Systemctl(user=False), ready_seconds=1)
    assert not first.exists()


def test_an_upgrade_that_does_not_come_up_is_taken_back(places: Places) -> None:
    installed(places)
    first = places.current.resolve()
    with pytest.raises(Conflict, match="the old one is back and runs again"):
        upgrade(places, make=broken, systemctl=Systemctl(user=False), ready_seconds=0.3)
    assert places.current.resolve() == first
    assert list(places.software.glob("version-*")) == [first]


def test_a_version_that_can_not_be_installed_changes_nothing(places: Places) -> None:
    installed(places)
    before, told = places.current.resolve(), len(calls(places))

    def fails(folder: Path) -> None:
        folder.mkdir()
        raise InvalidInput("no such version")

    with pytest.raises(InvalidInput):
        upgrade(places, make=fails, systemctl=Systemctl(user=False))
    assert places.current.resolve() == before
    assert len(calls(places)) == told
    assert list(places.software.glob("version-*")) == [before]


@pytest.mark.parametrize("purge", [False, True])
def test_removal_leaves_the_keys_unless_they_are_to_go(places: Places, purge: bool) -> None:
    installed(places)
    (places.state / "key").touch()
    uninstall(places, systemctl=Systemctl(user=False), purge=purge)
    assert f"disable --now {UNIT}" in calls(places)
    assert not places.unit.exists()
    assert not list(places.software.iterdir())
    assert (places.state / "key").exists() is not purge


@pytest.mark.parametrize("system", [True, False])
def test_systemd_finds_nothing_wrong_with_the_unit(places: Places, system: bool) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    installed(places)
    places.unit.write_text(unit_text(places, ["--name", "a b%c$d"], system=system))
    command = ["systemd-analyze", *([] if system else ["--user"]), "verify", "--man=no", places.unit]
    environment = os.environ | {"XDG_RUNTIME_DIR": str(places.state)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    about = [line for line in done.stderr.splitlines() if UNIT in line]
    assert (done.returncode, about) == (0, []), done.stderr

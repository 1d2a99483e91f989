"""The agent as a service of systemd: its unit, versions side by side, upgrade with a way back, removal."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from perak.domain.errors import Conflict, InvalidInput, Unavailable

UNIT = "perak-agent.service"
CURRENT = "current"
READY_SECONDS_MAX = 90.0
"""A start with a cold disk takes some ten seconds; after this the old version is taken back."""
LOOK_SECONDS = 0.5
VERSIONS_KEPT = 2
"""The one that runs, and the one before, to go back to by hand."""
SYSTEMCTL_SECONDS_MAX = 120.0
INSTALL_SECONDS_MAX = 900.0
"""Some 60 MB of wheels over a slow line."""

_SYSTEM_ONLY = """\
# Nothing here may give the service a mount namespace of its own (ProtectSystem=, PrivateTmp= and the like):
# an agent that starts again must see the mounts of the runs that live on.
CapabilityBoundingSet=~CAP_SYS_MODULE CAP_SYS_TIME CAP_SYS_BOOT CAP_SYSLOG CAP_MAC_ADMIN CAP_WAKE_ALARM
SystemCallArchitectures=native
StateDirectory=perak
StateDirectoryMode=0711
"""
_TEMPLATE = """\
[Unit]
Description=Perak agent: offers this machine's devices on an exchange
Documentation=https://github.com/perak/perak/tree/main/docs/provider.md
{network}StartLimitIntervalSec=0

[Service]
# Ready when the exchange has the offer; that may be a while where it is away.
Type=notify
TimeoutStartSec=infinity
EnvironmentFile=-{invite_file}
ExecStart={command}
Restart=always
RestartSec=2
# The exchange turned the node away, or a setting is wrong: trying again would change nothing.
RestartPreventExitStatus=77 78
# Runs live in shims of their own and outlive the agent.
KillMode=process
OOMPolicy=continue
Delegate=yes
TasksMax=infinity
{hardening}
[Install]
WantedBy={target}
"""


def _as_root() -> bool:
    return os.geteuid() == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where things go: the system's folders for root, the user's own (XDG) otherwise."""

    unit: Path
    software: Path
    state: Path

    @classmethod
    def default(cls, state: Path) -> Places:
        if _as_root():
            return cls(unit=Path("/etc/systemd/system") / UNIT, software=Path("/opt/perak"), state=state)
        config = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
        data = Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser()
        return cls(unit=config / "systemd/user" / UNIT, software=data / "perak", state=state)

    @property
    def invite_file(self) -> Path:
        """Beside the state folder's keys, for the first start only: an invite must not stand in the unit."""
        return self.state / "invite.env"

    @property
    def current(self) -> Path:
        return self.software / CURRENT


@dataclass(frozen=True, slots=True)
class Systemctl:
    """systemd, by its own command. Raises Unavailable where that is missing, InvalidInput if it refuses."""

    user: bool = field(default_factory=lambda: not _as_root())

    def __call__(self, *args: str) -> str:
        done = self._run(*args)
        if done.returncode:
            said = (done.stderr or done.stdout).strip()[:500]
            raise InvalidInput(f"systemctl {' '.join(args)} failed: {said}")
        return done.stdout.strip()

    def state(self) -> str:
        """active, activating, failed, inactive."""
        return self._run("is-active", UNIT).stdout.strip() or "unknown"

    def _run(self, *args: str) -> subprocess.CompletedProcess[str]:
        command = ["systemctl", *(["--user"] if self.user else []), *args]
        try:
            return subprocess.run(
                command, check=False, capture_output=True, text=True, timeout=SYSTEMCTL_SECONDS_MAX
            )
        except FileNotFoundError:
            raise Unavailable(
                "there is no systemctl here; run `perak agent` under the supervisor that you have"
            ) from None
        except subprocess.TimeoutExpired:
            raise Unavailable(
                f"systemctl {args[0]} did not end within {SYSTEMCTL_SECONDS_MAX:.0f} s"
            ) from None


MakeVersion = Callable[[Path], None]
"""Installs Perak into a new folder as a virtual environment."""


def unit_text(places: Places, options: list[str], *, system: bool) -> str:
    """The unit file. `options` go to `perak agent` as they are."""
    command = [str(places.current / "bin/perak"), "agent", "--state-dir", str(places.state), *options]
    network = "Wants=network-online.target\nAfter=network-online.target\n" if system else ""
    return _TEMPLATE.format(
        network=network,
        invite_file=str(places.invite_file).replace("%", "%%"),
        command=" ".join(_quoted(part) for part in command),
        hardening=_SYSTEM_ONLY if system else "",
        target="multi-user.target" if system else "default.target",
    )


def install(
    places: Places,
    options: list[str],
    *,
    invite: str | None,
    make: MakeVersion,
    systemctl: Systemctl,
    ready_seconds: float = READY_SECONDS_MAX,
) -> bool:
    """Install, enable and start the service; whether it was ready in time. Safe to repeat."""
    text = unit_text(places, options, system=not systemctl.user)
    if not places.current.exists():
        _switch(places, _new_version(places, make))
    places.state.mkdir(parents=True, exist_ok=True)
    if invite is not None:
        _write_private(places.invite_file, f"PERAK_INVITE={invite}\n")
    places.unit.parent.mkdir(parents=True, exist_ok=True)
    places.unit.write_text(text)
    systemctl("daemon-reload")
    systemctl("enable", UNIT)
    ready = _restarted(systemctl, ready_seconds)
    if ready:
        places.invite_file.unlink(missing_ok=True)
    return ready


def upgrade(
    places: Places, *, make: MakeVersion, systemctl: Systemctl, ready_seconds: float = READY_SECONDS_MAX
) -> Path:
    """Install a new version beside the old one and switch to it; and back, if it isn't ready in time.

    The runs live on meanwhile. Raises Conflict where the new version did not come up.
    """
    if not places.current.exists():
        raise InvalidInput("nothing is installed here yet; `perak agent install` does it")
    old = places.current.resolve()
    new = _new_version(places, make)
    _switch(places, new)
    if not _restarted(systemctl, ready_seconds):
        _switch(places, old)
        back = _restarted(systemctl, ready_seconds)
        shutil.rmtree(new)
        state = "runs again" if back else "is not ready either: is the exchange away?"
        raise Conflict(
            f"the new version was not ready within {ready_seconds:.0f} s; the old one is back and {state} "
            f"The log says why: journalctl {'--user ' if systemctl.user else ''}-u {UNIT}"
        )
    for folder in _versions(places)[:-VERSIONS_KEPT]:
        if folder != old:
            shutil.rmtree(folder)
    return new


def uninstall(places: Places, *, systemctl: Systemctl, purge: bool) -> None:
    """Stop the service and remove it and its software; with `purge` also keys, journal and runs."""
    with contextlib.suppress(InvalidInput):
        systemctl("disable", "--now", UNIT)
    places.unit.unlink(missing_ok=True)
    systemctl("daemon-reload")
    for folder in _versions(places):
        shutil.rmtree(folder)
    places.current.unlink(missing_ok=True)
    places.invite_file.unlink(missing_ok=True)
    if purge:
        shutil.rmtree(places.state, ignore_errors=True)


def make_version(requirement: str) -> MakeVersion:
    """With uv: a virtual environment that has `requirement`, like ``perak[agent]==0.2.0`` or a wheel."""

    def make(folder: Path) -> None:
        from uv import find_uv_bin

        uv = os.fsdecode(find_uv_bin())
        _uv([uv, "venv", "--quiet", str(folder)])
        _uv([uv, "pip", "install", "--quiet", "--python", str(folder / "bin/python"), requirement])

    return make


def _uv(command: list[str]) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=INSTALL_SECONDS_MAX)
    if done.returncode:
        raise InvalidInput(f"the new version could not be installed: {done.stderr.strip()[-500:]}")


def _new_version(places: Places, make: MakeVersion) -> Path:
    places.software.mkdir(parents=True, exist_ok=True)
    folder = places.software / f"version-{time.time_ns()}"
    try:
        make(folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def _versions(places: Places) -> list[Path]:
    return sorted(places.software.glob("version-*"))


def _switch(places: Places, to: Path) -> None:
    """Point `current` at a version, in one step (rename(2))."""
    link = places.software / f".{CURRENT}"
    link.unlink(missing_ok=True)
    link.symlink_to(to)
    link.replace(places.current)


def _restarted(systemctl: Systemctl, seconds: float) -> bool:
    """Restart; whether the service was ready in time. `activating` is the time before it says READY=1."""
    with contextlib.suppress(InvalidInput):
        systemctl("reset-failed", UNIT)
    systemctl("restart", "--no-block", UNIT)
    deadline = time.monotonic() + seconds
    while True:
        time.sleep(min(LOOK_SECONDS, seconds / 10))
        state = systemctl.state()
        if state == "active":
            return True
        if state == "failed" or time.monotonic() > deadline:
            return False


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _quoted(part: str) -> str:
    """As systemd.service(5) reads it: in quotes, `%` and `$` doubled."""
    if any(ord(character) < 32 for character in part):
        raise InvalidInput("an option of a service holds no line breaks")
    escaped = part.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if any(character in " \\\"';" for character in part) else escaped

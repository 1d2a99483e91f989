"""Lay Debian 13's runsc beside the project, where the machine's own is too old for the tier `gvisor`.

``python scripts/newer_runsc.py FOLDER`` writes FOLDER/runsc, from the archive that the machine's apt uses,
checked by apt with Debian's own keys. Nothing is installed, and it takes no root. Says why where it can't.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

SUITE = "trixie"
"""Its runsc is of July 2024. That of `sid` is built with a Go that it does not know, and crashes."""
OLDEST = 2023
"""Releases before that year have no systrap, and refuse statx to ordinary programs."""
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
SECONDS = 120.0


def main(folder: Path) -> str:
    """What was done, or why nothing was."""
    program = folder / "runsc"
    if program.exists():
        return f"{program} is there"
    if (found := shutil.which("runsc")) and year_of(found) >= OLDEST:
        return f"{found} is new enough"
    if shutil.which("apt-get") is None or not Path(KEYS).exists():
        return "no newer runsc: this is no Debian"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        fetch(folder.resolve())
    except subprocess.TimeoutExpired:
        return f"no newer runsc: the archive took longer than {SECONDS:g} s"
    except (OSError, RuntimeError) as error:
        return f"no newer runsc: {error}"
    return f"{program} is laid out"


def year_of(program: str) -> int:
    """Of the release, by its word for itself, such as `release-20240729.0` or `0.0~20221219.0`; else 0."""
    said = run(program, "--version").partition("\n")[0]
    digits = said.replace("~", "-").rpartition("-")[2][:4]
    return int(digits) if digits.isdecimal() else 0


def fetch(folder: Path) -> None:
    """By an apt of its own, that knows one suite of the archive and keeps everything in the folder."""
    archives = run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages").split()
    archive = next((each for each in archives if each.rstrip("/").endswith("/debian")), None)
    if archive is None:
        raise RuntimeError("apt knows no archive of Debian's")
    parts = folder / "apt"
    for name in ("lists/partial", "archives/partial"):
        (parts / name).mkdir(parents=True, exist_ok=True)
    (parts / "sources.list").write_text(f"deb [signed-by={KEYS}] {archive} {SUITE} main\n")
    settings = {
        "Dir::Etc::SourceList": parts / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::Etc::Preferences": "/dev/null",
        "Dir::Etc::PreferencesParts": "/dev/null",
        "Dir::State::Lists": parts / "lists",
        "Dir::Cache": parts,
        "Acquire::Languages": "none",
    }
    apt = ["apt-get", "-qq"] + [
        part for name, value in settings.items() for part in ("-o", f"{name}={value}")
    ]
    if os.geteuid() == 0:  # its helper user can't enter our folder
        apt += ["-o", "APT::Sandbox::User=root"]
    run(*apt, "update", cwd=parts)
    run(*apt, "download", "runsc", cwd=parts)
    (package,) = parts.glob("runsc_*.deb")
    run("dpkg-deb", "-x", str(package), str(parts / "runsc"))
    (parts / "runsc" / "usr" / "bin" / "runsc").rename(folder / "runsc")
    shutil.rmtree(parts)


def run(*command: str, cwd: Path | None = None) -> str:
    """What it printed. Raises RuntimeError with its last words where it failed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS, cwd=cwd)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} failed: {done.stderr.strip()[-300:]}")
    return done.stdout


if __name__ == "__main__":
    print(main(Path(sys.argv[1])))

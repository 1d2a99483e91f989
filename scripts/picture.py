"""Draw docs/demo.svg: the terminal of a real `make demo`, as it ran on this machine just now.

Long runs of lines of one kind are shortened, which the picture says; nothing else is changed.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 126
KEPT_OF_A_KIND = 2
"""Lines shown at each end of a run of lines that differ in figures only."""
SHORTENED_FROM = 7


def main() -> None:
    said = in_a_terminal([sys.executable, str(ROOT / "scripts" / "demo.py")])
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print("[dim]$ make demo[/]")
    for line in shortened(said.replace(str(ROOT) + "/", "").splitlines()):
        console.print(Text.from_ansi(line))
    console.save_svg(str(ROOT / "docs" / "demo.svg"), title="make demo")


def in_a_terminal(command: list[str]) -> str:
    """What a command writes to a terminal of WIDTH columns, without control codes but those of colour."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, WIDTH, 0, 0))
    said = b""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color"},
    ) as process:
        os.close(theirs)
        with contextlib.suppress(OSError):  # the last of those who write there has gone
            while data := os.read(ours, 65536):
                said += data
    os.close(ours)
    if process.returncode:
        raise SystemExit(said.decode())
    return re.sub(r"\x1b\[[0-9;?]*[A-HJKSTfhl]|\r", "", said.decode())


def shortened(lines: list[str]) -> list[str]:
    """The lines, with the middle of long runs of one kind left out."""
    kept: list[str] = []
    for _, group in groupby(lines, key=kind):
        run = list(group)
        if len(run) < SHORTENED_FROM:
            kept += run
        else:
            hidden = len(run) - 2 * KEPT_OF_A_KIND
            kept += [*run[:KEPT_OF_A_KIND], f"  … {hidden} more lines", *run[-KEPT_OF_A_KIND:]]
    return kept


def kind(line: str) -> str:
    """Lines of one kind begin with the same word, figures and colours aside."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", line).strip()
    return plain.split(" ")[0] if plain[:1].isalpha() else plain


if __name__ == "__main__":
    main()

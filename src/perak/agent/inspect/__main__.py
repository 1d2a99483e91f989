"""The inspecting process: one request on stdin, a JSON line for whatever happens on stdout; then it ends."""

from __future__ import annotations

import os
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from perak.agent.inspect import talk


def main() -> int:
    """Carry out the request. Whatever libraries print goes to stderr, so that every line is ours."""
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    request = talk.decode_request(sys.stdin.buffer.readline())
    if "POCL_CACHE_DIR" not in os.environ:
        folder = Path(tempfile.gettempdir(), f"perak-pocl-{os.geteuid()}")
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid == os.geteuid():
            os.environ["POCL_CACHE_DIR"] = str(folder)

    def say(message: talk.Said) -> None:
        out.write(talk.encode(message))

    try:
        import pyopencl  # noqa: F401 - is it there?
    except ImportError as error:
        say(talk.Trouble(why=f"PyOpenCL is not installed ({error}); it comes with perak[inspect]"))
        return 1
    from perak.agent.inspect import work

    work.carry_out(request, say, version=version("perak"))
    sys.stdout.flush()
    out.flush()
    os._exit(0)  # Drivers' own threads and exit handlers have hung before; there is nothing left to tidy.


if __name__ == "__main__":
    sys.exit(main())

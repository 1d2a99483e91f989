"""A process for each attack, because one that succeeds changes what its process may do."""

from __future__ import annotations

import json
import os
import select
import signal
from collections.abc import Callable
from typing import Any

from perak.agent.sandbox.escape.inside.calls import NotRun

ANSWER_SECONDS = 10.0  # an attack takes a millisecond, on a busy machine some; one that hangs has no outcome


def in_child(attack: Callable[[], Any]) -> Any:
    """What `attack` returns, in a process of its own: "" where the kernel killed it for trying."""
    answer, ours = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(answer)
            os.write(ours, (json.dumps({"value": attack()}) + "\n").encode())
        except NotRun as error:
            os.write(ours, json.dumps({"not_run": str(error)}).encode())
        except BaseException as error:
            os.write(ours, json.dumps({"not_run": f"the attack failed: {error!r}"}).encode())
        finally:
            os._exit(0)
    os.close(ours)
    text = b""
    try:
        while select.select([answer], [], [], ANSWER_SECONDS)[0]:
            part = os.read(answer, 65536)
            if not part:
                break
            text += part
        else:
            os.kill(pid, signal.SIGKILL)
    finally:
        os.close(answer)
    _, status = os.waitpid(pid, 0)
    if text:
        # The first line: where clone3 got through there are two of us, and both have answered.
        said = json.loads(text.splitlines()[0])
        if "not_run" in said:
            raise NotRun(said["not_run"])
        return said["value"]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGSYS:
        return ""
    raise NotRun(f"it gave no answer within {ANSWER_SECONDS:g} s")

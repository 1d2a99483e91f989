"""One script of a run: bubblewrap under its limits, as the run's own user."""

from __future__ import annotations

import os
import resource
import signal
from typing import TYPE_CHECKING

from perak.agent.shim import kernel, secret_files

if TYPE_CHECKING:
    from perak.agent.sandbox.launch import Launch
    from perak.agent.shim.secret_files import Secrets

OWN_PROCESSES = 4  # of bubblewrap's, beside the job's, where a limit counts all that a user has


class Stage:
    """One script of the run in its sandbox: bubblewrap's process and the pipes from it."""

    __slots__ = ("code", "has_children", "inner_pid", "log", "name", "news", "pid", "started", "unblock")

    def __init__(self, name: str, pid: int, log: int, news: int, unblock: int) -> None:
        self.name = name
        self.pid = pid
        self.log: int | None = log
        self.news: int | None = news
        self.unblock: int | None = unblock
        self.inner_pid: int | None = None
        self.started = False
        self.code: int | None = None
        self.has_children = True


def spawn(name: str, plan: Launch, secrets: Secrets) -> Stage:
    """Start bubblewrap for one stage, from this (the main) thread."""
    log_read, log_write = os.pipe()
    news_read, news_write = os.pipe()
    block_read, block_write = os.pipe()
    os.set_blocking(news_read, False)
    shim_pid = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            _become(
                name,
                plan,
                shim_pid,
                secrets,
                log=log_write,
                news=news_write,
                block=block_read,
                unblock=block_write,
            )
        except BaseException as error:
            os.write(log_write, f"perak: the sandbox can't be started: {error}\n".encode())
        finally:
            os._exit(127)
    for each in (log_write, news_write, block_read):
        os.close(each)
    return Stage(name, pid, log_read, news_read, block_write)


def _become(
    name: str,
    plan: Launch,
    shim_pid: int,
    secrets: Secrets,
    *,
    log: int,
    news: int,
    block: int,
    unblock: int,
) -> None:
    """In the child: limits first, then the run's own user, then bubblewrap. Never bubblewrap as root.

    It keeps the end of the pipe that lets it start, too: were the shim killed now, bubblewrap would take
    the pipe's closing for leave to run the job without limits.
    """
    os.set_inheritable(unblock, True)
    # Each with flags of its own: gVisor makes one non-blocking for itself, and the other would then fail the
    # job that writes faster than its log is read.
    for target in (1, 2):
        os.dup2(os.open(f"/proc/self/fd/{log}", os.O_WRONLY), target)
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    arguments = [each.encode() for each in plan["arguments"]] + secret_files.arguments(name, plan, secrets)
    told = secret_files.memory_file("arguments", b"".join(each + b"\0" for each in arguments))
    inherited = {"--json-status-fd": news, "--block-fd": block, "--args": told}
    if plan["seccomp"]:
        inherited["--seccomp"] = os.open(plan["seccomp"], os.O_RDONLY)
    kernel.never_dump()
    hard = min(plan["nofile_max"], resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.chdir("/")
    os.umask(0o022)
    if plan["uid"] is not None:
        if plan["pids_rlimit"] is not None:
            # Before we are the run's user: on another's process only root with CAP_SYS_RESOURCE sets it.
            most = plan["pids_rlimit"] + OWN_PROCESSES
            resource.setrlimit(resource.RLIMIT_NPROC, (most, most))
        os.setgroups([])
        os.setresgid(plan["uid"], plan["uid"], plan["uid"])
        os.setresuid(plan["uid"], plan["uid"], plan["uid"])
    assert os.getuid() != 0
    kernel.die_with_parent()  # until bubblewrap asks for the same itself
    if os.getppid() != shim_pid:
        os._exit(127)
    for each in signal.valid_signals():  # Python ignores two, a shell what it starts in the background
        if signal.getsignal(each) is signal.SIG_IGN:
            signal.signal(each, signal.SIG_DFL)
    argv = [plan["bwrap"]]
    for option, descriptor in inherited.items():
        os.set_inheritable(descriptor, True)
        argv += [option, str(descriptor)]
    argv += ["--", *plan["programs"][name]]
    os.execve(plan["bwrap"], argv, {"PATH": "/usr/bin:/bin"})  # noqa: S606 - there is no shell on purpose

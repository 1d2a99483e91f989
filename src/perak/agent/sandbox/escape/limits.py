"""The limits: a run takes all that it can get, and what it got is judged from outside."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from perak.agent.sandbox import bwrap, process
from perak.agent.sandbox.escape.lab import MIB, POLL_SECONDS, CannotTry, Lab
from perak.agent.sandbox.spec import RunStatus
from perak.domain.checklist import CheckResult

CPU_MILLI = 100
CPU_SECONDS = 1.0
"""Of the processor's time, which it burns unless it is held back before."""
CPU_WAIT_SECONDS = 15.0
"""Of the clock, at most: others may leave it less than its share for a while."""
CPU_OVER = 1.5
"""So many times its share is more than the grain of a period: then it should have been held back."""
PIDS = 24
FORKS_BYTES_OWN_KERNEL = 1024 * MIB
"""So that it is not memory that ends a fork bomb whose processes all lie in one kernel's memory."""
MEMORY_BYTES = 32 * MIB
DISK_BYTES = 8 * MIB
DISK_SLACK_BYTES = 3 * MIB
"""What the file system has more than was asked for: its tables are sized to fit, not to the byte."""
INODES_TRIED = 4_096
SHM_BYTES = MIB
LOG_RATE, LOG_BURST, LOG_MAX = 1024 * 1024, 64 * 1024, 512 * 1024
LOG_TRIED_BYTES = 768 * 1024
"""More than the log may hold, and at that rate more than half a second's work."""
LOG_SLACK_BYTES = 192 * 1024
"""A pipe's worth, one read that overdraws, and the clock's own grain."""
LOG_WORDS_BYTES = 1024
"""For the line that says where a log was cut."""
STOP_SECONDS = 0.1
DURATIONS_SECONDS = (0.4, 3.0, 12.0)
"""Tried in turn until a job has begun before its time is over: a busy machine takes seconds to start one."""
DURATIONS_SECONDS_OWN_KERNEL = DURATIONS_SECONDS[1:]
"""The same where a kernel is started for it."""
LATE_SECONDS = 15.0
"""How late a busy machine may be with the end of a run; only one that does not end takes so long."""

_NO_LIMIT = "a run got {got:,} of a limit of {limit:,}"


def judge(lab: Lab, name: str) -> CheckResult:
    """Try one limit."""
    try:
        problem = JUDGES[name](lab)
    except (CannotTry, OSError, LookupError) as error:
        return CheckResult(name=name, outcome="not_run", detail=str(error)[:400])
    return CheckResult(name=name, outcome="failed" if problem else "passed", detail=problem or "")


def _forks(lab: Lab) -> str | None:
    room: dict[str, Any] = {"memory_bytes": FORKS_BYTES_OWN_KERNEL} if lab.own_kernel else {}
    run_id = lab.prepare("forks", "bombs.py", "forks", pids_max=PIDS, **room)
    lab.start(run_id, {"processes": PIDS, "hold_seconds": 0.2})
    if lab.own_kernel:
        return _forks_in_own_kernel(lab, run_id)
    said = lab.await_said(run_id, "forks")
    got = max(said["got"], len(lab.sandbox.job_pids(run_id)) if lab.sandbox.host.groups else 0)
    return None if said["refused"] and got <= PIDS else _NO_LIMIT.format(got=got, limit=PIDS)


def _forks_in_own_kernel(lab: Lab, run_id: str) -> str | None:
    """What it makes are that kernel's processes; the node's count, and the kernel may die of it."""
    limit, seen = lab.tasks(PIDS), 0
    while lab.status(run_id).state == "running":
        seen = max(seen, len(lab.sandbox.job_pids(run_id)))
        if seen > limit:
            break
        time.sleep(POLL_SECONDS)
    ended = lab.await_end(run_id)
    if not seen or ended.cause in ("max_duration", "oom"):
        raise CannotTry(lab.why(ended))
    said = lab.said(run_id).get("forks")
    refused = ended.exit_code != 0 if said is None else said["refused"]
    return None if refused and seen <= limit else _NO_LIMIT.format(got=seen, limit=limit)


def _memory(lab: Lab) -> str | None:
    if missing := lab.sandbox.host.missing_groups.get("memory"):
        return f"only watched twice a second: {missing}"
    run_id = lab.prepare("memory", "bombs.py", "memory", memory_bytes=MEMORY_BYTES)
    lab.start(run_id, {"memory_bytes": MEMORY_BYTES})
    ended = lab.await_end(run_id)
    if ended.cause == "oom" and (ended.memory_peak_bytes or 0) <= MEMORY_BYTES:
        return None
    if (said := lab.said(run_id).get("memory")) is not None:
        return _NO_LIMIT.format(got=said["got"], limit=MEMORY_BYTES)
    raise CannotTry(lab.why(ended))


def _shared_memory(lab: Lab) -> str | None:
    run_id = lab.prepare("shm", "bombs.py", "shared-memory", shm_bytes=SHM_BYTES)
    lab.start(run_id, {"shm_bytes": SHM_BYTES})
    said = lab.await_said(run_id, "shared-memory")
    held = said["refused"] and said["got"] <= SHM_BYTES
    return None if held else _NO_LIMIT.format(got=said["got"], limit=SHM_BYTES)


def _cpu(lab: Lab) -> str | None:
    if missing := lab.sandbox.host.missing_groups.get("cpu"):
        return missing
    run_id = lab.prepare("cpu", "bombs.py", "cpu", cpu_milli=CPU_MILLI)
    lab.start(run_id, {"cpu_seconds": CPU_SECONDS, "wait_seconds": CPU_WAIT_SECONDS})
    groups = lab.sandbox.host.groups
    counter = groups.group(run_id).counters.get("throttled") if groups else None
    if counter is None:
        return "the kernel does not say whether it held a run back"
    while lab.status(run_id).state == "running":
        if counter.read():
            return None
        time.sleep(POLL_SECONDS)
    if counter.read():
        return None
    if (said := lab.said(run_id).get("cpu")) is None:
        raise CannotTry(lab.why(lab.await_end(run_id)))
    used, share = said["got"] / said["wall"], CPU_MILLI / 1000
    if used < share * CPU_OVER:
        raise CannotTry(
            f"too slow to tell: others left a run {used:.0%} of a processor, and it may have {share:.0%}"
        )
    return f"a run that used {used:.0%} of a processor, and may have {share:.0%}, was not slowed down"


def _disk(lab: Lab) -> str | None:
    if not lab.sandbox.host.disk_is_capped:
        return f"only watched twice a second: {lab.sandbox.host.disk_problem}"
    run_id = lab.prepare("disk", "bombs.py", "disk", disk_bytes=DISK_BYTES)
    lab.start(run_id, {"disk_bytes": DISK_BYTES})
    said = lab.await_said(run_id, "disk")
    held = said["refused"] and said["got"] <= DISK_BYTES + DISK_SLACK_BYTES
    return None if held else _NO_LIMIT.format(got=said["got"], limit=DISK_BYTES)


def _inodes(lab: Lab) -> str | None:
    if not lab.sandbox.host.disk_is_capped:
        return f"only watched twice a second: {lab.sandbox.host.disk_problem}"
    run_id = lab.prepare("inodes", "bombs.py", "inodes", disk_bytes=DISK_BYTES)
    limit = os.statvfs(lab.sandbox.work_folder(run_id)).f_files
    lab.start(run_id, {"inodes": INODES_TRIED})
    said = lab.await_said(run_id, "inodes")
    held = said["refused"] and said["got"] <= limit
    return None if held else _NO_LIMIT.format(got=said["got"], limit=limit)


def _descriptors(lab: Lab) -> str | None:
    run_id = lab.prepare("files", "bombs.py", "descriptors")
    lab.start(run_id, {"open_files": bwrap.NOFILE_MAX})
    said = lab.await_said(run_id, "descriptors")
    if said["raised"]:
        return "a run can raise its own limit"
    held = said["refused"] and said["got"] <= bwrap.NOFILE_MAX
    return None if held else _NO_LIMIT.format(got=said["got"], limit=bwrap.NOFILE_MAX)


def _log(lab: Lab) -> str | None:
    run_id = lab.prepare(
        "log",
        "bombs.py",
        "log",
        log_bytes_max=LOG_MAX,
        log_bytes_per_second=LOG_RATE,
        log_burst_bytes=LOG_BURST,
    )
    lab.start(run_id, {"log_bytes": LOG_TRIED_BYTES})
    ended = lab.await_end(run_id)
    if ended.cause != "exited" or ended.exit_code or ended.started_at is None or ended.ended_at is None:
        raise CannotTry(lab.why(ended))
    if ended.log_bytes > LOG_MAX + LOG_WORDS_BYTES:
        return _NO_LIMIT.format(got=ended.log_bytes, limit=LOG_MAX)
    most = LOG_BURST + LOG_RATE * (ended.ended_at - ended.started_at) + LOG_SLACK_BYTES
    return None if most >= LOG_TRIED_BYTES else _NO_LIMIT.format(got=LOG_TRIED_BYTES, limit=int(most))


def _refusal_to_die(lab: Lab) -> str | None:
    run_id = lab.prepare("stubborn", "bombs.py", "stubborn")
    lab.start(run_id, {})
    lab.await_said(run_id, "stubborn")
    alive = [each for pid in lab.sandbox.job_pids(run_id) if (each := process.identify(pid)) is not None]
    if not alive:
        raise CannotTry("the run's processes could not be seen from outside")
    lab.sandbox.stop(run_id, reason="a check", grace_seconds=STOP_SECONDS)
    ended = lab.await_end(run_id, seconds=STOP_SECONDS + LATE_SECONDS)
    left = [each.pid for each in alive if process.is_alive(each)]
    if left:
        return f"{len(left)} processes outlived the end of their run"
    return None if ended.cause == "stopped" else f"a run that was to stop ended as {ended.cause}"


def _run_time(lab: Lab) -> str | None:
    durations = DURATIONS_SECONDS_OWN_KERNEL if lab.own_kernel else DURATIONS_SECONDS
    for seconds in durations:
        run_id = lab.prepare("late", "bombs.py", "stubborn", max_duration_seconds=seconds)
        lab.start(run_id, {})
        ended = lab.await_end(run_id, seconds=seconds + LATE_SECONDS)
        if ended.state == "running":
            return f"a run of at most {seconds:g} s is still there"
        if ended.cause in ("sandbox", "lost"):
            raise CannotTry(lab.why(ended))
        if ended.cause != "max_duration":
            return f"a run of at most {seconds:g} s ended as {ended.cause}: {_detail(ended)}"
        if "stubborn" in lab.said(run_id):
            return None
        # It was ended before it had begun to ignore that: nothing is known yet.
    raise CannotTry(f"too slow to tell: a job had not begun {durations[-1]:g} s after its start")


def _detail(status: RunStatus) -> str:
    return (status.detail or "no word why")[:200]


JUDGES: dict[str, Callable[[Lab], str | None]] = {
    "refusal-to-die": _refusal_to_die,
    "fork-bomb": _forks,
    "memory-bomb": _memory,
    "shared-memory-fill": _shared_memory,
    "cpu-share": _cpu,
    "disk-fill": _disk,
    "inode-fill": _inodes,
    "descriptor-flood": _descriptors,
    "log-flood": _log,
    "run-time": _run_time,
}
"""By check: why the limit does not hold, None where it does. Raises CannotTry."""

"""Attacks on our own sandbox: what a run may not do is tried from inside, as a run.

Each check is an ordinary run, prepared and started like any other. Only what was refused counts as enforced.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field

from perak.agent.sandbox import process
from perak.agent.sandbox.sandbox import PROBE_PREFIX, Sandbox
from perak.agent.sandbox.spec import RunSpec, RunStatus

MIB = 1 << 20
CHECK_SECONDS = 5.0
"""One check takes some 0.1 s; a machine that needs this long has other troubles."""
POLL_SECONDS = 0.005
CPU_MILLI = 200
PIDS = 24
MEMORY_BYTES = 48 * MIB
DISK_BYTES = 8 * MIB
PROCESSES_SEEN_MAX = 12
"""bubblewrap, the shell and its few helpers; a machine has more."""

SAFETY = ("privileges", "uid", "filesystem", "processes", "network")
"""Without these a machine offers nothing at all."""

_CONFINED = """
say() { echo "$1=$2"; }
refused() { name=$1; shift; if "$@" >/dev/null 2>&1; then say "$name" no; else say "$name" yes; fi; }
say uid "$(id -u)"
grep -E '^(CapPrm|CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status | sed 's/:[[:space:]]*/=/'
say init_seccomp "$(sed -n 's/^Seccomp:[[:space:]]*//p' /proc/1/status)"
say devices "$(sed -n '3,$s/^ *\\([^:]*\\):.*/\\1/p' /proc/net/dev | tr '\\n' ' ')"
for kind in net pid ipc uts mnt user; do say "ns_$kind" "$(readlink /proc/self/ns/$kind)"; done
say processes "$(ls /proc | grep -c '^[0-9]')"
refused shadow cat /etc/shadow
refused state ls "$STATE_DIR"
refused root ls /root
for folder in / /usr /etc /dev /job; do refused "write_$folder" touch "$folder/perak-check"; done
if command -v unshare; then refused namespace unshare -U true; fi
say work "$(touch /work/check /tmp/check && echo yes)"
say done yes
sleep 0.2
"""


@dataclass(slots=True)
class Findings:
    """What was seen to hold, and for the rest why it doesn't."""

    enforced: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def note(self, limit: str, problem: str | None) -> None:
        """`problem` is None when the limit was seen to hold."""
        if problem is None:
            self.enforced.append(limit)
        else:
            self.failed[limit] = problem

    @property
    def unsafe(self) -> dict[str, str]:
        """Failures with which no stranger's job may run here."""
        return {limit: why for limit, why in self.failed.items() if limit in SAFETY}


def attack(sandbox: Sandbox) -> Findings:
    """Run all checks at once and judge them. Takes about a second; leaves no run behind.

    Raises OSError or RuntimeError when a run can't even be prepared.
    """
    runs = {
        "confined": _spec("confined", _CONFINED, env={"STATE_DIR": str(sandbox.state_dir)}),
        "memory": _spec("memory", "head -c 96M /dev/zero | tail -c 96M > /dev/null"),
        "pids": _spec("pids", f"for i in $(seq {PIDS * 2}); do sleep 2 & done; echo all"),
        "cpu": _spec("cpu", "timeout 0.4 sh -c 'while :; do :; done' || true", cpu_milli=CPU_MILLI),
        "disk": _spec("disk", "head -c 32M /dev/zero > /work/fill"),
    }
    try:
        for spec in runs.values():
            sandbox.prepare(spec)
        for spec in runs.values():
            sandbox.start(spec.run_id)
        owners = _owners_seen(sandbox, runs["confined"].run_id)
        ended = {name: _await_end(sandbox, spec.run_id) for name, spec in runs.items()}
        return _judge(sandbox, runs, ended, owners)
    finally:
        for spec in runs.values():
            sandbox.clear(spec.run_id)


def _spec(name: str, command: str, *, env: dict[str, str] | None = None, cpu_milli: int = 2000) -> RunSpec:
    return RunSpec(
        run_id=f"{PROBE_PREFIX}-{name}@local",
        lease_id="",
        job_id="",
        epoch=0,
        setup=None,
        command=command,
        env=env or {},
        cpu_milli=cpu_milli,
        memory_bytes=MEMORY_BYTES,
        disk_bytes=DISK_BYTES,
        shm_bytes=MIB,
        pids_max=PIDS,
        log_bytes_max=64 * 1024,
        max_duration_seconds=CHECK_SECONDS,
        grace_seconds=0.1,
    )


def _owners_seen(sandbox: Sandbox, run_id: str) -> set[int]:
    """The real uids of the run's processes as the node sees them; watched until the run has ended."""
    owners: set[int] = set()
    deadline = time.monotonic() + CHECK_SECONDS
    while sandbox.status(run_id).state in ("prepared", "running") and time.monotonic() < deadline:
        for pid in sandbox.job_pids(run_id):
            if (owner := process.real_uid(pid)) is not None:
                owners.add(owner)
        time.sleep(POLL_SECONDS)
    return owners


def _await_end(sandbox: Sandbox, run_id: str) -> RunStatus:
    deadline = time.monotonic() + CHECK_SECONDS
    while True:
        status = sandbox.status(run_id)
        if status.state in ("exited", "lost") or time.monotonic() >= deadline:
            return status
        time.sleep(POLL_SECONDS)


def _judge(
    sandbox: Sandbox, runs: dict[str, RunSpec], ended: dict[str, RunStatus], owners: set[int]
) -> Findings:
    findings = Findings()
    text = sandbox.read_log(runs["confined"].run_id, 0, MIB).decode(errors="replace")
    said = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    if said.get("done") != "yes":
        why = ended["confined"].detail or text.strip()[-300:] or f"it ended as {ended['confined'].cause}"
        findings.failed.update(dict.fromkeys(SAFETY, f"a run doesn't start in the sandbox: {why}"))
        return findings
    findings.note("privileges", _privileges(said))
    findings.note("uid", _uid(sandbox, said, owners))
    findings.note("filesystem", _filesystem(said))
    findings.note("processes", _processes(said))
    findings.note("network", _network(said))
    findings.note("seccomp", _seccomp(sandbox, said))
    for limit, judge in (("memory", _memory), ("pids", _pids), ("cpu", _cpu), ("disk", _disk)):
        findings.note(limit, judge(sandbox, ended[limit]))
    return findings


def _privileges(said: dict[str, str]) -> str | None:
    capable = [name for name in ("CapPrm", "CapEff", "CapBnd") if int(said.get(name, "1"), 16) != 0]
    if capable:
        return f"a run keeps capabilities ({', '.join(capable)})"
    if said.get("NoNewPrivs") != "1":
        return "a run could gain privileges by a setuid program"
    if "namespace" not in said:
        return "unshare (of util-linux) is missing, so new user namespaces could not be tried"
    if said["namespace"] != "yes":
        return "a run can make user namespaces, in which it would have capabilities"
    return None


def _uid(sandbox: Sandbox, said: dict[str, str], owners: set[int]) -> str | None:
    if said.get("uid") == "0":
        return "a run is root in its sandbox"
    if not owners:
        return "the owner of a run's processes could not be seen"
    if not sandbox.host.own_uids:
        return None if owners == {os.getuid()} else f"a run belongs to {owners}"
    if 0 in owners or os.getuid() in owners:
        return "a run has the agent's own user outside its sandbox"
    return None


def _filesystem(said: dict[str, str]) -> str | None:
    holes = [name for name in ("shadow", "state", "root") if said.get(name) != "yes"]
    holes += [name for name in said if name.startswith("write_") and said[name] != "yes"]
    if holes:
        return f"a run gets through to: {', '.join(holes)}"
    return None if said.get("work") == "yes" else "a run can't write to its work folder"


def _processes(said: dict[str, str]) -> str | None:
    seen = int(said.get("processes", "999"))
    if shared := _shared(said, "pid", "ipc", "uts", "mnt"):
        return f"a run shares namespaces with the node ({', '.join(shared)})"
    return None if seen <= PROCESSES_SEEN_MAX else f"a run sees {seen} processes of the node"


def _network(said: dict[str, str]) -> str | None:
    devices = said.get("devices", "unknown").split()
    if _shared(said, "net"):
        return "a run is in the node's own network namespace"
    return None if devices in ([], ["lo"]) else f"a run has the network devices {', '.join(devices)}"


def _shared(said: dict[str, str], *kinds: str) -> list[str]:
    """The namespaces that are the agent's own, or of which the run couldn't tell."""
    return [
        kind for kind in kinds if said.get(f"ns_{kind}", "") in ("", os.readlink(f"/proc/self/ns/{kind}"))
    ]


def _seccomp(sandbox: Sandbox, said: dict[str, str]) -> str | None:
    if missing := sandbox.host.seccomp_missing:
        return f"{missing}; so sockets that no namespace confines (vsock) stay open"
    in_force = said.get("Seccomp") == said.get("init_seccomp") == "2"
    return None if in_force else "the filter was not in force in a run"


def _memory(sandbox: Sandbox, ended: RunStatus) -> str | None:
    if missing := sandbox.host.missing_groups.get("memory"):
        return f"only watched twice a second: {missing}"
    return None if ended.cause == "oom" else f"a run went past its memory limit ({ended.cause})"


def _pids(sandbox: Sandbox, ended: RunStatus) -> str | None:
    unbounded = b"all" in sandbox.read_log(ended.run_id, 0, MIB).split()
    return "a run made more processes than its limit" if unbounded else None


def _cpu(sandbox: Sandbox, ended: RunStatus) -> str | None:
    if missing := sandbox.host.missing_groups.get("cpu"):
        return missing
    throttled = sandbox.host.groups and sandbox.host.groups.group(ended.run_id).counters["throttled"].read()
    if ended.exit_code != 0:
        return f"the check of the cpu limit failed ({ended.cause})"
    return None if throttled else "a run that used more cpu than its limit was not slowed down"


def _disk(sandbox: Sandbox, ended: RunStatus) -> str | None:
    if not sandbox.host.disk_is_capped:
        return f"only watched twice a second: {sandbox.host.disk_problem}"
    return None if ended.cause == "disk_full" else f"a run went past its disk limit ({ended.cause})"

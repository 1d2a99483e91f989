"""Which check is tried in which tier against a sandbox weakened in its point, how, and which is not, and why.

`docs/escape-checklist.md` has the table that `pairs` draws. What is weak is real: a run in such a sandbox
does get through. In bubblewrap each point is weakened alone; in the other tiers several at once, that do not
touch each other, because every round takes seconds there.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from weak import (
    DEV_CLOSES,
    ROOT_CLOSES,
    Change,
    Flaws,
    after_each_other,
    before,
    filter_that_answers_yes,
    leaky_bubblewrap,
    oci_filter_that_answers_yes,
    sharing,
    without,
)

from perak.agent.sandbox.sandbox import Host
from perak.agent.sandbox.tiers import wall
from perak.agent.sandbox.tiers.oci import SEARCH, Crun
from perak.domain.checklist import CHECKS

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """Where a weak sandbox is made: the agent's folder, and one that everybody may write to."""

    state: Path
    open: Path


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Weak:
    """A way to weaken a sandbox: the host that it takes itself to be on, and its flaws.

    `shows`: by check, what its result then says. `needs`: why this machine can't show it, None where it can.
    """

    name: str
    shows: Mapping[str, tuple[str, ...]]
    flaws: Callable[[Node], Flaws] = lambda _: Flaws()
    host: Callable[[Host, Node], Host] = lambda host, _: host
    needs: Callable[[], str | None] = lambda: None


def _default_route() -> str | None:
    routes = Path("/proc/net/route").read_text().splitlines()[1:]
    has = any(line.split()[1] == "00000000" for line in routes)
    return None if has else "this machine has no default route that a run could share"


def _setuid_programs() -> str | None:
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    folder = tempfile.gettempdir()
    inside = [each for each in mounts if folder == each[1] or folder.startswith(each[1].rstrip("/") + "/")]
    closest = max(inside, key=lambda each: len(each[1]))
    return "setuid programs do nothing where tests keep their files" if "nosuid" in closest[3] else None


# Points that are weak in the same way in every tier


def _no_groups(host: Host, node: Node) -> Host:
    return replace(host, groups=None, missing_groups=dict.fromkeys(("memory", "cpu", "pids"), "none"))


LIMITS: dict[str, Any] = {
    "pids_max": 4096,
    "memory_bytes": 512 * MIB,
    "shm_bytes": 64 * MIB,
    "cpu_milli": 64_000,
    "disk_bytes": 256 * MIB,
    "log_bytes_per_second": 1 << 30,
    "log_bytes_max": 64 * MIB,
    "max_duration_seconds": 60.0,
}
FILES = {"nofile_max": 4_000}
ROOT_OWNS = Weak(
    name="runs are root on the node",
    shows={"own-user": ("a run has the agent's own user outside its sandbox",)},
    flaws=lambda _: Flaws(as_root=True),
    needs=_setuid_programs,
)
OUTLIVED = Weak(
    name="a shim that is frozen when it is to end its run",
    shows={"refusal-to-die": ("processes outlived the end of their run",)},
    flaws=lambda _: Flaws(frozen=True),
)


# bubblewrap: each point alone


def _arguments(name: str, shows: Mapping[str, tuple[str, ...]], change: Callable[[Node], Change]) -> Weak:
    return Weak(name=name, shows=shows, flaws=lambda node: Flaws(arguments=change(node)))


def _bound(
    name: str,
    shows: Mapping[str, tuple[str, ...]],
    source: str,
    target: str,
    *,
    how: str = "--ro-bind",
    place: list[str] = ROOT_CLOSES,
) -> Weak:
    """`{open}` and `{state}` in the paths are the folders of `Node`."""

    def change(node: Node) -> Change:
        paths = {"open": node.open, "state": node.state}
        return before(place, how, source.format(**paths), target.format(**paths))

    return _arguments(name, shows, change)


def _shared(kind: str, shows: Mapping[str, tuple[str, ...]]) -> Weak:
    return _arguments(f"the node's {kind} namespace", shows, lambda _: sharing(kind))


def _limit(check: str, says: str = "a run got", **limits: Any) -> Weak:
    return Weak(name=f"no limit for {check}", shows={check: (says,)}, flaws=lambda _: Flaws(limits=limits))


def _answering_yes(*calls: str) -> Callable[[Host, Node], Host]:
    return lambda host, node: replace(host, seccomp=filter_that_answers_yes(node.state / "yes.bpf", *calls))


CALLS = {
    "setuid": ("setresuid", "setresgid", "setgroups"),
    "ptrace": ("ptrace", "process_vm_readv"),
    "mounts": ("mount", "umount2", "fsopen", "open_tree"),
    "mknod": ("mknodat",),
    "pivot-root": ("chroot", "pivot_root"),
    "user-namespaces": ("unshare", "clone3", "setns"),
    "keyrings": ("keyctl", "add_key", "request_key"),
    "bpf": ("bpf",),
    "perf-events": ("perf_event_open",),
    "io-uring": ("io_uring_setup",),
    "modules": ("init_module", "finit_module", "delete_module", "kexec_load"),
    "file-handles": ("open_by_handle_at",),
    "machine": ("clock_settime", "sethostname", "reboot", "swapon", "acct", "syslog", "fanotify_init"),
    "user-faults": ("userfaultfd",),
}
ALL_CALLS = ("no_new_privs", *(call for calls in CALLS.values() for call in calls))
SUCCEEDED = {check: tuple(f"{call} succeeded" for call in calls) for check, calls in CALLS.items()}
SOCKETS = {
    "raw-sockets": ("a raw IPv4 socket",),
    "packet-sockets": ("a raw packet socket",),
    "odd-sockets": ("a socket of the family",),
}

BUBBLEWRAP = (
    _bound("/home", {"host-files": ("/home is the node's",)}, "/home", "/home"),
    _bound("/etc/shadow", {"password-file": ("/etc/shadow is the node's",)}, "/etc/shadow", "/etc/shadow"),
    _bound(
        "the agent's folder",
        {
            "host-files": ("a file of the node",),
            "agent-state": ("of the agent is there",),
            "host-sockets": ("a socket with a path",),
            "other-jobs": ("its file",),
        },
        "{state}",
        "{state}",
    ),
    _arguments(
        "a root that is open",
        {"read-only-system": ("/etc can be written to",)},
        lambda _: without(*ROOT_CLOSES),
    ),
    _shared(
        "pid",
        {
            "host-processes": ("a process of the node is visible", "a process of another run is visible"),
            "signals": ("a process of the node was ended",),
            "namespaces": ("the pid namespace",),
        },
    ),
    _shared(
        "ipc",
        {
            "other-jobs": ("System V shared memory",),
            "shared-memory-leftovers": ("a System V queue",),
            "namespaces": ("the ipc namespace",),
        },
    ),
    _shared(
        "net",
        {
            "other-jobs": ("its abstract socket; its port",),
            "namespaces": ("the net namespace",),
            "loopback": ("127.0.0.1",),
            "abstract-sockets": ("abstract socket",),
        },
    ),
    replace(
        _shared("net", {"metadata": ("169.254.169.254",), "network": ("the network device",)}),
        name="the node's net namespace, with a way out",
        needs=_default_route,
    ),
    _shared("uts", {"namespaces": ("the uts namespace",)}),
    _shared("cgroup", {"namespaces": ("the cgroup namespace",)}),
    _bound(
        "a terminal",
        {"terminal": ("controlling terminal",)},
        "{open}/file",
        "/dev/tty",
        how="--bind",
        place=DEV_CLOSES,
    ),
    _bound(
        "a device",
        {"devices": ("/dev/mem is there",)},
        "/dev/null",
        "/dev/mem",
        how="--dev-bind",
        place=DEV_CLOSES,
    ),
    _bound(
        "a kernel parameter",
        {"kernel-parameters": ("core_pattern",)},
        "{open}/file",
        "/proc/sys/kernel/core_pattern",
        how="--bind",
    ),
    _bound(
        "control groups", {"control-groups": ("can be written to",)}, "{open}", "/sys/fs/cgroup", how="--bind"
    ),
    _bound("one /tmp for all", {"scratch-leftovers": ("/tmp/left",)}, "{open}", "/tmp", how="--bind"),
    _bound(
        "one /dev/shm for all",
        {"shared-memory-leftovers": ("/dev/shm/left",)},
        "{open}",
        "/dev/shm",
        how="--bind",
    ),
    Weak(name="a filter that answers yes to sockets", shows=SOCKETS, host=_answering_yes("socket")),
    _arguments(
        "a capability",
        {"capabilities": ("CapEff",)},
        lambda _: before(ROOT_CLOSES, "--cap-add", "CAP_SYS_CHROOT"),
    ),
    Weak(
        name="a filter that answers yes",
        shows=SUCCEEDED | {"setuid": ("no_new_privs is off", *SUCCEEDED["setuid"])},
        host=_answering_yes(*ALL_CALLS),
    ),
    Weak(
        name="no filter",
        shows={
            "filter": ("no filter",),
            "keyrings": ("keyctl succeeded",),
            "user-namespaces": ("a new user namespace: unshare succeeded",),
        },
        host=lambda host, _: replace(host, seccomp=None),
        flaws=lambda _: Flaws(arguments=without("--disable-userns")),
    ),
    Weak(
        name="a file that was left open",
        shows={"descriptors": ("/etc/hostname",)},
        host=lambda host, node: replace(host, binary=leaky_bubblewrap(node.state / "bin", host.binary)),
    ),
    ROOT_OWNS,
    OUTLIVED,
    _limit("fork-bomb", pids_max=4096),
    _limit("memory-bomb", memory_bytes=512 * MIB),
    Weak(name="no control groups", shows={"memory-bomb": ("only watched",)}, host=_no_groups),
    _limit("shared-memory-fill", shm_bytes=64 * MIB),
    _limit("cpu-share", "was not slowed down", cpu_milli=64_000),
    _limit("disk-fill", disk_bytes=256 * MIB),
    _limit("inode-fill", disk_bytes=256 * MIB),
    Weak(
        name="no limit for descriptor-flood",
        shows={"descriptor-flood": ("a run got",)},
        flaws=lambda _: Flaws(plan=FILES),
    ),
    _limit("log-flood", log_bytes_per_second=1 << 30, log_bytes_max=64 * MIB),
    _limit("run-time", "still there", max_duration_seconds=60.0),
)


# crun and runc: the tree, the namespaces, the filter, the limits


def _open_tree(node: Node) -> Change:
    """Of the node and of a folder that all runs share, in the job's own tree."""
    state, folder = str(node.state), str(node.open)
    return after_each_other(
        before(DEV_CLOSES, "--dev-bind", "/dev/null", "/dev/mem"),
        before(ROOT_CLOSES, "--bind", folder, "/tmp"),
        before(ROOT_CLOSES, "--bind", folder, "/dev/shm"),
        before(ROOT_CLOSES, "--bind", folder, "/sys/fs/cgroup"),
        before(ROOT_CLOSES, "--ro-bind", folder, "/sys/kernel/debug"),
        *(before(ROOT_CLOSES, "--ro-bind", each, each) for each in ("/home", "/etc/shadow", state)),
        without(*ROOT_CLOSES),
    )


def _open_root(config: dict[str, Any]) -> None:
    config["root"]["readonly"] = False
    for each in config["mounts"]:
        if each["destination"] == "/dev/shm" and each["type"] == "bind":
            each["options"].append("nodev")  # as the wall has it, and runc may not take that away


def _on_the_node(config: dict[str, Any]) -> None:
    """The wall's namespaces, which are the node's, the node's /proc, a capability, and no filter."""
    config["linux"]["namespaces"] = [{"type": kind} for kind in ("mount", "uts", "user", "cgroup")]
    config["mounts"][0] = {
        "destination": "/proc",
        "type": "bind",
        "source": "/proc",
        "options": ["rbind", "nosuid", "nodev", "noexec"],
    }
    for capabilities in config["process"]["capabilities"].values():
        capabilities.append("CAP_SYS_CHROOT")
    del config["linux"]["seccomp"]


def _left_open(command: list[str]) -> list[str]:
    """A file of the wall's as descriptor 3, and a runtime that is told to hand it on."""
    at = command.index("run") + 1
    given = [*command[:at], "--preserve-fds", "1", *command[at:]]
    return ["/bin/sh", "-c", 'exec 3<"$0"; exec "$0" "$@"', *given]


def _yes_to_all(config: dict[str, Any]) -> None:
    config["linux"]["seccomp"] = oci_filter_that_answers_yes(*ALL_CALLS, "socket")


TREE = {
    "host-files": ("/home is the node's; ",),
    "password-file": ("/etc/shadow is the node's",),
    "agent-state": ("of the agent is there",),
    "host-sockets": ("a socket with a path",),
    "other-jobs": ("its file",),
    "read-only-system": ("/etc can be written to",),
    "scratch-leftovers": ("/tmp/left",),
    "shared-memory-leftovers": ("/dev/shm/left",),
}
KERNELS_TREE = {
    "devices": ("/dev/mem is there",),
    "kernel-parameters": ("/sys/kernel/debug can be read",),
    "control-groups": ("can be written to",),
}
PROCESSES = {
    "host-processes": ("a process of the node is visible", "a process of another run is visible"),
    "signals": ("a process of the node was ended",),
    "namespaces": ("the pid namespace", "the ipc namespace", "the net namespace"),
    "abstract-sockets": ("abstract socket",),
    "capabilities": ("CapEff",),
    "filter": ("no filter",),
}
NETWORK = {"loopback": ("127.0.0.1",), "metadata": ("169.254.169.254",), "network": ("the network device",)}
DESCRIPTORS = {"descriptors": ("descriptor 3 leads to",)}
PRIVILEGES = SUCCEEDED | {"setuid": ("no_new_privs is off",)}
FULL = {
    "fork-bomb": ("a run got",),
    "memory-bomb": ("a run got",),
    "shared-memory-fill": ("a run got",),
    "cpu-share": ("was not slowed down",),
    "disk-fill": ("a run got",),
    "inode-fill": ("a run got",),
    "descriptor-flood": ("a run got",),
    "log-flood": ("a run got",),
    "run-time": ("still there",),
}
UNLIMITED = Weak(name="no limits", shows=FULL, flaws=lambda _: Flaws(limits=LIMITS, plan=FILES))


def _namespaces(shows: Mapping[str, tuple[str, ...]]) -> Weak:
    return Weak(
        name="the node's namespaces, no filter, a capability and an open file",
        shows=shows,
        flaws=lambda _: Flaws(
            arguments=sharing("pid", "ipc", "net", proc="--bind"), config=_on_the_node, program=_left_open
        ),
        needs=_default_route,
    )


CONTAINER = (
    Weak(
        name="the node in the job's tree",
        shows=TREE | KERNELS_TREE,
        flaws=lambda node: Flaws(tree=_open_tree(node), config=_open_root),
    ),
    _namespaces(PROCESSES | NETWORK | DESCRIPTORS),
    Weak(
        name="a filter that answers yes",
        shows=PRIVILEGES | SOCKETS,
        flaws=lambda _: Flaws(config=_yes_to_all),
    ),
    UNLIMITED,
    ROOT_OWNS,
    OUTLIVED,
)


# gVisor: what runsc can be told to show; for the rest crun in its place, so that its kernel is the node's


def _gvisors_tree(config: dict[str, Any]) -> None:
    _open_root(config)
    (shared, *_) = (each for each in config["mounts"] if each["destination"] == "/tmp")
    for each in config["mounts"]:
        if each["destination"] == "/dev/shm":
            each |= shared | {"destination": "/dev/shm"}
    config["mounts"].append(shared | {"destination": "/dev/tty", "source": f"{wall.ROOT}/tmp/file"})


def _with_the_nodes_sockets(command: list[str]) -> list[str]:
    return [each.replace(" --rootless ", " --rootless --host-uds=all ") for each in command]


def _gvisors_network(config: dict[str, Any]) -> None:
    kinds = config["linux"]["namespaces"]
    config["linux"]["namespaces"] = [each for each in kinds if each["type"] != "network"]


def _gvisor_left_open(command: list[str]) -> list[str]:
    def change(text: str) -> str:
        open_too = text.replace(" run --pid-file", " run --pass-fd 9:3 --pid-file")
        return f"exec 9</program\n{open_too.replace('--network=none', '--network=host')}"

    return [*command[:-1], change(command[-1])]


class CrunInItsPlace(Crun):
    """What a node would have that calls crun gVisor."""

    tier = "gvisor"


def _crun_in_its_place(host: Host, node: Node) -> Host:
    runtime = CrunInItsPlace()
    for candidate in runtime.candidates(node.state / "bin"):
        return replace(host, runtimes={**host.runtimes, "gvisor": (runtime, candidate)})
    raise FileNotFoundError("crun")


def _no_crun() -> str | None:
    return None if shutil.which("crun", path=SEARCH) else "there is no crun to put in gVisor's place"


GVISOR = (
    Weak(
        name="the node in the job's tree",
        shows=TREE | {"terminal": ("controlling terminal",)},
        flaws=lambda node: Flaws(
            tree=_open_tree(node), config=_gvisors_tree, program=_with_the_nodes_sockets
        ),
    ),
    Weak(
        name="the node's network, and an open file",
        shows=NETWORK | DESCRIPTORS,
        flaws=lambda _: Flaws(arguments=sharing("net"), config=_gvisors_network, program=_gvisor_left_open),
        needs=_default_route,
    ),
    UNLIMITED,
    ROOT_OWNS,
    OUTLIVED,
)
IN_GVISORS_PLACE = tuple(
    replace(each, host=_crun_in_its_place, needs=lambda needs=each.needs: needs() or _no_crun())
    for each in (
        replace(CONTAINER[0], shows=KERNELS_TREE),
        _namespaces(PROCESSES),
        CONTAINER[2],
    )
)

TRIED: Mapping[str, tuple[Weak, ...]] = {
    "bubblewrap": BUBBLEWRAP,
    "crun": CONTAINER,
    "runc": CONTAINER,
    "gvisor": (*GVISOR, *IN_GVISORS_PLACE),
    "microvm": (),
}
"""By tier."""

ELSEWHERE = {("device-memory-leftovers", "bubblewrap"): "yes"}
"""By a driver that stands in for one that leaks: `test_gpu_fitness.py`."""

REASONS = (
    "it is run once, in the default tier: what a run leaves in a device's memory is the same in all",
    "there was no machine with KVM to try it on",
    "both put their own /dev/tty over what is mounted there, and no setting hands a job a terminal",
)
NOT_TRIED = {
    **{("device-memory-leftovers", tier): REASONS[0] for tier in ("crun", "runc", "gvisor")},
    **{(check.name, "microvm"): REASONS[1] for check in CHECKS},
    **{("terminal", tier): REASONS[2] for tier in ("crun", "runc")},
}


def pairs() -> dict[tuple[str, str], str]:
    """By check and tier: "yes", "crun" where that stood in the tier's place, or why it is not tried."""
    found = ELSEWHERE | NOT_TRIED
    for tier, weak in TRIED.items():
        for each in weak:
            how = "crun" if each in IN_GVISORS_PLACE else "yes"
            found |= {(check, tier): how for check in each.shows if found.get((check, tier)) != "yes"}
    return found


def table() -> str:
    """The pairs in Markdown, a row for each check, with the reasons below."""
    found, tiers = pairs(), tuple(TRIED)
    marks = {"yes": "yes", "crun": "yes ¹"} | {
        why: f"no {at}" for why, at in zip(REASONS, "²³⁴", strict=True)
    }
    lines = [f"| check | {' | '.join(tiers)} |", f"|---|{'---|' * len(tiers)}"]
    for check in CHECKS:
        cells = (marks[found[check.name, tier]] for tier in tiers)
        lines.append(f"| `{check.name}` | {' | '.join(cells)} |")
    notes = (
        "¹ with crun in gVisor's place, under its name: no setting of runsc opens these, so what is shown is",
        "that a gVisor whose kernel is the node's would be found out.",
        *(f"{at} {why}." for why, at in zip(REASONS, "²³⁴", strict=True)),
    )
    return "\n".join([*lines, "", *notes])

"""One round of the escape checklist: everything is tried at once, and judged by what was seen outside too."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from perak.agent.sandbox import process
from perak.agent.sandbox.escape import devices, limits
from perak.agent.sandbox.escape.bait import PLACES, Bait, forget_shared
from perak.agent.sandbox.escape.lab import POLL_SECONDS, RUN_SECONDS, CannotTry, Lab, Python, find_python
from perak.agent.sandbox.sandbox import Sandbox
from perak.domain.checklist import BY_NAME, CHECKS, CheckResult
from perak.domain.isolation import LACKS

if TYPE_CHECKING:
    from perak.agent.probe.nvidia import Nvidia

WORKERS = 6
"""Attacks under way at once: most of their time they wait."""
OPEN_SHOWN_MAX = 3
IN_ITS_MEMORY = ("/dev can be written to",)
"""No escape where the job has a kernel of its own: gVisor's /dev is always one of its own file systems in the
run's memory, and its devices can't be written to where it is made read-only."""
DETAIL_CHARACTERS = 400

_JUDGED_HERE = (
    "own-user", "scratch-leftovers", "shared-memory-leftovers", devices.NAME,
)  # fmt: skip
_INSIDE = tuple(
    check.name for check in CHECKS if check.name not in _JUDGED_HERE and check.name not in limits.JUDGES
)
"""The checks of `inside`."""

_WITH_A_WAY_OUT = frozenset(
    {"loopback", "abstract-sockets", "host-sockets", "metadata", "network", "raw-sockets", "packet-sockets"}
)
"""Tried once more by a run that may reach one address: it gets a proxy, and no more of a network."""
ALLOWED = ("nowhere.invalid:443",)
"""Nobody's, ever (RFC 6761)."""

_NEED_A_VICTIM = frozenset({"other-jobs", "host-processes"})
VICTIM_SECONDS = 3 * RUN_SECONDS
"""Longer than the attack beside it, which begins later."""

Results = dict[str, CheckResult]


def attack(
    sandbox: Sandbox,
    *,
    tier: str | None = None,
    only: Collection[str] | None = None,
    nvidia: Nvidia | None = None,
) -> tuple[CheckResult, ...]:
    """Try every check in `tier` (None: the sandbox's default), or those in `only`; in the table's order.

    `nvidia`: the machine's GPUs, None: look for them. Takes one to three seconds. Leaves no run behind. What
    goes wrong is a check that did not run. Raises BrokenOff when the agent ends (`sandbox.leave`).
    """
    wanted = tuple(check.name for check in CHECKS if only is None or check.name in only)
    python = find_python()
    if python is None:
        why = "there is no Python in /usr or /opt that runs may use; install python3"
        return tuple(CheckResult(name=name, outcome="not_run", detail=why) for name in wanted)
    results = _round(sandbox, tier, python, wanted)
    # Once more, alone, what a busy machine may have spoilt; never what got through.
    if doubtful := tuple(name for name, result in results.items() if _is_doubtful(result)):
        results |= _round(sandbox, tier, python, doubtful)
    if devices.NAME in wanted:
        results[devices.NAME] = _device_memory(sandbox, tier, python, nvidia)
    return tuple(results.get(name) or _not_run(name, "it was forgotten") for name in wanted)


def _device_memory(sandbox: Sandbox, tier: str | None, python: Python, nvidia: Nvidia | None) -> CheckResult:
    lab = Lab(sandbox, tier, python)
    try:
        return devices.judge(lab, nvidia or _nvidia_here())
    finally:
        lab.close()


def _nvidia_here() -> Nvidia | None:
    """None without the driver, and where nothing of the agent but its sandbox is there."""
    try:
        from perak.agent.probe.nvidia import Nvidia
    except ImportError:
        return None
    return Nvidia.open()


def _is_doubtful(result: CheckResult) -> bool:
    limit = BY_NAME[result.name].severity == "limit" and result.outcome == "failed"
    return limit or (result.outcome == "not_run" and BY_NAME[result.name].may_lack is None)


def _round(sandbox: Sandbox, tier: str | None, python: Python, wanted: tuple[str, ...]) -> Results:
    """Try all of them at once."""
    lab = Lab(sandbox, tier, python)
    rounds: list[Callable[[], Results]] = []
    if confined := [name for name in wanted if name in (*_INSIDE, "own-user")]:
        rounds.append(lambda: _confinement(lab, confined))
    outwards = [name for name in wanted if name in _WITH_A_WAY_OUT]
    if outwards and "network" not in LACKS.get(tier or "", frozenset()):
        rounds.append(lambda: _confinement(lab, outwards, network_allow=ALLOWED))
    if {"scratch-leftovers", "shared-memory-leftovers"} & set(wanted):
        rounds.append(lambda: _leftovers(lab))
    rounds += [partial(_limit, lab, name) for name in wanted if name in limits.JUDGES]
    results: Results = {}
    try:
        with ThreadPoolExecutor(WORKERS) as pool:
            try:
                for done in pool.map(lambda each: each(), rounds):
                    results |= {name: _worse(results.get(name), each) for name, each in done.items()}
            except KeyboardInterrupt:  # `perak node doctor`: what is under way needn't come to its end
                sandbox.leave.now = True
                raise
    finally:
        lab.close()
    return results


def _worse(one: CheckResult | None, other: CheckResult) -> CheckResult:
    """Of two tries of one check: what failed before what did not run before what passed."""
    order = ("failed", "not_run", "passed")
    return min(
        (each for each in (one, other) if each is not None), key=lambda each: order.index(each.outcome)
    )


def _limit(lab: Lab, name: str) -> Results:
    return {name: limits.judge(lab, name)}


def _confinement(lab: Lab, names: list[str], *, network_allow: tuple[str, ...] = ()) -> Results:
    """The attacks of `inside`, beside a run that is their victim, with bait laid out on the node."""
    try:
        bait = Bait(lab.sandbox.state_dir)
    except OSError as error:
        return {name: _not_run(name, f"no bait can be laid out: {error}") for name in names}
    key = secrets.randbelow(2**31)
    victim = {"victim_name": f"{bait.mark}victim", "victim_key": key}
    try:
        run_id, lost = _start_victim(lab, victim) if _NEED_A_VICTIM & set(names) else (None, None)
        results = _attack_beside(lab, bait, victim, names, network_allow)
        if run_id is not None and lab.sandbox.status(run_id).state != "running":
            lost = "the run beside it ended first"
        if lost:
            results |= {
                name: _not_run(name, lost)
                for name in _NEED_A_VICTIM & set(names)
                if results[name].outcome == "passed"
            }
        return results
    except (CannotTry, OSError) as error:
        return {name: _not_run(name, str(error)) for name in names}
    finally:
        bait.close()
        forget_shared(key)


def _start_victim(lab: Lab, victim: dict[str, Any]) -> tuple[str | None, str | None]:
    """Start it and add to `victim` where it is: (its run, None), or (None, why it can't be had)."""
    victim |= {"victim_folder": "/nowhere", "victim_port": 0}
    try:
        run_id = lab.prepare(
            "victim", "bombs.py", "victim", victim["victim_name"], max_duration_seconds=VICTIM_SECONDS
        )
        lab.start(run_id, victim)
        victim["victim_port"] = lab.await_said(run_id, "victim")["port"]
        victim["victim_folder"] = str(lab.sandbox.work_folder(run_id).parent)
    except CannotTry as error:
        return None, str(error)
    return run_id, None


def _attack_beside(
    lab: Lab, bait: Bait, victim: dict[str, Any], names: list[str], network_allow: tuple[str, ...]
) -> Results:
    name = "allowed" if network_allow else "confined"
    run_id = lab.prepare(name, "inside", network_allow=network_allow)
    own_uid = lab.sandbox.work_folder(run_id).stat().st_uid
    bait.set_out_canary(own_uid if lab.sandbox.host.own_uids else None)
    victim = {"victim_folder": "/nowhere", "victim_port": 0} | victim
    checks = [name for name in names if name in _INSIDE]
    found = bait.found_by_confinement(victim=victim, own_devices=[])
    lab.start(run_id, found | {"checks": checks, "linger_seconds": 0.1})
    owners = _watch_owners(lab, run_id)
    said = lab.said(run_id)
    outside = _seen_outside(bait) if "end" in said else {}
    shares_kernel = _shares_kernel(lab, said.get("end", {}))
    results: Results = {}
    for name in checks:
        results[name] = _judged(
            name, said.get(name), outside.get(name, []), shares_kernel, lambda: lab.why(lab.await_end(run_id))
        )
    if "own-user" in names:
        results["own-user"] = _own_user(lab.sandbox, owners)
    return results


def _watch_owners(lab: Lab, run_id: str) -> set[int]:
    """The real users of the run's processes as the node sees them, until it has ended."""
    owners: set[int] = set()
    while lab.status(run_id).state in ("prepared", "running"):
        for pid in lab.sandbox.job_pids(run_id):
            if (owner := process.real_uid(pid)) is not None:
                owners.add(owner)
        time.sleep(POLL_SECONDS)
    return owners


def _seen_outside(bait: Bait) -> dict[str, list[str]]:
    """What the attacks did out here, whatever they say themselves."""
    seen: dict[str, list[str]] = {"loopback": [], "abstract-sockets": [], "host-sockets": [], "signals": []}
    for name in bait.touched:
        check = "abstract-sockets" if "abstract" in name else "host-sockets" if "path" in name else "loopback"
        seen[check].append(f"{name} of the node got a connection")
    if not bait.canary_lives():
        seen["signals"].append("a process of the node was ended")
    return seen


def _shares_kernel(lab: Lab, end: Mapping[str, Any]) -> bool:
    """By the tier's word and what was seen: a kernel that says our boot's id is ours."""
    return not lab.own_kernel or end.get("kernel") == process.boot_id()


def _judged(
    name: str,
    said: dict[str, Any] | None,
    outside: list[str],
    shares_kernel: bool,
    why: Callable[[], str],
) -> CheckResult:
    if outside:
        return _failed(name, outside)
    if said is None:
        return _not_run(name, why())
    if "not_run" in said:
        return _not_run(name, said["not_run"])
    harmless = BY_NAME[name].own_kernel_harmless or set(said["found"]) <= set(IN_ITS_MEMORY)
    if said["found"] and not shares_kernel and harmless:
        return _passed(name, f"in the tier's own kernel alone: {_some(said['found'])}")
    return _failed(name, said["found"]) if said["found"] else _passed(name)


def _own_user(sandbox: Sandbox, owners: set[int]) -> CheckResult:
    name = "own-user"
    if not sandbox.host.own_uids:
        if owners <= {os.getuid()}:
            return _not_run(name, "the agent is not root, so all runs share its user outside their sandboxes")
        return _failed(name, [f"a run belongs to the users {sorted(owners)}"])
    if not owners:
        return _not_run(name, "the owner of a run's processes could not be seen")
    if owners & {0, os.getuid()}:
        return _failed(name, ["a run has the agent's own user outside its sandbox"])
    return _passed(name)


def _leftovers(lab: Lab) -> Results:
    """One run leaves things, is cleared away, and the next one looks for them."""
    names = ("scratch-leftovers", "shared-memory-leftovers")
    key = secrets.randbelow(2**31)
    bait = {"places": PLACES, "left_name": f"left{secrets.token_hex(8)}", "left_key": key}
    try:
        first = lab.prepare("leave", "bombs.py", "leave")
        lab.start(first, bait)
        lab.await_said(first, "leave")
        lab.await_end(first)
        lab.sandbox.clear(first)
        second = lab.prepare("find", "bombs.py", "find")
        lab.start(second, bait)
        said = lab.await_said(second, "find")
    except CannotTry as error:
        return {name: _not_run(name, str(error)) for name in names}
    finally:
        forget_shared(key)
    in_memory = [each for each in said["files"] if each.startswith("/dev/shm")]  # noqa: S108 - the run's own
    on_disk = [each for each in said["files"] if each not in in_memory]
    return {
        names[0]: _failed(names[0], on_disk) if on_disk else _passed(names[0]),
        names[1]: _failed(names[1], in_memory + said["shared"])
        if in_memory + said["shared"]
        else _passed(names[1]),
    }


def _passed(name: str, detail: str = "") -> CheckResult:
    return CheckResult(name=name, outcome="passed", detail=detail[:DETAIL_CHARACTERS])


def _failed(name: str, found: list[str]) -> CheckResult:
    return CheckResult(name=name, outcome="failed", detail=_some(found)[:DETAIL_CHARACTERS])


def _not_run(name: str, why: str) -> CheckResult:
    return CheckResult(name=name, outcome="not_run", detail=why[:DETAIL_CHARACTERS])


def _some(found: list[str]) -> str:
    more = f"; and {len(found) - OPEN_SHOWN_MAX} more" if len(found) > OPEN_SHOWN_MAX else ""
    return "; ".join(found[:OPEN_SHOWN_MAX]) + more

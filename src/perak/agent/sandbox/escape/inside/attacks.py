"""Every attack by the name of its check, and the way through them."""

from __future__ import annotations

import json
import os
import time
from functools import partial
from typing import Any

from perak.agent.sandbox.escape.inside import files, network, powers, processes
from perak.agent.sandbox.escape.inside.calls import NotRun
from perak.agent.sandbox.escape.inside.child import in_child
from perak.agent.sandbox.escape.inside.look import read

ATTACKS = {
    "host-files": files.host_files,
    "password-file": files.password_file,
    "agent-state": files.agent_state,
    "read-only-system": files.read_only_system,
    "other-jobs": files.other_jobs,
    "host-processes": processes.host_processes,
    "signals": processes.signals,
    "ptrace": processes.ptrace,
    "namespaces": processes.namespaces,
    "descriptors": processes.descriptors,
    "terminal": processes.terminal,
    "loopback": network.loopback,
    "abstract-sockets": network.abstract_sockets,
    "host-sockets": network.host_sockets,
    "metadata": network.metadata,
    "network": network.network,
    "raw-sockets": network.raw_sockets,
    "packet-sockets": network.packet_sockets,
    "odd-sockets": network.odd_sockets,
    "capabilities": powers.capabilities,
    "setuid": powers.setuid,
    "mounts": powers.mounts,
    "mknod": powers.mknod,
    "pivot-root": powers.pivot_root,
    "user-namespaces": powers.user_namespaces,
    "devices": powers.devices,
    "kernel-parameters": powers.kernel_parameters,
    "control-groups": powers.control_groups,
    "keyrings": powers.keyrings,
    "bpf": powers.bpf,
    "perf-events": powers.perf_events,
    "io-uring": powers.io_uring,
    "modules": powers.modules,
    "file-handles": powers.file_handles,
    "machine": powers.machine,
    "user-faults": powers.user_faults,
    "filter": powers.filter_in_force,
}


def tell(**values: Any) -> None:
    os.write(1, (json.dumps(values) + "\n").encode())


def main() -> None:
    with open("/work/bait.json") as file:
        bait = json.load(file)
    for name in bait["checks"]:
        try:
            tell(check=name, found=in_child(partial(ATTACKS[name], bait)) or [])
        except NotRun as error:
            tell(check=name, not_run=str(error))
    tell(check="end", uid=os.getuid(), kernel=read("/proc/sys/kernel/random/boot_id").decode().strip())
    time.sleep(bait["linger_seconds"])  # so that our owner can be seen from outside

"""Whether a run finds in a GPU's memory what the run before it left there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perak.agent.sandbox.escape.lab import MIB, CannotTry, Lab
from perak.domain.checklist import CheckResult

if TYPE_CHECKING:
    from perak.agent.probe.nvidia import Nvidia

NAME = "device-memory-leftovers"
DEVICE_SECONDS = 60.0
"""The driver of a machine with eight cards, without persistence mode, takes some ten seconds to wake."""
_LIMITS = {"memory_bytes": 2048 * MIB, "disk_bytes": 64 * MIB, "pids_max": 64}
"""As the check of a device's fitness has them: the driver keeps some 300 MiB for one context."""


def judge(lab: Lab, nvidia: Nvidia | None) -> CheckResult:
    """Fill and look, in all devices that nobody uses now.

    In the default tier alone, which is tried before the agent has runs: the others are tried beside them.
    """
    if lab.tier is not None:
        return CheckResult(
            name=NAME, outcome="not_run", detail="tried once for all tiers, in the default one"
        )
    uuids = _idle(lab, nvidia)
    if nvidia is None or not uuids:
        why = "this machine has no GPU" if nvidia is None else "every GPU is in use"
        return CheckResult(name=NAME, outcome="not_run", detail=why)
    try:
        access = nvidia.access(uuids)
        given = {"env": access.env, "masks": access.masks, "device_nodes": access.nodes}
        for work in ("fill", "find"):
            run_id = lab.prepare(
                work,
                "gpu.py",
                work,
                max_duration_seconds=DEVICE_SECONDS,
                add=access.mounts,
                **_LIMITS,
                **given,
            )
            lab.start(run_id, {})
            got = lab.await_said(run_id, work, seconds=DEVICE_SECONDS)["bytes"]
            if len(got) != len(uuids) or (work == "fill" and not all(got)):
                raise CannotTry(f"of {len(uuids)} GPUs {sum(map(bool, got))} could be filled")
            lab.await_end(run_id)
            lab.sandbox.clear(run_id)
    except (CannotTry, LookupError) as error:
        return CheckResult(name=NAME, outcome="not_run", detail=str(error)[:400])
    leaky = [f"GPU {index}: {left:,} bytes" for index, left in enumerate(got) if left]
    detail = f"the run before left in the memory of {'; '.join(leaky)}" if leaky else f"{len(got)} GPU(s)"
    return CheckResult(name=NAME, outcome="failed" if leaky else "passed", detail=detail[:400])


def _idle(lab: Lab, nvidia: Nvidia | None) -> tuple[str, ...]:
    """Devices on which nobody computes: somebody else's memory is not to be filled, be it another agent's."""
    if nvidia is None:
        return ()
    busy: set[str] = set()
    for status in lab.sandbox.find():
        if status.state in ("prepared", "running"):
            busy.update(lab.sandbox.load(status.run_id).env.get("CUDA_VISIBLE_DEVICES", "").split(","))
    uuids = (each.device.uuid for each in nvidia.devices)
    return tuple(uuid for uuid in uuids if uuid not in busy and not nvidia.is_used(uuid))

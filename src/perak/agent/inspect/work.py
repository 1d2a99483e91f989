"""What an inspecting process does: one device after the other, or all at once for a challenge."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from perak.agent.inspect import engine, prove, talk, wiping
from perak.agent.inspect.engine import NO_HOOKS, Hooks
from perak.agent.inspect.nvml import CardLost
from perak.agent.inspect.opencl import DeviceGone, Session
from perak.agent.inspect.targets import Target, targets
from perak.domain.hardware.challenge import Answer, DeviceProof
from perak.domain.hardware.inspection import Check

Say = Callable[[talk.Said], None]


def carry_out(request: talk.Request, say: Say, *, version: str, hooks: Hooks = NO_HOOKS) -> None:
    """Carry out one request, and say what comes of it."""
    found = targets()
    match request:
        case talk.Inspect():
            inspect(request, found, say, version=version, hooks=hooks)
        case talk.Wipe():
            for device in request.devices:
                target = next((each for each in found if each.identity.uuid == device), None)
                say(talk.Wiped(record=wiping.wipe(target, device=device, lease=request.lease)))
        case talk.Prove():
            say(talk.Proved(answer=answer(request, found)))


def inspect(request: talk.Inspect, found: list[Target], say: Say, *, version: str, hooks: Hooks) -> None:
    """Inspect the devices that are asked for, one after the other."""
    wanted = [each for each in found if _is_wanted(each, request)]
    if not wanted:
        say(talk.Trouble(why=_none(request, found)))
        return
    slowdowns = engine.several(found)
    for number, target in enumerate(wanted):
        if target.place in request.skip:
            continue
        place, count = target.place, len(wanted)
        say(talk.Began(place=place, identity=target.identity, number=number, count=count))
        one = engine.Inspection(
            target=target,
            request=request,
            say=lambda what: say(_said(what)),
            slowdown=slowdowns.get(place, (None, "")),
            hooks=hooks,
            version=version,
        )
        say(talk.Inspected(place=place, inspection=one.run()))


def answer(request: talk.Prove, found: list[Target]) -> Answer:
    """Every device of the challenge at work at once."""
    challenge = request.challenge
    by_uuid = {each.identity.uuid: each for each in found if each.shown is not None}
    missing = [device for device in challenge.devices if device not in by_uuid]
    if missing:
        return Answer(challenge=challenge.id, problem=f"OpenCL does not show {', '.join(missing)[:300]}")

    def one(device: str) -> DeviceProof:
        shown = by_uuid[device].shown
        assert shown is not None
        return prove.prove(Session(shown), challenge, device)

    try:
        with ThreadPoolExecutor(max(1, len(challenge.devices))) as pool:
            return Answer(challenge=challenge.id, proofs=tuple(pool.map(one, challenge.devices)))
    except (DeviceGone, CardLost, MemoryError) as error:
        return Answer(challenge=challenge.id, problem=str(error)[:300])


def _is_wanted(target: Target, request: talk.Inspect) -> bool:
    if request.uuids:
        return target.identity.uuid in request.uuids
    if request.devices:
        return target.index in request.devices
    return request.cpu or target.identity.kind != "cpu"


def _none(request: talk.Inspect, found: list[Target]) -> str:
    names = ", ".join(f"{each.index} {each.identity.model}" for each in found)
    if found and (request.devices or request.uuids):
        return f"there is no such device; there are: {names}"
    return "neither OpenCL nor a driver shows a device; pocl comes with perak[inspect] or pocl-opencl-icd"


def _said(what: Check | tuple[str, ...]) -> talk.Said:
    return talk.Checked(check=what) if isinstance(what, Check) else talk.Checking(names=what)

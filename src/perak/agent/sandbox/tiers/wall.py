"""The outer wall: what bubblewrap's arguments for a run become where a runtime stands between it and the job.

The tree that the job sees is laid out by bubblewrap as ever, but under `ROOT`, and the runtime makes that its
container's root; so every tier shows a job the same files, whatever `bwrap.arguments` puts there (the node's
/usr, an image, inputs, environments). Around it lies what the runtime itself needs: /usr, its own /proc and
an empty /run. A break out of the runtime ends there, under the run's own user, without a network.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from perak.agent.sandbox import bwrap
from perak.agent.sandbox.tiers.base import Candidate, Places

ROOT = "/rootfs"
FILES = "/bundle"
STATE = f"{FILES}/state"
PROGRAM = "/program"
DEVICES = "/devices"

_PATHS = {
    "--bind": 2, "--ro-bind": 2, "--bind-try": 2, "--ro-bind-try": 2, "--dev-bind": 2, "--dev-bind-try": 2,
    "--symlink": 2, "--chmod": 2, "--dir": 1, "--tmpfs": 1, "--proc": 1, "--dev": 1, "--remount-ro": 1,
    "--mqueue": 1,
}  # fmt: skip
"""bubblewrap's options that lay out files, by their number of operands; the last is a path in the sandbox."""

_NEXT = ("--perms", "--size")
"""Options that say something of the one after them."""

_OTHER = {
    "--uid": 1, "--gid": 1, "--hostname": 1, "--cap-drop": 1, "--setenv": 2, "--chdir": 1, "--clearenv": 0,
    "--unshare-all": 0, "--unshare-user": 0, "--disable-userns": 0, "--die-with-parent": 0,
    "--new-session": 0, "--share-net": 0,
}  # fmt: skip


@dataclass(slots=True, kw_only=True)
class Job:
    """What the arguments said of the job itself, for the runtime to carry out.

    `devices` maps paths in the sandbox to where the outer wall has them, `tmpfs` those in /dev to their size
    in bytes, `writable` are the places that the job may write to.
    """

    uid: int = bwrap.JOB_UID
    gid: int = bwrap.JOB_UID
    hostname: str = "perak"
    cwd: str = "/"
    env: dict[str, str] = field(default_factory=dict)
    devices: dict[str, str] = field(default_factory=dict)
    tmpfs: dict[str, int] = field(default_factory=dict)
    writable: list[str] = field(default_factory=list)


def build(arguments: list[str], *, at: Places, runtime: Candidate) -> tuple[list[str], Job]:
    """The arguments of the outer wall, and what is left to the runtime inside it.

    Raises ValueError for an argument that it doesn't know: what can't be passed on must not be dropped.
    """
    job = Job()
    tree: list[str] = ["--perms", "0755", "--tmpfs", ROOT]
    for said, option, operands in _options(arguments):
        if option in _PATHS:
            tree += _place(said, option, operands, job)
        else:
            _note(option, operands, job)
    outer = ["--unshare-all", "--unshare-user", "--die-with-parent", "--new-session"]
    if "--share-net" in arguments:
        outer += ["--share-net"]
    # Root in a user namespace of its own, where a runtime may make another; outside it is the run's user.
    outer += ["--uid", "0", "--gid", "0", "--cap-add", "ALL", "--hostname", job.hostname]
    outer += ["--clearenv", "--setenv", "PATH", "/usr/sbin:/usr/bin:/sbin:/bin", *bwrap.system()]
    outer += ["--proc", "/proc", "--dev", "/dev"]
    for folder in ("/tmp", "/run", "/sys"):  # noqa: S108 - inside the wall, and nobody else's
        outer += ["--perms", "0755", "--size", bwrap.MASK_BYTES, "--tmpfs", folder]
    outer += ["--ro-bind", str(at.files), FILES, "--bind", str(at.files / "state"), STATE]
    outer += ["--ro-bind", str(runtime.path), PROGRAM]
    return [*outer, *tree], job


def _options(arguments: list[str]) -> Iterator[tuple[list[str], str, list[str]]]:
    """Each option with its operands, and before it what modifies it."""
    said: list[str] = []
    rest = list(arguments)
    while rest:
        option = rest.pop(0)
        if option in _NEXT:
            said += [option, rest.pop(0)]
            continue
        count = _PATHS.get(option, _OTHER.get(option))
        if count is None:
            raise ValueError(f"bubblewrap's {option} can't be passed on to another runtime")
        yield said, option, rest[:count]
        said, rest = [], rest[count:]


def _place(said: list[str], option: str, operands: list[str], job: Job) -> list[str]:
    """The same place under ROOT; what is in /dev and /proc is the runtime's to make."""
    path = operands[-1]
    if option in ("--proc", "--dev"):
        return ["--dir", f"{ROOT}{path}"]
    if path == "/dev" and option == "--remount-ro":
        return []
    if path.startswith("/dev/"):
        if option == "--tmpfs":
            job.tmpfs[path] = int(said[said.index("--size") + 1])
            return []
        job.devices[path] = DEVICES + path.removeprefix("/dev")
        return [option, *operands[:-1], job.devices[path]]
    if option in ("--bind", "--bind-try"):
        job.writable.append(path)
    inside = ROOT if path == "/" else f"{ROOT}{path}"
    return [*said, option, *operands[:-1], inside]


def _note(option: str, operands: list[str], job: Job) -> None:
    if option == "--setenv":
        job.env[operands[0]] = operands[1]
    elif option in ("--uid", "--gid"):
        setattr(job, option[2:], int(operands[0]))
    elif option == "--chdir":
        job.cwd = operands[0]
    elif option == "--hostname":
        job.hostname = operands[0]

"""A run's secrets on their way from the agent's memory into the sandbox: on no disk, in nobody's folder."""

from __future__ import annotations

import base64
import json
import os
from typing import TYPE_CHECKING

from perak.agent.shim import kernel

if TYPE_CHECKING:
    from perak.agent.sandbox.launch import Launch

Secrets = dict[str, tuple[str, bytes]]
"""Kind ("env" or "file") and value, by name."""

SECRETS = "/run/secrets"
SECRET_MODE = "0400"  # noqa: S105 - of its file


def take(descriptors: list[int]) -> Secrets:
    """What is in the agent's file without a name; from now on our memory is never dumped."""
    if not descriptors:
        return {}
    kernel.never_dump()
    (file,) = descriptors
    content = os.pread(file, os.fstat(file).st_size, 0)
    os.close(file)
    return {name: (kind, base64.b64decode(value)) for name, (kind, value) in json.loads(content).items()}


def arguments(stage: str, plan: Launch, secrets: Secrets) -> list[bytes]:
    """What bubblewrap is told of secrets. Descriptors and not paths: they are in nobody's folder."""
    variables = {name: value for name, (kind, value) in secrets.items() if kind == "env"}
    given: list[bytes] = []
    for name, (kind, value) in secrets.items():
        if kind == "file":
            path = f"{plan['root']}{SECRETS}/{name}"
            given += _file_arguments("--file", path, value)
    if len(variables) < len(secrets):
        given += [b"--remount-ro", f"{plan['root']}{SECRETS}".encode()]
    if variables and stage in plan["configs"]:
        source, path = plan["configs"][stage]
        with open(source, "rb") as file:
            config = json.load(file)
        named = tuple(f"{name}=" for name in variables)
        env = [each for each in config["process"]["env"] if not each.startswith(named)]
        config["process"]["env"] = env + [f"{name}={value.decode()}" for name, value in variables.items()]
        given += _file_arguments("--ro-bind-data", path, json.dumps(config).encode())
    elif variables:
        for name, value in variables.items():
            given += [b"--setenv", name.encode(), value]
    return given


def _file_arguments(option: str, path: str, content: bytes) -> list[bytes]:
    file = memory_file("secret", content)
    os.set_inheritable(file, True)
    return [b"--perms", SECRET_MODE.encode(), option.encode(), str(file).encode(), path.encode()]


def memory_file(name: str, content: bytes) -> int:
    """An open file without a path, in memory only, to be read from its beginning."""
    file = os.memfd_create(name, os.MFD_CLOEXEC)
    with open(file, "wb", closefd=False) as stream:
        stream.write(content)
    os.lseek(file, 0, os.SEEK_SET)
    return file

"""What a renter may ask for through a tunnel: a command, a port, or an ssh session, in its own run."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from perak.agent.tunnels.inside import Inside, Size, plan, start
from perak.agent.tunnels.ports import connect_inside
from perak.domain.errors import InvalidInput
from perak.wire.tunnel import (
    ANSWER,
    CHUNK_BYTES,
    DATA,
    EOF,
    ERRORS,
    EXIT,
    RESIZE,
    SIGNAL,
    Channel,
    join_socket,
    json_of,
)

LINGER_SECONDS = 0.5
"""For output that the command left behind; what it put into the background may hold its streams for ever."""
CHARACTERS_MAX = 4096
"""Rows or columns of a terminal; the kernel counts them in 16 bits."""
ARGUMENTS_MAX = 1024


async def serve(channel: Channel, request: dict[str, Any], run_folder: Path) -> None:
    """Do what was asked until it is over. Raises CantEnter, InvalidInput before anything was answered."""
    match request.get("do"):
        case "exec":
            await _exec(channel, request, run_folder)
        case "forward":
            await _forward(channel, request, run_folder)
        case "ssh":
            from perak.agent.tunnels.ssh import serve_ssh

            await serve_ssh(channel, run_folder)
        case _:
            raise InvalidInput("this node's agent does not know what was asked for; is it older than you?")


async def _exec(channel: Channel, request: dict[str, Any], run_folder: Path) -> None:
    argv, env = request.get("argv"), request.get("env", {})
    if not (isinstance(argv, list) and 0 < len(argv) <= ARGUMENTS_MAX and all(map(_is_argument, argv))):
        raise InvalidInput("a command is a list of texts")
    if not (isinstance(env, dict) and all(_is_argument(k) and _is_argument(v) for k, v in env.items())):
        raise InvalidInput("an environment is names and texts")
    inside = await start(plan(run_folder, argv=argv, env=env, size=_size(request.get("terminal"))))
    try:
        await channel.send_json(ANSWER, {})
        await bridge(channel, inside)
    finally:
        inside.close()


async def bridge(channel: Channel, inside: Inside) -> None:
    """Copy a command's streams until it has ended, and say how."""
    outputs = [asyncio.create_task(_copy_out(channel, inside.output, DATA))]
    if inside.errors is not None:
        outputs.append(asyncio.create_task(_copy_out(channel, inside.errors, ERRORS)))
    inputs = asyncio.create_task(_copy_in(channel, inside))
    try:
        waited: list[asyncio.Future[Any]] = [inputs, inside.exit_code]
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if not inside.exit_code.done():
            inputs.result()  # The client left, and the command with it.
            return
        await asyncio.wait(outputs, timeout=LINGER_SECONDS)
        await channel.send_json(EXIT, {"code": inside.exit_code.result()})
    finally:
        for task in (*outputs, inputs):
            task.cancel()
        await asyncio.gather(*outputs, inputs, return_exceptions=True)


async def _copy_out(channel: Channel, source: int, kind: int) -> None:
    while data := await read_some(source):
        await channel.send(kind, data)


async def _copy_in(channel: Channel, inside: Inside) -> None:
    while True:
        kind, data = await channel.receive()
        match kind:
            case _ if kind == DATA:
                await write_all(inside, data)
            case _ if kind == EOF:
                inside.close_input()
            case _ if kind == RESIZE:
                if (size := _size(json_of(data))) is not None:
                    inside.resize(size)
            case _ if kind == SIGNAL:
                inside.signal(data.decode(errors="replace"))


async def write_all(inside: Inside, data: bytes) -> None:
    """To the command; what it does not want any more is dropped, as by a closed pipe."""
    view = memoryview(data)
    while view and inside.input is not None:
        try:
            view = view[os.write(inside.input, view) :]
        except BlockingIOError:
            await _ready(inside.input, for_writing=True)
        except OSError:
            inside.close_input()
            return


async def read_some(source: int) -> bytes:
    """What is there, empty at the end; a terminal's end is an error of its own (EIO)."""
    while True:
        try:
            return os.read(source, CHUNK_BYTES)
        except BlockingIOError:
            await _ready(source, for_writing=False)
        except OSError:
            return b""


async def _ready(number: int, *, for_writing: bool) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        if not ready.done():
            ready.set_result(None)

    add = loop.add_writer if for_writing else loop.add_reader
    remove = loop.remove_writer if for_writing else loop.remove_reader
    add(number, tell)
    try:
        await ready
    finally:
        remove(number)


async def _forward(channel: Channel, request: dict[str, Any], run_folder: Path) -> None:
    port = request.get("port")
    if not isinstance(port, int) or not 0 < port < 2**16:
        raise InvalidInput("a port is a number from 1 to 65535")
    with await connect_inside(run_folder, port) as link:
        await channel.send_json(ANSWER, {})
        await join_socket(channel, link)


def _size(value: object) -> Size | None:
    if value is None:
        return None
    match value:
        case {"rows": int(rows), "columns": int(columns)}:
            if 0 < rows < CHARACTERS_MAX and 0 < columns < CHARACTERS_MAX:
                return Size(rows, columns)
    raise InvalidInput("a terminal has rows and columns")


def _is_argument(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value

"""What the commands into a running job do, on this machine's side."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from perak.client.tunnels import TunnelRefused, Tunnels
from perak.wire.tunnel import (
    DATA,
    EOF,
    ERRORS,
    EXIT,
    RESIZE,
    SIGNAL,
    Channel,
    TunnelClosed,
    join_socket,
    json_of,
    keep_buffers,
)

if TYPE_CHECKING:
    from perak.cli.app import App

PASSED_ENV = ("TERM", "COLORTERM", "LANG", "LC_ALL", "NO_COLOR")
"""Of this machine's environment, what says how this terminal is to be written to."""
READ_BYTES = 64 * 1024
LISTEN_BACKLOG = 128
FAILED = 1


async def run_command(tunnels: Tunnels, command: Sequence[str], with_terminal: bool) -> int:
    """Run it there with this machine's streams; its exit code."""
    request: dict[str, Any] = {"do": "exec", "argv": list(command)}
    if with_terminal:
        request["terminal"] = _size()
        request["env"] = {name: os.environ[name] for name in PASSED_ENV if name in os.environ}
    try:
        async with tunnels.open(request) as channel:
            with _terminal_as_it_comes() if with_terminal else contextlib.nullcontext():
                return await _converse(channel, with_terminal=with_terminal)
    except TunnelRefused as error:
        if error.exit_code is None:
            raise
        click.echo(f"perak: {error.detail}", err=True)
        return error.exit_code


async def _converse(channel: Channel, *, with_terminal: bool) -> int:
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    def tell(kind: int, data: bytes) -> None:
        task = loop.create_task(_send(channel, kind, data))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    if with_terminal:
        loop.add_signal_handler(signal.SIGWINCH, lambda: tell(RESIZE, _json(_size())))
    else:
        loop.add_signal_handler(signal.SIGINT, lambda: tell(SIGNAL, b"INT"))
    loop.add_signal_handler(signal.SIGTERM, lambda: tell(SIGNAL, b"TERM"))
    threading.Thread(target=_read_input, args=(loop, channel), daemon=True).start()
    while True:
        kind, data = await channel.receive()
        if kind == DATA:
            await asyncio.to_thread(_write_all, 1, data)
        elif kind == ERRORS:
            await asyncio.to_thread(_write_all, 2, data)
        elif kind == EXIT:
            return int(json_of(data)["code"])


async def _send(channel: Channel, kind: int, data: bytes) -> None:
    with contextlib.suppress(TunnelClosed):
        await channel.send(kind, data)


def _read_input(loop: asyncio.AbstractEventLoop, channel: Channel) -> None:
    """In a thread, as a file can't be waited for; the process doesn't wait for the thread."""
    with contextlib.suppress(OSError, RuntimeError, TunnelClosed):
        while data := os.read(0, READ_BYTES):
            asyncio.run_coroutine_threadsafe(channel.send(DATA, data), loop).result()
        asyncio.run_coroutine_threadsafe(channel.send(EOF), loop).result()


def _write_all(number: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(number, view) :]


@contextlib.contextmanager
def _terminal_as_it_comes() -> Iterator[None]:
    """Every key goes to the other end as it is, Ctrl-C too."""
    import termios
    import tty

    if not os.isatty(0):
        yield
        return
    before = termios.tcgetattr(0)
    tty.setraw(0, termios.TCSADRAIN)  # what was typed already is kept
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def _size() -> dict[str, int]:
    try:
        columns, rows = os.get_terminal_size(1)
    except OSError:
        columns, rows = 80, 24
    return {"rows": max(rows, 1), "columns": max(columns, 1)}


def _json(value: dict[str, int]) -> bytes:
    import json

    return json.dumps(value).encode()


def parse_ports(texts: Sequence[str]) -> list[tuple[int, int]]:
    """(local, remote) of ``8888`` and ``9999:8888``. Raises BadParameter."""
    pairs = []
    for text in texts:
        local, colon, remote = text.rpartition(":")
        if not remote.isdigit() or not 0 < int(remote) < 2**16 or (colon and not local.isdigit()):
            raise click.BadParameter(f"{text!r} is not a port; write it like 8888, or 9999:8888")
        pairs.append((int(local) if colon else int(remote), int(remote)))
    return pairs


async def forward_ports(tunnels: Tunnels, pairs: Sequence[tuple[int, int]]) -> int:
    """Listen until interrupted."""
    keep_buffers()
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    listeners = [_listen(local) for local, _ in pairs]
    accepting = [
        asyncio.create_task(_accept(tunnels, listener, remote))
        for listener, (_, remote) in zip(listeners, pairs, strict=True)
    ]
    for listener, (_, remote) in zip(listeners, pairs, strict=True):
        click.echo(f"http://127.0.0.1:{listener.getsockname()[1]} leads to port {remote} of {tunnels.job}")
    waiting = asyncio.create_task(stop.wait())
    await asyncio.wait([waiting, *accepting], return_when=asyncio.FIRST_COMPLETED)
    for task in (waiting, *accepting):
        task.cancel()
    for listener in listeners:
        listener.close()
    return 0


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        listener.close()
        raise click.ClickException(
            f"Port {port} of this machine can't be used: {error.strerror}. Choose another, like 0:{port}."
        ) from None
    listener.listen(LISTEN_BACKLOG)
    listener.setblocking(False)
    return listener


async def _accept(tunnels: Tunnels, listener: socket.socket, port: int) -> None:
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as tasks:
        while True:
            link, _ = await loop.sock_accept(listener)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            tasks.create_task(_lead(tunnels, link, port))


async def _lead(tunnels: Tunnels, link: socket.socket, port: int) -> None:
    """One connection; what goes wrong ends it alone, with a line."""
    from perak.client.errors import PerakError

    link.setblocking(False)
    with link:
        try:
            async with tunnels.open({"do": "forward", "port": port}) as channel:
                await join_socket(channel, link)
        except PerakError as error:
            click.echo(f"perak: {error.detail}", err=True)
        except (OSError, TunnelClosed, ExceptionGroup):
            return  # One of the two ends left, and the other was told by that.


async def carry(tunnels: Tunnels) -> int:
    """Standard input and output as one connection."""
    keep_buffers()
    async with tunnels.open({"do": "ssh"}) as channel:
        threading.Thread(target=_read_input, args=(asyncio.get_running_loop(), channel), daemon=True).start()
        while True:
            kind, data = await channel.receive()
            if kind == EOF:
                return 0
            if kind == DATA:
                await asyncio.to_thread(_write_all, 1, data)


def _host(job: str) -> str:
    """A job's id as ssh takes a host; what stands before an @ would be a user."""
    return job.replace("@", ".")


def proxy_command(app: App, job: str) -> str:
    """The command that ssh runs to reach the job."""
    words = [sys.executable, "-m", "perak"]
    if app.url is not None:
        words += ["--url", app.url]
    if app.profile is not None:
        words += ["--profile", app.profile]
    return shlex.join([*words, "tunnel", job]).replace("%", "%%")


def ssh_options(app: App, job: str) -> dict[str, str]:
    """The tunnel has proven the node and the renter already, so ssh's own keys prove nothing more."""
    return {
        "ProxyCommand": proxy_command(app, job),
        "User": "perak",
        "StrictHostKeyChecking": "no",
        "UserKnownHostsFile": os.devnull,
        "GlobalKnownHostsFile": os.devnull,
        "LogLevel": "ERROR",
        "PreferredAuthentications": "none",
    }


def run_ssh(app: App, job: str, arguments: Sequence[str]) -> int:
    """Run this machine's ssh to the job; its exit code."""
    options = [part for name, value in ssh_options(app, job).items() for part in ("-o", f"{name}={value}")]
    own = list(arguments)
    at = _where_the_command_begins(own)
    try:
        return subprocess.run(["ssh", *options, *own[:at], _host(job), *own[at:]], check=False).returncode
    except FileNotFoundError:
        message = "There is no ssh on this machine; `perak exec` works without it."
        raise click.ClickException(message) from None


def _where_the_command_begins(arguments: Sequence[str]) -> int:
    """ssh's options come before its host and the command after it; these options take a value (ssh(1))."""
    at = 0
    while at < len(arguments) and arguments[at].startswith("-"):
        at += 2 if len(arguments[at]) == 2 and arguments[at][1] in "BbcDEeFIiJLlmOoPpQRSWw" else 1
    return min(at, len(arguments))


def config_block(app: App, job: str, *, name: str) -> str:
    """A Host block of ssh_config(5)."""
    lines = [f"Host perak-{name}", f"  HostName {_host(job)}"]
    lines += [f"  {option} {value}" for option, value in ssh_options(app, job).items()]
    return "\n".join(lines)

"""ssh (RFC 4251) to a run: what stock OpenSSH asks for is done inside the sandbox, by `inside` and `ports`.

The tunnel has proven both ends already, so nobody is asked for a key here, and the host key is this process's
own. asyncssh speaks the protocol; nothing of what it could do on the node itself (files, agents, X11, other
hosts) is turned on.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path

import asyncssh

from perak.agent.tunnels.inside import CantEnter, Inside, Size, plan, start
from perak.agent.tunnels.ports import connect_inside
from perak.agent.tunnels.services import LINGER_SECONDS, read_some, write_all
from perak.wire.tunnel import ANSWER, CHUNK_BYTES, Channel, join_socket

SHELL = "if command -v bash >/dev/null; then exec bash -l; fi; exec sh -l"
SFTP = (
    "for each in /usr/lib/openssh/sftp-server /usr/libexec/openssh/sftp-server /usr/libexec/sftp-server "
    "/usr/lib/ssh/sftp-server; do [ -x $each ] && exec $each; done; "
    "echo 'this sandbox has no sftp-server; use rsync, or tar over ssh' >&2; exit 127"
)
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com")
"""The fast ones, as TLS lies around them all."""


async def serve_ssh(channel: Channel, run_folder: Path) -> None:
    """An ssh server for one connection, which is the tunnel."""
    plan(run_folder, argv=["true"], env={}, size=None)  # Raises CantEnter while there is nothing to enter.
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    with ours:
        await channel.send_json(ANSWER, {})
        serving = asyncio.create_task(_serve(theirs, run_folder))
        try:
            await join_socket(channel, ours)
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


async def _serve(link: socket.socket, run_folder: Path) -> None:
    connection = await asyncssh.run_server(
        link,
        server_factory=partial(_Server, run_folder),
        server_host_keys=[_host_key()],
        encoding=None,
        encryption_algs=CIPHERS,
        compression_algs=None,
        agent_forwarding=False,
        x11_forwarding=False,
        allow_scp=False,
        gss_host=None,
    )
    try:
        await connection.wait_closed()
    finally:
        connection.abort()


@cache
def _host_key() -> asyncssh.SSHKey:
    return asyncssh.generate_private_key("ssh-ed25519")


class _Server(asyncssh.SSHServer):
    """One renter, who came through the tunnel."""

    def __init__(self, run_folder: Path) -> None:
        self._run_folder = run_folder

    def begin_auth(self, username: str) -> bool:
        """Nobody has to prove anything again, whatever the name."""
        return False

    def session_requested(self) -> asyncssh.SSHServerSession[bytes]:
        return _Session(self._run_folder)

    def connection_requested(  # type: ignore[override]
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> object:
        """`ssh -L` and `-D` lead to the job's own loopback and nowhere else."""
        if dest_host not in LOOPBACK_NAMES:
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "only the job's own ports (localhost) are reached"
            )
        return partial(_lead, self._run_folder, dest_port)


async def _lead(
    run_folder: Path,
    port: int,
    reader: asyncssh.SSHReader[bytes],
    writer: asyncssh.SSHWriter[bytes],
) -> None:
    """One connection to a port of the job; refused there, it is closed here."""
    try:
        link = await connect_inside(run_folder, port)
    except CantEnter:
        writer.close()
        return
    loop = asyncio.get_running_loop()

    async def out() -> None:
        while data := await loop.sock_recv(link, CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
        writer.write_eof()

    async def back() -> None:
        while data := await reader.read(CHUNK_BYTES):
            await loop.sock_sendall(link, data)
        link.shutdown(socket.SHUT_WR)

    with link, contextlib.suppress(OSError, asyncssh.Error):
        await asyncio.gather(out(), back())
    writer.close()


class _Session(asyncssh.SSHServerSession[bytes]):
    """A shell, a command or the file transfer of one session."""

    def __init__(self, run_folder: Path) -> None:
        self._run_folder = run_folder
        self._script = SHELL
        self._size: Size | None = None
        self._env: dict[str, str] = {}
        self._inside: Inside | None = None
        self._task: asyncio.Task[None] | None = None
        self._input: asyncio.Queue[bytes] = asyncio.Queue()
        self._room = asyncio.Event()
        self._room.set()

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._channel = chan

    def pty_requested(
        self, term_type: str, term_size: tuple[int, int, int, int], term_modes: Mapping[int, int]
    ) -> bool:
        self._env["TERM"] = term_type
        self._size = Size(max(term_size[1], 1), max(term_size[0], 1))
        return True

    def shell_requested(self) -> bool:
        return True

    def exec_requested(self, command: str) -> bool:
        self._script = command
        return True

    def subsystem_requested(self, subsystem: str) -> bool:
        self._script = SFTP
        return subsystem == "sftp"

    def session_started(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        if self._inside is not None:
            self._inside.resize(Size(max(height, 1), max(width, 1)))

    def signal_received(self, signal: str) -> None:
        if self._inside is not None:
            self._inside.signal(signal)

    def break_received(self, msec: int) -> bool:
        self.signal_received("INT")
        return True

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._input.put_nowait(data)
        self._channel.pause_reading()

    def eof_received(self) -> bool:
        self._input.put_nowait(b"")
        return True

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        env = {name: str(value) for name, value in self._channel.get_environment().items()}
        env = {name: value for name, value in env.items() if name.isidentifier()} | self._env
        argv = ["/bin/sh", "-c", self._script]
        try:
            self._inside = await start(plan(self._run_folder, argv=argv, env=env, size=self._size))
        except CantEnter as error:
            self._channel.write(f"perak: {error.detail}\n".encode(), asyncssh.EXTENDED_DATA_STDERR)
            self._channel.exit(error.exit_code)
            return
        with contextlib.closing(self._inside):
            await self._bridge(self._inside)

    async def _bridge(self, inside: Inside) -> None:
        outputs = [asyncio.create_task(self._copy_out(inside.output, None))]
        if inside.errors is not None:
            errors = self._copy_out(inside.errors, asyncssh.EXTENDED_DATA_STDERR)
            outputs.append(asyncio.create_task(errors))
        inputs = asyncio.create_task(self._copy_in(inside))
        try:
            code = await asyncio.shield(inside.exit_code)
            await asyncio.wait(outputs, timeout=LINGER_SECONDS)
            self._channel.exit(code)
        finally:
            for task in (*outputs, inputs):
                task.cancel()
            await asyncio.gather(*outputs, inputs, return_exceptions=True)

    async def _copy_out(self, source: int, datatype: int | None) -> None:
        while data := await read_some(source):
            await self._room.wait()
            self._channel.write(data, datatype)

    async def _copy_in(self, inside: Inside) -> None:
        while data := await self._input.get():
            await write_all(inside, data)
            if self._input.empty():
                self._channel.resume_reading()
        inside.close_input()

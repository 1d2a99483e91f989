"""Serve one replica until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import AsyncIterator, Callable

import uvicorn

from perak.domain.errors import Unavailable
from perak.server import clock
from perak.server.app import create_app
from perak.server.bootstrap import FirstStart
from perak.server.certificates import TlsFiles, tls_files
from perak.server.connections import Connections
from perak.server.patience import protocol
from perak.server.services import Services, open_services
from perak.server.sessions import NodeSession
from perak.server.settings import Settings
from perak.server.sockets import agent_sockets
from perak.server.tls import Listener
from perak.server.tunnel_ends import tunnel_end

KEEP_ALIVE_SECONDS = 75
"""Longer than clients keep idle connections, so that none is closed under a request on its way."""
STOP_SECONDS = 5
"""Requests on their way get this long when the exchange stops."""
BACKLOG = 2048


class _Server(uvicorn.Server):
    """uvicorn, which tells when it is ready and when it is about to end."""

    def __init__(self, config: uvicorn.Config, services: Services, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._services = services
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Streams and sessions close by themselves first, so that nothing has to be cut."""
        self._services.stopping.set()
        await super().shutdown(sockets)


@contextlib.asynccontextmanager
async def prepared(
    settings: Settings, *, on_ready: Callable[[], None] = lambda: None
) -> AsyncIterator[tuple[uvicorn.Server, list[socket.socket], Services, FirstStart | None]]:
    """A server that only has to be run, with its socket bound. The schema must be up to date."""
    listener = bind(settings.host, settings.port)
    try:
        async with open_services(settings, url=public_url(settings, listener)) as (services, first):
            tls = tls_files(settings, services.identity.authority, now=clock.now())
            config = uvicorn.Config(
                create_app(services),
                http=protocol(settings.patience, Connections(settings.connections, files_max=_files_max())),
                ws=agent_sockets(
                    lambda socket: NodeSession(socket, services), lambda other: tunnel_end(other, services)
                ),
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=STOP_SECONDS,
                ssl_certfile=tls.certificate if tls else None,
                ssl_keyfile=tls.key if tls else None,
            )
            config.load()
            async with _fresh_certificate(settings, services, config, tls):
                yield _Server(config, services, on_ready), [listener], services, first
    finally:
        listener.close()


@contextlib.asynccontextmanager
async def _fresh_certificate(
    settings: Settings, services: Services, config: uvicorn.Config, files: TlsFiles | None
) -> AsyncIterator[None]:
    """Keep the listener's certificate fresh until the block ends."""
    if files is None or config.ssl is None:
        yield
        return
    listener = Listener(settings, services.identity.authority, files)
    task = asyncio.create_task(listener.keep(config.ssl))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def bind(host: str, port: int) -> socket.socket:
    """A listening address. Raises Unavailable where it is in use."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        address = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)[0][4]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise Unavailable(
            f"can't listen on {host}:{port}: {error.strerror}; another exchange may run there, "
            "choose another address with --listen"
        ) from None
    listener.set_inheritable(False)
    return listener


def public_url(settings: Settings, listener: socket.socket) -> str:
    """Where others reach this exchange: as it is set, else by what it listens on."""
    if settings.public_url is not None:
        return settings.public_url.rstrip("/")
    scheme = "https" if settings.with_tls else "http"
    host = settings.host
    if host in ("0.0.0.0", "::"):  # noqa: S104  # any address is no address to go to
        host = settings.tls_hosts[0] if settings.tls_hosts else socket.gethostname()
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


def _allow_connections() -> None:
    """As many open files as the system lets us have: the usual 1,024 are fewer than the nodes of a fleet."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (_files_max(), _files_max()))


def _files_max() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


async def serve(
    settings: Settings, *, on_first_start: Callable[[FirstStart], None], on_ready: Callable[[str], None]
) -> None:
    """Serve until SIGINT or SIGTERM."""
    from perak.adapters.db.migrate import upgrade

    await upgrade(settings.database)
    _allow_connections()
    async with prepared(settings) as (server, sockets, services, first):
        if first is not None:
            on_first_start(first)
        assert isinstance(server, _Server)
        server._on_ready = lambda: on_ready(services.url)
        with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
            await server.serve(sockets)

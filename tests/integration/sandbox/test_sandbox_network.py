"""A run's only way out: the proxy on its own loopback, from inside a real sandbox."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from sandbox_runs import Runs

from perak.agent.network.book import RunBook
from perak.agent.network.proxy import NetworkProxy

GET = """
import http.client, socket, sys
proxy = http.client.HTTPConnection("127.0.0.1", 3128, timeout=15)
proxy.request("GET", sys.argv[1])
reply = proxy.getresponse()
print(reply.status, reply.read().decode().strip())
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[2])), timeout=2)
    print("reached the node itself")
except OSError:
    print("nothing else is there")
"""


class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[int]:
    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hello)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield found.server_port
    found.shutdown()
    found.server_close()


@pytest.fixture
def proxy(runs: Runs) -> Iterator[NetworkProxy]:
    found = make_proxy(runs)
    yield found
    found.stop()


def make_proxy(runs: Runs) -> NetworkProxy:
    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    made = NetworkProxy(RunBook(runs.sandbox), resolve=resolve, only_public=False)
    made.listen(runs.sandbox.state_dir)
    return made


def ask(host: str, port: int) -> dict[str, Any]:
    command = f"/usr/bin/python3 -I -S -c '{GET}' http://{host}:{port}/ {port}"
    return {"command": command, "network_allow": (f"models.test:{port}",)}


def test_a_run_reaches_what_it_named_through_its_proxy_and_nothing_else(
    runs: Runs, proxy: NetworkProxy, server: int
) -> None:
    run = runs.start(**ask("models.test", server))
    runs.until(run, lambda status: status.state == "exited")
    traffic = proxy.close(run)

    assert runs.log(run).splitlines() == ["200 hello", "nothing else is there"]
    assert traffic.received_bytes > len("hello")
    assert (traffic.sent_bytes > 0, traffic.refused) == (True, 0)


def test_what_it_did_not_name_is_refused_and_counted(runs: Runs, proxy: NetworkProxy, server: int) -> None:
    run = runs.start(**ask("other.test", server))
    runs.until(run, lambda status: status.state == "exited")
    traffic = proxy.close(run)

    assert runs.log(run).startswith("403 perak: other.test:")
    assert (traffic.sent_bytes, traffic.received_bytes, traffic.refused) == (0, 0, 1)


def test_without_addresses_there_is_no_proxy(runs: Runs, proxy: NetworkProxy, server: int) -> None:
    status, log = runs.run(**ask("models.test", server) | {"network_allow": ()})

    assert status.exit_code == 1
    assert "Connection refused" in log


def test_setup_and_run_each_have_their_way_out(runs: Runs, proxy: NetworkProxy, server: int) -> None:
    job = ask("models.test", server)
    status, log = runs.run(setup=job["command"], **job)

    assert status.exit_code == 0
    assert log.count("200 hello") == 2


def test_a_request_waits_for_an_agent_that_starts_anew_and_counts_go_on(runs: Runs, server: int) -> None:
    """The agent dies, the run asks, the next agent answers: what was counted before is not forgotten."""
    first = make_proxy(runs)
    job = ask("models.test", server)
    twice = f"{job['command']}; touch /work/once; while [ ! -e /work/again ]; do sleep 0.05; done; "
    run = runs.start(**job | {"command": twice + job["command"]})
    work = runs.sandbox.work_folder(run)
    runs.until(run, lambda _: (work / "once").exists())
    first.stop()
    before = RunBook(runs.sandbox).read(run)
    (work / "again").touch()
    second = make_proxy(runs)
    try:
        status = runs.until(run, lambda status: status.state == "exited")
        traffic = second.close(run)
    finally:
        second.stop()

    assert status.exit_code == 0
    assert runs.log(run).count("200 hello") == 2
    assert traffic.received_bytes == 2 * before.received_bytes > 0

"""What a way into a running job costs: from a command to its first byte, and bytes through a port."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks.local import Local, perak_up, quiet_environment

Figure = tuple[str, float, str]

EXECS = 20
TRANSFERS = 5
TRANSFER_BYTES = 512 << 20
READ_BYTES = 1 << 20
START_SECONDS = 60.0

JOB = """
name: within
run: |
  cat >server.py <<'END'
  import socket
  block = bytes(1 << 18)
  server = socket.create_server(("127.0.0.1", 9000))
  print("listening", flush=True)
  while True:
      link, _ = server.accept()
      left = int(link.recv(32))
      while left:
          left -= link.send(block[:left])
      link.close()
  END
  exec python3 server.py
"""


def measure() -> Iterator[Figure]:
    """Both, with a whole Perak on this machine, which has to be root."""
    if os.geteuid() != 0:
        print("terminals are not measured: only root may enter another user's sandbox", file=sys.stderr)
        return
    with perak_up("--fund", "100") as local, _job(local) as job:
        yield from exec_first_byte_ms(local, job)
        yield from forward_mib_per_s(local, job)


def exec_first_byte_ms(local: Local, job: str) -> Iterator[Figure]:
    """From asking for a command to the first byte that it wrote, over a client that is open already."""
    yield "exec_first_byte_ms", round(statistics.median(asyncio.run(_execs(local, job))) * 1000, 1), "ms"


def forward_mib_per_s(local: Local, job: str) -> Iterator[Figure]:
    """From a job's port to this machine, all five processes of the way on it; the best of some."""
    command = [sys.executable, "-m", "perak", "forward", job, "0:9000"]
    with subprocess.Popen(command, env=_environment(local), stdout=subprocess.PIPE, text=True) as forward:
        assert forward.stdout is not None
        port = int(re.findall(r":(\d+) leads to", forward.stdout.readline())[0])
        taken = [_transfer(port) for _ in range(TRANSFERS)]
        forward.send_signal(signal.SIGINT)
    yield "forward_mib_per_s", round(TRANSFER_BYTES / 2**20 / min(taken)), "MiB/s"


async def _execs(local: Local, job: str) -> list[float]:
    from perak.client import AsyncClient
    from perak.client.config import Target
    from perak.client.tunnels import Tunnels

    taken = []
    async with AsyncClient(target=Target(url=local.url, api_key=local.api_key)) as client:
        tunnels = Tunnels(client, job)
        for _ in range(EXECS + 1):
            began = time.perf_counter()
            async with tunnels.open({"do": "exec", "argv": ["echo", "here"]}) as channel:
                await channel.receive()
                taken.append(time.perf_counter() - began)
    return taken[1:]  # The first starts what serves the others.


def _transfer(port: int) -> float:
    buffer = bytearray(READ_BYTES)
    began, size = time.perf_counter(), 0
    with socket.create_connection(("127.0.0.1", port)) as link:
        link.sendall(str(TRANSFER_BYTES).encode())
        while count := link.recv_into(buffer):
            size += count
    assert size == TRANSFER_BYTES
    return time.perf_counter() - began


@contextlib.contextmanager
def _job(local: Local) -> Iterator[str]:
    from perak.client import Client
    from perak.client.config import Target
    from perak.wire.jobfile import load_job_file

    path = local.state_dir / "job.yaml"
    path.write_text(JOB)
    with Client(target=Target(url=local.url, api_key=local.api_key)) as client:
        job = client.submit(load_job_file(path)).id
        until = time.monotonic() + START_SECONDS
        while b"listening" not in b"".join(client.logs(job)):
            assert time.monotonic() < until, "the job did not begin"
            time.sleep(0.1)
        yield job
        client.cancel(job)


def _environment(local: Local) -> dict[str, str]:
    return {**quiet_environment(), "PERAK_URL": local.url, "PERAK_API_KEY": local.api_key}

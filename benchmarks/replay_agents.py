"""Nodes for `benchmarks.replay`: the scripted agents of the fleet, with GPUs, whose runs end.

Real keys, enrolment, frames, signatures, report numbers and back-off; instead of a sandbox there is a timer
of as many seconds as the job's ``sleep`` says.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import secrets
from collections.abc import Sequence
from urllib.parse import urlsplit

import httpx

from benchmarks.fleet_agents import Agent, Member, now_ms
from perak import AsyncClient
from perak.domain.offer import Device, OfferAsk
from perak.domain.report import RunExited
from perak.wire import session as wire
from perak.wire.identity import from_pem
from perak.wire.invite import Invite
from perak.wire.signing import SealKey, SigningKey

GPU = "Tesla V100-SXM2-32GB"
GPU_BYTES = 32 * 2**30
GPU_WATTS = 250.0
PRICE_MICROS = 300_000
"""Of a GPU for an hour; later nodes ask a little more, so that there is something to choose."""
PRICE_STEP_MICROS = 5_000
CPU_MILLI_PER_GPU = 4_000
BYTES_PER_GPU = 16 * 10**9

_CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", re.DOTALL)


class SleepingAgent(Agent):
    """An agent whose runs sleep as their command says, then end; what it could not tell, it tells later."""

    def __init__(self, member: Member, host: str, port: int, *, offer: OfferAsk) -> None:
        super().__init__(member, host, port, offer=offer)
        self._ends: dict[str, asyncio.TimerHandle] = {}
        self._hung_up = False

    def cut(self) -> None:
        """Lose the connection, as a network does; it is dialled again."""
        self._give_up()

    def hang_up(self) -> None:
        """Lose it for good."""
        self._hung_up = True
        for timer in self._ends.values():
            timer.cancel()
        self._give_up()

    def _dial_later(self) -> None:
        if not self._hung_up:
            super()._dial_later()

    def _on_frame(self, frame: wire.FromExchange) -> None:
        super()._on_frame(frame)
        if isinstance(frame, wire.Desired):
            for order in frame.leases:
                if order.wanted == "stop" and order.run in self._ends:
                    self._ends[order.run].cancel()
                    self._end(order, cause=order.stop_cause or "cancelled")

    def _start(self, order: wire.LeaseOrder) -> None:
        super()._start(order)
        seconds = float((order.command or "sleep 0").removeprefix("sleep "))
        self._ends[order.run] = asyncio.get_running_loop().call_later(seconds, self._end, order)

    def _end(self, order: wire.LeaseOrder, cause: str = "exited") -> None:
        if self._ends.pop(order.run, None) is None:
            return
        started, ended = self.started[order.run], now_ms()
        self._report(
            RunExited(
                run=order.run, lease=order.lease, epoch=order.epoch, started_at=started, ended_at=ended,
                exit_code=0 if cause == "exited" else None, cause=cause, detail=None, cpu_seconds=0.01,
                memory_peak_bytes=10**6, log_bytes=0,
                energy_joules=len(order.devices) * GPU_WATTS * (ended - started) / 1000,
                energy_method="model: replay", energy_uncertainty_percent=50.0,
            )
        )  # fmt: skip


def offer_of(number: int, gpus: int) -> OfferAsk:
    """What the node of that number offers."""
    return OfferAsk(
        region="DE",
        cpu_model="CPU",
        cpu_milli=gpus * CPU_MILLI_PER_GPU,
        memory_bytes=gpus * BYTES_PER_GPU,
        disk_bytes=gpus * 50 * 10**9,
        devices=tuple(
            Device(index=at, kind="nvidia", model=GPU, uuid=f"GPU-{number}-{at}", memory_bytes=GPU_BYTES)
            for at in range(gpus)
        ),
        price_gpu=PRICE_MICROS + number * PRICE_STEP_MICROS,
        price_cpu=36_000,
    )


async def enrolled(operator: AsyncClient, url: str, gpus: Sequence[int]) -> list[SleepingAgent]:
    """Agents of so many GPUs each, enrolled by invites as any node is; they are not yet dialling."""
    where = urlsplit(url)
    assert where.hostname
    assert where.port
    invite = await operator.invite(uses=len(gpus))
    agents = []
    async with httpx.AsyncClient(base_url=url) as client:
        for number, count in enumerate(gpus):
            seed = secrets.token_bytes(32)
            body = {
                "secret": Invite.decode(invite.token).secret,
                "name": f"replay-{number}-{os.urandom(3).hex()}",
                "sign_key": _text(SigningKey.from_seed(seed).public_bytes),
                "seal_key": _text(SealKey.generate().public_bytes),
            }
            answer = (await client.post("/v1/enrol", json=body)).raise_for_status().json()
            pems = _CERTIFICATE.findall(answer["certificate_chain"])
            chain = tuple(base64.b64encode(from_pem(pem.encode())).decode() for pem in pems)
            member = Member(node=answer["node"], seed=base64.b64encode(seed).decode(), chain=chain)
            agents.append(SleepingAgent(member, where.hostname, where.port, offer=offer_of(number, count)))
    return agents


def _text(key: bytes) -> str:
    return base64.urlsafe_b64encode(key).decode().rstrip("=")

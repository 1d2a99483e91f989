"""A real agent process with real sandboxes, against an exchange that speaks only the protocol."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import os
import shutil
import signal
import sys
import tarfile
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fake_exchange import NODE, FakeExchange, fake_exchange
from leases import order

from perak.domain.checklist import digest as digest_of
from perak.domain.report import (
    ChecklistPosted,
    LogChunk,
    Metered,
    OfferPosted,
    RunBody,
    RunExited,
    RunPreparing,
    RunRefused,
    RunStarted,
)
from perak.wire.identity import issue_server_certificate, verify_chain
from perak.wire.session import Refused
from perak.wire.signing import peek_header

START = """
import functools, perak.agent.settings as settings, perak.agent.work as work
work.WORTH_A_LINE_BYTES = 0  # so that small work folders show the agent's own lines too
settings.Limits = functools.partial(
    settings.Limits, meter_interval_seconds=0.5, tick_seconds=0.2, offer_check_seconds=0.2
)
from perak.agent.main import command
command()
"""


@dataclass
class Agent:
    """One agent process."""

    process: asyncio.subprocess.Process
    state_dir: Path

    async def end(self, number: signal.Signals = signal.SIGTERM, *, seconds: float = 5) -> int:
        self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), seconds)


StartAgent = Callable[..., Awaitable[Agent]]


@pytest.fixture
async def exchange() -> AsyncIterator[FakeExchange]:
    async with fake_exchange() as made:
        yield made


@pytest.fixture(scope="module")
def checked_folder() -> Iterator[Path]:
    """A state folder whose sandbox is checked, which takes seconds, once for all tests."""
    from perak.agent.sandbox.probe import probe

    folder = Path(tempfile.mkdtemp(prefix="perak-test-"))
    folder.chmod(0o711)  # Each run has a user of its own, who must get through.
    sandbox, tier = probe(folder)
    if sandbox is None:
        shutil.rmtree(folder)
        pytest.skip(tier.reason or "no sandbox")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def state_dir(checked_folder: Path) -> Iterator[Path]:
    """The state folder of a machine that is no node yet."""
    yield checked_folder
    _clear_runs(checked_folder)
    for pattern in ("agent.*", "*.key", "*.pem", "node.json"):
        for path in checked_folder.glob(pattern):
            path.unlink()


@pytest.fixture
async def start(exchange: FakeExchange, state_dir: Path) -> AsyncIterator[StartAgent]:
    """Starts agents of one node: one after the other they are the same."""
    agents: list[Agent] = []

    async def start(*options: str, wait: bool = True, tiers: str | None = "bubblewrap") -> Agent:
        # Each other tier is attacked first, beside what a test looks at: None is for the test of them.
        options = (*options, "--tiers", tiers) if tiers else options
        known = exchange.sessions
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", START, "--state-dir", str(state_dir)),
            *("--invite", exchange.invite, "--price-cpu", "0.02", *options),
            stderr=asyncio.subprocess.PIPE if not wait else None,
            stdout=asyncio.subprocess.PIPE,
        )
        agents.append(Agent(process, state_dir))
        if wait:
            await exchange.until(lambda: exchange.sessions > known)
        return agents[-1]

    yield start
    for agent in agents:
        if agent.process.returncode is None:
            agent.process.kill()
            await agent.process.wait()


def _clear_runs(state_dir: Path) -> None:
    from perak.agent.sandbox.probe import probe

    sandbox, _ = probe(state_dir)
    assert sandbox is not None
    for status in sandbox.find():
        with contextlib.suppress(RuntimeError, KeyError):
            sandbox.stop(status.run_id, reason="test", grace_seconds=0)
    for _ in range(200):
        left = sandbox.find()
        for status in left:
            with contextlib.suppress(RuntimeError, KeyError):
                sandbox.release(status.run_id)
        if not left:
            break


def shims_of(state_dir: Path) -> list[Path]:
    return sorted((state_dir / "runs").glob("run-*"))


async def test_a_run_from_lease_to_release(exchange: FakeExchange, start: StartAgent) -> None:
    agent = await start(tiers=None)
    assert agent.process.stdout is not None
    ready = await asyncio.wait_for(agent.process.stdout.readline(), 10)
    assert ready.decode().strip() == f"agent ready: node={NODE} exchange={exchange.url}"
    one = order(1, "echo hi; sleep 0.2; echo there >&2")
    await exchange.desire(one)
    await exchange.until(lambda: exchange.bodies(RunExited, one.run))
    await exchange.until(lambda: not shims_of(agent.state_dir))
    offer = exchange.bodies(OfferPosted)[-1]  # more tiers may have passed meanwhile
    assert offer.offer.price_cpu == 20_000
    (began,) = exchange.bodies(RunStarted, one.run)
    assert began.tier == offer.offer.tier
    assert exchange.log_of(one.run) == b"hi\nthere\n"
    (last,) = exchange.bodies(RunExited, one.run)
    assert (last.exit_code, last.cause, last.log_bytes) == (0, "exited", 9)
    assert last.started_at == began.started_at < last.ended_at
    assert last.energy_joules > 0
    assert last.energy_uncertainty_percent > 0
    bodies = [each.body for each in exchange.reports]
    named = {tier.checklist for tier in offer.offer.tiers}
    sent = [digest_of(each.checklist) for each in bodies if isinstance(each, ChecklistPosted)]
    assert named <= set(sent), "what the offer names was sent"
    assert isinstance(bodies[0], ChecklistPosted), "and before the offer"
    kinds = [type(each).__name__ for each in bodies if isinstance(each, RunBody)]
    assert kinds[0] == "RunStarted"
    assert kinds[-1] == "RunExited"
    (end,) = (each for each in exchange.reports if isinstance(each.body, RunExited))
    proven = verify_chain(peek_header(end.jws).chain, at=datetime.now(UTC))
    assert proven.subject_id == NODE, "the last report shows its certificate to others"


async def test_work_folder_in_and_outputs_out(exchange: FakeExchange, start: StartAgent) -> None:
    await start()
    packed = _archive({"word.txt": b"silver\n"})
    digest = f"sha256:{hashlib.sha256(packed).hexdigest()}"
    one = order(
        1,
        "mkdir out; tr a-z A-Z <word.txt >out/loud.txt; cat out/loud.txt; ln -s /etc/passwd out/link",
        workdir_digest=digest,
        outputs=("out/", "never.txt"),
    )
    exchange.workdirs[one.lease] = packed
    await exchange.desire(one)
    (last,) = await exchange.until(lambda: exchange.bodies(RunExited, one.run))
    assert last.outputs is not None
    assert (last.outputs.file_count, last.outputs.missing) == (1, ("never.txt",))
    (skipped,) = last.outputs.skipped
    assert skipped.startswith("out/link: ")
    with tarfile.open(fileobj=io.BytesIO(exchange.outputs[one.lease])) as tar:
        file = tar.extractfile("out/loud.txt")
        assert file is not None
        assert file.read() == b"SILVER\n"
    log = exchange.log_of(one.run)
    assert log.startswith(b"perak: unpacking the work folder")
    assert log.endswith(b"\nSILVER\n")
    assert last.log_bytes == len(log), "the agent's own lines count in the offsets"
    assert exchange.bodies(RunPreparing, one.run)


async def test_outputs_are_sent_again_until_they_arrive(exchange: FakeExchange, start: StartAgent) -> None:
    await start()
    exchange.outputs_that_fail = 1
    one = order(1, "echo x >out", outputs=("out",))
    await exchange.desire(one)
    (last,) = await exchange.until(lambda: exchange.bodies(RunExited, one.run))
    assert last.cause == "exited"
    assert last.outputs is not None
    assert one.lease in exchange.outputs


async def test_what_can_not_be_prepared_is_refused(exchange: FakeExchange, start: StartAgent) -> None:
    await start()
    one = order(1, "true", workdir_digest="sha256:" + "0" * 64)
    two = order(2, "true", python_version="2.7")
    await exchange.desire(one, two)
    (first,) = await exchange.until(lambda: exchange.bodies(RunRefused, one.run))
    (second,) = await exchange.until(lambda: exchange.bodies(RunRefused, two.run))
    assert first.cause == "workdir"
    assert second.cause == "environment"
    assert "2.7" in second.detail


async def test_a_cancelled_run_ends(exchange: FakeExchange, start: StartAgent) -> None:
    await start()
    one = order(1, "echo on; sleep 60")
    await exchange.desire(one)
    await exchange.until(lambda: exchange.bodies(LogChunk, one.run))
    await exchange.stop_run(one.run, "cancelled")
    (last,) = await exchange.until(lambda: exchange.bodies(RunExited, one.run))
    assert last.cause == "cancelled"


async def test_a_run_that_is_not_desired_any_more_is_fenced_and_gone(
    exchange: FakeExchange, start: StartAgent
) -> None:
    agent = await start()
    one = order(1, "echo on; sleep 60")
    await exchange.desire(one)
    await exchange.until(lambda: exchange.bodies(LogChunk, one.run))
    await exchange.forget(one.run)
    (last,) = await exchange.until(lambda: exchange.bodies(RunExited, one.run))
    assert last.cause == "fenced"
    await exchange.until(lambda: not shims_of(agent.state_dir))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_runs_outlive_the_agent_and_are_found_again(
    number: signal.Signals, exchange: FakeExchange, start: StartAgent
) -> None:
    agent = await start()
    one, two = (order(n, "echo before; while ! [ -e go ]; do sleep 0.05; done; echo after") for n in (1, 2))
    ends = order(3, "echo x; sleep 0.5; echo y")
    await exchange.desire(one, two, ends)
    for each in (one, two, ends):
        await exchange.until(lambda run=each.run: exchange.bodies(LogChunk, run))
    await agent.end(number)
    await asyncio.sleep(0.7)
    again = await start()
    (last,) = await exchange.until(lambda: exchange.bodies(RunExited, ends.run))
    assert (last.cause, last.exit_code) == ("exited", 0), "it ended while nobody looked"
    assert exchange.log_of(ends.run) == b"x\ny\n"
    for each in (one, two):
        (again.state_dir / "runs" / each.run / "scratch" / "work" / "go").touch()
        (last,) = await exchange.until(lambda run=each.run: exchange.bodies(RunExited, run))
        assert last.cause == "exited"
        assert exchange.log_of(each.run) == b"before\nafter\n"
        assert len(exchange.bodies(RunStarted, each.run)) == 1


async def test_a_cut_network_loses_nothing(exchange: FakeExchange, start: StartAgent) -> None:
    await start()
    one = order(1, "for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.1; done")
    await exchange.desire(one)
    await exchange.until(lambda: exchange.bodies(LogChunk, one.run))
    exchange.acknowledges = False
    await exchange.cut()
    await asyncio.sleep(0.3)
    await exchange.cut()
    exchange.acknowledges = True
    await exchange.cut()
    (last,) = await exchange.until(lambda: exchange.bodies(RunExited, one.run))
    assert last.cause == "exited", "silence stops nothing"
    assert exchange.log_of(one.run) == b"1\n2\n3\n4\n5\n6\n7\n8\n"
    assert [each.seq for each in exchange.reports] == list(range(1, len(exchange.reports) + 1))


async def test_cut_off_a_run_ends_before_it_draws_more_than_it_may(
    exchange: FakeExchange, start: StartAgent
) -> None:
    """A modelled watt or so, of which a minute and a half is more than is left; in a session nobody asks."""
    await start()
    bounded, free = order(1, "echo on; sleep 60", joules_max=60.0), order(2, "echo on; sleep 60")
    await exchange.desire(bounded, free)
    for each in (bounded, free):
        await exchange.until(lambda run=each.run: len(exchange.bodies(Metered, run)) > 1)
    assert not exchange.bodies(RunExited), "the exchange can be asked"
    await exchange.cut()
    (last,) = await exchange.until(lambda: exchange.bodies(RunExited, bounded.run))
    assert last.cause == "max_carbon"
    assert 0 < last.energy_joules < 60
    assert not exchange.bodies(RunExited, free.run)


async def test_a_silent_exchange_is_left_and_tried_again(exchange: FakeExchange, start: StartAgent) -> None:
    await start()
    exchange.answers_beats = False
    await exchange.until(lambda: exchange.sessions >= 2)


async def test_an_agent_that_leaves_for_good_ends_its_runs(exchange: FakeExchange, start: StartAgent) -> None:
    agent = await start("--drain-on-exit")
    one = order(1, "echo on; sleep 60")
    await exchange.desire(one)
    await exchange.until(lambda: exchange.bodies(LogChunk, one.run))
    assert await agent.end(seconds=20) == 0
    (last,) = exchange.bodies(RunExited, one.run)
    assert last.cause == "node_lost"


async def test_metering_is_evidence_while_the_run_lives(exchange: FakeExchange, start: StartAgent) -> None:
    await start()
    one = order(1, "sleep 1.2")
    await exchange.desire(one)
    await exchange.until(lambda: exchange.bodies(RunExited, one.run))
    (first, *_) = exchange.bodies(Metered, one.run)
    (began,) = exchange.bodies(RunStarted, one.run)
    assert 400 < first.until - began.started_at < 1200
    assert 0 < first.energy_joules < exchange.bodies(RunExited, one.run)[0].energy_joules


async def test_many_at_once(exchange: FakeExchange, start: StartAgent) -> None:
    agent = await start()
    orders = [order(number, f"echo {number}") for number in range(1, 13)]
    await exchange.desire(*orders)
    for each in orders:
        await exchange.until(lambda run=each.run: exchange.bodies(RunExited, run), seconds=30)
    assert [exchange.log_of(each.run) for each in orders] == [f"{n}\n".encode() for n in range(1, 13)]
    await exchange.until(lambda: not shims_of(agent.state_dir))


async def test_a_fresh_certificate_is_taken(exchange: FakeExchange, start: StartAgent) -> None:
    agent = await start()
    await exchange.until(lambda: exchange.bodies(OfferPosted))
    fresh = exchange.certificate()
    await exchange.send_certificate(fresh)
    chain = agent.state_dir / "chain.pem"
    await exchange.until(lambda: chain.read_text() == fresh)


async def test_a_changed_price_is_posted(exchange: FakeExchange, start: StartAgent, tmp_path: Path) -> None:
    file = tmp_path / "provider.yaml"
    file.write_text("region: DE\nprices: {cpu: 0.05/h}\n")
    os.utime(file, ns=(1, 1))
    await start("--provider-file", str(file), "--price-cpu", "0.03")
    (first,) = await exchange.until(lambda: exchange.bodies(OfferPosted))
    assert (first.offer.price_cpu, first.offer.region) == (30_000, "DE"), "flags stand above the file"
    file.write_text("region: NO\n")
    second = await exchange.until(lambda: exchange.bodies(OfferPosted)[1:])
    assert second[0].offer.region == "NO"


async def test_a_refused_node_gives_up_and_says_why(exchange: FakeExchange, start: StartAgent) -> None:
    exchange.refusal = Refused(reason="this node was revoked", retry=False)
    agent = await start(wait=False)
    _, said = await asyncio.wait_for(agent.process.communicate(), 15)
    assert agent.process.returncode == 77
    assert "this node was revoked" in said.decode()


async def _fails(start: StartAgent, *options: str, code: int) -> str:
    agent = await start(*options, wait=False)
    _, said = await asyncio.wait_for(agent.process.communicate(), 15)
    assert agent.process.returncode == code, said.decode()
    return said.decode().splitlines()[-1]


async def test_one_agent_by_state_folder(exchange: FakeExchange, start: StartAgent) -> None:
    await start()
    assert "Another agent works in" in await _fails(start, code=78)


async def test_an_invite_for_another_exchange_is_not_followed(
    exchange: FakeExchange, start: StartAgent
) -> None:
    from perak.wire.invite import Invite

    other = Invite(url=exchange.url, fingerprint="sha256:" + "0" * 64, secret="s").encode()
    assert "another fingerprint" in await _fails(start, "--invite", other, code=78)
    assert exchange.enrolments == 0, "the secret was not sent"


async def test_an_exchange_that_is_away_at_enrolment(
    exchange: FakeExchange, start: StartAgent, unused_tcp_port: int
) -> None:
    said = await _fails(start, "--exchange", f"http://127.0.0.1:{unused_tcp_port}", code=69)
    assert "can't be reached" in said


async def test_enrolment_and_session_over_tls_trust_the_invites_authority_only(
    start: StartAgent, exchange: FakeExchange, tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    served = issue_server_certificate(exchange.authority, hosts=["127.0.0.1"], now=now)
    files = (tmp_path / "chain.pem", tmp_path / "key.pem")
    files[0].write_bytes(served.chain_pem)
    files[1].write_bytes(served.key_pem)
    secure = FakeExchange(authority=exchange.authority)
    async with fake_exchange(tls=files, exchange=secure):
        agent = await start("--invite", secure.invite, wait=False)
        await secure.until(lambda: secure.bodies(OfferPosted))
        assert secure.url.startswith("https:")
        packed = _archive({"word.txt": b"silver\n"})
        one = order(1, "cat word.txt", workdir_digest=f"sha256:{hashlib.sha256(packed).hexdigest()}")
        secure.workdirs[one.lease] = packed
        await secure.desire(one)
        await secure.until(lambda: secure.bodies(RunExited, one.run))
        assert secure.log_of(one.run).endswith(b"silver\n")
        await agent.end()


async def test_a_man_in_the_middle_learns_nothing(
    start: StartAgent, exchange: FakeExchange, tmp_path: Path
) -> None:
    """He shows the exchange's public certificate, but his own key serves TLS."""
    from perak.wire.identity import Authority

    own = Authority.create("test", now=datetime.now(UTC))
    served = issue_server_certificate(own, hosts=["127.0.0.1"], now=datetime.now(UTC))
    files = (tmp_path / "chain.pem", tmp_path / "key.pem")
    files[0].write_bytes(served.chain_pem)
    files[1].write_bytes(served.key_pem)
    middle = FakeExchange(authority=exchange.authority)
    async with fake_exchange(tls=files, exchange=middle):
        said = await _fails(start, "--invite", middle.invite, code=78)
    assert "did not issue" in said
    assert middle.enrolments == 0


def _archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()

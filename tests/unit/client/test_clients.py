"""Both clients against an exchange in memory: the same tests, one waiting, one awaiting."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from perak.client import AsyncClient, Client, End, Log, PerakError, State, Warned, errors, flows
from perak.client.config import Target
from perak.client.events import PAUSES_IN_ALL_SECONDS_MAX
from perak.wire.archive import pack_outputs
from perak.wire.jobfile import JobFileError
from unit.client.canned_exchange import (
    JOB,
    OTHER_JOB,
    URL,
    Breaks,
    FakeExchange,
    a_job,
    end_event,
    log_event,
    problem,
    step_event,
)

TARGET = Target(url=URL, api_key="pk_secret")


class Both:
    """Calls a verb of either client and returns what it gives, lists and streams as lists."""

    def __init__(self, kind: str, fake: FakeExchange) -> None:
        self.kind = kind
        self.fake = fake

    def __call__(self, verb: str, *args: Any, **kwargs: Any) -> Any:
        if self.kind == "sync":
            with Client(target=TARGET, transport=httpx.MockTransport(self.fake.answer)) as client:
                result = getattr(client, verb)(*args, **kwargs)
                return list(result) if hasattr(result, "__next__") else result
        return asyncio.run(self._call(verb, *args, **kwargs))

    async def _call(self, verb: str, *args: Any, **kwargs: Any) -> Any:
        transport = httpx.MockTransport(self.fake.answer_async)
        async with AsyncClient(target=TARGET, transport=transport) as client:
            result = getattr(client, verb)(*args, **kwargs)
            if isinstance(result, AsyncIterator):
                return [item async for item in result]
            return await result


@pytest.fixture
def fake() -> FakeExchange:
    return FakeExchange()


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest, fake: FakeExchange) -> Both:
    return Both(request.param, fake)


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """No test waits; the pauses that the client asked for are kept, and no other thread's."""
    kept: list[float] = []

    async def pause(seconds: float) -> None:
        kept.append(seconds)

    monkeypatch.setattr("perak.client.sync.time", SimpleNamespace(sleep=kept.append))
    loop = SimpleNamespace(sleep=pause, to_thread=asyncio.to_thread)
    monkeypatch.setattr("perak.client.aio.asyncio", loop)
    return kept


HELLO = {"name": "hello", "run": "echo hello"}


def test_a_job_without_a_folder_is_one_request(call: Both, fake: FakeExchange) -> None:
    job = call("submit", HELLO)

    assert job.id == JOB
    assert fake.asked == ["POST /v1/jobs"]
    assert fake.submitted == [{"job": HELLO, "workdir": None}]
    assert fake.requests[0].headers["Authorization"] == "Bearer pk_secret"


def test_a_folder_goes_up_once(call: Both, fake: FakeExchange, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("print(1)")
    (tmp_path / "job.yaml").write_text("name: a\nrun: python train.py\nworkdir: .\n")
    seen: list[tuple[int, int | None]] = []

    call("submit", tmp_path / "job.yaml", progress=lambda done, total: seen.append((done, total)))
    call("submit", tmp_path / "job.yaml")

    ((digest, blob),) = fake.blobs.items()
    assert [submitted["workdir"] for submitted in fake.submitted] == [digest, digest]
    assert sum(asked.startswith("PUT") for asked in fake.asked) == 1
    assert seen[-1] == (len(blob), len(blob))


def test_a_wrong_job_never_leaves_the_machine(call: Both, fake: FakeExchange) -> None:
    with pytest.raises(JobFileError, match="did you mean run"):
        call("submit", {"name": "a", "runs": "b"})

    assert fake.requests == []


def test_run_follows_to_the_end(call: Both, fake: FakeExchange) -> None:
    seen: list[Any] = []
    fake.streams = [step_event("on attic-1") + log_event(b"hi\n") + end_event(fake.job)]

    detail = call("run", HELLO, on_event=seen.append)

    assert detail.state == "succeeded"
    assert [type(event) for event in seen] == [State, Log, End]
    assert fake.asked == ["POST /v1/jobs", f"GET /v1/jobs/{JOB}/events", f"GET /v1/jobs/{JOB}"]


def test_a_change_is_repeated_with_the_same_key_until_it_is_answered(
    call: Both, fake: FakeExchange, pauses: list[float]
) -> None:
    fake.script["POST /v1/jobs"] = [
        httpx.ConnectError("refused"),
        httpx.ReadError("reset"),
        problem(503, "unavailable", "starting", **{"Retry-After": "2"}),
    ]

    assert call("submit", HELLO).id == JOB
    keys = {request.headers["Idempotency-Key"] for request in fake.requests}
    assert len(fake.requests) == 4
    assert len(keys) == 1
    assert pauses[-1] == 2.0


def test_retries_end(call: Both, fake: FakeExchange, pauses: list[float]) -> None:
    fake.script["GET /v1/me"] = [httpx.ConnectError("Connection refused")] * 10

    with pytest.raises(errors.ExchangeUnreachable, match=f"{URL} can't be reached: nothing listens there"):
        call("me")
    assert len(fake.requests) == flows.RETRIES_MAX + 1
    assert sum(pauses) < 8


def test_a_long_retry_after_is_reported_not_waited_for(call: Both, fake: FakeExchange) -> None:
    fake.script["GET /v1/me"] = [problem(429, "too_many_requests", "slow down", **{"Retry-After": "3600"})]

    with pytest.raises(errors.TooManyRequests, match="slow down"):
        call("me")
    assert len(fake.requests) == 1


def test_an_untrusted_certificate_is_not_tried_again(call: Both, fake: FakeExchange) -> None:
    wrapped = httpx.ConnectError("tls")
    wrapped.__cause__ = ssl.SSLCertVerificationError(1, "certificate verify failed")
    wrapped.__cause__.verify_message = "self-signed certificate"
    fake.script["GET /v1/me"] = [wrapped]

    with pytest.raises(errors.ExchangeUnreachable, match="perak login"):
        call("me")
    assert len(fake.requests) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.InvalidRequest),
        (401, errors.NotAuthenticated),
        (402, errors.InsufficientFunds),
        (403, errors.NotAllowed),
        (404, errors.NotFound),
        (409, errors.Conflict),
        (413, errors.TooLarge),
        (418, errors.ExchangeError),
        (500, errors.ExchangeFailed),
    ],
)
def test_problems_become_errors_of_their_kind(
    call: Both, fake: FakeExchange, status: int, kind: type[errors.ExchangeError]
) -> None:
    fake.script["GET /v1/me"] = [problem(status, "some_code", "what to do")]

    with pytest.raises(kind, match="what to do") as caught:
        call("me")
    assert caught.value.code == "some_code"


def test_what_is_no_exchange_is_told(call: Both, fake: FakeExchange) -> None:
    fake.script["GET /v1/me"] = [
        httpx.Response(200, text="<html>It works!</html>"),
        httpx.Response(404, text="<html>Not here</html>"),
    ]

    with pytest.raises(errors.NotAnExchange):
        call("me")
    with pytest.raises(errors.NotFound, match="Not here"):
        call("me")


def test_lists_go_on_over_pages(call: Both, fake: FakeExchange) -> None:
    fake.others = [a_job(name=f"job-{n}") for n in range(4)]

    assert [job.name for job in call("jobs")] == ["hello", "job-0", "job-1", "job-2", "job-3"]
    assert len(fake.requests) == 3


def test_a_limit_ends_the_list(call: Both, fake: FakeExchange) -> None:
    fake.others = [a_job(name=f"job-{n}") for n in range(4)]

    assert [job.name for job in call("jobs", limit=3)] == ["hello", "job-0", "job-1"]
    assert len(fake.requests) == 2


def test_what_no_exchange_would_take_is_not_sent(call: Both, fake: FakeExchange) -> None:
    with pytest.raises(errors.InvalidArgument, match="name can't be 'Not A Name'"):
        call("key_create", "Not A Name", ["renter"])
    with pytest.raises(errors.InvalidArgument, match="amount"):
        call("fund", "much")
    assert fake.requests == []


# Names of jobs


@pytest.mark.parametrize("ref", [JOB, JOB.partition("@")[0], "hello", "4t5r", "ZX4T5R"])
def test_a_job_is_found_by_id_name_or_end(call: Both, fake: FakeExchange, ref: str) -> None:
    fake.others = [a_job(id=OTHER_JOB, name="other")]

    assert call("job", ref).id == JOB


def test_a_whole_id_costs_no_search(call: Both, fake: FakeExchange) -> None:
    call("job", JOB)

    assert fake.asked == [f"GET /v1/jobs/{JOB}"]


def test_what_fits_none_or_several_is_refused(call: Both, fake: FakeExchange) -> None:
    fake.others = [a_job(id=JOB.replace("job-01", "job-02"), name="other")]

    with pytest.raises(errors.NotFound, match="perak ps -a"):
        call("job", "nothing")
    with pytest.raises(PerakError, match="several jobs"):
        call("job", "4t5r")
    with pytest.raises(errors.NotFound):
        call("job", "../keys")


# Streams


def texts(events: list[Any]) -> bytes:
    return b"".join(event.data for event in events if isinstance(event, Log))


def test_a_cut_stream_goes_on_where_it_was(call: Both, fake: FakeExchange) -> None:
    fake.streams = [
        Breaks(log_event(b"one\n", event_id="1.4.0")),
        log_event(b"one\ntwo\n", offset=0, event_id="1.8.0"),
        log_event(b"two\n", offset=4) + log_event(b"three\n", offset=8) + end_event(fake.job),
    ]

    events = call("events", JOB)

    assert texts(events) == b"one\ntwo\nthree\n"
    assert isinstance(events[-1], End)
    resumed = [request.headers.get("Last-Event-ID") for request in fake.requests]
    assert resumed == [None, "1.4.0", "1.8.0"]


def test_logs_of_several_attempts_are_told_apart(call: Both, fake: FakeExchange) -> None:
    both = log_event(b"first\n", attempt=1) + log_event(b"second\n", attempt=2) + end_event(fake.job)
    fake.streams = [both, both]

    assert call("logs", JOB, follow=True) == [b"first\n", b"second\n"]
    assert call("logs", JOB, follow=True, attempt=2) == [b"second\n"]


def test_bytes_that_are_no_text_and_new_kinds_of_events_pass(call: Both, fake: FakeExchange) -> None:
    new = b'event: weather\nid: 1.1.1\ndata: {"rain": true}\n\n'
    warning = step_event("the node is silent", kind="warning")
    fake.streams = [new + b": keep-alive\n\n" + log_event(b"\xff\x00\r\n") + warning + end_event(fake.job)]

    events = call("events", JOB)

    assert [type(event) for event in events] == [Log, Warned, End]
    assert texts(events) == b"\xff\x00\r\n"


def test_following_gives_up_after_a_bounded_time(call: Both, fake: FakeExchange, pauses: list[float]) -> None:
    fake.script[f"GET /v1/jobs/{JOB}/events"] = [httpx.ConnectError("Connection refused")] * 500

    with pytest.raises(errors.ExchangeUnreachable):
        call("events", JOB)
    assert PAUSES_IN_ALL_SECONDS_MAX <= sum(pauses) < PAUSES_IN_ALL_SECONDS_MAX + 10


def test_a_stream_that_is_refused_is_not_tried_again(call: Both, fake: FakeExchange) -> None:
    fake.script[f"GET /v1/jobs/{JOB}/events"] = [problem(403, "not_allowed", "not yours")]

    with pytest.raises(errors.NotAllowed):
        call("events", JOB)


def test_an_exchange_that_restarts_is_waited_for(call: Both, fake: FakeExchange) -> None:
    fake.script[f"GET /v1/jobs/{JOB}/events"] = [
        problem(503, "unavailable", "stopping"),
        httpx.ConnectError("Connection refused"),
    ]

    assert texts(call("events", JOB)) == b"hello\n"


def test_logs_come_as_they_are(call: Both, fake: FakeExchange) -> None:
    fake.log = b"\xffraw\n"

    assert b"".join(call("logs", "hello")) == b"\xffraw\n"


# Downloads


@pytest.fixture
def outputs(tmp_path: Path) -> bytes:
    (tmp_path / "made" / "out").mkdir(parents=True)
    (tmp_path / "made" / "out" / "model.bin").write_bytes(b"model")
    packed = tmp_path / "packed"
    pack_outputs(tmp_path / "made", ["out/"], packed)
    return packed.read_bytes()


def test_outputs_are_checked_and_unpacked(
    call: Both, fake: FakeExchange, tmp_path: Path, outputs: bytes
) -> None:
    fake.outputs = outputs

    assert call("download", "hello", tmp_path / "results") == tmp_path / "results"
    assert (tmp_path / "results" / "out" / "model.bin").read_bytes() == b"model"


def test_a_broken_download_is_begun_anew(
    call: Both, fake: FakeExchange, tmp_path: Path, outputs: bytes
) -> None:
    fake.outputs = outputs
    half = httpx.Response(200, stream=Breaks(outputs[: len(outputs) // 2]))
    fake.script[f"GET /v1/jobs/{JOB}/outputs"] = [half]

    call("download", JOB, tmp_path / "results")

    assert (tmp_path / "results" / "out" / "model.bin").read_bytes() == b"model"


@pytest.mark.parametrize("headers", [{}, {"X-Perak-Digest": "sha256:" + "0" * 64}], ids=["none", "other"])
def test_outputs_of_another_digest_are_refused(
    call: Both, fake: FakeExchange, tmp_path: Path, outputs: bytes, headers: dict[str, str]
) -> None:
    fake.script[f"GET /v1/jobs/{JOB}/outputs"] = [httpx.Response(200, content=outputs, headers=headers)]

    with pytest.raises(errors.DownloadDamaged):
        call("download", JOB, tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_no_outputs_is_told_by_the_exchange(call: Both, fake: FakeExchange, tmp_path: Path) -> None:
    fake.script[f"GET /v1/jobs/{JOB}/outputs"] = [problem(404, "no_outputs", "the job left no outputs")]

    with pytest.raises(errors.NotFound, match="no outputs"):
        call("download", JOB, tmp_path / "results")


# The rest


@pytest.mark.parametrize(
    ("verb", "args"),
    [
        ("exchange", ()),
        ("quote", (HELLO,)),
        ("cancel", ("hello",)),
        ("wait", (JOB,)),
        ("nodes", ()),
        ("offers", ()),
        ("wallet", ()),
        ("fund", ("5.00",)),
        ("keys", ()),
        ("projects", ()),
        ("invite", ()),
        ("key_create", ("laptop", ["renter"])),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_other_verbs_are_answered(call: Both, verb: str, args: tuple[Any, ...]) -> None:
    assert call(verb, *args)


def test_both_clients_have_the_same_verbs() -> None:
    def verbs(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert verbs(Client) - {"close"} == verbs(AsyncClient) - {"aclose"}


def test_a_key_with_a_line_break_is_refused_before_it_is_sent() -> None:
    with pytest.raises(errors.ConfigError):
        Client(target=Target(url=URL, api_key="a\r\nX: y"))


def test_offer_changes_send_only_what_is_changed(call: Both, fake: FakeExchange) -> None:
    from perak.wire.api import OfferChange
    from unit.client.canned_exchange import OFFER

    call("offer_set", OFFER, OfferChange(price_cpu="0.02"))

    assert json.loads(fake.requests[0].content) == {"price_cpu": "0.02"}

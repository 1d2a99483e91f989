"""The credentials of a closed registry are a secret of the project, fetched for the pull alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from perak.agent.sandbox import ImageRoot, Sandbox
from perak.agent.work import Work, WorkFailed
from perak.domain.errors import NotFound, Unavailable
from perak.wire.session import LeaseOrder

ORDER = LeaseOrder(
    lease="lease-1@local", run="run-1@local", job="job-1@local", epoch=1, wanted="run", name="x",
    command=None, cpu_milli=1, memory_bytes=1, disk_bytes=1, shm_bytes=1, max_duration_seconds=1,
    image="closed.example/x@sha256:" + "0" * 64, image_credentials="REGISTRY",
)  # fmt: skip


class Images:
    """Pulls nothing; remembers with what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str | None] = []

    def ensure(self, image: str, *, credentials: str | None, say: object) -> ImageRoot:
        self.asked.append(credentials)
        return ImageRoot(root="/nowhere", argv=("/bin/true",))


def work(found: dict[str, bytes] | Exception) -> tuple[Work, Images]:
    def fetch_secrets(lease: str) -> dict[str, bytes]:
        assert lease == ORDER.lease
        if isinstance(found, Exception):
            raise found
        return found

    images = Images()
    made = Work(
        state_dir=Path("/nowhere"),
        sandbox=cast("Sandbox", None),
        blobs=cast("Any", SimpleNamespace(fetch_secrets=fetch_secrets)),
        environments=None,
        devices=None,
        log_bytes_max=1,
        transfer_attempts_max=1,
        images=cast("Any", images),
        grants=lambda: (),
    )
    return made, images


def test_the_secret_goes_to_the_registry() -> None:
    made, images = work({"REGISTRY": b"ann:right\n"})
    made._image(ORDER, lambda line: None)
    assert images.asked == ["ann:right"]


@pytest.mark.parametrize(
    "found",
    [{}, {"REGISTRY": b"\xff"}, NotFound("the secret REGISTRY was removed")],
    ids=["absent", "binary", "removed"],
)
def test_without_it_nothing_is_pulled(found: dict[str, bytes] | Exception) -> None:
    made, images = work(found)
    with pytest.raises(WorkFailed, match="REGISTRY") as failed:
        made._image(ORDER, lambda line: None)
    assert failed.value.cause == "secrets"
    assert images.asked == []


def test_an_exchange_that_stays_away_is_no_endless_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perak.agent.work.time", SimpleNamespace(sleep=lambda seconds: None))
    made, _ = work(Unavailable("the exchange is away"))
    with pytest.raises(WorkFailed, match="tried 1 times"):
        made._image(ORDER, lambda line: None)

"""GPU jobs from the command line. The driver and the cards are stand-ins; everything else is real."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import queue
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from benchmarks.local import Local, perak_up

from acceptance.conftest import Shell
from stand_ins import make_driver, uuid

WATTS = 200
"""What each stand-in card draws, by its counter."""
COOL, HOT = "60 61 62", "60 91 62"
"""Degrees of each card; it slows itself at 90."""
SOUND = "0 0 0"
"""The Xid of each card; none."""
WAIT_SECONDS_MAX = 45
JOB = """
name: {name}
run: |
  ls -d /dev/nvidia?
  echo "visible $CUDA_VISIBLE_DEVICES"
  sleep {seconds}
resources: {{gpu: V100, cpu: 250m, memory: 64MB, shm_size: 8MB}}
limits: {{max_duration: 10m}}
"""


class Cards(Shell):
    """A running Perak, and the files with the temperature and the Xid of each of its cards."""

    def __init__(self, running: Local, temperatures: Path, faults: Path) -> None:
        super().__init__(running)
        self.temperatures = temperatures
        self.faults = faults


@pytest.fixture(scope="module")
def gpus() -> Iterator[Cards]:
    """A whole Perak on a machine with three cards, of which the third adds wrongly."""
    if os.geteuid() != 0:
        pytest.skip("needs root: to make device nodes")
    folder = Path(tempfile.mkdtemp(prefix="perak-cards-"))
    folder.chmod(0o755)
    try:
        temperatures = folder / "temperatures"
        temperatures.write_text(COOL)
        faults = folder / "faults"
        faults.write_text(SOUND)
        root = make_driver(
            folder / "driver",
            cards=3,
            WATTS=WATTS,
            WRONG_CARD=2,
            TEMPERATURES=f'"{temperatures}"',
            FAULTS=f'"{faults}"',
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PERAK_NVIDIA_ROOT", str(root))
            patch.setenv("PERAK_TORCH_INDEX_URL", "off")
            patch.setenv("PERAK_TIERS", "bubblewrap")
            with perak_up("--fund", "100", "--price-gpu", "0.20") as running:
                yield Cards(running, temperatures, faults)
    finally:
        shutil.rmtree(folder)


def test_each_job_has_a_card_of_its_own_and_the_next_one_waits(gpus: Shell, tmp_path: Path) -> None:
    first, second = (submit(gpus, tmp_path, name, seconds=600) for name in ("first", "second"))
    logs = [gpus.until_logged(job, "visible GPU-") for job in (first, second)]
    cards = [next(card for card in range(3) if uuid(card) in log) for log in logs]
    assert sorted(cards) == [0, 1]
    for card, log in zip(cards, logs, strict=True):
        assert log.split() == [f"/dev/nvidia{card}", "visible", uuid(card)]

    third = submit(gpus, tmp_path, "third", seconds=2)
    quote = show(gpus, "quote", job_file(tmp_path, "third", seconds=2))
    assert misfits(quote) == {"gpu_count": "0 free of 2"}
    assert show(gpus, "show", third)["state"] == "queued"

    assert gpus("cancel", first).returncode == 0
    gpus.until_logged(third, f"visible {uuid(cards[0])}")
    (run,) = gpus.until_state(third, "succeeded").runs
    receipt = show(gpus, "receipt", "show", str(run.receipt))["receipt"]
    assert uuid(cards[0]) in json.dumps(receipt)
    energy = receipt["energy"]
    assert "NVML energy counter" in energy["method"]
    assert energy["joules"] >= 2 * WATTS
    gpus("cancel", second)


def test_a_card_that_fails_its_check_is_not_offered_and_that_is_shown(gpus: Shell) -> None:
    (offer,) = json.loads(gpus("offer", "ls", "--json").stdout)
    assert [device["uuid"] for device in offer["devices"]] == [uuid(0), uuid(1)]
    assert "added 2048 of 4096 numbers wrongly" in offer["left_out"][uuid(2)]
    people = gpus("offer", "ls")
    assert "numbers wrongly" in people.stdout + people.stderr


def test_a_hot_card_is_shown_and_told_and_so_is_its_end(gpus: Cards) -> None:
    with receiver() as (url, messages):
        assert gpus("webhook", "add", url, "--events", "node.hot,node.cool").returncode == 0
        gpus.temperatures.write_text(HOT)
        hot = messages.get(timeout=WAIT_SECONDS_MAX)
        assert hot["type"] == "node.hot"
        assert (
            "GPU 1 Tesla V100-SXM2-16GB is at 91 °C, its limit is 90 °C (NVML slowdown"
            in hot["data"]["detail"]
        )
        (name,) = {hot["data"]["name"]}
        temperatures = {each["id"]: each for each in show(gpus, "node", "show", name)["temperatures"]}
        assert [temperatures[uuid(card)]["hot"] for card in range(3)] == [False, True, False]
        assert "HOT" in gpus("node", "show", name).stdout

        gpus.temperatures.write_text(COOL)
        cool = messages.get(timeout=WAIT_SECONDS_MAX)
        assert cool["type"] == "node.cool"
        assert "61 °C" in cool["data"]["detail"]


def test_a_card_that_fails_ends_its_run_and_the_job_goes_on_with_another(gpus: Cards, tmp_path: Path) -> None:
    job = submit(gpus, tmp_path, "failing", seconds=600)
    log = gpus.until_logged(job, "visible GPU-")
    card = next(card for card in (0, 1) if uuid(card) in log)
    gpus.faults.write_text(" ".join("79" if each == card else "0" for each in range(3)))
    gpus.until_logged(job, f"visible {uuid(1 - card)}")
    gpus.faults.write_text(SOUND)
    first, second = show(gpus, "show", job)["runs"]
    assert (first["cause"], second["cause"]) == ("device_fault", None)
    assert f"{uuid(card)}: the driver told Xid 79: it fell off the bus" in first["detail"]
    assert gpus("cancel", job).returncode == 0


@contextlib.contextmanager
def receiver() -> Iterator[tuple[str, queue.Queue[Any]]]:
    """An HTTP server on loopback that keeps what is posted to it."""
    messages: queue.Queue[Any] = queue.Queue()

    class Keep(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            messages.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Keep) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", messages
        server.shutdown()


def test_a_quote_compares_the_price_with_the_clouds(gpus: Shell, tmp_path: Path) -> None:
    quote = show(gpus, "quote", job_file(tmp_path, "compared", seconds=1))
    (offer,) = quote["offers"]
    assert offer["device"] == "1 x Tesla V100-SXM2-16GB"
    assert "less than the cheapest hyperscaler on demand (AWS p3.2xlarge, 3.06" in offer["cloud_comparison"]


def test_a_torch_without_kernels_for_the_card_is_told_before_money_moves(gpus: Shell, tmp_path: Path) -> None:
    def torch(requirement: str) -> dict[str, str]:
        more = f'python: {{version: "3.11", packages: ["{requirement}"]}}\n'
        return misfits(show(gpus, "quote", job_file(tmp_path, "torch", seconds=1, more=more)))

    assert "torch<2.11" in torch("torch")["cuda"]
    assert "cuda" not in torch("torch<2.11")
    assert "cuda" not in torch("numpy")


def submit(perak: Shell, folder: Path, name: str, *, seconds: int) -> str:
    return str(show(perak, "run", job_file(folder, name, seconds=seconds), "--detach")["id"])


def job_file(folder: Path, name: str, *, seconds: int, more: str = "") -> str:
    path = folder / f"{name}.yaml"
    path.write_text(JOB.format(name=name, seconds=seconds) + more)
    return str(path)


def misfits(quote: Any) -> dict[str, str]:
    (offer,) = quote["offers"]
    return {each["dimension"]: each["available"] for each in offer["misfits"]}


def show(perak: Shell, *arguments: str) -> Any:
    reply = perak(*arguments, "--json")
    assert reply.returncode == 0, reply.stderr
    return json.loads(reply.stdout)

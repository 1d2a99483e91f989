"""The scripted stand-in for NVIDIA's management library, and the states that cards are in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).with_name("nvml_states.c")
HEALTHY = """
* uuid GPU-{card}
* name NVIDIA A100-SXM4-80GB
* serial 1320{card}
* vbios 92.00.36.00.02
* minor {card}
* cores 6912
* memory 85899345920
* capability 8.0
* bus 00000000:{bus}:00.0
* pci 0x20B210DE 0x147F10DE
* limit_milliwatts 400000
* milliwatts 380000
* celsius 61
* mhz 1410
* memory_mhz 1593
* generation 4
* generation_slot 4
* generation_card 4
* width 16
* width_card 16
* replays 0
* energy 5000
* throttle 0x4
* ecc 1
* ecc_errors 0 0 0 0
* sram_exceeded 0
* remapped 0 0 0 0
* banks 640 0 0 0 0
* processes 0
* nvlink 111111111111
* nvlink_errors 0
* events 1
"""
READ = """
import json, sys
from perak.agent.inspect import nvml
from perak.agent.inspect.pci import link_checks
from perak.domain.hardware.inspection import DeviceIdentity
found, why = nvml.cards()
out = []
for card in found:
    told = {"uuid": card.uuid, "bus": card.bus, "lost": None, "checks": []}
    out.append(told)
    try:
        known = {name: value for name, value in card.identity().items() if value is not None}
        identity = DeviceIdentity(uuid=card.uuid, model="x", kind="nvidia", index=card.index, **known)
        card.begin()
        told["sample"] = {"celsius": card.sample(0.0).celsius}
        xids = card.xids()
        checks = [*card.checks(), nvml.xid_check(xids)]
        checks += link_checks(identity, generations=card.generations, widths=card.widths)
        told["name"] = identity.nvml_name
        told["identity"] = [identity.serial, identity.vbios, identity.nvml_pci_ids, identity.ecc_enabled]
        told["checks"] = {each.name: [each.status, each.value, each.reason] for each in checks}
    except nvml.CardLost as error:
        told["lost"] = str(error)
print(json.dumps({"cards": out, "why": why}))
"""


def make_library(root: Path) -> Path:
    """A "driver root" with the scripted library. Skips without a compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler for the stand-in driver")
    (root / "lib").mkdir(parents=True)
    library = root / "lib" / "libnvidia-ml.so.1"
    build = ["-shared", "-fPIC", "-O1", "-Wl,-soname,libnvidia-ml.so.1", "-o", str(library)]
    subprocess.run([compiler, *build, str(SOURCE)], check=True)
    return root


def state(*lines: str, cards: int = 1, without: tuple[str, ...] = ()) -> str:
    """Healthy cards, but for `lines`, which count more; `without`: keys that they lack."""
    text = [f"cards {cards}"]
    for card in range(cards):
        healthy = HEALTHY.format(card=card, bus=f"F{card:X}").replace("*", str(card))
        text += [
            line for line in healthy.splitlines() if line.split(" ")[1:2] not in [[key] for key in without]
        ]
    return "\n".join([*text, *lines]) + "\n"


def env(root: Path, text: str) -> dict[str, str]:
    """What a process needs to see those cards."""
    (root / "state").write_text(text)
    return {"PERAK_NVIDIA_ROOT": str(root), "NVML_STATE": str(root / "state")}


def read(root: Path, text: str) -> Any:
    """What our reader makes of cards in that state, in a process of its own, as a library is loaded once."""
    done = subprocess.run(
        [sys.executable, "-c", READ],
        env={**os.environ, **env(root, text)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)

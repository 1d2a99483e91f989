"""A job that asks for more isolation than the default gets it, and its receipt says so."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from acceptance.conftest import Shell

KNOWN_SECONDS = 60.0
"""For the node to try its other tiers, beside the tests before this one."""


def offered(perak: Shell) -> list[str]:
    with perak.client() as client:
        (offer,) = client.offers()
    return [each.tier for each in offer.tiers]


def test_a_job_gets_the_isolation_that_it_asks_for(perak: Shell, tmp_path: Path) -> None:
    if shutil.which("crun") is None:
        pytest.skip("crun is not installed (Debian: apt install crun)")
    deadline = time.monotonic() + KNOWN_SECONDS
    while "crun" not in (tiers := offered(perak)):
        if time.monotonic() > deadline:
            pytest.skip(f"this machine gives no crun: it offers {tiers}")
        time.sleep(0.2)
    job = tmp_path / "job.yaml"
    job.write_text("name: walled\nrun: echo within\nplacement: {isolation: crun}\n")
    quote = json.loads(perak("quote", str(job), "--json").stdout)
    assert [each["tier"] for each in quote["offers"]] == ["crun"]
    reply = perak("run", str(job))
    assert (reply.returncode, reply.stdout.splitlines()[0]) == (0, "within"), reply.stderr
    (run,) = json.loads(perak("show", "walled", "--json").stdout)["runs"]
    receipt = json.loads(perak("receipt", "show", run["receipt"], "--json").stdout)
    sandbox = receipt["receipt"]["sandbox"]
    assert (run["tier"], sandbox["tier"]) == ("crun", "crun")
    assert sandbox["runtime"].startswith("crun ")

    (offer,) = json.loads(perak("offer", "ls", "--json").stdout)
    (walled,) = [each for each in offer["tiers"] if each["tier"] == "crun"]
    assert sandbox["checklist"] == walled["checklist"]
    assert walled["checklist"] in perak("offer", "show", offer["node_name"]).stdout
    shown = perak("offer", "checks", sandbox["checklist"])
    assert shown.returncode == 0, shown.stderr
    assert "valid, by node-" in shown.stdout
    assert "kernel-parameters" in shown.stdout


def test_more_isolation_than_there_is_doesnt_fit_and_the_quote_says_why(perak: Shell, tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text("name: dreamt\nrun: echo never\nplacement: {isolation: microvm}\n")
    (offer,) = json.loads(perak("quote", str(job), "--json").stdout)["offers"]
    if "microvm" in offered(perak):
        pytest.skip("this machine gives microvms")
    (misfit,) = [each for each in offer["misfits"] if each["dimension"] == "isolation"]
    assert misfit["needed"] == "microvm or more"
    assert misfit["available"].startswith("bubblewrap")

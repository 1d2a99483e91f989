"""A hostile name server and a hostile web server, in network namespaces of this test's own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("hostile_names.py")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make network namespaces")
@pytest.mark.skipif(not shutil.which("ip", path="/usr/sbin:/sbin:/usr/bin"), reason="needs iproute2")
def test_a_name_never_leads_a_job_into_a_network_that_is_not_public() -> None:
    done = subprocess.run(
        ["/usr/bin/unshare", "--net", "--mount", "--propagation", "private", sys.executable, str(SCRIPT)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    said = found["said"]

    assert said["public"] == "200 served by the public server"
    for name in ("private", "own", "loopback", "metadata"):
        assert said[name].startswith("403"), said[name]
        assert "no public address" in said[name]
    assert said["rebind_first"] == "200 served by the public server"
    assert said["rebind_then"].startswith("403"), "the second answer is judged by itself"
    assert said["redirect"].startswith("302 Location: http://10.77.0.1"), "a redirect is the job's to follow"
    assert said["redirected"].startswith("403"), "and is refused even where the job named the address"
    assert said["unknown"].startswith("403"), "not named, so not even looked up"
    assert found["refused"] == 7

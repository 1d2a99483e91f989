"""The demonstration: a whole Perak on this machine runs a real training job and shows its receipt.

`make demo` calls it. The state is kept beside the system's, so that a second run reuses the database and the
job's Python environment. Nothing is left running.
"""

from __future__ import annotations

import shutil
import time

from stage import ROOT, perak, perak_json, perak_up, say, state_folder, verify_receipt

JOB = ROOT / "examples" / "train-digits" / "job.yaml"


def main() -> int:
    begin = time.monotonic()
    outputs = ROOT / ".perak-demo"
    shutil.rmtree(outputs, ignore_errors=True)
    with perak_up(state_folder("perak-demo")) as environment:
        say(
            f"Perak is up at {environment['PERAK_URL']}: an exchange, PostgreSQL, and this machine as a node "
            "that offers its CPU."
        )
        say("What would the job cost?")
        perak(environment, "quote", str(JOB))
        say("Run it: matched, sandboxed, metered, paid.")
        code = perak(environment, "run", str(JOB))
        if code:
            return code
        say(f"The model, downloaded to {outputs}:")
        perak(environment, "download", "train-digits", str(outputs))
        receipt = perak_json(environment, "show", "train-digits")["runs"][-1]["receipt"]
        say("The receipt, and its verification offline, against this exchange's own authority:")
        code = verify_receipt(environment, receipt, outputs / "receipt.json")
    say(
        f"Done in {time.monotonic() - begin:.1f} s; nothing is left running. `make unplug` pulls the plug on "
        "a node, `perak up` starts Perak for good."
    )
    return code


if __name__ == "__main__":
    raise SystemExit(main())

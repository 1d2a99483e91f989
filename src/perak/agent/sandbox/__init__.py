"""The sandbox that runs live in on this node.

`Sandbox.probe` finds out which tier this machine can give and checks it by attacking it; the rest is one
folder, one shim and one bubblewrap by run. Standard library only (pyseccomp where it is there).
"""

from perak.agent.sandbox.sandbox import RunFolder, Sandbox
from perak.agent.sandbox.spec import ImageRoot, Mount, RunSpec, RunStatus, SecretUse, Usage
from perak.agent.sandbox.tier import TierReport

__all__ = [
    "ImageRoot", "Mount", "RunFolder", "RunSpec", "RunStatus", "Sandbox", "SecretUse", "TierReport", "Usage",
]  # fmt: skip

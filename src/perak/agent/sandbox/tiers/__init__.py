"""The ways to isolate a run on this machine, behind one small interface.

`base.Runtime` is the interface, and each module beside it one way. Every tier starts from bubblewrap, which
the shim starts as the run's own user: it is the sandbox itself in the tier of its name, and in the others the
outer wall, inside which the runtime builds the job's sandbox. So the shim knows one way to start, to limit
and to kill for certain (the outer process namespace ends with its first process), and no runtime is ever
started as root.
"""

from __future__ import annotations

from collections.abc import Mapping

from perak.agent.sandbox.tiers.base import Candidate, Places, Runtime, Start
from perak.agent.sandbox.tiers.bubblewrap import Bubblewrap
from perak.agent.sandbox.tiers.gvisor import Gvisor
from perak.agent.sandbox.tiers.microvm import Microvm
from perak.agent.sandbox.tiers.oci import Crun, Runc

__all__ = ["DEFAULT_RUNTIME", "RUNTIMES", "Candidate", "Places", "Runtime", "Start"]

DEFAULT_RUNTIME: Runtime = Bubblewrap()

RUNTIMES: Mapping[str, Runtime] = {each.tier: each for each in (Crun(), Runc(), Gvisor(), Microvm())}
"""The tiers beside the default one, by name."""

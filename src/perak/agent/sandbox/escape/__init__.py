"""The escape checklist, tried from inside a sandbox as an ordinary job.

`inside`, `bombs` and `gpu` run in there; `bait` is what they may find; `lab` starts them; `rounds`, `limits`
and `devices` judge. The table of the checks is `perak.domain.checklist`.
"""

from perak.agent.sandbox.escape.rounds import attack

__all__ = ["attack"]

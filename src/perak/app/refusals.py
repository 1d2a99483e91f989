"""Every way in which the exchange turns a node down, and how its owner hears of it.

The owner hears twice: by a notice that `perak node show` has, and by the webhook event `node.refused`. Each
kind of refusal of a node is told once in ten minutes (`alerts.QUIET`), whatever its detail: a node that is
refused tries again for ever.
"""

from __future__ import annotations

from datetime import datetime

from perak.app.alerts import tell, tell_project
from perak.app.ports import Transaction
from perak.app.records import NodeRecord

REFUSALS = {
    "enrolment": "a machine came with an invite of this project, and could not be enrolled",
    "clock": "the node's clock is too far off",
    "second_agent": "a second agent came with the node's key",
    "protocol": "the agent speaks another version of the protocol",
    "frame": "something that the agent sent can't be understood, or its signature is wrong",
    "report": "a report says what can't be; what it told of is passed over",
    "evidence": "a report's certificates prove nothing; what it told of is not billed",
    "device": "a device of the node is not fit to be offered",
    "sandbox": "a sandbox tier of the node failed a check and is not offered",
    "run": "the node could not start a run for reasons of its own",
    "transfer": "a file of a run was asked for or sent with a signature that is out of date",
}
"""What a refusal is of. A stranger without the node's key causes none of them: an unknown node, a revoked one
and a wrong signature of a Hello are refused without a word to anybody, as they prove to be nobody's."""


async def tell_refusal(
    tx: Transaction, *, node: NodeRecord, subject: str, detail: str, now: datetime
) -> None:
    """Tell the node's owner, in this transaction, that it was refused and why; `detail` is for people."""
    assert subject in REFUSALS
    await tx.nodes.notice(node.id, text=detail, now=now)
    await tell(tx, node=node, event="node.refused", subject=subject, detail=f"{node.name}: {detail}", now=now)


async def tell_enrolment_refused(
    tx: Transaction, *, secret_hash: bytes, name: str, detail: str, now: datetime
) -> None:
    """Tell whoever made the invite; an invite that never was is nobody's."""
    project = await tx.nodes.invited_to(secret_hash=secret_hash)
    if project is not None:
        text = f"a machine named {name} could not be enrolled: {detail}"
        await tell_project(
            tx, project=project, event="node.refused", subject="enrolment", name=name, detail=text, now=now
        )

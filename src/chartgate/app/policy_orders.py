"""What a node obeys: a version whose approval and activation are both in a log that it trusts.

The rule kept (zero trust between parts): the control plane's rows are hearsay. A node believes the
content by its hash, and the decision by log entries that come with an inclusion proof under a
checkpoint signed by a key that the node has of its own. An order that is not newer than the newest
one it ever obeyed is refused, so nothing old comes back but by a rollback that is itself logged.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from chartgate.app.policy_bundle import Bundle
from chartgate.errors import ChartgateError, Corrupt
from chartgate.govern.policy_version import Step
from chartgate.model.event import VERSION, PolicyStep, decode
from chartgate.tlog.note import VerifierKey
from chartgate.tlog.proof_text import LogProof

_IN_FORCE: Final = frozenset({Step.ACTIVATED, Step.ROLLED_BACK})


class NotObeyed(Corrupt):
    """An order that is not what the log says; whatever was in force stays."""

    code = "order_not_obeyed"


@dataclass(frozen=True, slots=True)
class Sealed:
    """A log entry as it is handed around, with the text of its proof."""

    entry: bytes
    proof: str


@dataclass(frozen=True, slots=True)
class Logged:
    """A step that is in a trusted log."""

    event: PolicyStep
    index: int
    log: str
    """Origin of the log."""


@dataclass(frozen=True, slots=True)
class Order:
    """Put this version in force: what a node is asked, and holds once it obeyed."""

    bundle: Bundle
    approval: Sealed
    activation: Sealed


@dataclass(frozen=True, slots=True)
class Obeyed:
    """An order that may be obeyed."""

    order: Order
    approval: Logged
    activation: Logged

    @property
    def content(self) -> str:
        """The version's content hash."""
        return self.activation.event.content

    @property
    def is_shipped(self) -> bool:
        """Whether a program put in force what came with it, for want of anything else."""
        return "bootstrap" in self.activation.event.detail

    @property
    def generation(self) -> int:
        """Counts what came into force, over all versions of the subject."""
        return self.activation.event.generation


def open_step(sealed: Sealed, keys: Sequence[VerifierKey]) -> Logged:
    """The step, if its entry is in a log of one of ``keys``; raises ``NotObeyed``."""
    try:
        proof = LogProof.parse(sealed.proof)
        checkpoint = proof.verify(sealed.entry, keys)
        event = decode(sealed.entry)
    except (ChartgateError, msgspec.MsgspecError, UnicodeError) as exc:
        raise NotObeyed(f"the step is not in the log: {exc}") from exc
    if not isinstance(event, PolicyStep) or event.version > VERSION:
        raise NotObeyed("the log entry is not a step of a policy version")
    return Logged(event, proof.index, checkpoint.origin)


def check_approval(logged: Logged) -> None:
    """Raise ``NotObeyed`` unless the step is an approval by a second person."""
    if logged.event.step != Step.APPROVED:
        raise NotObeyed(f"the step {logged.event.step} is no approval")
    proposer = logged.event.proposer
    if not proposer or logged.event.person == proposer:
        raise NotObeyed("the approval is not by a second person")


def check_order(
    order: Order,
    subject: str,
    keys: Sequence[VerifierKey],
    *,
    newest: int,
    is_held: bool = False,
) -> Obeyed:
    """Raise ``NotObeyed`` unless the order is to be obeyed by a node whose newest is ``newest``.

    ``is_held``: it is the node's own newest, read back at a start.
    """
    content = order.bundle.hash
    activation = open_step(order.activation, keys)
    approval = open_step(order.approval, keys)
    for logged in (activation, approval):
        if logged.event.subject != subject:
            raise NotObeyed(f"the step is about {logged.event.subject}, not about {subject}")
        if logged.event.content != content:
            raise NotObeyed(
                f"the step is about {logged.event.content[:12]}, but the content is {content[:12]}"
            )
    if activation.event.step not in _IN_FORCE:
        raise NotObeyed(f"the step {activation.event.step} puts nothing in force")
    check_approval(approval)
    if approval.log == activation.log and approval.index > activation.index:
        raise NotObeyed("the approval came after the activation")
    generation = activation.event.generation
    if generation < newest or (generation == newest and not is_held):
        raise NotObeyed(
            f"an activation of generation {generation}; generation {newest} was in force here"
        )
    return Obeyed(order, approval, activation)

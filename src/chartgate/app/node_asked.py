"""What a deciding node is asked and answers, as values that every channel shares.

The rule kept (decide, record, act): an ``Answered`` exists only once its entry is in the audit log,
and says where.
"""

from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from chartgate.app.authzen_search import Found
from chartgate.app.question import Question
from chartgate.app.ruling import Ruling
from chartgate.errors import ChartgateError, Refused
from chartgate.model.service import Service


class NodeNotReady(ChartgateError):
    """The node may not decide now: it does not know who was cut off meanwhile, or cannot record."""

    code = "node_not_ready"


class SearchRefused(Refused):
    """The service's scope does not let it search."""

    code = "search_refused"


class UnknownCaller(Refused):
    """A token or certificate that is nobody's, has ended, or is of a service that has."""

    code = "unknown_caller"


class Semantic(StrEnum):
    """When a batch ends (AuthZEN 1.0, "Evaluations options")."""

    EXECUTE_ALL = "execute_all"
    DENY_ON_FIRST_DENY = "deny_on_first_deny"
    PERMIT_ON_FIRST_PERMIT = "permit_on_first_permit"

    @property
    def last(self) -> bool | None:
        """The decision after which nothing more is evaluated."""
        return _LAST[self]


_LAST = {
    Semantic.EXECUTE_ALL: None,
    Semantic.DENY_ON_FIRST_DENY: False,
    Semantic.PERMIT_ON_FIRST_PERMIT: True,
}


class Caller(msgspec.Struct, frozen=True):
    """Which application asks, and how it came: ``https``, ``unix`` or ``embedded``."""

    service: Service
    channel: str


class Asked(msgspec.Struct, frozen=True):
    """One request: its questions in order, and what it is called in the log."""

    questions: tuple[Question, ...]
    request: str
    semantic: Semantic = Semantic.EXECUTE_ALL
    trace: str = ""
    """Trace id of W3C Trace Context."""


class Answered(msgspec.Struct, frozen=True):
    """Rulings that are on record; fewer than the questions where the semantic ended the batch."""

    rulings: tuple[Ruling, ...]
    index: int
    """Of the first of the request's entries in the log."""
    log: str
    """Origin of that log."""
    epoch: int
    """Of the control plane, as it was known here when this was decided."""
    record_seconds: float = 0.0
    """What of the time it took was the log's."""


class Searched(msgspec.Struct, frozen=True):
    """One page of a search that is on record."""

    found: Found
    index: int
    log: str
    epoch: int
    policy_set: str


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether the node may decide, and what stands in the way; nothing of it names anybody."""

    reasons: tuple[str, ...] = field(default=())
    is_log_lost: bool = False
    """Whether it is the log: then a question is answered as one that could not be recorded."""

    def __bool__(self) -> bool:
        return not self.reasons

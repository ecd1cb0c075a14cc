"""What asking everyone is made of: policies ready to be asked, and what they give."""

from collections.abc import Mapping
from dataclasses import dataclass

from chartgate.cedar.ast import Expr, Policy
from chartgate.targets.formula import Formula


@dataclass(frozen=True, slots=True)
class Share:
    """What somebody may, and for which records: a level's number (or 1), by which permits, and by
    which of her assignments (their places in the order given)."""

    rank: int
    when: Formula
    policies: tuple[str, ...]
    through: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """A policy's last stage: what is left of its condition, as one expression."""

    policy: Policy
    roles: frozenset[str] | None
    condition: Expr
    of_nobody: bool
    """Whether nothing of the person is asked any more, beyond her role."""
    of_context: bool
    same: object
    """What is equal where the same is left of a policy."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The policies about one action and one label, for one purpose."""

    action: str
    rank: int
    label: int
    always: tuple[Rule, ...]
    by_role: Mapping[str, tuple[Rule, ...]]
    forbids: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Granted:
    policy: str
    rank: int
    label: int
    when: Formula

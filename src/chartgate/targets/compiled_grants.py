"""Grants: policies for one named person each, compiled alone.

The rule kept: giving or ending one grant among 10,000 costs what that person has, and touches no
other policy. A grant names its person in its scope (``principal == User::"…"``); anything else is
refused, because it would be asked of nobody.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Final

from chartgate.cedar.ast import Binary, Expr, Literal, Policy, Var
from chartgate.errors import Misconfigured
from chartgate.model.principal import EntityUid
from chartgate.targets.compiled_conditions import residual_of
from chartgate.targets.compiled_tree import Builder, Node, finished

FIRST_GRANT: Final = 1 << 40
"""Grants are numbered from here, behind every policy of a file; no number is used twice."""


class NotAGrant(Misconfigured):
    """The policy is not one for a single named principal, or its id is taken."""

    code = "not_a_grant"


@dataclass(frozen=True, slots=True)
class Held:
    """What one principal holds: by number, and as one function."""

    policies: Mapping[int, Policy]
    node: Node


class Grants:
    """All grants. A reader sees a person's grants before a change or after it."""

    def __init__(self) -> None:
        self.held: Final[dict[EntityUid, Held]] = {}
        self._where: Final[dict[str, tuple[EntityUid, int]]] = {}
        self._builder: Final = Builder()
        self._next = FIRST_GRANT
        self.changes = 0
        """Counts what was added or removed."""
        self._lock: Final = Lock()

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, policy_id: str) -> bool:
        return policy_id in self._where

    def policies(self) -> tuple[Policy, ...]:
        """Every grant in force, in the order in which they came."""
        with self._lock:
            listed = [item for held in self.held.values() for item in held.policies.items()]
        return tuple(policy for _, policy in sorted(listed, key=lambda item: item[0]))

    def add(self, *policies: Policy) -> None:
        """Put grants in force; raises ``NotAGrant``, and then none of them is."""
        with self._lock:
            fresh: dict[str, EntityUid] = {}
            for policy in policies:
                if policy.id in self._where or policy.id in fresh:
                    raise _refused(policy, "there is such a grant")
                fresh[policy.id] = _whom(policy)
            self.changes += 1
            for policy in policies:
                whom = fresh[policy.id]
                self._where[policy.id] = whom, self._next
                before = self.held[whom].policies if whom in self.held else {}
                self._hold(whom, {**before, self._next: policy})
                self._next += 1

    def remove(self, policy_id: str) -> bool:
        """End a grant; whether there was one."""
        with self._lock:
            place = self._where.pop(policy_id, None)
            if place is None:
                return False
            self.changes += 1
            whom, number = place
            self._hold(whom, {n: p for n, p in self.held[whom].policies.items() if n != number})
            return True

    def _hold(self, whom: EntityUid, policies: Mapping[int, Policy]) -> None:
        if not policies:
            self.held.pop(whom, None)
            return

        def decide(expr: Expr) -> bool | None:
            match expr:
                case Binary("==", Var("principal"), Literal()):
                    return True
            return None

        residuals = (residual_of(n, policy).settled(decide) for n, policy in policies.items())
        node = finished(self._builder.root(tuple(r for r in residuals if r is not None)))
        for _ in self._builder.warm():
            pass
        self.held[whom] = Held(policies, node)


def _whom(policy: Policy) -> EntityUid:
    scope = policy.principal
    if scope.op == "==" and not policy.is_template:
        [whom] = scope.entities
        if isinstance(whom, EntityUid):
            return whom
    raise _refused(policy, "a grant names one principal")


def _refused(policy: Policy, why: str) -> NotAGrant:
    return NotAGrant(f"{policy.origin}: policy {policy.id}: {why}")

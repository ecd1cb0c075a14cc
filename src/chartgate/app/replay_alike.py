"""People whom a policy set cannot tell apart but by name: decided once, for all of them.

The rule kept: names, departments and references are exchanged for stand-ins only where no policy
names one of them and none looks into a text. Under an injective exchange of what is only ever
compared for being the same, every comparison comes out as it did, and so do levels, rows and
refusals. Only the order in a text may differ: whose views differ in text alone is decided herself.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from chartgate.app.entitlement import Asker
from chartgate.cedar.ast import Expr, Like, Literal, PolicySet
from chartgate.cedar.values import CedarSet, Value
from chartgate.datamap.read import literal
from chartgate.model.principal import Assignment, EntityUid
from chartgate.sql.views import TableView
from chartgate.targets.admissible import children

_STAND_IN: Final = "stand-in 6c1f of "


@dataclass(frozen=True, slots=True)
class Alike:
    """Somebody in whose place another was decided: ``exchanged`` are (stand-in, own) texts."""

    asker: Asker
    exchanged: tuple[tuple[str, str], ...]

    def residual(self, view: TableView) -> str:
        """The residual of the other's view, with one's own names in it."""
        text = "\n".join((view.row_predicate or "", *(c.expression for c in view.columns)))
        for stand_in, own in self.exchanged:
            text = text.replace(stand_in, own)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class Classes:
    """What a policy set names, so that people it does not tell apart can be decided as one."""

    def __init__(self, sets: Iterable[PolicySet], source: str) -> None:
        found = list(_named(policy.condition() for held in sets for policy in held.policies))
        self._reads_texts: Final = any(isinstance(one, Like) for one in found)
        self._named: Final = frozenset({source}).union(
            *(_names(one.value) for one in found if isinstance(one, Literal))
        )

    def of(self, asker: Asker) -> Alike | None:
        """Who stands for the asker; ``None`` when nobody can."""
        if self._reads_texts:
            return None
        name = asker.person.name
        exchanged: dict[tuple[str, str], str] = {}

        def stand_in(kind: str, own: str | None) -> str | None:
            if own is None or own in self._named:
                return own
            number = len([1 for known, _ in exchanged if known == kind])
            return exchanged.setdefault((kind, own), f"{_STAND_IN}{kind} {number}")

        held: list[Assignment] = []
        for assignment in asker.assignments:
            if assignment.patient is not None or name in self._named:
                return None
            held.append(
                replace(
                    assignment,
                    department=stand_in("department", assignment.department),
                    reference=stand_in("reference", assignment.reference),
                )
            )
        other = stand_in("person", name) or name
        person = replace(
            asker.person, uid=other, name=other, full_name=other, assignments=tuple(held)
        )
        return Alike(
            Asker(person, tuple(held), asker.purpose),
            tuple((literal(new), literal(own)) for (_, own), new in exchanged.items()),
        )


def _names(value: Value) -> frozenset[str]:
    values = value if isinstance(value, CedarSet) else (value,)
    return frozenset(v.id if isinstance(v, EntityUid) else str(v) for v in values)


def _named(conditions: Iterable[Expr]) -> Iterator[Expr]:
    for condition in conditions:
        yield condition
        yield from _named(children(condition))

"""What was parsed and decided before, for as long as the decision holds.

Keyed by the exact text: a statement with another constant is another text. A plan belongs to the
entitlement it was made for; when that changes, the next look finds nothing. Refusals are not kept:
each is worked out and recorded anew.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from chartgate.sql.parse import ParsedStatement, split

MAX_TEXTS: Final = 128
MAX_TEXT: Final = 4_096

PlanT = TypeVar("PlanT")


@dataclass(slots=True)
class _Kept(Generic[PlanT]):
    statements: tuple[ParsedStatement, ...]
    plans: dict[int, tuple[object, PlanT]] = field(default_factory=dict)


class PlanCache(Generic[PlanT]):
    """The newest texts of one session, with their statements and plans."""

    def __init__(self) -> None:
        self._texts: Final[OrderedDict[str, _Kept[PlanT]]] = OrderedDict()
        self._of: Final[dict[int, _Kept[PlanT]]] = {}

    def statements(self, text: str) -> tuple[ParsedStatement, ...]:
        """The statements of a text, the same objects each time it is asked for."""
        kept = self._texts.get(text)
        if kept is not None:
            self._texts.move_to_end(text)
            return kept.statements
        statements = split(text)
        if len(text) <= MAX_TEXT:
            kept = self._texts[text] = _Kept(statements)
            self._of.update((id(statement), kept) for statement in statements)
            if len(self._texts) > MAX_TEXTS:
                _, oldest = self._texts.popitem(last=False)
                for statement in oldest.statements:
                    self._of.pop(id(statement), None)
        return statements

    def plan(self, statement: ParsedStatement, owner: object, make: Callable[[], PlanT]) -> PlanT:
        """The plan made for ``owner`` before, or a new one from ``make``."""
        kept = self._of.get(id(statement))
        if kept is None:
            return make()
        found = kept.plans.get(id(statement))
        if found is None or found[0] is not owner:
            found = kept.plans[id(statement)] = (owner, make())
        return found[1]

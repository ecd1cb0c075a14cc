"""A person among all other entities, ready to be decided on again and again.

The rules kept: what was made for one state of the entities, or for one standing of the person, is
used for no other; how long an answer may hold is known without asking every policy again.
"""

from collections.abc import Mapping
from typing import Final

from chartgate.app.engine import Live
from chartgate.app.standing import FOREVER, Claims, People, PersonView, Standing, plain_standing
from chartgate.cedar.ast import Expr, GetAttr, HasAttr, Policy, Var
from chartgate.cedar.entities import Entity
from chartgate.cedar.evaluate import Env
from chartgate.cedar.values import DateTime, RecordValue, Value
from chartgate.model.principal import EntityUid
from chartgate.targets.admissible import children
from chartgate.targets.compiled import View
from chartgate.targets.compiled_grants import Held
from chartgate.targets.validity import valid_until

_MOST_PARTS: Final = 50_000
_ANY: Final = EntityUid("Action", "")


class Seen:
    """One standing in one state of the entities."""

    __slots__ = ("_bound", "_grants", "alone", "base", "is_person", "standing", "whole")

    def __init__(self, standing: Standing, base: View) -> None:
        self.standing: Final = standing
        self.base: Final = base
        self.is_person: Final = standing.person is not None
        self.whole: Final[View] = PersonView(base, standing.entity) if self.is_person else base
        self.alone: Final[tuple[View, ...]] = tuple(PersonView(base, e) for e in standing.alone)
        self._bound: int | None = None
        self._grants: Held | None = None

    def with_attributes(self, said: Mapping[str, Value]) -> tuple[View, tuple[View, ...]]:
        """Views for one question, with what a caller was believed to say of the person."""

        def view(entity: Entity) -> PersonView:
            attrs = {**entity.attrs, **said}
            return PersonView(self.base, Entity(entity.uid, attrs, entity.parents, entity.tags))

        return view(self.standing.entity), tuple(view(e) for e in self.standing.alone)

    def valid_until(self, clocked: "Clocked", live: Live, at_ms: int) -> int | None:
        """The first millisecond at which an assignment, a grant or a clock in a policy can change
        an answer; None where nothing will."""
        grants = live.compiled.grants.held.get(self.standing.uid)
        bound = self._bound
        if bound is None or bound <= at_ms or grants is not self._grants:
            bound = min(self.standing.until, clocked.bound(self, grants, at_ms))
            self._bound, self._grants = bound, grants
        return None if bound == FOREVER else bound


class Clocked:
    """The conditions of the policies that read the clock."""

    def __init__(self, policies: tuple[Policy, ...]) -> None:
        self._conditions: Final = tuple(
            p.condition() for p in policies if reads_clock(p.condition())
        )

    @property
    def is_asked(self) -> bool:
        """Whether any policy asks for the time; grants apart."""
        return bool(self._conditions)

    def bound(self, seen: Seen, grants: Held | None, at_ms: int) -> int:
        """When the first of them, or of the person's grants, may answer otherwise."""
        own = () if grants is None else tuple(p.condition() for p in grants.policies.values())
        conditions = (*self._conditions, *(c for c in own if reads_clock(c)))
        if not conditions:
            return FOREVER
        views = (seen.whole, *seen.alone)
        found = [
            bound
            for view in views
            if (bound := valid_until(conditions, _env(seen, view, at_ms), now_ms=at_ms)) is not None
        ]
        # An opaque use of the clock: over as soon as it is told.
        return max(min(found, default=FOREVER), at_ms)


def _env(seen: Seen, view: View, at_ms: int) -> Env:
    context = RecordValue((("now", DateTime(at_ms)),))
    return Env(seen.standing.uid, _ANY, _ANY, context, view)  # type: ignore[arg-type]


def reads_clock(expr: Expr) -> bool:
    """Whether the condition mentions the time, or the context as a whole."""
    if isinstance(expr, GetAttr | HasAttr) and expr.base == Var("context"):
        return expr.attr == "now"
    return expr == Var("context") or any(reads_clock(child) for child in children(expr))


class Sight:
    """Keeps the seen, and makes them; the oldest go first."""

    def __init__(self, people: People, claims: Claims, *, most_parts: int = _MOST_PARTS) -> None:
        self._people: Final = people
        self._claims: Final = claims
        self._kept: Final[dict[EntityUid, Seen]] = {}
        self._parts = 0
        self._most: Final = most_parts

    def of(self, uid: EntityUid, at_ms: int, live: Live) -> Seen | None:
        """Whom the control plane knows, else a stored entity; None for nobody."""
        kept = self._kept.get(uid)
        standing = self._people.standing(uid, at_ms)
        if kept is not None and kept.base is live.view:
            if kept.standing is standing:
                return kept
            if standing is None and kept.standing.entity is live.view.get(uid):
                return kept
        if standing is None:
            entity = live.view.get(uid)
            if entity is None:
                return None
            standing = plain_standing(entity, self._claims)
        return self._keep(uid, Seen(standing, live.view))

    def _keep(self, uid: EntityUid, made: Seen) -> Seen:
        before = self._kept.pop(uid, None)
        self._kept[uid] = made
        self._parts += made.standing.parts - (0 if before is None else before.standing.parts)
        while self._parts > self._most and len(self._kept) > 1:
            oldest = self._kept.pop(next(iter(self._kept)), None)
            self._parts -= 0 if oldest is None else oldest.standing.parts
        return made

"""Who and what look alike to a question: stand-ins for names, kinds of purposes, stretches of time.

The rule kept: Cedar compares names only for equality (and strings also by ``like`` and the parsing
functions, which are looked for). A name that nothing mentions can therefore be replaced by any
other such name, one for one, without changing an answer; likewise a purpose by one that is in the
same of the mentioned purposes, and an instant by one between the same two instants of the clock.
"""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from chartgate.app.entitlement import milliseconds
from chartgate.app.explain_reduced import Ground, variables
from chartgate.app.policy_words import HERSELF
from chartgate.cedar.ast import Binary, Expr
from chartgate.cedar.evaluate import Env
from chartgate.model.principal import Assignment, EntityUid
from chartgate.targets.admissible import children
from chartgate.targets.validity import OPAQUE, valid_until

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_INSTANTS: Final = 1000

Held = tuple[str, tuple[Assignment, ...]]
"""A person under her stand-in names: what two people have in common who look alike."""


class StandIns:
    """Names that are mentioned, kinds of names that must stay as they are, and the attributes of the
    person that are read at all: what is not read is left out."""

    def __init__(
        self,
        mentioned: frozenset[str],
        kept: frozenset[str],
        read: frozenset[str],
        *,
        names_kept: bool = False,
    ) -> None:
        self._mentioned: Final = mentioned
        self._kept: Final = kept
        self._read: Final = read
        self._names_kept: Final = names_kept
        self._made: Final[dict[tuple[str | None, ...], Assignment]] = {}

    def stand_in(self, name: str, live: Iterable[Assignment]) -> Held:
        """The person and her assignments with stand-ins for what is not mentioned."""
        renamed: dict[tuple[str, str], str] = {}

        def other(attribute: str, kind: str, own: str | None) -> str | None:
            if attribute not in self._read:
                return None
            # An empty name counts as none, so it is never replaced, and never stands in.
            if not own or own in self._mentioned or kind in self._kept:
                return own
            return renamed.setdefault((kind, own), f"\0{kind} {len(renamed)}")

        held = tuple(
            self._kept_as(
                a.role,
                other("departments", "Department", a.department),
                other("references", "String", a.reference),
                other("patients", "Patient", a.patient),
            )
            for a in live
        )
        keeps = self._names_kept or name in self._mentioned
        return (name if keeps else HERSELF), held

    def _kept_as(
        self, role: str, department: str | None, reference: str | None, patient: str | None
    ) -> Assignment:
        # One value for all who look alike: making and comparing them is most of what there is to do.
        key = (role, department, reference, patient)
        found = self._made.get(key)
        if found is None:
            found = Assignment(role, department, _EPOCH, None, reference, patient)
            self._made[key] = found
        return found


class Purposes:
    """Which purposes can be claimed, and which of them no policy here can tell apart. ``kept``: a
    record may name any of them, so that each is of a kind of its own."""

    def __init__(self, ground: Ground, mentioned: frozenset[str], *, kept: bool) -> None:
        self._ground: Final = ground
        self._kept: Final = kept
        self._mentioned: Final = mentioned
        self._kinds: Final[dict[str, str]] = {}
        self._first: Final[dict[object, str]] = {}

    def claimed_by(self, live: Iterable[Assignment]) -> tuple[str, ...]:
        """The purposes that the holder of these assignments may claim, in the book's order."""
        found = frozenset().union(*(self._ground.claims(a.role) for a in live))
        return tuple(p for p in self._ground.version.roles.purposes if p in found)

    def kind_of(self, purpose: str) -> str:
        """A purpose that gets the same answers from everyone: the first one asked of its kind."""
        found = self._kinds.get(purpose)
        if found is None:
            above = self._ground.hierarchy.ancestors(EntityUid("Purpose", purpose))
            named = frozenset(uid.id for uid in above) & self._mentioned
            own = self._kept or purpose in self._mentioned
            kind = (named, purpose if own else None)
            found = self._kinds[purpose] = self._first.setdefault(kind, purpose)
        return found


@dataclass(frozen=True, slots=True)
class Clock:
    """The instants (ms) at which the time may change an answer; ``opaque``: that cannot be told."""

    instants_ms: tuple[int, ...]
    opaque: bool = False

    @property
    def instants(self) -> tuple[datetime, ...]:
        """The instants within Python's calendar."""
        found = []
        for ms in self.instants_ms:
            try:
                found.append(_EPOCH + timedelta(milliseconds=ms))
            except OverflowError:
                break
        return tuple(found)

    def passed(self, at: datetime) -> int:
        """How many of the instants have passed."""
        return bisect_right(self.instants_ms, milliseconds(at))


def clock_of(conditions: Iterable[Expr], env: Env, *, now_ms: int) -> Clock:
    """The clock of some conditions that are asked of everyone."""
    asked = tuple(c for c in conditions if "context" in variables(c))
    if any(_of_the_person(c) for c in asked):
        return Clock((), opaque=True)
    found: list[int] = []
    while len(found) < _MOST_INSTANTS:
        following = valid_until(asked, env, now_ms=now_ms)
        if following is None:
            return Clock(tuple(found))
        if following == OPAQUE:
            return Clock((), opaque=True)
        found.append(following)
        now_ms = following
    return Clock((), opaque=True)


def _of_the_person(expr: Expr) -> bool:
    """Whether the time is compared with something that differs from person to person."""
    if isinstance(expr, Binary) and expr.op in {"<", "<=", ">", ">="}:
        return {"context", "principal"} <= variables(expr)
    return any(_of_the_person(child) for child in children(expr))

"""A policy as conditions that must all hold: which of them can fail, and which can be looked up.

The order is Cedar's: principal, action, resource, then the clauses, each ``&&`` taken apart. A
condition is *safe* when it is a Bool whatever the request, given what a guard has checked.
"""

from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

from chartgate.cedar.ast import (
    And,
    Binary,
    Expr,
    GetAttr,
    HasAttr,
    If,
    Is,
    Literal,
    Not,
    Or,
    Policy,
    Unary,
    Var,
)
from chartgate.cedar.values import CedarSet
from chartgate.model.principal import EntityUid
from chartgate.targets.compiled_source import (
    ATTRIBUTES,
    Kind,
    Known,
    Path,
    TooDeep,
    Writer,
    constant,
    operands,
)

# Lists of values multiply where one split is below another; a set is looked up fast enough inline.
_MOST_COPIES: Final = 64

STEP: Final = 16
"""So many policies are looked at between two rests."""
T = TypeVar("T")
Steps: TypeAlias = Generator[None, None, T]
"""Work that can be left and taken up again wherever it yields; its result is its return value."""

NOTHING_KNOWN: Final[Known] = {}
Need: TypeAlias = tuple[Path, Kind]
Axis: TypeAlias = tuple[str, ...]
"""("attr", variable, name), ("self", variable) or ("above", variable)."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a split can look up: the condition at ``place`` is true for exactly these values."""

    axis: Axis
    values: tuple[object, ...]
    place: int = 0


class Condition:
    """One condition, with what a split can look up of it; the rest is worked out when asked."""

    __slots__ = ("_guarded", "_needs", "axis", "expr", "values")

    def __init__(self, expr: Expr, *, safe: bool = False) -> None:
        self.expr: Final = expr
        self._needs: frozenset[Need] | bool | None = frozenset[Need]() if safe else False
        self._guarded: frozenset[Path] | None = frozenset[Path]() if safe else None
        try:
            entry = _entry(expr)
        except RecursionError:
            entry = None
        self.axis: Final = None if entry is None else entry.axis
        self.values: Final[tuple[object, ...]] = () if entry is None else entry.values

    @property
    def needs(self) -> frozenset[Need] | None:
        """What must be known for the condition to be safe; None: it never is."""
        if isinstance(self._needs, bool):
            try:
                self._needs = _needs(self.expr)
            except RecursionError:
                self._needs = None
        return self._needs

    @property
    def guarded(self) -> frozenset[Path]:
        """The attributes it asks for before it reads them: they may well be absent."""
        if self._guarded is None:
            try:
                self._guarded = frozenset(_guarded(self.expr))
            except RecursionError:
                self._guarded = frozenset()
        return self._guarded

    def is_safe(self, known: Known) -> bool:
        """Whether it is a Bool, whatever the request."""
        needs = self.needs
        if not needs:
            return needs is not None
        return all(path in known and (not kind or known[path] == kind) for path, kind in needs)


@dataclass(frozen=True, slots=True, eq=False)
class Residual:
    """What is left to ask of a policy; ``number`` is its place in file order.

    ``whole`` is the policy's full condition, for the reference evaluator where the rest cannot be
    written as Python.
    """

    number: int
    conditions: tuple[Condition, ...]
    whole: Expr
    scope: int = 0
    """How many of the first conditions are the scope's."""
    copies: int = 1
    """In how many places of the tree the policy is, since it names several values."""

    def without(self, place: int) -> "Residual":
        """The same policy where the condition at ``place`` is known to hold."""
        rest = self.conditions[:place] + self.conditions[place + 1 :]
        copies = self.copies * max(1, len(self.conditions[place].values))
        return Residual(self.number, rest, self.whole, copies=copies)

    def prepare(self) -> None:
        """Work out in advance what splits and guards will ask of the conditions."""
        for condition in self.conditions:
            if condition.needs is None:
                return

    def entries(self, known: Known, closed: frozenset[Axis]) -> Iterator[Entry]:
        """The conditions a split can decide, as long as all before them cannot fail."""
        for place, condition in enumerate(self.conditions):
            if (
                condition.axis is not None
                and condition.axis not in closed
                and self.copies * len(condition.values) <= _MOST_COPIES
            ):
                yield Entry(condition.axis, condition.values, place)
            if not condition.is_safe(known):
                return

    def settled(self, decide: Callable[[Expr], bool | None]) -> "Residual | None":
        """The policy without what ``decide`` knows of its scope; None where some of it is false."""
        # The conditions of a scope cannot fail, so that dropping the policy loses no error.
        rest: list[Condition] = []
        for condition in self.conditions[: self.scope]:
            answer = decide(condition.expr)
            if answer is False:
                return None
            if answer is None:
                rest.append(condition)
        return Residual(self.number, (*rest, *self.conditions[self.scope :]), self.whole)


def residual_of(number: int, policy: Policy) -> Residual:
    """A policy, taken apart."""
    scope = And(
        policy.principal.expression("principal"),
        And(policy.action.expression("action"), policy.resource.expression("resource")),
    )
    first = _parts(scope)
    clauses = [part for c in policy.conditions for part in _parts(c.expression())]
    # What a scope asks can always be answered.
    conditions = (*(Condition(p, safe=True) for p in first), *(Condition(p) for p in clauses))
    return Residual(number, conditions, policy.condition(), len(first))


def _parts(expr: Expr) -> list[Expr]:
    found: list[Expr] = []
    for part in operands(expr, And):
        if isinstance(part, Is) and part.inside is not None and isinstance(part.arg, Var):
            found += (Is(part.arg, part.type), Binary("in", part.arg, part.inside))
        elif not (isinstance(part, Literal) and part.value is True):
            found.append(part)
    return found


def guard_for(residuals: Collection[Residual]) -> Steps[Known]:
    """What to check of the request, so that more policies can wait behind a split; or nothing."""
    wanted: Counter[Need] = Counter()
    optional: set[Path] = set()
    count = len(residuals)
    for number, residual in enumerate(residuals, 1):
        if number % STEP == 0:
            yield
        needs: set[Need] = set()
        behind: set[Need] = set()
        for condition in residual.conditions:
            optional |= condition.guarded
            looked_up = condition.axis is not None and condition.axis[0] == "attr"
            if looked_up:
                behind |= needs
            if condition.needs is None:
                break
            if not looked_up:
                # Below a split the attribute it looks up is known to be there.
                needs |= condition.needs
        wanted.update(behind)
    guard: dict[Path, Kind] = {}
    for (path, kind), uses in wanted.most_common():
        if uses * 4 >= count and path not in optional and not guard.get(path):
            guard[path] = kind
    return guard


def _needs(expr: Expr) -> frozenset[Need] | None:
    wanted = frozenset(_demands(expr, "Bool"))
    known: dict[Path, Kind] = {}
    for path, kind in wanted:
        if known.get(path) and kind and known[path] != kind:
            return None
        known[path] = known.get(path) or kind
    try:
        return wanted if Writer(known).boolean(expr).safe else None
    except TooDeep:
        return None


def _entry(condition: Expr) -> Entry | None:
    match condition:
        case Binary("==", Var("principal" | "resource" as name), Literal(EntityUid() as uid)):
            return Entry(("self", name), (uid,))
        case Binary("in", Var("principal" | "resource" as name), right):
            target = constant(right)
            if isinstance(target, EntityUid):
                return Entry(("above", name), (target,))
            if isinstance(target, CedarSet) and all(isinstance(t, EntityUid) for t in target):
                return Entry(("above", name), tuple(target))
        case Or():
            return _either([_entry(part) for part in operands(condition, Or)])
        case Binary("==", GetAttr(Var(name), attr), Literal(EntityUid() | str() as value)) | Binary(
            "==", Literal(EntityUid() | str() as value), GetAttr(Var(name), attr)
        ) if name in ATTRIBUTES:
            return Entry(("attr", name, attr), (value,))
        case Binary("contains", left, GetAttr(Var(name), attr)) if name in ATTRIBUTES:
            members = constant(left)
            if isinstance(members, CedarSet):
                values = tuple(members)
                if all(isinstance(value, EntityUid | str) for value in values):
                    return Entry(("attr", name, attr), values)
    return None


def _either(entries: list[Entry | None]) -> Entry | None:
    known = [entry for entry in entries if entry is not None]
    if len(known) < len(entries) or len({entry.axis for entry in known}) != 1:
        return None
    values = dict.fromkeys(value for entry in known for value in entry.values)
    return Entry(known[0].axis, tuple(values))


def _guarded(expr: Expr) -> Iterator[Path]:
    """The attributes that a condition asks for before it reads them."""
    for part in operands(expr, And):
        for choice in operands(part, Or):
            for inner in operands(choice.arg if isinstance(choice, Not) else choice, And):
                if isinstance(inner, HasAttr) and isinstance(inner.base, Var):
                    yield inner.base.name, inner.attr


def _demands(expr: Expr, kind: Kind) -> Iterator[Need]:
    """The attributes an expression reads, each with the kind its place asks for."""
    match expr:
        case GetAttr(Var(name), attr) if name in ATTRIBUTES:
            yield (name, attr), kind
        case And(left, right) | Or(left, right):
            yield from _demands(left, "Bool")
            yield from _demands(right, "Bool")
        case Not(arg):
            yield from _demands(arg, "Bool")
        case If(test, then, otherwise):
            yield from _demands(test, "Bool")
            yield from _demands(then, kind)
            yield from _demands(otherwise, kind)
        case Binary("in", left, right):
            yield from _demands(left, "entity")
            yield from _demands(right, "entity")
        case Binary("contains", left, right):
            yield from _demands(left, "Set")
            yield from _demands(right, "")
        case Binary("containsAll" | "containsAny", left, right):
            yield from _demands(left, "Set")
            yield from _demands(right, "Set")
        case Binary("==" | "!=", left, right):
            yield from _demands(left, "")
            yield from _demands(right, "")
        case Unary("isEmpty", arg):
            yield from _demands(arg, "Set")
        case Is(arg, _, _):
            yield from _demands(arg, "entity")

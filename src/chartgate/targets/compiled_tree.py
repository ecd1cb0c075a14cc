"""A tree of Python functions that finds the few policies which can matter, built when first asked.

Each policy is a list of conditions that must all hold, in the order in which Cedar meets them. A
node is one function. It *splits* on an equality with an attribute (``resource.category == …``), on
the entity itself or on its ancestors (``principal in …``): a table leads to the node of the
policies that name the value found. What no split takes is written out in the node itself. Every
policy is in one place for each value it names, so the tree is linear in the policies, whatever the
principal's ancestry.

The rule kept: **no policy is passed over that would have been an error.** A policy may wait behind
a split only if everything Cedar evaluates before the splitting condition cannot fail; and a missing
attribute leads to a node of its own where all of them are evaluated. What "cannot fail" needs to
know of the request (``context.purpose`` is there and is an entity) is checked once, by a *guard*.

Generated code is shared by shape: values are reached through the tuple ``L``, so the same text with
other values is the same code, compiled once.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, FunctionType
from typing import Any, Final, TypeAlias, TypeVar

from chartgate.targets.compiled_conditions import (
    NOTHING_KNOWN,
    STEP,
    Axis,
    Residual,
    Steps,
    guard_for,
)
from chartgate.targets.compiled_runtime import MISSING, NAMES
from chartgate.targets.compiled_source import (
    ATTRIBUTES,
    Kind,
    Known,
    Path,
    Shared,
    TooDeep,
    Writer,
    check_nesting,
    entity_paths,
)

Node: TypeAlias = Callable[..., None]
_T = TypeVar("_T")
Building: TypeAlias = Steps[Node]
"""A node while it is built: whoever builds in the background can rest between steps."""

ARGUMENTS: Final = "p, pa, pd, a, r, rd, c, E, o, g, out"
_GUARDED: Final = 3
# What a split costs, in units of one policy written out: to look (an entity has a handful of
# ancestors), how many branches are met, and to call one.
_LOOKED: Final = {"attr": (1.0, 0.6), "self": (1.0, 0.1), "above": (3.0, 1.2)}
_CALLED: Final = 1.2
_DEEPEST: Final = 8
_PAGE: Final = 64
_CLASSES: Final[Mapping[Kind, str]] = {
    "entity": "X_UID", "Set": "X_SET", "Bool": "X_BOOL", "Long": "X_LONG", "String": "X_STRING",
    "datetime": "X_DATETIME", "duration": "X_DURATION", "decimal": "X_DECIMAL", "ipaddr": "X_IP",
}  # fmt: skip


def finished(building: Steps[_T]) -> _T:
    """What is built, in one go."""
    while True:
        try:
            next(building)
        except StopIteration as end:
            made: _T = end.value
            return made


class Lazy:
    """A node not yet built; takes its own place in the parent's table when first called."""

    __slots__ = ("_begin", "_key", "_table", "built")

    def __init__(
        self, begin: Callable[[], Building], table: dict[Any, Node], place: object
    ) -> None:
        self._begin: Callable[[], Building] | None = begin
        self._table: Final = table
        self._key: Final = place
        self.built: Node | None = None

    def __call__(self, *request: object) -> None:
        finished(self.build())(*request)

    def build(self) -> Building:
        """The node. Two threads may both build it; either result is right."""
        # In this order: what is to be built is dropped only after the node is there.
        begin, built = self._begin, self.built
        if built is None:
            assert begin is not None
            built = yield from begin()
            self._table[self._key] = self.built = built
            self._begin = None
        return built


class Builder:
    """Builds nodes; remembers which are still to be built, for the warm-up."""

    def __init__(self) -> None:
        self._waiting: Final[list[Lazy]] = []
        self._codes: Final[dict[str, CodeType]] = {}
        self._shared: Final[Shared] = {}

    def root(self, residuals: tuple[Residual, ...]) -> Building:
        """The first node of a tree."""
        return self._node(residuals, NOTHING_KNOWN, frozenset(), 0)

    def warm(self) -> Iterator[int]:
        """Build what is known to be needed, at most a node a step; how many are left to do."""
        while self._waiting:
            lazy = self._waiting.pop()
            if lazy.built is None:
                for _ in lazy.build():
                    yield len(self._waiting) + 1
                yield len(self._waiting)

    def _later(
        self,
        residuals: tuple[Residual, ...],
        known: Known,
        closed: frozenset[Axis],
        depth: int,
        table: dict[Any, Node],
        place: object,
        *,
        warm: bool = True,
    ) -> Lazy:
        lazy = Lazy(lambda: self._node(residuals, known, closed, depth), table, place)
        table[place] = lazy
        if warm:
            self._waiting.append(lazy)
        return lazy

    def _node(
        self, residuals: tuple[Residual, ...], known: Known, closed: frozenset[Axis], depth: int
    ) -> Building:
        lines: list[str] = []
        guard: Known = {}
        if depth == 0 and len(residuals) > _GUARDED:
            guard = yield from guard_for(residuals)
        writer = Writer(guard or known, self._shared)
        if guard:
            table: dict[Any, Node] = {}
            self._later(residuals, NOTHING_KNOWN, closed, 1, table, 0, warm=False)
            lines += _guarded(writer, guard, f"{writer.place(table)}[0]({ARGUMENTS})")
            known = guard
        while len(residuals) > 1 and depth < _DEEPEST:
            axis = yield from _best_axis(residuals, known, closed)
            if axis is None:
                break
            residuals = yield from self._write_split(
                writer, lines, residuals, axis, known, closed, depth
            )
        if len(residuals) > _PAGE:
            # Python takes its time over one long function: pages, each compiled when first asked.
            for start in range(0, len(residuals), _PAGE):
                page = residuals[start : start + _PAGE]
                pages: dict[Any, Node] = {}
                self._later(page, known, closed, _DEEPEST, pages, 0)
                lines.append(f"{writer.place(pages)}[0]({ARGUMENTS})")
            residuals = ()
        for residual in residuals:
            self._write_leaf(writer, lines, residual)
        return self._function(lines, writer)

    def _write_split(
        self,
        writer: Writer,
        lines: list[str],
        residuals: tuple[Residual, ...],
        axis: Axis,
        known: Known,
        closed: frozenset[Axis],
        depth: int,
    ) -> Steps[tuple[Residual, ...]]:
        branches: dict[object, list[Residual]] = {}
        behind: list[Residual] = []
        rest: list[Residual] = []
        for number, residual in enumerate(residuals, 1):
            if number % STEP == 0:
                yield
            entry = next((e for e in residual.entries(known, closed) if e.axis == axis), None)
            if entry is None:
                rest.append(residual)
                continue
            behind.append(residual)
            for value in entry.values:
                one = self._shared.setdefault((type(value), value), value)
                branches.setdefault(one, []).append(residual.without(entry.place))
        table: dict[Any, Node] = {}
        below = known
        if axis[0] == "attr":
            _, variable, name = axis
            below = {(variable, name): "", **known}
            if (variable, name) not in known:
                # Without the attribute each of them is an error: a node that asks them all.
                self._later(
                    tuple(behind), known, closed | {axis}, depth + 1, table, MISSING, warm=False
                )
        for number, (value, group) in enumerate(branches.items(), 1):
            if number % STEP == 0:
                yield
            kept = closed if axis[0] == "above" else closed | {axis}
            self._later(tuple(group), below, kept, depth + 1, table, value)
        lines.extend(_dispatch(writer, axis, table))
        return tuple(rest)

    def _write_leaf(self, writer: Writer, lines: list[str], residual: Residual) -> None:
        number = writer.name(residual.number)
        try:
            codes = [writer.boolean(condition.expr) for condition in residual.conditions]
            text, safe = " and ".join(c.text for c in codes), all(c.safe for c in codes)
            check_nesting(text)
        except (TooDeep, RecursionError):
            whole = writer.place(residual.whole)
            text, safe = f"X_ref({whole}, p, a, r, c, E, o)", False
        if not text:
            lines.append(f"out({number})")
        elif safe:
            lines += (f"if {text}:", f" out({number})")
        else:
            lines += (
                "try:", f" if {text}:", f"  out({number})",
                "except X_ERRORS:", f" out(~{number})",
            )  # fmt: skip

    def _function(self, lines: list[str], writer: Writer) -> Node:
        body = "".join(f"\n {line}" for line in lines or ["pass"])
        source = f"def node({ARGUMENTS}, L):{body}\n"
        code = self._codes.get(source)
        if code is None:
            module = compile(source, "<policies>", "exec")
            code = next(c for c in module.co_consts if isinstance(c, CodeType))
            self._codes[source] = code
        return FunctionType(code, NAMES, "node", (tuple(writer.literals),))


def _guarded(writer: Writer, guard: Known, otherwise: str) -> Iterator[str]:
    read = {path: writer.local() for path in entity_paths(guard)}
    checks = [_check(writer, path, kind, read.get(path)) for path, kind in sorted(guard.items())]
    yield f"if not ({' and '.join(checks)}):"
    yield f" return {otherwise}"
    for entity in read.values():
        above = f"{entity}a"
        yield f"{above} = (E.found.get({entity}) or E.known({entity}))[0]"
        yield f"if o is not None and o.uid in {above}:"
        yield f" {above} = X_anc(E, o, {entity})"
    yield f"g = ({''.join(f'{entity}a, ' for entity in read.values())})"


def _check(writer: Writer, path: Path, kind: Kind, kept: str | None) -> str:
    variable, name = path
    held, named = ATTRIBUTES[variable], writer.name(name)
    if not kind:
        return f"{named} in {held}"
    read = f"{held}.get({named})" if kept is None else f"({kept} := {held}.get({named}))"
    return f"{read}.__class__ is {_CLASSES[kind]}"


def _dispatch(writer: Writer, axis: Axis, table: dict[Any, Node]) -> Iterator[str]:
    named = writer.place(table)
    kind, variable = axis[0], axis[1]
    if kind == "attr":
        yield "try:"
        yield f" f = {named}.get({ATTRIBUTES[variable]}[{writer.name(axis[2])}])"
        if MISSING in table:
            yield "except X_ABSENT:"
            yield f" f = {named}[X_MISSING]"
        # A record has no hash and is no key: keys are entities and strings.
        yield "except X_UNHASHABLE:"
        yield " f = None"
        yield "if f is not None:"
        yield f" f({ARGUMENTS})"
    elif kind == "self":
        yield f"f = {named}.get({'p' if variable == 'principal' else 'r'})"
        yield "if f is not None:"
        yield f" f({ARGUMENTS})"
    else:
        yield f"for x in {'pa' if variable == 'principal' else 'X_anc(E, o, r)'}:"
        yield f" f = {named}.get(x)"
        yield " if f is not None:"
        yield f"  f({ARGUMENTS})"


def _best_axis(
    residuals: tuple[Residual, ...], known: Known, closed: frozenset[Axis]
) -> Steps[Axis | None]:
    """The split that spares the most work, if one spares any."""
    taken: Counter[Axis] = Counter()
    values: dict[Axis, Counter[object]] = {}
    for number, residual in enumerate(residuals, 1):
        if number % STEP == 0:
            yield
        seen: set[Axis] = set()
        for entry in residual.entries(known, closed):
            if entry.axis not in seen:
                seen.add(entry.axis)
                taken[entry.axis] += 1
                values.setdefault(entry.axis, Counter()).update(entry.values)
    best: Axis | None = None
    most = 0.0
    for axis, count in taken.items():
        sizes = values[axis].values()
        looked, met = _LOOKED[axis[0]]
        # How many policies are met on average, by whoever meets any.
        behind = sum(size * size for size in sizes) / max(1, sum(sizes))
        spared = count - looked - met * (_CALLED + behind)
        if spared > most:
            best, most = axis, spared
    return best

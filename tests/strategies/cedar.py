"""Hypothesis strategies for WELL-TYPED policies against a drawn schema, with a world to ask them in.

Expressions are drawn by the type they must have, so that Cedar's strict validator accepts every
one of them; optional attributes and tags are reached behind their guards. What then disagrees
between two readings, or errs in a way that validation should have excluded, is a bug.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import strategies as st

from chartgate.cedar.ast import (
    FALSE,
    TRUE,
    WILDCARD,
    And,
    Binary,
    Call,
    Condition,
    Expr,
    GetAttr,
    HasAttr,
    If,
    Is,
    Like,
    Literal,
    Not,
    Or,
    Policy,
    RecordExpr,
    Scope,
    SetExpr,
    Slot,
    Unary,
    Var,
)
from chartgate.cedar.parse import parse_schema
from chartgate.cedar.schema import (
    Action,
    Attribute,
    EntityRef,
    ExtensionType,
    PrimitiveType,
    RecordType,
    Schema,
    SetType,
    Type,
)
from chartgate.cedar.templates import Link, slots
from chartgate.cedar.text import policy_text
from strategies.cedar_world import (
    BOOL,
    CONSTRUCTORS,
    DATETIME,
    DECIMAL,
    DURATION,
    IP,
    LONG,
    LONGS,
    PATTERN_CHUNKS,
    SCALARS,
    STRING,
    STRINGS,
    TAGS,
    TEXTS,
    Draw,
    World,
    draw_schema,
    draw_world,
    is_whole,
    uids_of,
)
from strategies.schema_json import schema_json

COMPARISONS = ("<", "<=", ">", ">=")


@dataclass(frozen=True, repr=False)
class Case:
    """Policies as text, links of the templates among them, and worlds to ask them in."""

    text: str
    links: tuple[Link, ...]
    worlds: tuple[World, ...]

    @property
    def schema(self) -> Schema:
        return self.worlds[0].schema

    def __repr__(self) -> str:
        parts = (self.text, *map(repr, self.links), self.schema.text, *map(repr, self.worlds))
        return "Case:\n" + "\n".join(parts)


@dataclass(frozen=True)
class _Seen:
    """What an expression may reach: typed paths whose presence is certain."""

    paths: tuple[tuple[Expr, Type], ...]

    def with_(self, path: Expr, kind: Type) -> "_Seen":
        return _Seen((*self.paths, (path, kind)))


class _Policies:
    """Draws expressions for one pair of a principal's and a resource's type."""

    def __init__(self, d: Draw, schema: Schema) -> None:
        self.d = d
        self.schema = schema

    # What can be reached from a path without a guard, and what with one.

    def members(self, kind: Type) -> dict[str, Attribute]:
        if isinstance(kind, RecordType):
            return dict(kind.attributes)
        if isinstance(kind, EntityRef) and kind.name in self.schema.entities:
            return dict(self.schema.entities[kind.name].attributes)
        return {}

    def reached(self, seen: _Seen) -> list[tuple[Expr, Type]]:
        """The paths, and two steps of required attributes from each."""
        found = list(seen.paths)
        fresh = found
        for _ in range(2):
            fresh = [
                (GetAttr(path, name), a.type)
                for path, kind in fresh
                for name, a in self.members(kind).items()
                if a.required
            ]
            found = found + fresh
        return found

    def guarded(self, seen: _Seen) -> list[tuple[Expr, Expr, Type]]:
        """(guard, what it allows, its type) for optional attributes and tags."""
        found: list[tuple[Expr, Expr, Type]] = []
        for path, kind in self.reached(seen):
            for name, a in self.members(kind).items():
                if not a.required:
                    found.append((HasAttr(path, name), GetAttr(path, name), a.type))
            tags = self.schema.entities[kind.name].tags if self.is_stored(kind) else None
            if tags is not None:
                tag = Literal(self.d.pick(TAGS))
                found.append((Binary("hasTag", path, tag), Binary("getTag", path, tag), tags))
        return found

    def is_stored(self, kind: Type) -> bool:
        return isinstance(kind, EntityRef) and kind.name in self.schema.entities

    # Expressions by type.

    def of(self, kind: Type, depth: int, seen: _Seen) -> Expr:
        d = self.d
        paths = [path for path, found in self.reached(seen) if found == kind]
        if paths and (not is_whole(kind) or not d.chance(3)) and not (kind == BOOL and depth):
            return d.pick(paths)
        if depth and d.chance(8):
            test = self.of(BOOL, depth - 1, seen)
            return If(test, self.of(kind, depth - 1, seen), self.of(kind, depth - 1, seen))
        if kind == BOOL:
            return self.boolean(depth, seen)
        if depth:
            made = self.computed(kind, depth - 1, seen)
            if made is not None:
                return made
        return self.literal(kind, depth, seen)

    def literal(self, kind: Type, depth: int, seen: _Seen) -> Expr:
        d = self.d
        match kind:
            case PrimitiveType("Bool"):
                return d.pick((TRUE, FALSE))
            case PrimitiveType("Long"):
                return Literal(d.pick(LONGS))
            case PrimitiveType():
                return Literal(d.pick(STRINGS))
            case ExtensionType(name):
                return Call(CONSTRUCTORS[name], (Literal(d.pick(TEXTS[name])),))
            case EntityRef(name):
                return Literal(d.pick(uids_of(self.schema, name)))
            case SetType(element):
                items = [self.of(element, max(depth - 1, 0), seen) for _ in range(1 + d.number(2))]
                return SetExpr(tuple(items))
            case RecordType(members):
                return RecordExpr(
                    tuple(
                        (name, self.of(a.type, max(depth - 1, 0), seen))
                        for name, a in members.items()
                    )
                )
        raise TypeError(kind)

    def computed(self, kind: Type, depth: int, seen: _Seen) -> Expr | None:
        d = self.d

        def sub(wanted: Type) -> Expr:
            return self.of(wanted, depth, seen)

        forms: list[Callable[[], Expr]] = []
        if kind == LONG:
            to = ("toMilliseconds", "toSeconds", "toMinutes", "toHours", "toDays")
            forms = [
                lambda: Binary(d.pick(("+", "-", "*")), sub(LONG), sub(LONG)),
                lambda: Unary("neg", sub(LONG)),
                lambda: Call(d.pick(to), (sub(DURATION),)),
            ]
        elif kind == DATETIME:
            forms = [
                lambda: Call("offset", (sub(DATETIME), sub(DURATION))),
                lambda: Call("toDate", (sub(DATETIME),)),
            ]
        elif kind == DURATION:
            forms = [
                lambda: Call("durationSince", (sub(DATETIME), sub(DATETIME))),
                lambda: Call("toTime", (sub(DATETIME),)),
            ]
        return d.pick(forms)() if forms and not d.chance(4) else None

    def comparable(self, seen: _Seen) -> Type:
        """A type two expressions of which may be compared: mostly one that a path has."""
        kinds = [kind for _, kind in self.reached(seen) if is_whole(kind)]
        return self.d.pick(kinds) if kinds and not self.d.chance(4) else self.d.pick(SCALARS)

    def an_entity(self, seen: _Seen) -> tuple[Expr, EntityRef]:
        found = [(p, k) for p, k in self.reached(seen) if isinstance(k, EntityRef)]
        return self.d.pick(found)

    def boolean(self, depth: int, seen: _Seen) -> Expr:
        d = self.d
        if depth <= 0:
            return self.literal(BOOL, 0, seen)
        below = depth - 1

        def sub(wanted: Type) -> Expr:
            return self.of(wanted, below, seen)

        def guard() -> Expr:
            found = self.guarded(seen)
            if not found:
                return sub(BOOL)
            test, path, kind = d.pick(found)
            inside = self.about(path, kind, below, seen.with_(path, kind))
            if d.chance(3):
                return If(test, inside, sub(BOOL))
            return And(test, inside)

        def like() -> Expr:
            chunks: list[object] = []
            for _ in range(1 + d.number(3)):
                chunk = WILDCARD if d.chance(2) else d.pick(PATTERN_CHUNKS)
                if isinstance(chunk, str) and chunks and isinstance(chunks[-1], str):
                    continue
                chunks.append(chunk)
            return Like(sub(STRING), tuple(chunks))  # type: ignore[arg-type]

        def inside_() -> Expr:
            arg, kind = self.an_entity(seen)
            declared = self.schema.entities.get(kind.name)
            above = sorted(declared.parents) if declared else []
            group = EntityRef(d.pick([kind.name, *above, *above]))
            target: Type = SetType(group) if d.chance(3) else group
            if d.chance(5):
                return Is(arg, kind.name, sub(group))
            return Binary("in", arg, sub(target))

        def contains() -> Expr:
            element = self.comparable(seen)
            return Binary("contains", sub(SetType(element)), sub(element))

        def sets() -> Expr:
            found = SetType(self.comparable(seen))
            if d.chance(4):
                return Unary("isEmpty", sub(found))
            op = d.pick(("containsAll", "containsAny"))
            return Binary(op, sub(found), sub(found))

        def equal() -> Expr:
            kind = self.comparable(seen)
            return Binary(d.pick(("==", "!=")), sub(kind), sub(kind))

        def ordered() -> Expr:
            kind = d.pick((LONG, LONG, DATETIME, DURATION))
            return Binary(d.pick(COMPARISONS), sub(kind), sub(kind))

        def decimals() -> Expr:
            names = ("lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual")
            return Call(d.pick(names), (sub(DECIMAL), sub(DECIMAL)))

        def addresses() -> Expr:
            if d.chance(2):
                return Call("isInRange", (sub(IP), sub(IP)))
            names = ("isIpv4", "isIpv6", "isLoopback", "isMulticast")
            return Call(d.pick(names), (sub(IP),))

        def is_() -> Expr:
            arg, _ = self.an_entity(seen)
            return Is(arg, d.pick(sorted(self.schema.entities)))

        return d.pick(
            (
                equal,
                guard,
                guard,
                inside_,
                ordered,
                contains,
                sets,
                like,
                is_,
                decimals,
                addresses,
                lambda: And(sub(BOOL), sub(BOOL)),
                lambda: Or(sub(BOOL), sub(BOOL)),
                lambda: Not(sub(BOOL)),
            )
        )()

    def about(self, path: Expr, kind: Type, depth: int, seen: _Seen) -> Expr:
        """A condition that most likely speaks of the path just guarded."""
        d = self.d
        if kind == BOOL:
            return path
        if is_whole(kind) and not d.chance(3):
            return Binary("==", path, self.of(kind, max(depth - 1, 0), seen))
        return self.of(BOOL, max(depth, 1), seen)

    # Policies.

    def policy(self, number: int) -> Policy:
        d = self.d
        actions = [a for a in self.schema.actions.values() if a.principals]
        chosen = d.pick(actions)
        principal_type = d.pick(chosen.principals)
        resource_type = d.pick(chosen.resources)
        template = d.chance(6)
        principal = self.scope("?principal" if template else None, principal_type, narrow=False)
        resource = self.scope(
            "?resource" if template else None,
            resource_type,
            narrow=any(len(a.resources) > 1 for a in actions),
        )
        seen = _Seen(
            (
                (Var("principal"), EntityRef(principal_type)),
                (Var("resource"), EntityRef(resource_type)),
                (Var("context"), chosen.context),
            )
        )
        clauses = tuple(
            Condition(d.pick(("when", "when", "unless")), self.of(BOOL, 1 + d.number(3), seen))
            for _ in range(d.number(2))
        )
        effect = d.pick(("permit", "permit", "forbid"))
        action = self.action(chosen, resource_type)
        return Policy(f"policy{number}", effect, principal, action, resource, clauses)

    def scope(self, slot: str | None, kind: str, *, narrow: bool) -> Scope:
        d = self.d
        groups = [kind, *sorted(self.schema.entities[kind].parents)]
        if slot and not d.chance(3):
            hole = (Slot(slot),)  # type: ignore[arg-type]
            if narrow or d.chance(3):
                return Scope("is in", hole, kind)
            return Scope(d.pick(("==", "in")), hole)
        among = d.pick(uids_of(self.schema, d.pick(groups)))
        if narrow:
            return d.pick((Scope("is", (), kind), Scope("is in", (among,), kind)))
        return d.pick(
            (
                Scope(),
                Scope(),
                Scope("==", (d.pick(uids_of(self.schema, kind)),)),
                Scope("in", (among,)),
                Scope("is", (), kind),
                Scope("is in", (among,), kind),
            )
        )

    def action(self, chosen: Action, resource_type: str) -> Scope:
        d = self.d
        every = sorted(chosen.parents)
        fits = [a.uid for a in self.schema.actions.values() if resource_type in a.resources]
        return d.pick(
            (
                Scope("==", (chosen.uid,)),
                Scope("in", (chosen.uid,)),
                Scope("in", tuple(fits)),
                Scope("in", tuple(every)),
                Scope(),
            )
        )

    def link(self, template: Policy, new_id: str) -> Link:
        values = {}
        for scope in (template.principal, template.resource):
            for slot in scope.entities:
                if isinstance(slot, Slot):
                    user, record, group = (
                        next(n for n in self.schema.entities if n.endswith(end))
                        for end in ("User", "Rec", "Group")
                    )
                    own = scope.type or (user if slot.name == "?principal" else record)
                    kind = own if scope.op == "==" else self.d.pick((own, group))
                    values[slot.name] = self.d.pick(uids_of(self.schema, kind))
        return Link(template.id, new_id, values)


def draw_case(d: Draw, *, most: int = 4, worlds: int = 2, templates: bool = True) -> Case:
    """Policies that strict validation accepts, and worlds in which to ask them."""
    schema = parse_schema(json.dumps(schema_json(draw_schema(d))), "s.json")
    policies = _Policies(d, schema)
    drawn: list[Policy] = []
    links: list[Link] = []
    for _ in range(1 + d.number(most - 1)):
        policy = policies.policy(len(drawn))
        if slots(policy):
            if not templates:
                continue
            links += [policies.link(policy, f"link{len(drawn)}-{n}") for n in range(d.number(2))]
        drawn.append(policy)
    text = "\n".join(map(policy_text, drawn))
    return Case(text, tuple(links), tuple(draw_world(d, schema) for _ in range(worlds)))


@st.composite
def cases(draw: st.DrawFn, most: int = 4, worlds: int = 2, templates: bool = True) -> Case:
    """Cases drawn by Hypothesis, which makes a failing one small."""
    return draw_case(Draw.of(draw), most=most, worlds=worlds, templates=templates)

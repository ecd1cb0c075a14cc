"""Policies as values: what Cedar's JSON form (EST) says, with nothing left to interpret.

The tree has one node per construct of Cedar 4.5 and no sugar beyond it. All targets read this one
tree, so that "the policy" is one thing. Node by node the order of evaluation is that of
``chartgate.cedar.evaluate``, which is the meaning.
"""

from dataclasses import dataclass, field
from enum import Enum
from functools import reduce
from typing import Final, TypeAlias
from typing import Literal as OneOf

from chartgate.cedar.values import Value
from chartgate.model.principal import EntityUid


class Wildcard(Enum):
    """The ``*`` of a ``like`` pattern, apart from every character."""

    WILDCARD = "*"


WILDCARD: Final = Wildcard.WILDCARD

Pattern: TypeAlias = tuple["str | Wildcard", ...]

BinaryOp: TypeAlias = OneOf[
    "==", "!=", "<", "<=", ">", ">=", "+", "-", "*",
    "in", "contains", "containsAll", "containsAny", "hasTag", "getTag",
]  # fmt: skip
UnaryOp: TypeAlias = OneOf["neg", "isEmpty"]
VarName: TypeAlias = OneOf["principal", "action", "resource", "context"]


@dataclass(frozen=True, slots=True)
class Literal:
    """A value written in the policy."""

    value: Value


@dataclass(frozen=True, slots=True)
class Var:
    """One of the four parts of a request."""

    name: VarName


@dataclass(frozen=True, slots=True)
class Slot:
    """A hole of a template, ``?principal`` or ``?resource``; filled by ``Policy.link``."""

    name: OneOf["?principal", "?resource"]


@dataclass(frozen=True, slots=True)
class And:
    """``left && right``; the right side is evaluated only when the left is true."""

    left: "Expr"
    right: "Expr"


@dataclass(frozen=True, slots=True)
class Or:
    """``left || right``; the right side is evaluated only when the left is false."""

    left: "Expr"
    right: "Expr"


@dataclass(frozen=True, slots=True)
class Not:
    """``!arg``."""

    arg: "Expr"


@dataclass(frozen=True, slots=True)
class If:
    """``if test then … else …``; one branch is evaluated."""

    test: "Expr"
    then: "Expr"
    otherwise: "Expr"


@dataclass(frozen=True, slots=True)
class Binary:
    """Operators and built-in methods that evaluate both operands, left first."""

    op: BinaryOp
    left: "Expr"
    right: "Expr"


@dataclass(frozen=True, slots=True)
class Unary:
    """``-arg`` and ``arg.isEmpty()``."""

    op: UnaryOp
    arg: "Expr"


@dataclass(frozen=True, slots=True)
class GetAttr:
    """``base.attr`` of a record or an entity."""

    base: "Expr"
    attr: str


@dataclass(frozen=True, slots=True)
class HasAttr:
    """``base has attr``; a chain ``has a.b`` arrives as a conjunction of these."""

    base: "Expr"
    attr: str


@dataclass(frozen=True, slots=True)
class Like:
    """``arg like pattern``: literal chunks and wildcards."""

    arg: "Expr"
    pattern: Pattern


@dataclass(frozen=True, slots=True)
class Is:
    """``arg is type`` and ``arg is type in inside``; the latter is ``arg is type && arg in inside``."""

    arg: "Expr"
    type: str
    inside: "Expr | None" = None


@dataclass(frozen=True, slots=True)
class SetExpr:
    """A set literal."""

    items: tuple["Expr", ...]


@dataclass(frozen=True, slots=True)
class RecordExpr:
    """A record literal; keys are unique."""

    items: tuple[tuple[str, "Expr"], ...]


@dataclass(frozen=True, slots=True)
class Call:
    """An extension function or method; a method's receiver is its first argument."""

    fn: str
    args: tuple["Expr", ...]


Expr: TypeAlias = (
    Literal | Var | Slot | And | Or | Not | If | Binary | Unary | GetAttr | HasAttr | Like | Is
    | SetExpr | RecordExpr | Call
)  # fmt: skip

TRUE: Final = Literal(True)
FALSE: Final = Literal(False)


@dataclass(frozen=True, slots=True)
class Scope:
    """The constraint on one of principal, action, resource.

    ``all``: none. ``==``: one entity. ``in``: below any of ``entities`` (an empty list admits
    nobody). ``is``: of ``type``. ``is in``: of ``type`` and below the one entity.
    """

    op: OneOf["all", "==", "in", "is", "is in"] = "all"
    entities: tuple["EntityUid | Slot", ...] = ()
    type: str | None = None

    def expression(self, name: VarName) -> Expr:
        """The constraint as a condition on the variable ``name``."""
        var = Var(name)
        if self.op == "all":
            return TRUE
        targets = tuple(e if isinstance(e, Slot) else Literal(e) for e in self.entities)
        if self.op == "==":
            return Binary("==", var, targets[0])
        if self.op == "in":
            return Binary("in", var, targets[0] if len(targets) == 1 else SetExpr(targets))
        assert self.type is not None
        return Is(var, self.type, targets[0] if self.op == "is in" else None)

    def link(self, slots: "dict[str, EntityUid]") -> "Scope":
        """The same constraint with its slot filled; a slot that is not given is a ``KeyError``."""
        filled = tuple(slots[e.name] if isinstance(e, Slot) else e for e in self.entities)
        return Scope(self.op, filled, self.type)


@dataclass(frozen=True, slots=True)
class Condition:
    """A ``when`` or ``unless`` clause."""

    kind: OneOf["when", "unless"]
    body: Expr

    def expression(self) -> Expr:
        """What must be true for the clause to hold."""
        return self.body if self.kind == "when" else Not(self.body)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a policy was written; the column is that of its first token.

    Column 0: its text was generated, so that places in the text are none of the file.
    """

    file: str
    line: int
    column: int = field(default=1, compare=False)

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def _whole(
    principal: Scope, action: Scope, resource: Scope, conditions: tuple[Condition, ...]
) -> Expr:
    """principal && (action && (resource && clauses)): the order in which Cedar meets errors."""
    clauses: Expr = (
        reduce(And, (c.expression() for c in conditions[1:]), conditions[0].expression())
        if conditions
        else TRUE
    )
    return And(
        principal.expression("principal"),
        And(action.expression("action"), And(resource.expression("resource"), clauses)),
    )


@dataclass(frozen=True, slots=True)
class Policy:
    """One permit or forbid. ``text`` is its source, kept for the validator and for people."""

    id: str
    effect: OneOf["permit", "forbid"]
    principal: Scope = Scope()
    action: Scope = Scope()
    resource: Scope = Scope()
    conditions: tuple[Condition, ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    origin: Origin = Origin("<none>", 0)
    text: str = field(default="", repr=False, compare=False)
    _condition: Expr | None = field(default=None, init=False, repr=False, compare=False)

    def condition(self) -> Expr:
        """The policy's scope and clauses as one expression; it applies when that is true."""
        whole = self._condition
        if whole is None:
            # Made when first asked for: many a policy of a large set never is.
            whole = _whole(self.principal, self.action, self.resource, self.conditions)
            object.__setattr__(self, "_condition", whole)
        return whole

    def annotation(self, name: str) -> str | None:
        """The value of ``@name("…")``, or None."""
        return next((value for key, value in self.annotations if key == name), None)

    @property
    def is_template(self) -> bool:
        """Whether a slot is still open; such a policy decides nothing."""
        scopes = (self.principal, self.resource)
        return any(isinstance(e, Slot) for scope in scopes for e in scope.entities)

    def link(self, new_id: str, slots: dict[str, EntityUid]) -> "Policy":
        """The policy made from this template, under its own id."""
        return Policy(
            new_id, self.effect, self.principal.link(slots), self.action,
            self.resource.link(slots), self.conditions, self.annotations, self.origin,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class PolicySet:
    """Policies in file order, and the hash that names their content (not their layout)."""

    policies: tuple[Policy, ...]
    hash: str

    def __len__(self) -> int:
        return len(self.policies)

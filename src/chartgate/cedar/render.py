"""The canonical text of a policy, for hashing: one text per content, whatever its layout.

Not Cedar syntax and not for people. Atoms are JSON strings, forms are parenthesised, so no two
different trees share a text; comments, blanks and the order of files leave no trace, annotations
and ids do.
"""

import json
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import TypeVar

from chartgate.cedar.ast import (
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
    Wildcard,
)
from chartgate.model.principal import EntityUid

# Names the rendering: a change of it must change every hash.
_HEADER = "chartgate-policy-set/1\n"


def _form(head: str, *parts: str) -> str:
    return f"({head}{''.join(' ' + part for part in parts)})"


def _text(atom: str) -> str:
    return json.dumps(atom)


def _uid(uid: EntityUid) -> str:
    return _form("uid", _text(uid.type), _text(uid.id))


def canonical(expr: Expr) -> str:
    """The expression's canonical text."""
    match expr:
        case Literal(value):
            if isinstance(value, EntityUid):
                return _uid(value)
            # A policy's literals are Bool, Long, String and entities; JSON keeps the first three
            # apart.
            return json.dumps(value)
        case Var(name) | Slot(name):
            return name
        case And(left, right):
            return _form("&&", canonical(left), canonical(right))
        case Or(left, right):
            return _form("||", canonical(left), canonical(right))
        case Not(arg):
            return _form("!", canonical(arg))
        case If(test, then, otherwise):
            return _form("if", canonical(test), canonical(then), canonical(otherwise))
        case Binary(op, left, right):
            return _form(op, canonical(left), canonical(right))
        case Unary(op, arg):
            return _form(op, canonical(arg))
        case GetAttr(base, attr):
            return _form(".", canonical(base), _text(attr))
        case HasAttr(base, attr):
            return _form("has", canonical(base), _text(attr))
        case Like(arg, pattern):
            chunks = ("*" if isinstance(part, Wildcard) else _text(part) for part in pattern)
            return _form("like", canonical(arg), *chunks)
        case Is(arg, type_, inside):
            rest = () if inside is None else (canonical(inside),)
            return _form("is", canonical(arg), _text(type_), *rest)
        case SetExpr(items):
            return _form("set", *map(canonical, items))
        case RecordExpr(members):
            return _form("record", *(_form(_text(name), canonical(item)) for name, item in members))
        case Call(fn, args):
            return _form("call", _text(fn), *map(canonical, args))
    raise TypeError("not an expression")


def _scope(scope: Scope) -> str:
    targets = (e.name if isinstance(e, Slot) else _uid(e) for e in scope.entities)
    return _form(_text(scope.op), *(() if scope.type is None else (_text(scope.type),)), *targets)


def canonical_policy(policy: Policy) -> str:
    """The policy's canonical text on one line."""
    return _policy(policy, _scope, _clause)


def _clause(clause: Condition) -> str:
    return _form(clause.kind, canonical(clause.body))


def _policy(
    policy: Policy, scope: Callable[[Scope], str], clause: Callable[[Condition], str]
) -> str:
    notes = (_form(_text(name), _text(value)) for name, value in sorted(policy.annotations))
    clauses = map(clause, policy.conditions)
    scopes = map(scope, (policy.principal, policy.action, policy.resource))
    return _form(policy.effect, _text(policy.id), _form("notes", *notes), *scopes, *clauses)


_Node = TypeVar("_Node", Scope, Condition)


def _once(write: Callable[[_Node], str]) -> Callable[[_Node], str]:
    """The same for nodes that outlive it: what many policies share is written once."""
    written: dict[int, str] = {}

    def known(node: _Node) -> str:
        text = written.get(id(node))
        if text is None:
            text = written[id(node)] = write(node)
        return text

    return known


def policy_set_hash(policies: Iterable[Policy]) -> str:
    """SHA-256 over the canonical policies in the order of their ids, in hexadecimal."""
    ordered = sorted(policies, key=lambda p: p.id)
    scope, clause = _once(_scope), _once(_clause)
    lines = (_policy(policy, scope, clause) for policy in ordered)
    return sha256((_HEADER + "\n".join(lines)).encode()).hexdigest()

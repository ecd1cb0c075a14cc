"""The canonical text of a policy, for hashing: one text per content, whatever its layout.

Not Cedar syntax and not for people. Atoms are JSON strings, forms are parenthesised, so no two
different trees share a text; comments, blanks and the order of files leave no trace, annotations
and ids do.
"""

import json
from collections.abc import Iterable
from hashlib import sha256

from chartgate.cedar.ast import (
    And,
    Binary,
    Call,
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
    notes = (_form(_text(name), _text(value)) for name, value in sorted(policy.annotations))
    clauses = (_form(c.kind, canonical(c.body)) for c in policy.conditions)
    scopes = map(_scope, (policy.principal, policy.action, policy.resource))
    return _form(policy.effect, _text(policy.id), _form("notes", *notes), *scopes, *clauses)


def policy_set_hash(policies: Iterable[Policy]) -> str:
    """SHA-256 over the canonical policies in the order of their ids, in hexadecimal."""
    lines = (canonical_policy(policy) for policy in sorted(policies, key=lambda p: p.id))
    return sha256((_HEADER + "\n".join(lines)).encode()).hexdigest()

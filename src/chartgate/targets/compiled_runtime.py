"""What compiled conditions call: the operators of ``chartgate.cedar.evaluate`` on plain values.

The rule kept: each helper has a value exactly where the reference evaluator has that value, and
raises exactly where it raises. *Why* is not said here: whoever reports an error asks the reference
evaluator for its words.

``NAMES`` is all that generated code can reach: no builtins, and every name begins with ``X_``,
which no generated local does.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from chartgate.cedar.ast import Expr, Pattern
from chartgate.cedar.authorize import Answer
from chartgate.cedar.calls import call
from chartgate.cedar.entities import Entities, Entity
from chartgate.cedar.errors import EvaluationError
from chartgate.cedar.evaluate import Env, binary, evaluate, matches
from chartgate.cedar.values import (
    I64_MAX,
    I64_MIN,
    CedarSet,
    DateTime,
    Decimal,
    Duration,
    IpAddr,
    RecordValue,
    Value,
    equal,
    key,
)
from chartgate.model.principal import EntityUid
from chartgate.targets.entity_store import Hierarchy

__all__ = ["MISSING", "NAMES", "NO_ATTRIBUTES", "Answer", "Failed", "reference_env"]


class Failed(Exception):
    """The condition has no value."""


MISSING: Final = object()
NO_ATTRIBUTES: Final[Mapping[str, Value]] = {}
# A tree of values too deep for Python is an error of the policy, as in the reference evaluator.
ERRORS: Final = (KeyError, Failed, EvaluationError, RecursionError)


def reference_env(
    principal: EntityUid,
    action: EntityUid,
    resource: EntityUid,
    context: Mapping[str, Value],
    entities: Hierarchy,
    own: Entity | None,
) -> Env:
    """The same request for the reference evaluator."""
    held: Any = entities
    return Env(
        principal,
        action,
        resource,
        context,
        held if own is None else Entities((own,), base=held),
    )


def _fail() -> bool:
    raise Failed


def ancestors_of(entities: Hierarchy, own: Entity | None, uid: EntityUid) -> frozenset[EntityUid]:
    """Ancestors in the store with the request's own entity laid over it."""
    found = entities.ancestors(uid)
    if own is None or own.uid not in found:
        return found
    if uid == own.uid and not own.parents:
        return frozenset((uid,))
    # Somewhere on the way up is the entity that this request replaces: walk again, over both.
    held: Any = entities
    return Entities((own,), base=held).ancestors(uid)


def _entity(entities: Hierarchy, own: Entity | None, uid: EntityUid) -> Entity | None:
    if own is not None and own.uid == uid:
        return own
    return entities.get(uid)


def _in_one(left: Value, target: EntityUid, entities: Hierarchy, own: Entity | None) -> bool:
    if not isinstance(left, EntityUid):
        raise Failed
    return target in ancestors_of(entities, own, left)


def _in_set(
    left: Value, targets: frozenset[EntityUid], entities: Hierarchy, own: Entity | None
) -> bool:
    if not isinstance(left, EntityUid):
        raise Failed
    return not ancestors_of(entities, own, left).isdisjoint(targets)


def _in(left: Value, right: Value, entities: Hierarchy, own: Entity | None) -> bool:
    if not isinstance(left, EntityUid):
        raise Failed
    if isinstance(right, EntityUid):
        return right in ancestors_of(entities, own, left)
    if not isinstance(right, CedarSet):
        raise Failed
    targets = set()
    for target in right:
        if not isinstance(target, EntityUid):
            raise Failed
        targets.add(target)
    return not ancestors_of(entities, own, left).isdisjoint(targets)


def _attribute(base: Value, name: str, entities: Hierarchy, own: Entity | None) -> Value:
    if isinstance(base, EntityUid):
        entity = _entity(entities, own, base)
        if entity is None:
            raise Failed
        return entity.attrs[name]
    if isinstance(base, Mapping):
        return base[name]
    raise Failed


def _has(base: Value, name: str, entities: Hierarchy, own: Entity | None) -> bool:
    if isinstance(base, EntityUid):
        entity = _entity(entities, own, base)
        return entity is not None and name in entity.attrs
    if isinstance(base, Mapping):
        return name in base
    raise Failed


def _has_tag(base: Value, name: Value, entities: Hierarchy, own: Entity | None) -> bool:
    if not isinstance(base, EntityUid) or not isinstance(name, str):
        raise Failed
    entity = _entity(entities, own, base)
    return entity is not None and name in entity.tags


def _get_tag(base: Value, name: Value, entities: Hierarchy, own: Entity | None) -> Value:
    if not isinstance(base, EntityUid) or not isinstance(name, str):
        raise Failed
    entity = _entity(entities, own, base)
    if entity is None:
        raise Failed
    return entity.tags[name]


def _keys(value: Value) -> frozenset[object]:
    if not isinstance(value, CedarSet):
        raise Failed
    return value.keys


def _compare(op: str) -> Callable[[Value, Value], bool]:
    def compare(left: Value, right: Value) -> bool:
        answer = binary(op, left, right, _NOBODY)
        return answer is True

    return compare


def _arithmetic(op: str) -> Callable[[Value, Value], Value]:
    def work_out(left: Value, right: Value) -> Value:
        return binary(op, left, right, _NOBODY)

    return work_out


_NOBODY: Final = Entities()


def _checked(number: int) -> int:
    if I64_MIN <= number <= I64_MAX:
        return number
    raise Failed


def _negative(value: Value) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise Failed
    return _checked(-value)


def _like(value: Value, pattern: Pattern) -> bool:
    if not isinstance(value, str):
        raise Failed
    return matches(pattern, value)


def _text(value: Value) -> str:
    if not isinstance(value, str):
        raise Failed
    return value


def _is(value: Value, type_: str) -> bool:
    if not isinstance(value, EntityUid):
        raise Failed
    return value[0] == type_


def _false(*_: Value) -> bool:
    return False


def _record(items: Iterable[tuple[str, Value]]) -> RecordValue:
    return RecordValue(items)


def _by_reference(
    condition: Expr,
    principal: EntityUid,
    action: EntityUid,
    resource: EntityUid,
    context: Mapping[str, Value],
    entities: Hierarchy,
    own: Entity | None,
) -> bool:
    env = reference_env(principal, action, resource, context, entities, own)
    return evaluate(condition, env) is True


NAMES: Final[dict[str, object]] = {
    "__builtins__": {},
    "X_ERRORS": ERRORS,
    "X_ABSENT": KeyError,
    "X_UNHASHABLE": TypeError,
    "X_MISSING": MISSING,
    "X_UID": EntityUid,
    "X_SET": CedarSet,
    "X_BOOL": bool,
    "X_LONG": int,
    "X_STRING": str,
    "X_DATETIME": DateTime,
    "X_DURATION": Duration,
    "X_DECIMAL": Decimal,
    "X_IP": IpAddr,
    "X_fail": _fail,
    "X_anc": ancestors_of,
    "X_in_one": _in_one,
    "X_in_set": _in_set,
    "X_in": _in,
    "X_attr": _attribute,
    "X_has": _has,
    "X_has_tag": _has_tag,
    "X_get_tag": _get_tag,
    "X_keys": _keys,
    "X_key": key,
    "X_equal": equal,
    "X_lt": _compare("<"),
    "X_le": _compare("<="),
    "X_gt": _compare(">"),
    "X_ge": _compare(">="),
    "X_add": _arithmetic("+"),
    "X_sub": _arithmetic("-"),
    "X_mul": _arithmetic("*"),
    "X_neg": _negative,
    "X_like": _like,
    "X_text": _text,
    "X_is": _is,
    "X_false": _false,
    "X_set": CedarSet.of,
    "X_record": _record,
    "X_call": call,
    "X_ref": _by_reference,
}

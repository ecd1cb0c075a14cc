"""What the schema lets be asked, ready for questions that come as JSON.

The rule kept: a caller's value has the type that the policies declare, or the question is refused;
nothing is guessed, rounded or converted but what Cedar's own JSON form converts.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

from chartgate.cedar.entities import InvalidEntities, value_from_json
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
from chartgate.cedar.values import CedarSet, RecordValue, Value, is_i64, key
from chartgate.errors import Refused
from chartgate.model.disclosure import VIEW_ACTIONS, Disclosure
from chartgate.model.principal import EntityUid
from chartgate.targets.admissible import RECORD

_T = TypeVar("_T")
_LONGEST_KEPT: Final = 64
_MOST_KEPT: Final = 4_096

PURPOSE: Final = "Purpose"
CATEGORY: Final = "Category"
PATIENT_TYPE: Final = "Patient"
NOW: Final = "now"
SOURCE: Final = "source"
_OURS: Final[Mapping[str, Type]] = {NOW: ExtensionType("datetime"), SOURCE: PrimitiveType("String")}
LEVEL_OF: Final[Mapping[str, Disclosure]] = {name: level for level, name in VIEW_ACTIONS.items()}
LEVEL_ACTIONS: Final = tuple(
    EntityUid("Action", VIEW_ACTIONS[level]) for level in sorted(VIEW_ACTIONS)
)
"""The actions of the levels, lowest first."""


class WrongType(Refused):
    """A value that the caller may assert is not of the type that the policies declare."""

    code = "wrong_type"


Reader: TypeAlias = Callable[[Any], Value]
"""From a JSON value to Cedar's; raises ``WrongType``."""


@dataclass(frozen=True, slots=True)
class Askable:
    """One action on one type of resource by one type of subject."""

    action: EntityUid
    who: str
    what: str
    context: Mapping[str, Reader]
    """What a caller's context may say."""
    subject: Mapping[str, Reader]
    resource: Mapping[str, Reader]
    has_purpose: bool
    """Whether the purpose of use is Chartgate's claim (limited by role, defaulted)."""
    ours: frozenset[str]
    """What of the context only Chartgate says: the time, the name of the source."""
    is_record: bool
    """Whether the question is of a record's labels."""
    level: Disclosure | None
    """Of a view of a record: the level that must be reached."""
    is_phi: bool
    """Whether an answer about such a resource may release what belongs to a patient."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Everything that may be asked, by action name, subject type and resource type."""

    askable: Mapping[tuple[str, str, str], Askable]
    categories: frozenset[str]
    has_records: bool
    has_acr: bool
    """Whether policies may ask how strongly somebody authenticated."""
    record_sets: frozenset[str]
    """Set attributes of a record: from the data map alone."""


def shape_of(schema: Schema, *, has_map: bool) -> Shape:
    """The schema's shape. Records are asked by their labels where there is a map to know them."""
    record = schema.entities.get(RECORD)
    category = record.attributes.get("category") if record is not None else None
    labelled = (
        has_map
        and category is not None
        and category.type == EntityRef(CATEGORY)
        and all(
            uid in schema.actions and RECORD in schema.actions[uid].resources
            for uid in LEVEL_ACTIONS
        )
    )
    found: dict[tuple[str, str, str], Askable] = {}
    for uid, action in schema.actions.items():
        for who in action.principals:
            for what in action.resources:
                found[uid.id, who, what] = _askable(
                    schema, uid, action, who, what, is_record=labelled and what == RECORD
                )
    enum = schema.entities[CATEGORY].enum if CATEGORY in schema.entities else None
    return Shape(
        found,
        frozenset(enum or ()),
        labelled,
        any(
            _is(a.context.attributes.get("acr"), PrimitiveType("Long"))
            for a in schema.actions.values()
        ),
        frozenset()
        if record is None
        else frozenset(n for n, a in record.attributes.items() if isinstance(a.type, SetType)),
    )


def _askable(
    schema: Schema, uid: EntityUid, action: Action, who: str, what: str, *, is_record: bool
) -> Askable:
    said = action.context.attributes
    purpose = said.get("purpose")
    has_purpose = _is(purpose, EntityRef(PURPOSE))
    return Askable(
        action=uid,
        who=who,
        what=what,
        context=_readers(said, schema),
        subject=_readers(_attributes(schema, who), schema),
        resource=_readers(_attributes(schema, what), schema),
        has_purpose=has_purpose,
        ours=frozenset(name for name, type_ in _OURS.items() if _is(said.get(name), type_)),
        is_record=is_record,
        level=LEVEL_OF.get(uid.id) if is_record else None,
        is_phi=leads_to_patient(schema, what),
    )


def leads_to_patient(schema: Schema, name: str) -> bool:
    """Whether resources of the type may belong to a patient: some way leads from it to one.

    Where a schema knows no patient at all nothing is known of its types, and all of them may.
    """
    if PATIENT_TYPE not in schema.entities:
        return True
    reached: set[str] = set()
    ahead = [name]
    while ahead:
        here = ahead.pop()
        if here in reached:
            continue
        reached.add(here)
        declared = schema.entities.get(here)
        if declared is None or here in {PATIENT_TYPE, RECORD}:
            return True
        ahead += declared.parents
        for type_ in (*(a.type for a in declared.attributes.values()), declared.tags):
            ahead += _entities_in(type_)
    return False


def _entities_in(type_: Type | None) -> Iterator[str]:
    match type_:
        case EntityRef(name):
            yield name
        case SetType(element):
            yield from _entities_in(element)
        case RecordType(attributes):
            for attribute in attributes.values():
                yield from _entities_in(attribute.type)


def _is(attribute: Attribute | None, type_: Type) -> bool:
    return attribute is not None and attribute.type == type_


def _attributes(schema: Schema, name: str) -> Mapping[str, Attribute]:
    declared = schema.entities.get(name)
    return {} if declared is None else declared.attributes


def _readers(attributes: Mapping[str, Attribute], schema: Schema) -> dict[str, Reader]:
    return {name: reader(attribute.type, schema) for name, attribute in attributes.items()}


def reader(type_: Type, schema: Schema) -> Reader:
    """How a JSON value of the type is read."""
    match type_:
        case PrimitiveType("Bool"):
            return _bool
        case PrimitiveType("Long"):
            return _long
        case PrimitiveType("String"):
            return _string
        case EntityRef(name):
            declared = schema.entities.get(name)
            return _entity(name, None if declared is None else declared.enum)
        case SetType(element):
            return _set(reader(element, schema))
        case RecordType(attributes):
            return _record(attributes, _readers(attributes, schema))
    return _extension(type_)


def _bool(form: Any) -> Value:
    if form is True or form is False:
        return form
    raise WrongType("not true or false")


def _long(form: Any) -> Value:
    if form.__class__ is int and is_i64(form):
        number: int = form
        return number
    raise WrongType("not a whole number of 64 bits")


def _string(form: Any) -> Value:
    if form.__class__ is str:
        text: str = form
        return text
    raise WrongType("not a string")


def _entity(type_: str, enum: tuple[str, ...] | None) -> Reader:
    """An entity of the type: its id alone, or Cedar's ``{"type", "id"}``."""
    kept: dict[str, Value] = {} if enum is None else {n: EntityUid(type_, n) for n in enum}

    def read(form: Any) -> Value:
        if form.__class__ is dict:
            form = form.get("__entity", form)
            if form.__class__ is not dict or form.get("type") != type_ or len(form) != 2:
                raise WrongType(f"not a {type_}")
            form = form.get("id")
        if form.__class__ is not str:
            raise WrongType(f"not a {type_}")
        found = kept.get(form)
        if found is None:
            if enum is not None:
                raise WrongType(f"not a {type_}")
            found = EntityUid(type_, form)
            _remember(kept, form, found)
        return found

    return read


def _remember(kept: dict[str, _T], name: str, value: _T) -> None:
    # Ids come again and again; those that callers make up must not fill the memory.
    if len(name) <= _LONGEST_KEPT:
        if len(kept) >= _MOST_KEPT:
            kept.clear()
        kept[name] = value


def _set(element: Reader) -> Reader:
    kept: dict[str, tuple[object, Value]] = {}

    def read(form: Any) -> Value:
        if form.__class__ is not list:
            raise WrongType("not a list")
        unique: dict[object, Value] = {}
        for item in form:
            # Texts are equal to texts alone, so that what was read of one is right for the next.
            found = kept.get(item) if item.__class__ is str else None
            if found is None:
                value = element(item)
                found = (key(value), value)
                if item.__class__ is str:
                    _remember(kept, item, found)
            unique.setdefault(found[0], found[1])
        return CedarSet.keyed(unique)

    return read


def _record(attributes: Mapping[str, Attribute], readers: Mapping[str, Reader]) -> Reader:
    required = frozenset(name for name, attribute in attributes.items() if attribute.required)

    def read(form: Any) -> Value:
        if (
            form.__class__ is not dict
            or not form.keys() >= required
            or form.keys() - readers.keys()
        ):
            raise WrongType("not a record of the declared attributes")
        return RecordValue((name, readers[name](item)) for name, item in form.items())

    return read


def _extension(type_: Type) -> Reader:
    def read(form: Any) -> Value:
        if form.__class__ is not str:
            raise WrongType("not text of the declared type")
        try:
            return value_from_json(form, type_)
        except InvalidEntities:
            raise WrongType("not text of the declared type") from None

    return read


def patient_key(properties: Mapping[str, Any]) -> str | None:
    """The patient's key as a question says it: text, or a whole number; None where it says none."""
    key = properties.get("patient")
    if key.__class__ is str:
        return key or None
    return str(key) if key.__class__ is int else None

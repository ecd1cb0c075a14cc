"""Reading Cedar's JSON schema form (Cedar "Schema JSON format") into names and shapes.

Rules kept: a key that the format does not have is refused, as is a key that occurs twice (two
readers could take two different ones); an attribute is required unless it says otherwise; a
record is closed (``additionalAttributes`` is refused, as cedarpy refuses it). Faults name the
path through the document, since a JSON value has no line of its own.
"""

import json
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from chartgate.cedar.lex import InvalidPolicies, bounded_brackets
from chartgate.cedar.schema_names import (
    Named,
    Path,
    Raw,
    RawAction,
    RawEntity,
    RawSchema,
    RecordOf,
    SetOf,
)
from chartgate.model.principal import EntityUid

# A record inside a record costs three brackets of JSON; the text form allows 30 of its own.
MAX_JSON_NESTING: Final = 90

_PRIMITIVE: Final = {"Boolean": "Bool", "Long": "Long", "String": "String"}


class _Twice(ValueError):
    """A key that occurs twice in one object."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _Twice("a key occurs twice in one object")
    return made


def read_json(text: str, file: str) -> RawSchema:
    """What a JSON schema declares, names not yet resolved."""
    bounded_brackets(text, file, MAX_JSON_NESTING)
    try:
        document = json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as fault:
        raise InvalidPolicies(f"{file}:{fault.lineno}:{fault.colno}: {fault.msg}") from fault
    except (_Twice, RecursionError, ValueError) as fault:
        raise InvalidPolicies(f"{file}:1: {fault}") from fault
    return _Reader(file).document(document)


class _Reader:
    """One method per kind of object; ``at`` is the path to it, for people."""

    def __init__(self, file: str) -> None:
        self.schema = RawSchema(file)
        self.namespace: Path = ()

    def stumble(self, at: str, reason: str) -> NoReturn:
        raise self.schema.stumble(at, reason)

    def object(self, form: Any, at: str, *known: str) -> Mapping[str, Any]:
        if not isinstance(form, dict):
            self.stumble(at, "not an object")
        strange = sorted(set(form) - {*known, "annotations"}) if known else []
        if strange:
            self.stumble(at, f"unknown key {strange[0]!r}")
        return form

    def listed(self, form: Any, at: str) -> list[Any]:
        if not isinstance(form, list):
            self.stumble(at, "not a list")
        return form

    def word(self, form: Any, at: str) -> str:
        if not isinstance(form, str):
            self.stumble(at, "not a string")
        return form

    def flag(self, form: Any, at: str) -> bool:
        if not isinstance(form, bool):
            self.stumble(at, "neither true nor false")
        return form

    def document(self, form: Any) -> RawSchema:
        for name, declared in self.object(form, "1").items():
            self.namespace = tuple(name.split("::")) if name else ()
            at = f"1: namespace {name!r}"
            parts = self.object(declared, at, "commonTypes", "entityTypes", "actions")
            for one, raw in self.object(parts.get("commonTypes", {}), at).items():
                place = f"{at}: type {one!r}"
                self.schema.add_type((*self.namespace, one), self.type(raw, place), place)
            for one, raw in self.object(parts.get("entityTypes", {}), at).items():
                place = f"{at}: entity {one!r}"
                self.schema.add_entity((*self.namespace, one), self.entity(raw, place))
            kind = "::".join((*self.namespace, "Action"))
            for one, raw in self.object(parts.get("actions", {}), at).items():
                place = f"{at}: action {one!r}"
                self.schema.add_action(EntityUid(kind, one), self.action(raw, place))
        return self.schema

    def named(self, form: Any, at: str, kind: Any = "entity") -> Named:
        return Named(tuple(self.word(form, at).split("::")), self.namespace, at, kind)

    def type(self, form: Any, at: str) -> Raw:
        kind = self.word(self.object(form, at).get("type"), f"{at}: type")
        if kind in _PRIMITIVE:
            self.object(form, at, "type", "required")
            return Named(("__cedar", _PRIMITIVE[kind]), (), at, "common")
        if kind == "Set":
            self.object(form, at, "type", "required", "element")
            return SetOf(self.type(form.get("element"), f"{at}: element"))
        if kind == "Record":
            return self.record(form, at)
        if kind in ("Entity", "EntityOrCommon", "Extension"):
            self.object(form, at, "type", "required", "name")
            if kind == "Extension":
                return Named(("__cedar", self.word(form.get("name"), at)), (), at, "common")
            return self.named(form.get("name"), at, "entity" if kind == "Entity" else "any")
        self.object(form, at, "type", "required")
        return self.named(kind, at, "common")

    def record(self, form: Any, at: str) -> RecordOf:
        self.object(form, at, "type", "required", "attributes", "additionalAttributes")
        if self.flag(form.get("additionalAttributes", False), f"{at}: additionalAttributes"):
            self.stumble(at, "a record that allows other attributes cannot be validated against")
        attributes = {}
        for name, raw in self.object(form.get("attributes"), f"{at}: attributes").items():
            place = f"{at}: attribute {name!r}"
            required = self.object(raw, place).get("required", True)
            attributes[name] = (self.type(raw, place), self.flag(required, f"{place}: required"))
        return RecordOf(attributes)

    def entity(self, form: Any, at: str) -> RawEntity:
        form = self.object(form, at, "memberOfTypes", "shape", "tags", "enum")
        made = RawEntity(at)
        if "enum" in form:
            self.object(form, f"{at}: beside enum", "enum")
            made.enum = tuple(self.word(one, at) for one in self.listed(form["enum"], at))
            return made
        parents = self.listed(form.get("memberOfTypes", []), f"{at}: memberOfTypes")
        made.parents = [self.named(parent, at) for parent in parents]
        if "shape" in form:
            made.shape = self.type(form["shape"], f"{at}: shape")
        if form.get("tags") is not None:
            made.tags = self.type(form["tags"], f"{at}: tags")
        return made

    def action(self, form: Any, at: str) -> RawAction:
        form = self.object(form, at, "appliesTo", "memberOf", "attributes")
        made = RawAction(at, self.namespace)
        if form.get("attributes"):
            self.stumble(at, "an action has no attributes")
        for raw in self.listed(form.get("memberOf") or [], f"{at}: memberOf"):
            group = self.object(raw, f"{at}: memberOf", "id", "type")
            kind = group.get("type")
            path = None if kind is None else tuple(self.word(kind, at).split("::"))
            made.groups.append((path, self.word(group.get("id"), f"{at}: memberOf")))
        if form.get("appliesTo") is not None:
            scope = self.object(form["appliesTo"], at, "principalTypes", "resourceTypes", "context")
            for part, into in (("principalTypes", "principals"), ("resourceTypes", "resources")):
                types = self.listed(scope.get(part), f"{at}: {part}")
                setattr(made, into, [self.named(one, at) for one in types])
            if scope.get("context") is not None:
                made.context = self.type(scope["context"], f"{at}: context")
        return made

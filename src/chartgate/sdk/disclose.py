"""Showing an object as far as a decision allows: field by field, full, summary, masked or not at all.

The rules kept (45 CFR 164.502(b)): the object itself is not touched; what is not labelled is not
shown; a form that is missing or fails drops to the next lower one, in the end to nothing; an object of
another patient than the decision's is not shown.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass, replace
from typing import Any, Final, Literal, TypeVar

from chartgate.model.disclosure import Disclosure
from chartgate.sdk.decision import Decision, lowest
from chartgate.sdk.errors import Misused
from chartgate.sdk.labels import FieldLabel, Key, Label, Labels, Nested, OfObject, Public, labels_of

Withheld = Literal["absent", "none"]
_T = TypeVar("_T")
_NOTHING: Final = object()


def disclose(
    thing: Any,
    decision: Decision,
    labels: Labels | None = None,
    *,
    withheld: Withheld = "absent",
) -> Any:
    """What of the object may be shown: a dict of plain values; of a list, a list.

    ``None`` where the object does not exist for whoever asks; such objects are left out of a list.
    ``labels``: of dicts and of classes that declare none. ``withheld``: whether a field that is not
    shown is absent, or there with ``None``.
    """
    if isinstance(thing, list | tuple | set | frozenset):
        shown = (_shown(one, decision, labels, Disclosure.FULL, withheld) for one in thing)
        return [one for one in shown if one is not None]
    return _shown(thing, decision, labels, Disclosure.FULL, withheld)


def disclosed_copy(thing: _T, decision: Decision, labels: Labels | None = None) -> _T | None:
    """The same for a dataclass or a pydantic model: an object of its class, ``None`` for withheld.

    Validation is not run on it: a form need not be of the field's type. Objects of an ORM are
    refused, since a copy of one could be written back.
    """
    if not is_dataclass(thing) and not hasattr(type(thing), "model_fields"):
        raise Misused("only a dataclass or a pydantic model is copied: use disclose")
    shown = _shown(thing, decision, labels, Disclosure.FULL, "none")
    if shown is None:
        return None
    if hasattr(type(thing), "model_fields"):
        made: _T = type(thing).model_construct(**shown)  # type: ignore[attr-defined]
        return made
    made = copy.copy(thing)
    for name, value in shown.items():
        object.__setattr__(made, name, value)
    return made


def levels_shown(
    thing: Any, decision: Decision, labels: Labels | None = None
) -> dict[str, Disclosure]:
    """At which level each labelled field of the object stands."""
    told = _labels(thing, labels)
    cap = _cap(thing, decision, told, Disclosure.FULL)
    return {name: _level(label, decision, cap) for name, label in told.fields.items()}


def _shown(
    thing: Any, decision: Decision, labels: Labels | None, cap: Disclosure, withheld: Withheld
) -> dict[str, Any] | None:
    if thing is None:
        return None
    told = _labels(thing, labels)
    check_patient(thing, told, decision)
    cap = _cap(thing, decision, told, cap)
    if cap is Disclosure.WITHHELD:
        return None
    out: dict[str, Any] = {}
    keys: list[str] = []
    seen = not any(isinstance(label, Label | Nested) for label in told.fields.values())
    for name in _names(thing, told):
        label = told.fields.get(name)
        value = _NOTHING
        if isinstance(label, Key):
            if min(cap, decision.level(label.category)) is Disclosure.FULL:
                keys.append(name)
        elif label is not None:
            level = _level(label, decision, cap)
            value = _formed(thing, _value(thing, name), label, level, decision, withheld)
            if isinstance(label, Nested):
                seen = seen or (value is not _NOTHING and bool(value))
            elif isinstance(label, Label):
                seen = seen or value is not _NOTHING
        if value is not _NOTHING:
            out[name] = value
        elif withheld == "none" or name in keys:
            out[name] = None  # in its place among the others
    if not seen:
        return None
    for name in keys:
        out[name] = _value(thing, name)
    return {name: None if value is _NOTHING else value for name, value in out.items()}


def _labels(thing: Any, given: Labels | None) -> Labels:
    told = given if given is not None else labels_of(thing)
    if told is None:
        raise Misused(f"{type(thing).__name__} declares no labels: use @disclosed, or give them")
    return told


def lowered(thing: Any, told: Labels) -> Labels:
    """The labels with what this very object carries, for another form of it (a serialized one)."""
    if told.also is None:
        return told
    carried = tuple(told.also(thing))
    return replace(told, also=lambda _: carried)


def check_patient(thing: Any, told: Labels, decision: Decision) -> None:
    """Raise ``Misused`` when the object is about another patient than the decision."""
    if told.patient is None:
        return
    key = told.patient(thing) if callable(told.patient) else _value(thing, told.patient)
    if key is _NOTHING or key is None or str(key) != decision.patient:
        raise Misused("the object is about another patient than the decision")


def _cap(thing: Any, decision: Decision, told: Labels, cap: Disclosure) -> Disclosure:
    """Where the row itself is withheld it does not exist; what this very object carries lowers all
    of its fields."""
    also = () if told.also is None else tuple(told.also(thing))
    carried = (*told.row, *also)
    if carried and decision.level(*carried) is Disclosure.WITHHELD:
        return Disclosure.WITHHELD
    return min(cap, decision.level(*also)) if also else cap


def _names(thing: Any, told: Labels) -> Iterable[str]:
    if isinstance(thing, Mapping):
        return [name for name in thing if isinstance(name, str)]
    if is_dataclass(thing):
        return [one.name for one in dataclass_fields(thing)]
    model = getattr(type(thing), "model_fields", None)
    return list(model) if isinstance(model, Mapping) else list(told.fields)


def _value(thing: Any, name: str) -> Any:
    if isinstance(thing, Mapping):
        return thing.get(name, _NOTHING)
    return getattr(thing, name, _NOTHING)


def _level(label: FieldLabel, decision: Decision, cap: Disclosure) -> Disclosure:
    if isinstance(label, Public):
        return Disclosure.FULL
    if isinstance(label, Key):
        full = min(cap, decision.level(label.category)) is Disclosure.FULL
        return Disclosure.FULL if full else Disclosure.WITHHELD
    if isinstance(label, Nested):
        return min(cap, decision.level(*label.categories)) if label.categories else cap
    said = [decision.levels.get(name, Disclosure.WITHHELD) for name in label.categories]
    if label.column:
        said.append(decision.fields.get(label.column, Disclosure.WITHHELD))
    return min(cap, lowest(said))


def _formed(
    thing: Any,
    value: Any,
    label: FieldLabel,
    level: Disclosure,
    decision: Decision,
    withheld: Withheld,
) -> Any:
    if value is _NOTHING or level is Disclosure.WITHHELD:
        return _NOTHING
    if isinstance(label, Nested):
        return _below(value, label, level, decision, withheld)
    if isinstance(label, Public) or level is Disclosure.FULL or value is None:
        return value
    assert isinstance(label, Label)
    forms = (label.summary, label.masked) if level is Disclosure.SUMMARY else (label.masked,)
    for form in forms:
        if form is None:
            continue
        try:
            return form.make(thing) if isinstance(form, OfObject) else form(value)
        except Exception:  # noqa: BLE001, S112  (its words could hold the value)
            continue
    return _NOTHING


def _below(
    value: Any, label: Nested, level: Disclosure, decision: Decision, withheld: Withheld
) -> Any:
    if isinstance(value, Mapping) and label.labels is None:
        return _NOTHING  # a dict declares nothing itself
    if isinstance(value, Mapping) or not isinstance(value, Iterable) or labels_of(value):
        shown = _shown(value, decision, label.labels, level, withheld)
        return _NOTHING if shown is None else shown
    if isinstance(value, str | bytes | Iterator):
        raise Misused("a nested field holds an object with labels, or a list of them")
    found = (_shown(one, decision, label.labels, level, withheld) for one in value)
    return [one for one in found if one is not None]

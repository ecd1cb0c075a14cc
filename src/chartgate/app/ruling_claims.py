"""Who may assert what: from what a caller says to what counts.

The rules kept (45 CFR 164.312(d); design: Who may assert what): roles, departments, relationships
and what is known of a patient come from the control plane and the data map, whoever says
otherwise; any other property counts only if the caller's account may assert it. What is not
believed is absent, and told by its name; a name that the policies do not know is dropped without a
trace, since it may itself be about somebody.
"""

from collections.abc import Collection, Mapping
from typing import Any, Final

from chartgate.app.ruling_shape import Reader, WrongType
from chartgate.cedar.text import uid_text
from chartgate.cedar.values import CedarSet, DateTime, Decimal, Duration, IpAddr, Value
from chartgate.model.principal import EntityUid
from chartgate.model.service import Scope

OF_PERSON: Final = frozenset({"roles", "departments", "references", "patients"})
"""Of a subject: said by the control plane alone."""
LABELS: Final = "labels"
"""Of a record: the labels of its row, where a service may say them."""

NOTHING_SAID: Final[Mapping[str, Value]] = {}


def believed(
    place: str,
    said: Mapping[str, Any],
    readers: Mapping[str, Reader],
    scope: Scope,
    reserved: Collection[str],
    ignored: list[str],
) -> dict[str, Value]:
    """What counts of the properties, by name; the others' names go into ``ignored``.

    Raises ``WrongType`` naming the property.
    """
    counted: dict[str, Value] = {}
    everything = f"{place}.*" in scope.asserts
    name = ""
    try:
        for name, form in said.items():
            if name in reserved:
                ignored.append(f"{place}.{name}")
            elif (reader := readers.get(name)) is None:
                continue
            elif everything or f"{place}.{name}" in scope.asserts:
                counted[name] = reader(form)
            else:
                ignored.append(f"{place}.{name}")
    except WrongType as exc:
        raise WrongType(f"{place}.{name} is {exc}") from None
    return counted


def row_labels(
    said: Mapping[str, Any], scope: Scope, known: Collection[str], ignored: list[str]
) -> tuple[str, ...] | None:
    """The row's own labels, where they are said and the caller may say them.

    Raises ``WrongType``: an unknown label would be one that nobody asked about.
    """
    form = said.get(LABELS)
    if form is None:
        return None
    if not scope.believes("resource", LABELS):
        ignored.append(f"resource.{LABELS}")
        return None
    if form.__class__ is not list or any(n.__class__ is not str or n not in known for n in form):
        raise WrongType("resource.labels is not a list of categories")
    return tuple(sorted(set(form)))


def told(name: str, value: Value, enums: Collection[str]) -> str | None:
    """A believed value as the log keeps it, as Cedar text; None for what may be free text."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case DateTime(ms):
            return f'datetime("1970-01-01").offset(duration("{ms}ms"))'
        case Duration(ms):
            return f'duration("{ms}ms")'
        case Decimal(units):
            sign = "-" if units < 0 else ""
            return f'decimal("{sign}{abs(units) // 10_000}.{abs(units) % 10_000:04d}")'
        case IpAddr():
            return f"ip of IPv{value.version}"
        case EntityUid(kind, _) if kind in enums:
            return uid_text(value)
        case CedarSet():
            parts = [told(name, item, enums) for item in value]
            return f"[{', '.join(p for p in parts if p)}]" if all(parts) else None
    return None

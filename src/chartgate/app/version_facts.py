"""What two policy versions say differently, part by part: policies, roles, purposes, schema, checks.

The rule kept: what is compared is what was read, never text. Comments, layout, order of policies
and their move to another file are the same meaning, and are called that.
"""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from chartgate.app.policy_bundle import CEILINGS, INVARIANTS, SCENARIOS, Bundle, PolicyVersion
from chartgate.cedar.ast import Policy
from chartgate.cedar.schema import EntityType

_V = TypeVar("_V")


@dataclass(frozen=True, slots=True)
class Fact:
    """One part that differs. ``decides``: whether it could change an answer."""

    part: str
    """policy, role, purpose, entity type, action, scenario, invariant, ceiling."""
    name: str
    change: str
    """added, removed, changed."""
    detail: str = ""
    decides: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that differs; ``files``: paths whose text differs at all."""

    facts: tuple[Fact, ...]
    files: tuple[str, ...]

    @property
    def same_meaning(self) -> bool:
        """Whether no answer can differ: what decides was read as the same in both."""
        return not any(fact.decides for fact in self.facts)


def facts_of(before: PolicyVersion, after: PolicyVersion) -> Facts:
    """What differs between two versions, in reading order."""
    paths = {*before.bundle.files, *after.bundle.files}
    return Facts(
        (
            *_changes("policy", _policies(before), _policies(after), _policy, decides=_decides),
            *_changes("role", before.roles.roles, after.roles.roles, _role, decides=_role_decides),
            *_changes("purpose", before.roles.purposes, after.roles.purposes, _purpose),
            *_changes("entity type", before.schema.entities, after.schema.entities, _entity),
            *_changes(
                "action",
                {uid.id: action for uid, action in before.schema.actions.items()},
                {uid.id: action for uid, action in after.schema.actions.items()},
                lambda _, __: "applies to others, or in another context",
            ),
            *_checks(before.bundle, after.bundle),
        ),
        tuple(sorted(p for p in paths if before.bundle.files.get(p) != after.bundle.files.get(p))),
    )


def _changes(
    part: str,
    before: Mapping[str, _V],
    after: Mapping[str, _V],
    detail: Callable[[_V, _V], str],
    *,
    decides: Callable[[_V, _V], bool] = lambda _, __: True,
) -> tuple[Fact, ...]:
    found = []
    for name in dict.fromkeys((*before, *after)):
        if name not in after:
            found.append(Fact(part, name, "removed", decides=True))
        elif name not in before:
            found.append(Fact(part, name, "added", decides=True))
        elif before[name] != after[name]:
            one, other = before[name], after[name]
            found.append(Fact(part, name, "changed", detail(one, other), decides(one, other)))
    return tuple(found)


# --- policies, roles, purposes, schema -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Read:
    """A policy, without where it stands."""

    policy: Policy
    meaning: tuple[Any, ...]
    annotations: tuple[Any, ...]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Read):
            return NotImplemented
        return (self.meaning, self.annotations) == (other.meaning, other.annotations)

    __hash__ = None  # type: ignore[assignment]  # equal without the policy's place: not a key


def _policies(version: PolicyVersion) -> dict[str, _Read]:
    return {
        p.id: _Read(p, (p.effect, p.principal, p.action, p.resource, p.conditions), p.annotations)
        for p in version.policies.policies
    }


def _decides(before: _Read, after: _Read) -> bool:
    return before.meaning != after.meaning


def _policy(before: _Read, after: _Read) -> str:
    one, other = before.policy, after.policy
    parts = {
        "effect": one.effect != other.effect,
        "whom": one.principal != other.principal,
        "actions": one.action != other.action,
        "resource": one.resource != other.resource,
        "conditions": one.conditions != other.conditions,
        "annotations": one.annotations != other.annotations,
    }
    return ", ".join(name for name, differs in parts.items() if differs)


def _role(before: Any, after: Any) -> str:
    names = ("title", "parents", "default_purpose", "purposes")
    return ", ".join(
        name.replace("_", " ") for name in names if getattr(before, name) != getattr(after, name)
    )


def _role_decides(before: Any, after: Any) -> bool:
    return bool(before.parents != after.parents)


def _purpose(before: tuple[str, ...], after: tuple[str, ...]) -> str:
    return f"in {', '.join(before) or 'nothing'} before, in {', '.join(after) or 'nothing'} now"


def _entity(before: EntityType, after: EntityType) -> str:
    words = []
    for name in dict.fromkeys((*before.attributes, *after.attributes)):
        if name not in after.attributes:
            words.append(f"without {name}")
        elif name not in before.attributes:
            words.append(f"with {name}")
        elif before.attributes[name] != after.attributes[name]:
            words.append(f"{name} of another type")
    if before.enum != after.enum:
        words.append("other names listed")
    if before.parents != after.parents:
        words.append("in other types")
    return ", ".join(words)


# --- what the versions are held against ----------------------------------------------------------

_CHECKS: Final = ((SCENARIOS, "scenario", "title"), (INVARIANTS, "invariant", "id"))


def _checks(before: Bundle, after: Bundle) -> tuple[Fact, ...]:
    found: list[Fact] = []
    for folder, part, key in _CHECKS:
        one, other = _tables(before, folder, part, key), _tables(after, folder, part, key)
        found += [
            Fact(fact.part, fact.name, fact.change, fact.detail)
            for fact in _changes(part, one, other, lambda _, __: "")
        ]
    one, other = (_toml(b.files[CEILINGS]) if CEILINGS in b.files else {} for b in (before, after))
    found += [
        Fact(fact.part, fact.name, fact.change, fact.detail)
        for fact in _changes("ceiling", one, other, lambda _, __: "")
    ]
    return tuple(found)


def _tables(bundle: Bundle, folder: str, part: str, key: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in bundle.below(folder):
        for table in _toml(bundle.files[path]).get(part, ()):
            name = (
                f"{path.removeprefix(folder)}: {table.get(key) if isinstance(table, dict) else ''}"
            )
            found[name] = table
    return found


def _toml(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        return {}  # whoever runs the checks says what is wrong with the file

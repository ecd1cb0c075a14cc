"""Policies, roles and data maps from files to values: everything a decision is made from.

Rule kept: a set loads whole or not at all, strictly validated; every fault names file, line or
key. Policy files are read in the order of their paths, so that the same folder is the same set on
every machine.
"""

import tomllib
from pathlib import Path
from typing import Any

from chartgate.app.entitlement import DecisionPoint
from chartgate.app.rolebook import RoleBook, read_rolebook
from chartgate.cedar.ast import PolicySet
from chartgate.cedar.parse import parse_policies
from chartgate.cedar.schema import EntityRef, Schema, SetType
from chartgate.cedar.validate import parse_schema, validate
from chartgate.datamap.model import DataMap
from chartgate.datamap.read import read_map
from chartgate.errors import Misconfigured
from chartgate.targets.admissible import record_attributes

SCHEMA = "schema.cedarschema"
ROLES = "roles.toml"
PURPOSES = "purposes.toml"


def load_policies(directory: Path) -> tuple[PolicySet, Schema]:
    """The schema and every ``*.cedar`` below ``directory``, strictly validated."""
    schema = parse_schema(_text(directory / SCHEMA), SCHEMA)
    files = {
        path.relative_to(directory).as_posix(): _text(path)
        for path in sorted(directory.rglob("*.cedar"))
    }
    if not files:
        raise Misconfigured(f"there is no policy in {directory}")
    policies = parse_policies(files)
    validate(policies, schema)
    return policies, schema


def load_rolebook(directory: Path) -> RoleBook:
    """Roles and purposes of a policy directory."""
    return read_rolebook(_toml(directory / ROLES), _toml(directory / PURPOSES))


def load_data_map(path: Path, schema: Schema) -> DataMap:
    """A data map and the code sets it names, which lie beside it."""
    document = _toml(path)
    code_sets = {
        str(name): _codes(path.parent / str(file))
        for name, file in document.get("code_sets", {}).items()
    }
    categories = schema.entities["Category"].enum if "Category" in schema.entities else None
    relations = {
        name: f"Set<{attribute.type.element.name}>"
        for name, attribute in record_attributes(schema).items()
        if isinstance(attribute.type, SetType) and isinstance(attribute.type.element, EntityRef)
    }
    return read_map(
        document,
        code_sets,
        categories=frozenset(categories or ()),
        relation_types=relations,
        file=path.name,
    )


def load_decision_point(policies: Path, data_map: Path) -> DecisionPoint:
    """Everything a decision is made from, or ``Misconfigured``: nothing starts on less."""
    policy_set, schema = load_policies(policies)
    return DecisionPoint(
        policy_set, schema, load_rolebook(policies), load_data_map(data_map, schema)
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as exc:
        raise Misconfigured(f"cannot read {path}: {exc.strerror}") from exc
    except UnicodeDecodeError:
        raise Misconfigured(f"{path} is not UTF-8") from None


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(_text(path))
    except tomllib.TOMLDecodeError as exc:
        raise Misconfigured(f"{path.name}: {exc}") from exc


def _codes(path: Path) -> frozenset[str]:
    lines = (line.partition("#")[0].strip() for line in _text(path).splitlines())
    return frozenset(line for line in lines if line)

"""Policies, roles and data maps from files to values: everything a decision is made from.

Rule kept: a set loads whole or not at all, strictly validated; every fault names file, line or
key. Policy files are read in the order of their paths, so that the same folder is the same set on
every machine.
"""

import tomllib
from pathlib import Path
from typing import Any

from chartgate.app.entitlement import DecisionPoint
from chartgate.app.policy_bundle import (
    INVARIANTS,
    PURPOSES,
    ROLES,
    SCENARIOS,
    SCHEMA,
    Bundle,
    PolicyVersion,
    open_bundle,
)
from chartgate.cedar.schema import EntityRef, Schema, SetType
from chartgate.datamap.model import DataMap
from chartgate.datamap.read import read_map
from chartgate.errors import Misconfigured
from chartgate.targets.admissible import record_attributes


def read_bundle(directory: Path) -> Bundle:
    """The files of a policy folder that count; raises ``Misconfigured`` when one cannot be read."""
    if not directory.is_dir():
        raise Misconfigured(f"there is no policy folder {directory}")
    wanted = [directory / name for name in (SCHEMA, ROLES, PURPOSES)]
    wanted += directory.rglob("*.cedar")
    wanted += [p for folder in (SCENARIOS, INVARIANTS) for p in (directory / folder).glob("*.toml")]
    return Bundle({path.relative_to(directory).as_posix(): _text(path) for path in wanted})


def load_policy_version(directory: Path) -> PolicyVersion:
    """The folder's policies, strictly validated, with their schema and role book."""
    return open_bundle(read_bundle(directory))


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
    version = load_policy_version(policies)
    return DecisionPoint(
        version.policies, version.schema, version.roles, load_data_map(data_map, version.schema)
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

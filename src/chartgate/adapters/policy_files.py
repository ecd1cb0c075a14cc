"""Policies, roles and data maps from files to values: everything a decision is made from.

Rule kept: a set loads whole or not at all, strictly validated; every fault names file, line or
key. Policy files are read in the order of their paths, so that the same folder is the same set on
every machine.
"""

from pathlib import Path, PurePosixPath

from chartgate.app.entitlement import DecisionPoint
from chartgate.app.map_bundle import code_files, open_map
from chartgate.app.policy_bundle import (
    CEILINGS,
    DUTIES,
    INVARIANTS,
    PURPOSES,
    ROLES,
    SCENARIOS,
    SCHEMA,
    Bundle,
    PolicyVersion,
    open_bundle,
)
from chartgate.cedar.schema import Schema
from chartgate.datamap.model import DataMap
from chartgate.errors import Misconfigured


def read_bundle(directory: Path) -> Bundle:
    """The files of a policy folder that count; raises ``Misconfigured`` when one cannot be read."""
    if not directory.is_dir():
        raise Misconfigured(f"there is no policy folder {directory}")
    wanted = [directory / name for name in (SCHEMA, ROLES, PURPOSES)]
    wanted += [path for path in (directory / CEILINGS, directory / DUTIES) if path.exists()]
    wanted += directory.rglob("*.cedar")
    wanted += [p for folder in (SCENARIOS, INVARIANTS) for p in (directory / folder).glob("*.toml")]
    return Bundle({path.relative_to(directory).as_posix(): _text(path) for path in wanted})


def load_policy_version(directory: Path) -> PolicyVersion:
    """The folder's policies, strictly validated, with their schema and role book."""
    return open_bundle(read_bundle(directory))


def load_data_map(path: Path, schema: Schema) -> DataMap:
    """A data map and the code sets it names, which lie beside it."""
    return open_map(read_map_bundle(path), schema)


def read_map_bundle(path: Path) -> Bundle:
    """A data map's file and the files of code sets that it names, as one value."""
    text = _text(path)
    named = code_files(Bundle({path.name: text}).toml(path.name))
    return Bundle({path.name: text, **{file: _text(path.parent / file) for file in named.values()}})


def write_bundle(bundle: Bundle, directory: Path) -> None:
    """The bundle's files into a folder; what else lies there must not be of a kind that counts."""
    for path in bundle.files:
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or ".." in parts or str(PurePosixPath(path)) != path:
            raise Misconfigured("a bundle names a file outside its folder")
    try:
        for path, text in bundle.files.items():
            target = directory / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8", newline="")
    except OSError as exc:
        raise Misconfigured(f"cannot write to {directory}: {exc.strerror}") from exc


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

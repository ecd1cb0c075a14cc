"""Policies, roles and data maps from files to values: everything a decision is made from.

Rule kept: a set loads whole or not at all, strictly validated; every fault names file, line or
key. Policy files are read in the order of their paths, so that the same folder is the same set on
every machine. Only files that lie in the folder are read, and no more of them than could count.
"""

import os
import stat
from pathlib import Path, PurePosixPath

from chartgate.app.entitlement import DecisionPoint
from chartgate.app.map_bundle import code_files, open_map
from chartgate.app.policy_bundle import (
    CEILINGS,
    DUTIES,
    INVARIANTS,
    MAX_FILE_BYTES,
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
    if directory.is_file():
        raise Misconfigured(f"{directory} is a file: a policy folder is wanted")
    if not directory.is_dir():
        raise Misconfigured(f"there is no policy folder {directory}")
    if not (directory / SCHEMA).exists():
        raise Misconfigured(f"{directory} is not a policy folder: it has no {SCHEMA}")
    wanted = [directory / name for name in (SCHEMA, ROLES, PURPOSES)]
    wanted += [path for path in (directory / CEILINGS, directory / DUTIES) if path.exists()]
    wanted += directory.rglob("*.cedar")
    wanted += [p for folder in (SCENARIOS, INVARIANTS) for p in (directory / folder).glob("*.toml")]
    return Bundle(
        {path.relative_to(directory).as_posix(): _text(_inside(path, directory)) for path in wanted}
    )


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
    files = {file: _text(_inside(path.parent / file, path.parent)) for file in named.values()}
    return Bundle({path.name: text, **files})


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


def _inside(path: Path, folder: Path) -> Path:
    """The path, unless it leads out of the folder: a folder can come from anybody."""
    try:
        if path.resolve().is_relative_to(folder.resolve()):
            return path
    except (OSError, RuntimeError, ValueError) as exc:  # a loop of links, a NUL in a name
        raise Misconfigured(f"{path} is no path") from exc
    raise Misconfigured(f"{path} leads out of {folder}: nothing outside it is read")


def _text(path: Path) -> str:
    try:
        # Not to wait for whoever writes into a pipe.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Misconfigured(f"{path} is not a file")
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as exc:
        raise Misconfigured(f"cannot read {path}: {exc.strerror}") from exc
    if len(data) > MAX_FILE_BYTES:
        raise Misconfigured(f"{path} is too large: a file has at most {MAX_FILE_BYTES} bytes")
    try:
        return data.decode().replace("\r\n", "\n").replace("\r", "\n")  # as a text file is read
    except UnicodeDecodeError:
        raise Misconfigured(f"{path} is not UTF-8") from None

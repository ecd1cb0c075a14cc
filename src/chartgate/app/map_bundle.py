"""A data map as one value: the map's file and the code sets it names, under one hash.

The rules kept: a map is versioned, approved and kept like policy, because what a column *is*
decides as much as who may see it; a code set is part of the map's identity; a file that the map
does not name is a fault, so that the hash covers what counts and nothing else.
"""

from collections.abc import Mapping
from typing import Any, Final

from chartgate.app.policy_bundle import Bundle, InvalidBundle
from chartgate.cedar.schema import Schema
from chartgate.datamap.model import DataMap
from chartgate.datamap.read import read_map
from chartgate.govern.policy_version import MAP
from chartgate.targets.admissible import column_attributes, relation_types

_SUFFIX: Final = ".toml"


def map_file(bundle: Bundle) -> str:
    """The path of the map itself: the one TOML file."""
    found = bundle.below("", _SUFFIX)
    if len(found) != 1:
        raise InvalidBundle("a data map is one TOML file and the code sets it names")
    return found[0]


def code_files(document: Mapping[str, Any]) -> dict[str, str]:
    """Code set -> the file that lists its codes, as a parsed map names them."""
    named = document.get("code_sets", {})
    if not isinstance(named, Mapping):
        raise InvalidBundle("code_sets is not a table of file names")
    return {str(name): str(file) for name, file in named.items()}


def subject_of(bundle: Bundle) -> str:
    """What the map is a version of: ``map:`` and its source."""
    source = bundle.toml(map_file(bundle)).get("source")
    if not isinstance(source, str) or not source:
        raise InvalidBundle(f"{map_file(bundle)}: source is missing")
    return f"{MAP}{source}"


def open_map(bundle: Bundle, schema: Schema) -> DataMap:
    """The data map, read strictly against the words of the policies' schema."""
    path = map_file(bundle)
    document = bundle.toml(path)
    files = code_files(document)
    spare = sorted(set(bundle.files) - {path, *files.values()})
    if spare:
        raise InvalidBundle(f"{path} does not name the file {spare[0]}")
    categories = schema.entities["Category"].enum if "Category" in schema.entities else None
    return read_map(
        document,
        {name: _codes(bundle.text(file)) for name, file in files.items()},
        categories=frozenset(categories or ()),
        relation_types=relation_types(schema),
        attributes=column_attributes(schema),
        file=path,
    )


def _codes(text: str) -> frozenset[str]:
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return frozenset(line for line in lines if line)

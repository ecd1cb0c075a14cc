"""A policy folder as one value: what is reviewed, approved, put in force and kept, as a whole.

The rules kept: a bundle's identity is the hash of its content, so a folder in Git and a version in
the store are the same exactly when their hashes are; a bundle opens whole or not at all, strictly
validated; nothing larger than a hospital could have written is even parsed.
"""

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final

from chartgate.app.rolebook import RoleBook, read_rolebook
from chartgate.app.scenarios import Scenario, read_scenarios
from chartgate.cedar.ast import PolicySet
from chartgate.cedar.parse import parse_policies
from chartgate.cedar.schema import Schema
from chartgate.cedar.validate import parse_schema, validate
from chartgate.errors import Misconfigured

SCHEMA: Final = "schema.cedarschema"
ROLES: Final = "roles.toml"
PURPOSES: Final = "purposes.toml"
CEILINGS: Final = "ceilings.toml"
DUTIES: Final = "duties.toml"
SCENARIOS: Final = "scenarios/"
INVARIANTS: Final = "invariants/"

MAX_FILE_BYTES: Final = 2 * 1024 * 1024
MAX_BUNDLE_BYTES: Final = 16 * 1024 * 1024


class InvalidBundle(Misconfigured):
    """A policy folder that cannot be read as one; the message names the file and the fault."""

    code = "invalid_bundle"


@dataclass(frozen=True)
class Bundle:
    """The files of a policy folder: relative POSIX path -> text.

    What counts: ``schema.cedarschema``, ``roles.toml``, ``purposes.toml``, every ``*.cedar``,
    ``scenarios/*.toml`` and ``invariants/*.toml``, ``ceilings.toml`` and ``duties.toml`` where they are
    there.
    """

    files: Mapping[str, str] = field(repr=False)

    def __post_init__(self) -> None:
        total = 0
        for path, text in self.files.items():
            size = len(text.encode("utf-8", "surrogatepass"))
            total += size
            if size > MAX_FILE_BYTES:
                raise InvalidBundle(f"{path}: {size} bytes; a file has at most {MAX_FILE_BYTES}")
        if total > MAX_BUNDLE_BYTES:
            raise InvalidBundle(f"the folder holds {total} bytes; at most {MAX_BUNDLE_BYTES} count")
        ordered = dict(sorted(self.files.items()))
        object.__setattr__(self, "files", MappingProxyType(ordered))

    @cached_property
    def hash(self) -> str:
        """SHA-256, in hex, over every path and text: the version's identity."""
        digest = hashlib.sha256(b"chartgate policy bundle 1\n")
        for path, text in self.files.items():
            content = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
            digest.update(f"{len(path)} {path} {content}\n".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    def text(self, path: str) -> str:
        """One file; raises ``InvalidBundle`` when the folder has no such file."""
        if path not in self.files:
            raise InvalidBundle(f"{path}: there is no such file in the policy folder")
        return self.files[path]

    def toml(self, path: str) -> dict[str, Any]:
        """One TOML file, parsed."""
        try:
            return tomllib.loads(self.text(path))
        except (tomllib.TOMLDecodeError, RecursionError) as fault:
            raise InvalidBundle(f"{path}: {fault}") from fault

    def below(self, folder: str, suffix: str = ".toml") -> tuple[str, ...]:
        """The paths in a folder (``scenarios/``), in order."""
        return tuple(p for p in self.files if p.startswith(folder) and p.endswith(suffix))


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """A bundle, opened: validated policies, their schema, roles and purposes."""

    bundle: Bundle
    policies: PolicySet
    schema: Schema
    roles: RoleBook

    @property
    def hash(self) -> str:
        """The bundle's."""
        return self.bundle.hash


def open_bundle(bundle: Bundle) -> PolicyVersion:
    """The bundle's policies, strictly validated against its own schema and role book.

    Raises ``Misconfigured`` (``InvalidBundle``, ``InvalidPolicies``, ``UnknownName``); every fault
    names its file, and its line where it has one.
    """
    schema = parse_schema(bundle.text(SCHEMA), SCHEMA)
    files = {path: bundle.files[path] for path in bundle.below("", ".cedar")}
    if not files:
        raise InvalidBundle("there is no policy (*.cedar) in the folder")
    policies = parse_policies(files)
    validate(policies, schema)
    roles = roles_of(bundle)
    roles.check_policies(policies)
    labels = schema.entities.get("Category")
    if labels is not None and labels.enum is not None:
        roles.check_categories(labels.enum)
    return PolicyVersion(bundle, policies, schema, roles)


def roles_of(bundle: Bundle) -> RoleBook:
    """The bundle's roles and purposes alone."""
    return read_rolebook(bundle.toml(ROLES), bundle.toml(PURPOSES))


def scenarios_of(bundle: Bundle) -> tuple[Scenario, ...]:
    """The bundle's scenarios, in the order of their files; none is an ``InvalidBundle``."""
    paths = bundle.below(SCENARIOS)
    if not paths:
        raise InvalidBundle("there is no scenario in the folder: nothing says what must hold")
    return tuple(
        scenario
        for path in paths
        for scenario in read_scenarios(path.removeprefix(SCENARIOS), bundle.toml(path))
    )

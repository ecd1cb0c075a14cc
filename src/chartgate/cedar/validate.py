"""Schemas and strict validation: cedarpy's verdict, told with file, line and policy.

The rule kept: a policy set is obeyed only if every policy passes Cedar's strict validation. The
verdict is cedarpy's alone; what is added is where each fault is, and that all of them are told.
Both forms of a schema are read, Cedar's text and its JSON; a text that begins with ``{`` is JSON,
since no schema text begins so.
"""

import re
from collections.abc import Iterable
from types import MappingProxyType
from typing import Final

import cedarpy

from chartgate.cedar.ast import Policy, PolicySet
from chartgate.cedar.lex import InvalidPolicies, Piece, check_unicode, one_line
from chartgate.cedar.locate import named_at
from chartgate.cedar.schema import Action, Schema
from chartgate.cedar.schema_json import read_json
from chartgate.cedar.schema_names import Declarations, resolve
from chartgate.cedar.schema_read import read_text

# cedarpy checks each policy once for each (action, principal type, resource type), some 30
# microseconds a time; these bounds keep a hostile schema from taking hours.
MAX_ENVIRONMENTS: Final = 10_000
MAX_CHECKS: Final = 2_000_000

_OWN_ID = re.compile(r"^for policy `[^`]*`[,:] ")
_AT = re.compile(r" at line ([0-9]+) column ([0-9]+)\Z")


def is_json(text: str, file: str) -> bool:
    """Whether a schema is in the JSON form."""
    return file.endswith(".json") or text.lstrip().startswith("{")


def read_declarations(text: str, file: str) -> Declarations:
    """The declarations of a schema of either form; cedarpy is not asked."""
    return resolve(read_json(text, file) if is_json(text, file) else read_text(text, file))


def parse_schema(text: str, file: str) -> Schema:
    """The schema, or ``InvalidPolicies`` with ``file:line:column: reason``."""
    check_unicode(text, file)
    # (1) Our own reading first: it bounds the nesting that cedarpy's recursion would die of and
    # the size that common types expand to, and its places are the better ones.
    found = read_declarations(text, file)
    if _environments(found.actions.values()) > MAX_ENVIRONMENTS:
        raise InvalidPolicies(
            f"{file}:1: actions apply to more than {MAX_ENVIRONMENTS} pairs of types"
        )
    # (2) cedarpy decides.
    try:
        if is_json(text, file):
            cedarpy.Schema.from_json_str(text)
        else:
            cedarpy.Schema.from_str(text)
    except ValueError as fault:
        told = one_line(fault)
        at = _AT.search(told)
        place = f"{at[1]}:{at[2]}" if at else "1"
        raise InvalidPolicies(f"{file}:{place}: {_AT.sub('', told)}") from fault
    return Schema(file, text, MappingProxyType(found.entities), MappingProxyType(found.actions))


def _environments(actions: Iterable[Action]) -> int:
    return sum(len(action.principals) * len(action.resources) for action in actions)


def _place(policy: Policy, reason: str) -> str:
    origin = policy.origin
    if not origin.column:
        return str(origin)
    offset = named_at(policy.text, reason)
    return f"{origin.file}:{Piece(policy.text, origin.line, origin.column).place(offset)}"


def validate(policy_set: PolicySet, schema: Schema) -> None:
    """Raises ``InvalidPolicies`` with every fault that Cedar's strict validator finds."""
    policies = policy_set.policies
    if any(not policy.text for policy in policies):
        raise InvalidPolicies("<none>:0: a policy without its text cannot be validated")
    if _environments(schema.actions.values()) * len(policies) > MAX_CHECKS:
        raise InvalidPolicies(f"{schema.file}:1: too many policies for so many pairs of types")
    result = cedarpy.validate_policies("\n".join(p.text for p in policies), schema.text)
    problems = []
    for error in result.errors:
        position = error.policy_id.removeprefix("policy")
        reason = one_line(_OWN_ID.sub("", error.error))
        if position.isdecimal() and int(position) < len(policies):
            policy = policies[int(position)]
            place = _place(policy, reason)
            problems.append((int(position), f"{place}: policy {policy.id}: {reason}"))
        else:
            problems.append((-1, f"{schema.file}:1: {reason}"))
    if not result.validation_passed or problems:
        told = [text for _, text in sorted(set(problems))]
        # A verdict without a reason is still a refusal.
        raise InvalidPolicies(*(told or [f"{schema.file}:1: the validator gave no reason"]))

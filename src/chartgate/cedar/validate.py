"""Schemas and strict validation: cedarpy's verdict, told with file, line and policy.

The rule kept: a policy set is obeyed only if every policy passes Cedar's strict validation. The
verdict is cedarpy's alone; what is added is where each fault is, and that all of them are told.
"""

import re
from types import MappingProxyType

import cedarpy

from chartgate.cedar.ast import PolicySet
from chartgate.cedar.lex import InvalidPolicies, one_line
from chartgate.cedar.schema import Schema
from chartgate.cedar.schema_read import read_declarations, tokens

_OWN_ID = re.compile(r"^for policy `[^`]*`[,:] ")


def parse_schema(text: str, file: str) -> Schema:
    """The schema, or ``InvalidPolicies`` with ``file:line: reason``."""
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise InvalidPolicies(f"{file}:1: not Unicode text")
    # (1) Our own scan first: it bounds the nesting that cedarpy's recursion would die of.
    tokens(text, file)
    # (2) cedarpy decides. If our reader stumbles over the same text, its line is the better one.
    try:
        cedarpy.Schema.from_str(text)
    except ValueError as fault:
        read_declarations(text, file)
        raise InvalidPolicies(f"{file}:1: {one_line(fault)}") from fault
    found = read_declarations(text, file)
    return Schema(file, text, MappingProxyType(found.entities), MappingProxyType(found.actions))


def validate(policy_set: PolicySet, schema: Schema) -> None:
    """Raises ``InvalidPolicies`` with every fault that Cedar's strict validator finds."""
    policies = policy_set.policies
    if any(not policy.text for policy in policies):
        raise InvalidPolicies("<none>:0: a policy without its text cannot be validated")
    result = cedarpy.validate_policies("\n".join(p.text for p in policies), schema.text)
    problems = []
    for error in result.errors:
        position = error.policy_id.removeprefix("policy")
        reason = one_line(_OWN_ID.sub("", error.error))
        if position.isdecimal() and int(position) < len(policies):
            policy = policies[int(position)]
            problems.append((int(position), f"{policy.origin}: policy {policy.id}: {reason}"))
        else:
            problems.append((-1, f"{schema.file}:1: {reason}"))
    if not result.validation_passed or problems:
        told = [text for _, text in sorted(set(problems))]
        # A verdict without a reason is still a refusal.
        raise InvalidPolicies(*(told or [f"{schema.file}:1: the validator gave no reason"]))

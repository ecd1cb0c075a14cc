"""Policy text to values: parsed by cedarpy, named by ``@id``, every fault with its file and line.

The rules kept: a set loads whole or not at all; a policy has a stable id of its own, because
decisions and the audit log cite it; a fault reads ``file:line:column: reason``; the reading of a
hopeless file ends, after ``MAX_PROBLEMS`` faults.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Final
from typing import Literal as OneOf

import cedarpy

from chartgate.cedar import est
from chartgate.cedar.ast import Origin, Policy, PolicySet
from chartgate.cedar.lex import InvalidPolicies, Piece, check_unicode, cut, one_line
from chartgate.cedar.locate import fault_at
from chartgate.cedar.render import policy_set_hash
from chartgate.cedar.validate import parse_schema, validate

__all__ = ["InvalidPolicies", "parse_policies", "parse_schema", "policy_set", "validate"]

MAX_PROBLEMS: Final = 100
# Of a whole set: 10,000 policies of a hospital have a million words.
MAX_WORDS: Final = 2_000_000


def policy_set(policies: Iterable[Policy]) -> PolicySet:
    """A set of these policies under its content hash; templates must have been linked."""
    kept = tuple(policies)
    return PolicySet(kept, policy_set_hash(kept))


def parse_policies(
    files: Mapping[str, str],
    *,
    ids: OneOf["annotation", "order"] = "annotation",
    templates: bool = False,
) -> PolicySet:
    """The policies of all files, in the order of the mapping and of their text.

    ``ids="order"`` names them policy0, policy1, … as Cedar's own test vectors do. Templates are
    refused unless asked for: an unlinked one decides nothing, which nobody means.
    """
    problems: list[str] = []
    policies: dict[str, Policy] = {}
    words = 0
    for file, text in files.items():
        try:
            check_unicode(text, file)
            for piece in cut(text, file):
                words += piece.tokens
                if words > MAX_WORDS:
                    raise _problem(piece, file, f"more than {MAX_WORDS} words in one policy set")
                try:
                    policy = _policy(piece, file, f"policy{len(policies)}", ids, templates)
                    if policy.id in policies:
                        first = policies[policy.id].origin
                        raise _problem(piece, file, f'@id("{policy.id}") is also at {first}')
                    policies[policy.id] = policy
                except InvalidPolicies as problem:
                    problems += problem.problems
                if len(problems) >= MAX_PROBLEMS:
                    raise InvalidPolicies(*problems, f"{file}:{piece.line}: reading ended here")
        except InvalidPolicies as problem:
            if len(problems) >= MAX_PROBLEMS:
                raise
            problems += problem.problems
    if problems:
        raise InvalidPolicies(*problems)
    return policy_set(policies.values())


def _problem(piece: Piece, file: str, reason: object, offset: int = 0) -> InvalidPolicies:
    return InvalidPolicies(f"{file}:{piece.place(offset)}: {one_line(reason)}")


def _policy(
    piece: Piece, file: str, number: str, ids: OneOf["annotation", "order"], templates: bool
) -> Policy:
    offset = 0
    try:
        try:
            parsed = cedarpy.policies_to_json_str(piece.text)
        except ValueError as fault:
            offset = fault_at(piece.text, str(fault), cedarpy.policies_to_json_str)
            raise
        forms = json.loads(parsed)
        form = est.single(forms, templates=templates)
        policy_id = number if ids == "order" else dict(est.annotations(form)).get("id", "")
        if not policy_id:
            raise est.UnknownForm('the policy has no @id("…")')
        # Ids are cited in logs and messages, one to a line.
        if not policy_id.isprintable() or " " in policy_id:
            raise est.UnknownForm("the @id holds a blank or a character that does not print")
        return est.policy(form, policy_id, Origin(file, piece.line, piece.column), piece.text)
    except RecursionError:
        reason: object = f"the condition is nested more than {est.MAX_DEPTH} operators deep"
    except (ValueError, est.UnknownForm) as fault:
        reason = fault
    raise _problem(piece, file, reason, offset)

"""Policy text to values: parsed by cedarpy, named by ``@id``, every fault with its file and line.

The rules kept: a set loads whole or not at all; a policy has a stable id of its own, because
decisions and the audit log cite it; a fault reads ``file:line:column: reason``; the reading of a
hopeless file ends, after ``MAX_PROBLEMS`` faults.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from typing import Literal as OneOf

import cedarpy

from chartgate.cedar import est
from chartgate.cedar.ast import Origin, Policy, PolicySet
from chartgate.cedar.lex import InvalidPolicies, Piece, check_unicode, cut, one_line
from chartgate.cedar.locate import fault_at
from chartgate.cedar.parts import Parted, Parts
from chartgate.cedar.render import policy_set_hash
from chartgate.cedar.validate import parse_schema, validate

__all__ = ["InvalidPolicies", "parse_policies", "parse_schema", "policy_set", "validate"]

MAX_PROBLEMS: Final = 100
# Of a whole set: 10,000 policies of a hospital have a million words.
MAX_WORDS: Final = 2_000_000
# Read together: enough to find what is said twice, little enough to hold beside the policies.
MAX_READ_AHEAD: Final = 50_000


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
    parts = Parts()
    words = 0
    for file, text in files.items():
        try:
            check_unicode(text, file)
            for piece, parted in _read(cut(text, file), parts):
                words += piece.tokens
                if words > MAX_WORDS:
                    raise _problem(piece, file, f"more than {MAX_WORDS} words in one policy set")
                try:
                    policy = _policy(piece, parted, file, f"policy{len(policies)}", ids, templates)
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


def _read(pieces: Iterator[Piece], parts: Parts) -> Iterator[tuple[Piece, Parted | None]]:
    """The pieces, read by their parts some hundred at a time; a fault of the cutting comes last."""
    fault: InvalidPolicies | None = None
    while fault is None:
        group: list[Piece] = []
        words = 0
        try:
            for piece in pieces:
                group.append(piece)
                words += piece.tokens
                if words >= MAX_READ_AHEAD:
                    break
        except InvalidPolicies as problem:
            fault = problem
        if not group:
            break
        yield from zip(group, parts.read(group), strict=True)
    if fault is not None:
        raise fault


def _form(piece: Piece, templates: bool) -> Any:
    """The whole policy in Cedar's JSON form."""
    return est.single(json.loads(cedarpy.policies_to_json_str(piece.text)), templates=templates)


def _policy(
    piece: Piece,
    parted: Parted | None,
    file: str,
    number: str,
    ids: OneOf["annotation", "order"],
    templates: bool,
) -> Policy:
    offset = 0
    try:
        try:
            form = None if parted else _form(piece, templates)
        except ValueError as fault:
            offset = fault_at(piece.text, str(fault), cedarpy.policies_to_json_str)
            raise
        notes = parted.notes if parted else est.annotations(form)
        policy_id = number if ids == "order" else dict(notes).get("id", "")
        if not policy_id:
            raise est.UnknownForm('the policy has no @id("…")')
        # Ids are cited in logs and messages, one to a line.
        if not policy_id.isprintable() or " " in policy_id:
            raise est.UnknownForm("the @id holds a blank or a character that does not print")
        origin = Origin(file, piece.line, piece.column)
        if parted:
            return parted.policy(policy_id, origin, piece.text)
        return est.policy(form, policy_id, origin, piece.text)
    except RecursionError:
        reason: object = f"the condition is nested more than {est.MAX_DEPTH} operators deep"
    except (ValueError, est.UnknownForm) as fault:
        reason = fault
    raise _problem(piece, file, reason, offset)

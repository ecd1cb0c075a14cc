"""A grant as a node obeys it: one policy for one named person, whose approval is in a trusted log.

The rules kept (zero trust between parts): the row in the control plane is hearsay. What counts is a
log entry, proven under a key that the node has of its own, in which somebody else than the
beneficiary approved exactly this text until exactly this instant; and the text itself is one permit
for her alone that names its own end (45 CFR 164.308(a)(4)(ii)(B)). So an expired grant needs no job.
An end, by contrast, is obeyed unseen: at worst somebody may do less.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NoReturn

import msgspec

from chartgate.app.policy_orders import Sealed
from chartgate.cedar.ast import And, Binary, Call, Expr, GetAttr, Literal, Policy, Var
from chartgate.cedar.lex import one_line
from chartgate.cedar.parse import parse_policies
from chartgate.cedar.schema import Schema
from chartgate.cedar.text import quoted, uid_text
from chartgate.errors import ChartgateError, Corrupt, Misconfigured
from chartgate.model.event import VERSION, GrantStep, decode
from chartgate.model.principal import EntityUid
from chartgate.tlog.note import VerifierKey
from chartgate.tlog.proof_text import LogProof

APPROVED: Final = "approved"
REVOKED: Final = "revoked"
REFUSED: Final = "refused"
PERSON: Final = "User"

_FILE: Final = "grant"


class GrantNotObeyed(Corrupt):
    """A grant that is not what the log says, or whose text is not a grant's."""

    code = "grant_not_obeyed"


class NotGrantable(Misconfigured):
    """A grant that cannot be given as it was asked for."""

    code = "not_grantable"


@dataclass(frozen=True, slots=True)
class Grant:
    """A grant as the control plane has it, unverified."""

    id: str
    person_uid: str
    policy: str
    until: datetime
    sealed: Sealed


@dataclass(frozen=True, slots=True)
class Given:
    """What a grant is to allow; each part narrows it."""

    actions: tuple[str, ...]
    resource_type: str = "Record"
    categories: tuple[str, ...] = ()
    patient: str = ""
    """Key of the one patient whom it is about."""
    resource: str = ""
    """Id of the one resource it is about."""
    purpose: str = ""


def instant_text(at: datetime) -> str:
    """The one spelling of an instant in a grant: UTC, milliseconds, ``Z``."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def content_hash(policy: str) -> str:
    """What an approval names: SHA-256 of the text, in hex."""
    return hashlib.sha256(policy.encode("utf-8", "surrogatepass")).hexdigest()


def grant_text(grant_id: str, name: str, given: Given, *, since: datetime, until: datetime) -> str:
    """The text of a grant; raises ``NotGrantable``."""
    if not given.actions:
        raise NotGrantable("a grant names at least one action")
    if since >= until:
        raise NotGrantable("a grant ends after it begins")
    actions = ", ".join(uid_text(EntityUid("Action", action)) for action in given.actions)
    resource = (
        f"resource == {uid_text(EntityUid(given.resource_type, given.resource))}"
        if given.resource
        else f"resource is {given.resource_type}"
    )
    conditions = [
        f"context.now >= datetime({quoted(instant_text(since))})",
        f"context.now < datetime({quoted(instant_text(until))})",
    ]
    if given.categories:
        listed = ", ".join(uid_text(EntityUid("Category", one)) for one in given.categories)
        conditions.append(f"[{listed}].contains(resource.category)")
    if given.patient:
        patient = uid_text(EntityUid("Patient", given.patient))
        conditions.append(f"resource has patient && resource.patient == {patient}")
    if given.purpose:
        conditions.append(f"context.purpose in {uid_text(EntityUid('Purpose', given.purpose))}")
    when = " &&\n  ".join(conditions)
    return (
        f"@id({quoted(grant_id)})\n"
        f"permit (\n  principal == {uid_text(EntityUid(PERSON, name))},\n"
        f"  action in [{actions}],\n  {resource}\n)\n"
        f"when {{\n  {when}\n}};\n"
    )


def check_given(given: Given, schema: Schema) -> None:
    """Raise ``NotGrantable`` for what the policies have no name for, with the names they have."""
    kind = given.resource_type
    if kind not in schema.entities:
        _unknown("type", kind, schema.entities)
    actions = {uid.id: action for uid, action in schema.actions.items() if uid.type == "Action"}
    # A group of actions says of itself nothing about types.
    known = [n for n, one in actions.items() if not one.resources or kind in one.resources]
    for what, named, names in (
        ("action", given.actions, known),
        ("category", given.categories, _ids(schema, "Category")),
        ("purpose", (given.purpose,) if given.purpose else (), _ids(schema, "Purpose")),
    ):
        for name in named:
            if names is not None and name not in names:
                _unknown(what, name, names, f" on {kind}" if what == "action" else "")


def _ids(schema: Schema, kind: str) -> tuple[str, ...] | None:
    """The only ids of a type; None where the schema leaves them open."""
    found = schema.entities.get(kind)
    return () if found is None else found.enum


def _unknown(what: str, name: str, names: Iterable[str], where: str = "") -> NoReturn:
    known = ", ".join(sorted(names)) or "none"
    raise NotGrantable(
        f"the policies in force know no {what} {one_line(name)}{where}; they know {known}"
    )


def open_approval(grant: Grant, keys: Sequence[VerifierKey]) -> GrantStep:
    """The approval of exactly this grant, from a trusted log; raises ``GrantNotObeyed``."""
    try:
        LogProof.parse(grant.sealed.proof).verify(grant.sealed.entry, keys)
        event = decode(grant.sealed.entry)
    except (ChartgateError, msgspec.MsgspecError, UnicodeError) as exc:
        raise GrantNotObeyed(f"its approval is not in the log: {exc}") from exc
    if not isinstance(event, GrantStep) or event.version > VERSION:
        raise GrantNotObeyed("the log entry is not a step of a grant")
    if event.step != APPROVED:
        raise GrantNotObeyed("the log entry is no approval")
    if event.grant != grant.id or event.content != content_hash(grant.policy):
        raise GrantNotObeyed("the approval is of another grant, or of another text")
    if not event.beneficiary or event.beneficiary != grant.person_uid:
        raise GrantNotObeyed("the approval is for somebody else")
    if not event.person or event.person == event.beneficiary:
        raise GrantNotObeyed("the approval is not by a second person")
    if event.until != instant_text(grant.until):
        raise GrantNotObeyed("the approval has another end")
    return event


def check_grant(grant: Grant, name: str, keys: Sequence[VerifierKey]) -> Policy:
    """The policy to obey, for the person who is called ``name`` now; raises ``GrantNotObeyed``."""
    open_approval(grant, keys)
    return check_text(grant, name)


def check_text(grant: Grant, name: str) -> Policy:
    """One permit for that person alone, which ends when the grant does."""
    try:
        policies = parse_policies({_FILE: grant.policy}).policies
    except ChartgateError as exc:
        raise GrantNotObeyed("its text is not a policy") from exc
    if len(policies) != 1:
        raise GrantNotObeyed("its text is not one policy")
    [policy] = policies
    scope = policy.principal
    if policy.id != grant.id or policy.effect != "permit" or policy.is_template:
        raise GrantNotObeyed("its text is not a permit under its own id")
    if scope.op != "==" or scope.entities != (EntityUid(PERSON, name),):
        raise GrantNotObeyed("its text is not for this person alone")
    wanted = instant_text(grant.until)
    bounds = (
        _end(part)
        for condition in policy.conditions
        if condition.kind == "when"
        for part in _conjuncts(condition.body)
    )
    if wanted not in bounds:
        raise GrantNotObeyed("its text does not end when the grant does")
    return policy


def _conjuncts(expr: Expr) -> Iterator[Expr]:
    waiting = [expr]
    while waiting:
        one = waiting.pop()
        if isinstance(one, And):
            waiting += (one.left, one.right)
        else:
            yield one


def _end(expr: Expr) -> str | None:
    match expr:
        case Binary(
            "<", GetAttr(Var("context"), "now"), Call("datetime", (Literal(str() as text),))
        ):
            return text
    return None

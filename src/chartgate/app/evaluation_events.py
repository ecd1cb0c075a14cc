"""Log entries of what applications asked and were answered.

Rules kept (45 CFR 164.312(b), 164.514(c)): patients and resources stand there as keyed tokens;
what a caller made up itself, an action or a type that no schema knows, is not repeated; one request is
one event, or several parts with the same ``request``, of at most 48 KiB each and never above what a
log entry holds.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Final, Protocol

import msgspec

from chartgate.app.question import Question
from chartgate.app.ruling import Ruling
from chartgate.app.tokens import PATIENT
from chartgate.errors import LogUnavailable
from chartgate.model.event import Evaluation, EvaluationItem, Search, encode

RESOURCE: Final = "resource"
"""Domain of the tokens of what applications name: ``type:id``."""

MAX_PART: Final = 48 << 10
MAX_TOKENS: Final = 1_000
UNKNOWN: Final = "unknown"
"""In the place of a name that nobody but the caller knows."""

PLACEHOLDER: Final = re.compile(rb"~(patient|resource):((?:[0-9a-f]{2}){1,512})~")
"""A key that is to become a token where the token keys are: what ``Keys`` writes."""

_MAX_ITEM: Final = 32 << 10
_MAX_LIST: Final = 100
_MAX_TEXT: Final = 256
_CACHED: Final = 65_536
_UNCHECKED: Final = frozenset({"not_askable", "out_of_scope", "unknown_subject"})
"""Reasons of denials that may come before anybody looked whether the schema knows the names."""

_encoder: Final = msgspec.json.Encoder()


class Unrecordable(LogUnavailable):
    """What was asked cannot be recorded in a log entry, so it is not answered."""

    code = "unrecordable"


class Tokens(Protocol):
    """Who makes tokens: ``PatientTokens``, ``CachedTokens``, or ``Keys`` for whoever has no key."""

    def token(self, domain: str, value: str, *, year: int) -> str:
        """The token of ``value`` in events of ``year``."""


class CachedTokens:
    """Remembers the tokens made last: an HMAC costs more than the rest of an item."""

    def __init__(self, tokens: Tokens, *, limit: int = _CACHED) -> None:
        self._tokens = tokens
        self._limit = limit
        self._known: dict[tuple[str, str, int], str] = {}

    def token(self, domain: str, value: str, *, year: int) -> str:
        """The token of ``value`` in events of ``year``."""
        key = domain, value, year
        found = self._known.get(key)
        if found is None:
            found = self._tokens.token(domain, value, year=year)
            if len(self._known) >= self._limit:
                self._known.clear()
            self._known[key] = found
        return found


class Keys:
    """Writes the keys themselves, marked: the log's writer makes tokens of them.

    An application that made tokens, or had them made, could look up any patient's.
    """

    def token(self, domain: str, value: str, *, year: int) -> str:
        """The placeholder of ``value``; the writer takes the year from the event."""
        return f"~{domain}:{value.encode().hex()}~"


def evaluation_events(
    asked: Sequence[tuple[Question, Ruling]],
    *,
    at: str,
    node: str,
    service: str,
    channel: str,
    request: str,
    tokens: Tokens,
    trace: str = "",
    names: Collection[str] | None = None,
) -> tuple[bytes, ...]:
    """The log entries of one request, in order; ``at`` is RFC 3339 in UTC.

    ``names`` are the actions and types that the schema knows; another one is recorded as
    ``unknown``, since a caller may have written anything there.
    """
    items = _Items(tokens, int(at[:4]), names)
    parts: list[bytes] = []
    held: list[bytes] = []
    room, version = 0, ("", "")
    head = b""

    def part() -> bytes:
        # the items are the last field: what was encoded once is not encoded again
        return b"".join((head[:-2], b",".join(held), b"]}"))

    for question, ruling in asked:
        item = items.encoded(question, ruling)
        if len(item) + 1 > room or (ruling.policy_set, ruling.data_map) != version:
            if held:
                parts.append(part())
                held.clear()
            version = ruling.policy_set, ruling.data_map
            head = encode(
                Evaluation(
                    at=at,
                    node=node,
                    service=service,
                    channel=channel,
                    request=request,
                    part=len(parts),
                    policy_set=ruling.policy_set,
                    data_map=ruling.data_map,
                    trace=trace,
                    items=(),
                )
            )
            room = MAX_PART - len(head)
        held.append(item)
        room -= len(item) + 1
    if held:
        parts.append(part())
    return tuple(parts)


class _Items:
    """Encodes the items of one request; what repeats in it is made once."""

    def __init__(self, tokens: Tokens, year: int, names: Collection[str] | None) -> None:
        self._token: Callable[..., str] = tokens.token
        self._year = year
        self._names = names
        self._held: dict[int, tuple[object, tuple[str, ...]]] = {}

    def encoded(self, question: Question, ruling: Ruling) -> bytes:
        reason = "" if ruling.reason is None else ruling.reason.code
        action, kind = question.action.name, question.resource.type
        subject, resource = question.subject.type, question.resource.id
        names = self._names
        if names is None:
            if reason in _UNCHECKED:
                action = kind = subject = UNKNOWN
        else:
            action = action if action in names else UNKNOWN
            kind = kind if kind in names else UNKNOWN
            subject = subject if subject in names else UNKNOWN
        token, year = self._token, self._year
        recipient, context = ruling.recipient, ruling.context
        if len(recipient) > _MAX_TEXT:
            recipient = recipient[:_MAX_TEXT]
        if context:
            context = {
                name: value if len(value) <= _MAX_TEXT else UNKNOWN
                for name, value in context.items()
            }
        # the type counts with the id: an order 7 is not a prescription 7
        resource_token = (
            token(RESOURCE, f"{question.resource.type}:{resource}"[:_MAX_TEXT], year=year)
            if resource
            else ""
        )
        patient = token(PATIENT, ruling.patient, year=year) if ruling.patient else ""
        # whoever has no uid is still somebody: who was let in, or tried, can be asked for by name
        who = "" if ruling.person else f"{question.subject.type}:{question.subject.id}"
        item = EvaluationItem(
            action=action,
            resource_type=kind,
            resource=resource_token,
            allowed=ruling.allowed,
            person=ruling.person,
            subject_type=subject,
            subject=token(RESOURCE, who[:_MAX_TEXT], year=year) if who else "",
            patient=patient,
            levels=ruling.shown or ruling.levels,
            determining=ruling.determining,
            failed=ruling.failed,
            reason=reason,
            ignored=ruling.ignored,
            purpose=UNKNOWN if reason == "purpose_refused" else ruling.purpose,
            purpose_claimed=ruling.purpose_claimed,
            recipient=recipient,
            roles=ruling.roles,
            departments=ruling.departments,
            assignments=self._assignments(ruling.held) if ruling.held else (),
            grants=ruling.grants,
            context=context,
        )
        data = _encoder.encode(item)
        return data if len(data) <= _MAX_ITEM else _shortened(item)

    def _assignments(self, held: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
        known = self._held.get(id(held))
        if known is None:
            texts = tuple(
                f"{text}!{self._token(PATIENT, patient, year=self._year)}" if patient else text
                for text, patient in held
            )
            known = self._held[id(held)] = held, texts  # held is kept: its id stays its own
        return known[1]


def _shortened(item: EvaluationItem) -> bytes:
    """An item that must not fill an entry: without assignments about other patients, and lists cut.

    What was shown, of whom, and to whom stays.
    """
    hers = f"!{item.patient}" if item.patient else "!"
    assignments = tuple(a for a in item.assignments if "!" not in a or a.endswith(hers))
    item = msgspec.structs.replace(
        item,
        determining=_cut(item.determining),
        failed=_cut(item.failed),
        ignored=_cut(item.ignored),
        roles=_cut(item.roles),
        departments=_cut(item.departments),
        assignments=_cut(assignments),
        grants=_cut(item.grants),
        context={},
    )
    data = _encoder.encode(item)
    if len(data) > _MAX_ITEM:
        raise Unrecordable("an evaluation that is too large for a log entry")
    return data


def _cut(texts: tuple[str, ...]) -> tuple[str, ...]:
    return texts if len(texts) <= _MAX_LIST else (*texts[:_MAX_LIST], "…")


def search_events(
    *,
    at: str,
    node: str,
    service: str,
    channel: str,
    request: str,
    sought: str,
    policy_set: str,
    tokens: Tokens,
    person: str = "",
    action: str = "",
    resource_type: str = "",
    patient: str = "",
    purpose: str = "",
    data_map: str = "",
    results: int = 0,
    persons: Sequence[str] = (),
    patients: Sequence[str] = (),
    actions: Sequence[str] = (),
    others: Sequence[str] = (),
    subject: str = "",
    categories: tuple[str, ...] = (),
    trace: str = "",
) -> tuple[bytes, ...]:
    """The log entries of one page of a search; ``patient`` and ``patients`` are keys, ``others`` and
    ``subject`` are ``type:id``.

    Each part names at most 1,000 of what was found; all of them repeat what was sought.
    """
    year = int(at[:4])
    whole = Search(
        at=at,
        node=node,
        service=service,
        channel=channel,
        request=request,
        sought=sought,
        person=person,
        action=action,
        resource_type=resource_type,
        patient=tokens.token(PATIENT, patient, year=year) if patient else "",
        purpose=purpose,
        policy_set=policy_set,
        data_map=data_map,
        results=results,
        subject=tokens.token(RESOURCE, subject[:_MAX_TEXT], year=year) if subject else "",
        categories=categories,
        trace=trace,
    )
    room = MAX_PART - len(encode(whole))
    names = [
        *(("persons", uid) for uid in persons),
        *(("patients", tokens.token(PATIENT, key, year=year)) for key in patients),
        *(("found", name) for name in actions),
        *(("found", tokens.token(RESOURCE, name[:_MAX_TEXT], year=year)) for name in others),
    ]
    parts = tuple(_pages(names, room))
    return tuple(
        encode(msgspec.structs.replace(whole, part=number, **page))
        for number, page in enumerate(parts)
    )


def _pages(names: Sequence[tuple[str, str]], room: int) -> Iterator[Mapping[str, tuple[str, ...]]]:
    """Fields and their names in order, at most 1,000 and 48 KiB a page; one page at least."""
    page: dict[str, list[str]] = {"persons": [], "patients": [], "found": []}
    left, count = room, 0
    for field, name in names:
        size = len(_encoder.encode(name)) + 1
        if size > room:
            raise Unrecordable("a name that is too large for a log entry")
        if count == MAX_TOKENS or size > left:
            yield {field: tuple(held) for field, held in page.items()}
            page = {field: [] for field in page}
            left, count = room, 0
        page[field].append(name)
        left, count = left - size, count + 1
    yield {field: tuple(held) for field, held in page.items()}

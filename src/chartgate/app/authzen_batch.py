"""Several questions in one request (AuthZEN 1.0, "Access Evaluations API").

The rules kept: of ``evaluations`` an item's object replaces the default of that name whole, they are
never merged; a bad item is a denial in its place, with the fault in its context, and the rest is
answered; no item, or no ``evaluations`` at all, asks one question. A default that is ill-typed makes
the whole request 400, as does a semantic that nobody has defined.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from chartgate.app.authzen_errors import BadRequest, TooManyItems
from chartgate.app.authzen_read import (
    check_no_nul,
    check_resource,
    check_size,
    check_text,
    check_values,
    decoded,
    may_hold_nul,
    words_of,
)
from chartgate.app.node_asked import Semantic
from chartgate.app.question import Action, Question, Resource, Subject
from chartgate.app.ruling import Ruling

MAX_ITEMS: Final = 1_000
"""Items of one request."""


class BadItem(msgspec.Struct, frozen=True):
    """An item that is no question: denied in its place."""

    status: int
    message: str


@dataclass(frozen=True, slots=True)
class Batch:
    """What was asked, item by item.

    ``questions`` is what is to be decided, in order and as ``semantic`` has it; ``placed`` puts the
    rulings back among the items that were no questions. With no question at all nothing needs to be
    decided.
    """

    items: tuple[Question | BadItem, ...]
    semantic: Semantic = Semantic.EXECUTE_ALL

    @property
    def questions(self) -> tuple[Question, ...]:
        """Without bad items, and without what comes after one that ends the batch by denying."""
        items = self.items
        if self.semantic.last is False:
            items = tuple(takewhile(lambda item: not isinstance(item, BadItem), items))
        return tuple([item for item in items if not isinstance(item, BadItem)])

    def placed(self, rulings: Sequence[Ruling]) -> list[Ruling | BadItem]:
        """The answers in the order of the items, up to the one that decides.

        Raises ``ValueError`` for fewer rulings than that: nothing may go unanswered.
        """
        found: list[Ruling | BadItem] = []
        waiting = iter(rulings)
        last = self.semantic.last
        for item in self.items:
            ruling = item if isinstance(item, BadItem) else next(waiting, None)
            if ruling is None:
                raise ValueError("there are fewer rulings than questions")
            found.append(ruling)
            if last is (not isinstance(ruling, BadItem) and ruling.allowed):
                break
        return found


class Item(msgspec.Struct, frozen=True):
    """One of ``evaluations``: what it does not say, the defaults say."""

    subject: Subject | UnsetType = UNSET
    action: Action | UnsetType = UNSET
    resource: Resource | UnsetType = UNSET
    context: dict[str, Any] | UnsetType = UNSET


class Options(msgspec.Struct, frozen=True):
    """How ``evaluations`` are answered; other options are ignored."""

    evaluations_semantic: str | UnsetType = UNSET


class Evaluations(msgspec.Struct, frozen=True):
    """The body of ``/access/v1/evaluations``."""

    subject: Subject | UnsetType = UNSET
    action: Action | UnsetType = UNSET
    resource: Resource | UnsetType = UNSET
    context: dict[str, Any] | UnsetType = UNSET
    evaluations: list[Item] | UnsetType = UNSET
    options: Options | UnsetType = UNSET


class _Unread(msgspec.Struct, frozen=True):
    """The same, with items not looked into."""

    subject: Subject | UnsetType = UNSET
    action: Action | UnsetType = UNSET
    resource: Resource | UnsetType = UNSET
    context: dict[str, Any] | UnsetType = UNSET
    evaluations: list[msgspec.Raw] | UnsetType = UNSET
    options: Options | UnsetType = UNSET


_evaluations: Final = msgspec.json.Decoder(Evaluations)
_unread: Final = msgspec.json.Decoder(_Unread)
_item: Final = msgspec.json.Decoder(Item)


def parse_evaluations(body: bytes, at_most: int = MAX_ITEMS) -> Question | Batch:
    """What is asked: a batch, or one question. Raises ``BadRequest``."""
    check_size(body)
    try:
        asked: Evaluations | _Unread = _evaluations.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        asked = decoded(_unread, body)
    listed: Sequence[Item | msgspec.Raw] = () if asked.evaluations is UNSET else asked.evaluations
    if len(listed) > at_most:
        raise TooManyItems(f"evaluations: one request has at most {at_most}")
    semantic = _semantic(asked.options)
    check_text(body, asked if isinstance(asked, Evaluations) else None)
    has_nul = may_hold_nul(body)
    _check_values_of(asked, has_nul)
    if not listed:
        return _single(asked)
    return Batch(tuple([_question(_read(item, has_nul), asked) for item in listed]), semantic)


def _check_values_of(asked: Item | Evaluations | _Unread, has_nul: bool) -> None:
    if (subject := asked.subject) is not UNSET and subject.properties:
        check_values(subject.properties)
    if (action := asked.action) is not UNSET and action.properties:
        check_values(action.properties)
    if (resource := asked.resource) is not UNSET and resource.properties:
        check_resource(resource.properties)
    if (context := asked.context) is not UNSET and context:
        check_values(context)
    if has_nul:
        for part in (subject, action, resource, context):
            if part is not UNSET:
                check_no_nul(part)


def _semantic(options: Options | UnsetType) -> Semantic:
    named = UNSET if options is UNSET else options.evaluations_semantic
    if named is UNSET:
        return Semantic.EXECUTE_ALL
    try:
        return Semantic(named)
    except ValueError:
        raise BadRequest(
            f"options.evaluations_semantic: expected one of {', '.join(Semantic)}"
        ) from None


def _read(item: Item | msgspec.Raw, has_nul: bool) -> Item | BadItem:
    try:
        if isinstance(item, msgspec.Raw):
            item = _item.decode(item)
        _check_values_of(item, has_nul)
    except BadRequest as fault:
        return BadItem(fault.status, str(fault))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
        return BadItem(400, words_of(fault))
    return item


def _single(asked: Evaluations | _Unread) -> Question:
    subject, action, resource = asked.subject, asked.action, asked.resource
    if subject is UNSET:
        raise BadRequest("the body: object missing required field subject")
    if action is UNSET:
        raise BadRequest("the body: object missing required field action")
    if resource is UNSET:
        raise BadRequest("the body: object missing required field resource")
    return Question(subject, action, resource, {} if asked.context is UNSET else asked.context)


def _question(item: Item | BadItem, defaults: Evaluations | _Unread) -> Question | BadItem:
    if isinstance(item, BadItem):
        return item
    subject = defaults.subject if item.subject is UNSET else item.subject
    if subject is UNSET:
        return _NO_SUBJECT
    action = defaults.action if item.action is UNSET else item.action
    if action is UNSET:
        return _NO_ACTION
    resource = defaults.resource if item.resource is UNSET else item.resource
    if resource is UNSET:
        return _NO_RESOURCE
    context = defaults.context if item.context is UNSET else item.context
    return Question(subject, action, resource, {} if context is UNSET else context)


_NO_SUBJECT: Final = BadItem(400, "there is no subject, neither here nor as a default")
_NO_ACTION: Final = BadItem(400, "there is no action, neither here nor as a default")
_NO_RESOURCE: Final = BadItem(400, "there is no resource, neither here nor as a default")

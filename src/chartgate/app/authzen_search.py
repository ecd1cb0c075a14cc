"""Searches on the wire: who may, on what, and what may be done (AuthZEN 1.0, "Search APIs").

The rules kept: of the entity searched for only the type counts, an ``id`` is ignored; every other
entity needs its id; an action search has no action, and one that is there is ignored as any unknown
field is. A page continues the query it was begun with, and no other (``authzen_paging``).
"""

from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from chartgate.app.authzen_errors import RecordedAt
from chartgate.app.authzen_paging import Page, PageAnswer, Pager, PageRequest, query_digest
from chartgate.app.authzen_read import (
    check_no_nul,
    check_resource,
    check_text,
    check_values,
    decoded,
    may_hold_nul,
)
from chartgate.app.question import Action, Name, Resource, Subject


class Wanted(msgspec.Struct, frozen=True):
    """The kind of entity that is searched for. Its ``id`` is ignored, whatever it is."""

    type: Name
    properties: dict[str, Any] = {}


class SubjectSearch(msgspec.Struct, frozen=True):
    """Who may do this to that?"""

    subject: Wanted
    action: Action
    resource: Resource
    context: dict[str, Any] = {}
    page: PageRequest | UnsetType = UNSET


class ResourceSearch(msgspec.Struct, frozen=True):
    """To what may she do this?"""

    subject: Subject
    action: Action
    resource: Wanted
    context: dict[str, Any] = {}
    page: PageRequest | UnsetType = UNSET


class ActionSearch(msgspec.Struct, frozen=True):
    """What may she do to that?"""

    subject: Subject
    resource: Resource
    context: dict[str, Any] = {}
    page: PageRequest | UnsetType = UNSET


AnySearch = SubjectSearch | ResourceSearch | ActionSearch


class Sought(msgspec.Struct, frozen=True):
    """A search that was read, the page wanted, and what binds a token to it."""

    query: AnySearch
    page: Page
    digest: bytes


class Found(msgspec.Struct, frozen=True):
    """One page: ids (of an action search: names) in ascending order, and whether more may follow."""

    names: tuple[str, ...]
    more: bool = False
    after: str = ""
    """Where the next page begins, if not after the last of these."""
    properties: tuple[dict[str, Any], ...] = ()
    """Of each of them, or of none: what else names it (a record's patient and category)."""


class SearchContext(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is said of a search beside its results."""

    policy_set: str = ""
    audit: RecordedAt | None = None
    epoch: int | None = None


class SearchAnswer(msgspec.Struct, frozen=True):
    """The answer to a search."""

    results: tuple[dict[str, Any], ...]
    page: PageAnswer
    context: SearchContext


_subject: Final = msgspec.json.Decoder(SubjectSearch)
_resource: Final = msgspec.json.Decoder(ResourceSearch)
_action: Final = msgspec.json.Decoder(ActionSearch)
_encode: Final = msgspec.json.Encoder().encode


def parse_subject_search(body: bytes, pager: Pager, asker: str) -> Sought:
    """``/access/v1/search/subject``; ``asker`` is the service's uid. Raises ``BadRequest``."""
    return _sought(decoded(_subject, body), body, pager, asker)


def parse_resource_search(body: bytes, pager: Pager, asker: str) -> Sought:
    """``/access/v1/search/resource``; ``asker`` is the service's uid. Raises ``BadRequest``."""
    return _sought(decoded(_resource, body), body, pager, asker)


def parse_action_search(body: bytes, pager: Pager, asker: str) -> Sought:
    """``/access/v1/search/action``; ``asker`` is the service's uid. Raises ``BadRequest``."""
    return _sought(decoded(_action, body), body, pager, asker)


def _sought(query: AnySearch, body: bytes, pager: Pager, asker: str) -> Sought:
    action = None if isinstance(query, ActionSearch) else query.action
    check_resource(query.resource.properties)
    for values in (query.subject.properties, query.context):
        check_values(values)
    if action is not None:
        check_values(action.properties)
    check_text(body)
    if may_hold_nul(body):
        check_no_nul(query)
    kind = type(query).__name__
    digest = query_digest(asker, kind, query.subject, action, query.resource, query.context)
    return Sought(query, pager.page(query.page, digest), digest)


def search_answer(
    sought: Sought,
    found: Found,
    pager: Pager,
    *,
    policy_set: str = "",
    audit: RecordedAt | None = None,
    epoch: int | None = None,
) -> bytes:
    """Body of the answer to a search."""
    results: tuple[dict[str, Any], ...]
    match sought.query:
        case SubjectSearch(subject=wanted) | ResourceSearch(resource=wanted):
            results = tuple([{"type": wanted.type, "id": name} for name in found.names])
        case _:
            results = tuple([{"name": name} for name in found.names])
    for result, properties in zip(results, found.properties, strict=False):
        if properties:
            result["properties"] = properties
    token = ""
    after = found.after or (found.names[-1] if found.names else "")
    if found.more and after:
        token = pager.token(Page(sought.page.limit, after), sought.digest)
    page = PageAnswer(token, len(results))
    return _encode(SearchAnswer(results, page, SearchContext(policy_set, audit, epoch)))

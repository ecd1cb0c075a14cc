"""Who can, what can she: the searches of AuthZEN, page by page.

The rule kept: a search is complete or fails. A page that does not come raises ``Unavailable``; it is
never taken for the end.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from chartgate.sdk.errors import Unavailable
from chartgate.sdk.questions import (
    ActionLike,
    ResourceLike,
    SubjectLike,
    action_body,
    action_of,
    entity_body,
    resource_of,
    subject_of,
)


@dataclass(frozen=True, slots=True)
class Page:
    """Results, and the token of the next page: empty at the end."""

    results: tuple[dict[str, Any], ...]
    next_token: str


class _Paging(msgspec.Struct, frozen=True):
    next_token: str = ""


class _Found(msgspec.Struct, frozen=True):
    results: tuple[dict[str, Any], ...]
    page: _Paging = _Paging()


def page_of(body: Any) -> Page:
    """From the JSON value that was answered."""
    try:
        found = msgspec.convert(body, _Found)
    except msgspec.ValidationError:
        raise Unavailable("the results of the search could not be understood") from None
    return Page(found.results, found.page.next_token)


def subject_search(
    kind: str, action: ActionLike, resource: ResourceLike, context: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Which subjects of a type may."""
    return _body(
        context,
        subject={"type": kind},
        action=action_body(action_of(action)),
        resource=entity_body(resource_of(resource)),
    )


def resource_search(
    subject: SubjectLike,
    action: ActionLike,
    kind: str | Mapping[str, Any],
    context: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Which resources of a type; properties narrow it down."""
    return _body(
        context,
        subject=entity_body(subject_of(subject)),
        action=action_body(action_of(action)),
        resource={"type": kind} if isinstance(kind, str) else dict(kind),
    )


def action_search(
    subject: SubjectLike, resource: ResourceLike, context: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Which actions."""
    return _body(
        context,
        subject=entity_body(subject_of(subject)),
        resource=entity_body(resource_of(resource)),
    )


def _body(context: Mapping[str, Any] | None, **parts: Any) -> dict[str, Any]:
    return {**parts, **({"context": dict(context)} if context else {})}

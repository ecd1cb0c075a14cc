"""What an application asks: the information model of OpenID AuthZEN 1.0, as values.

Everything here is what a caller says. What of it counts is for ``rulings`` to settle.
"""

from typing import Annotated, Any

import msgspec

Name = Annotated[str, msgspec.Meta(max_length=1_024)]
"""A type, an id, the name of an action: as long as an audit entry can hold."""


class Subject(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who would act (AuthZEN 1.0, "Subject")."""

    type: Name
    id: Name
    properties: dict[str, Any] = {}


class Action(msgspec.Struct, frozen=True, omit_defaults=True):
    """What would be done (AuthZEN 1.0, "Action"); Cedar's actions have no attributes, so that
    properties count as context."""

    name: Name
    properties: dict[str, Any] = {}


class Resource(msgspec.Struct, frozen=True, omit_defaults=True):
    """On what (AuthZEN 1.0, "Resource").

    Of a ``Record``, ``properties`` say what is asked about: ``patient`` (her key in the source),
    and ``category``, ``categories`` (names) or ``fields`` (names of columns, ``table.column``, or
    an object of names of the caller's own with their categories).
    """

    type: Name
    id: Name
    properties: dict[str, Any] = {}


class Question(msgspec.Struct, frozen=True, omit_defaults=True):
    """One evaluation. ``context`` holds ``purpose`` and ``recipient`` beside other claims."""

    subject: Subject
    action: Action
    resource: Resource
    context: dict[str, Any] = {}

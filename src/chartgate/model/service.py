"""Who asks for decisions: applications with an account of their own, each limited to its job.

The rules kept (45 CFR 164.502(b), 164.312(d)): a service is known by name, may ask only what its
scope lists, and is believed only what its scope says that it may assert. What nobody but the control
plane or the data map may say is not in any scope.
"""

from dataclasses import dataclass, field
from typing import Final

ANY: Final = "*"
"""In a scope: whatever there is."""

PEP_PROPERTIES: Final = frozenset({"patient", "category", "categories", "fields"})
"""Properties of a record that say what is asked about; every service names them."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What a service may ask about, and which properties it is believed.

    ``asserts`` holds dotted names, ``resource.author``, ``context.acr``, ``resource.*``; a name that
    is not there counts as absent.
    """

    actions: frozenset[str] = frozenset()
    resource_types: frozenset[str] = frozenset()
    categories: frozenset[str] = frozenset()
    asserts: frozenset[str] = frozenset()
    may_search: bool = False

    def admits_action(self, name: str) -> bool:
        """Whether the service may ask about the action."""
        return name in self.actions or ANY in self.actions

    def admits_type(self, name: str) -> bool:
        """Whether the service may ask about resources of the type."""
        return name in self.resource_types or ANY in self.resource_types

    def admits_category(self, name: str) -> bool:
        """Whether the service may ask about the category."""
        return name in self.categories or ANY in self.categories

    def believes(self, place: str, name: str) -> bool:
        """Whether what the service says of ``place.name`` counts."""
        return f"{place}.{name}" in self.asserts or f"{place}.*" in self.asserts


EVERYTHING: Final = Scope(
    actions=frozenset((ANY,)),
    resource_types=frozenset((ANY,)),
    categories=frozenset((ANY,)),
    asserts=frozenset(("subject.*", "action.*", "resource.*", "context.*")),
    may_search=True,
)
"""For tests and for an engine without accounts; reserved names stay reserved."""


@dataclass(frozen=True, slots=True)
class Service:
    """An application with an account. ``uid`` is opaque, never reused, and what the log holds."""

    uid: str
    name: str
    active: bool
    scope: Scope = field(default_factory=Scope)

"""Who acts: a named person with the assignments the control plane holds for her."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


class EntityUid(NamedTuple):
    """A Cedar entity uid: a plain tuple, hashable and cheap."""

    type: str
    id: str

    def __str__(self) -> str:
        quoted = self.id.replace("\\", "\\\\").replace('"', '\\"')
        return f'{self.type}::"{quoted}"'


@dataclass(frozen=True, slots=True)
class Assignment:
    """A role held in a department for a time (``valid_from`` <= t < ``valid_until``).

    ``reference`` is what justifies it: a ticket, a business-associate agreement, an HR record.
    """

    role: str
    department: str | None
    valid_from: datetime
    valid_until: datetime | None
    reference: str | None = None

    def is_live(self, *, at: datetime) -> bool:
        """Whether the assignment counts at ``at``: an expired one needs no job to stop working."""
        return self.valid_from <= at and (self.valid_until is None or at < self.valid_until)

    @property
    def held(self) -> str:
        """Who somebody was when a decision was made: ``role@department#reference``.

        The last two only where they are; ``%``, ``@`` and ``#`` in a name are percent-encoded.
        """
        place = f"@{_escaped(self.department)}" if self.department is not None else ""
        why = f"#{_escaped(self.reference)}" if self.reference is not None else ""
        return f"{_escaped(self.role)}{place}{why}"

    @staticmethod
    def from_held(text: str) -> "Assignment":
        """The assignment that was held, without the time that it was held for."""
        held, sign, reference = text.partition("#")
        role, at, department = held.partition("@")
        return Assignment(
            _unescaped(role),
            _unescaped(department) if at else None,
            _BEGINNING,
            None,
            _unescaped(reference) if sign else None,
        )


@dataclass(frozen=True, slots=True)
class Person:
    """A person with an account. ``uid`` is opaque and is what the audit log holds; never reused."""

    uid: str
    name: str
    full_name: str
    active: bool
    assignments: tuple[Assignment, ...] = ()

    def live(self, *, at: datetime) -> tuple[Assignment, ...]:
        """The assignments that count at ``at``."""
        return tuple(a for a in self.assignments if a.is_live(at=at))


def _escaped(name: str) -> str:
    return name.replace("%", "%25").replace("@", "%40").replace("#", "%23")


def _unescaped(text: str) -> str:
    return text.replace("%23", "#").replace("%40", "@").replace("%25", "%")

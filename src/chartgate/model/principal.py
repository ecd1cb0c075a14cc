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
    ``patient`` is whose record it is about, as the source keys patients: the patient herself, or
    the one she stands for, or the one a request concerns. One assignment is about one patient.
    """

    role: str
    department: str | None
    valid_from: datetime
    valid_until: datetime | None
    reference: str | None = None
    patient: str | None = None

    def is_live(self, *, at: datetime) -> bool:
        """Whether the assignment counts at ``at``: an expired one needs no job to stop working."""
        return self.valid_from <= at and (self.valid_until is None or at < self.valid_until)

    def held(self, patient: str = "") -> str:
        """Who somebody was when a decision was made: ``role@department#reference!patient``.

        All but the role only where it is. ``patient`` is the token of whom the assignment is
        about: a log has no patient's key. The four signs and ``%`` are percent-encoded in a name.
        """
        place = f"@{_escaped(self.department)}" if self.department is not None else ""
        why = f"#{_escaped(self.reference)}" if self.reference is not None else ""
        return f"{_escaped(self.role)}{place}{why}{'!' if patient else ''}{patient}"

    @staticmethod
    def from_held(text: str) -> "Assignment":
        """The assignment that was held, without the time it was held for and without a patient."""
        held, sign, reference = text.partition("!")[0].partition("#")
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


_SIGNS = ("%", "@", "#", "!")


def _escaped(name: str) -> str:
    for sign in _SIGNS:
        name = name.replace(sign, f"%{ord(sign):02X}")
    return name


def _unescaped(text: str) -> str:
    for sign in reversed(_SIGNS):
        text = text.replace(f"%{ord(sign):02X}", sign)
    return text

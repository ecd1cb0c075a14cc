"""Who may do something, for which purpose, until when, and what ends it: everybody, exactly.

The rules kept: the answer is complete (45 CFR 164.308(a)(4)(ii)(C), access is reviewed as a whole),
so nobody is left out and nothing is cut short; it holds for every purpose a person may claim; "until"
is the first instant at which she may do less, found by asking again for that instant; what ends it
was tried as well. What is not said of the record is left open, and the answer says for which records
it holds.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from chartgate.app.explain_everyone import Everyone
from chartgate.app.explain_question import Question
from chartgate.app.explain_records import surely_includes
from chartgate.app.explain_reduced import Ground, Known
from chartgate.app.explain_shares import Share
from chartgate.app.policy_bundle import PolicyVersion
from chartgate.cedar.values import CedarSet
from chartgate.model.principal import Assignment, EntityUid, Person
from chartgate.targets.formula import Formula


@dataclass(frozen=True, slots=True)
class Ending:
    """One thing that takes the permission away, or a part of it: ending these assignments, or
    taking the person out of a set of the record (the care team)."""

    assignments: tuple[Assignment, ...] = ()
    out_of: str | None = None


@dataclass(frozen=True, slots=True)
class Holding:
    """What one person may, for these purposes."""

    purposes: tuple[str, ...]
    rank: int
    """A level's number for a view, else 1."""
    when: Formula
    """Which records, as far as the question leaves them open."""
    policies: tuple[str, ...]
    through: tuple[Assignment, ...]
    """Her assignments that permit it."""
    until: datetime | None
    """When it ends or becomes less by itself; None = not by itself."""
    unsteady: bool
    """The policies read the clock in a way that does not tell when."""
    endings: tuple[Ending, ...]
    """What takes it away; closing her account always does."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A person who may, and how."""

    person: Person
    holdings: tuple[Holding, ...]

    @property
    def rank(self) -> int:
        """The most she may, for some purpose and record."""
        return max(h.rank for h in self.holdings)


def who_can(
    version: PolicyVersion | Ground, people: Iterable[Person], question: Question, known: Known
) -> tuple[Holder, ...]:
    """Everyone who may, in the order given. ``question.purpose`` does not count: each person is
    asked for every purpose that she may claim."""
    ground = version if isinstance(version, Ground) else Ground(version)
    asking = _Asking(ground, question, known)
    book = ground.version.roles
    found = ((person, asking.holdings(book.known_of(person))) for person in people)
    return tuple(Holder(person, holdings) for person, holdings in found if holdings)


class _Asking:
    """The question, put to one person after the other."""

    def __init__(self, ground: Ground, question: Question, known: Known) -> None:
        self._ground: Final = ground
        self._question: Final = question
        self._known: Final = known
        self._everyone: Final = Everyone(ground, question, known)
        self._alike: Final[dict[object, tuple[tuple[tuple[str, ...], Share], ...]]] = {}
        self._endings: Final[dict[object, tuple[tuple[tuple[int, ...], str | None], ...]]] = {}
        self._without: Final[dict[tuple[str, str], Everyone]] = {}

    def holdings(self, person: Person) -> tuple[Holding, ...]:
        """What the person may."""
        at, everyone = self._question.at, self._everyone
        if not person.active:
            return ()
        live = person.live(at=at)
        if not live:
            return ()
        held = everyone.alike(person, live)
        shares = self._alike.get(held)
        if shares is None:
            shares = self._alike[held] = _by_purpose(
                (p, everyone.answer(held, p)) for p in everyone.purposes(live)
            )
        if not shares:
            return ()
        instants = self._instants(person)
        found = []
        for purposes, share in shares:
            until = self._until(person, purposes[0], share, instants)
            endings = self._ends(person, live, held, purposes[0], share)
            found.append(
                Holding(
                    purposes=purposes,
                    rank=share.rank,
                    when=share.when,
                    policies=share.policies,
                    through=tuple(live[i] for i in share.through),
                    until=until,
                    unsteady=everyone.clock.opaque,
                    endings=tuple(
                        Ending(tuple(live[i] for i in ended), out_of) for ended, out_of in endings
                    ),
                )
            )
        return tuple(found)

    def _instants(self, person: Person) -> list[datetime]:
        """When an answer about her may change by itself."""
        at = self._question.at
        own = {a.valid_until for a in person.assignments if a.valid_until and a.valid_until > at}
        own |= {a.valid_from for a in person.assignments if a.valid_from > at}
        return sorted(own.union(self._everyone.clock.instants))

    def _until(
        self, person: Person, purpose: str, share: Share, instants: list[datetime]
    ) -> datetime | None:
        for instant in instants:
            everyone = self._everyone.later(instant)
            live = person.live(at=instant)
            if purpose not in everyone.purposes(live):
                return instant
            then = everyone.answer(everyone.alike(person, live), purpose)
            if not _includes(then, share):
                return instant
        return None

    def _ends(
        self,
        person: Person,
        live: tuple[Assignment, ...],
        held: object,
        purpose: str,
        share: Share,
    ) -> tuple[tuple[tuple[int, ...], str | None], ...]:
        """Which assignments to end (as places in ``live``), or which set to leave."""
        key = (held, purpose, share.rank, share.when)
        found = self._endings.get(key)
        if found is None:
            found = self._endings[key] = (
                *((ended, None) for ended in self._assignments(person, live, purpose, share)),
                *(((), name) for name in self._sets(person, live, purpose, share)),
            )
        return found

    def _assignments(
        self, person: Person, live: tuple[Assignment, ...], purpose: str, share: Share
    ) -> list[tuple[int, ...]]:
        def loses(ended: tuple[int, ...]) -> bool:
            left = tuple(a for i, a in enumerate(live) if i not in ended)
            if purpose not in self._everyone.purposes(left):
                return True
            then = self._everyone.answer(self._everyone.alike(person, left), purpose)
            return not _includes(then, share)

        alone: list[tuple[int, ...]] = [(i,) for i in range(len(live)) if loses((i,))]
        # Several assignments may each give it: then all of those must end.
        return alone if alone or not loses(share.through) else [share.through]

    def _sets(
        self, person: Person, live: tuple[Assignment, ...], purpose: str, share: Share
    ) -> list[str]:
        found = []
        herself = EntityUid("User", person.name)
        for name, value in self._known.items():
            if not isinstance(value, CedarSet) or herself not in value:
                continue
            everyone = self._without.get((name, person.name))
            if everyone is None:
                everyone = self._everyone.without(name, herself)
                self._without[name, person.name] = everyone
            then = everyone.answer(everyone.alike(person, live), purpose)
            if not _includes(then, share):
                found.append(name)
        return found


def _by_purpose(
    answers: Iterable[tuple[str, tuple[Share, ...]]],
) -> tuple[tuple[tuple[str, ...], Share], ...]:
    """The shares, each with all purposes that have it, most first."""
    found: dict[Share, list[str]] = {}
    for purpose, shares in answers:
        for share in shares:
            found.setdefault(share, []).append(purpose)
    ordered = sorted(found.items(), key=lambda item: -item[0].rank)
    return tuple((tuple(purposes), share) for share, purposes in ordered)


def _includes(shares: tuple[Share, ...], share: Share) -> bool:
    """Whether at least as much is surely still given."""
    return any(s.rank >= share.rank and surely_includes(s.when, share.when) for s in shares)

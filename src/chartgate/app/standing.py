"""Who somebody is when a question is decided: the person as a whole, and each assignment alone.

The rules kept (45 CFR 164.308(a)(4); design: Decision): only assignments that are live *at* the
question's time count, and only those of roles that the policies know; a permit is asked of each
assignment alone, a forbid of the whole person. Somebody whose account is closed has no standing.

A standing holds until the next of its assignments begins or ends. It is made when first asked for
and kept while the person stays the same, so that a hundred thousand people cost nothing until they
act.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from chartgate.app.rolebook import RoleBook, person_entity
from chartgate.cedar.entities import Entities, Entity
from chartgate.model.principal import Assignment, EntityUid, Person
from chartgate.targets.compiled import View
from chartgate.targets.entity_store import Known

PERSON_TYPE: Final = "User"
"""The entity type of people of the control plane."""
FOREVER: Final = 1 << 62
_MOST_PARTS: Final = 50_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


def first_millisecond(instant: datetime) -> int:
    """The first whole millisecond that is not before the instant."""
    # An integer at_ms is at or after the instant exactly when it is at or after this.
    return -((_EPOCH - instant) // _MILLISECOND)


class Standing:
    """Somebody at one time, as decisions need her; made by ``People`` or ``plain_standing``."""

    __slots__ = (
        "alone", "assignments", "break_glass", "default_purpose", "departments", "entity", "held",
        "offered", "person", "person_uid", "purposes", "roles", "since", "uid", "until",
    )  # fmt: skip

    def __init__(
        self,
        uid: EntityUid,
        entity: Entity,
        purposes: "Claims",
        *,
        person: Person | None = None,
        assignments: tuple[Assignment, ...] = (),
        roles: tuple[str, ...] = (),
        since: int = -FOREVER,
        until: int = FOREVER,
    ) -> None:
        self.uid: Final = uid
        self.entity: Final = entity
        """With all that counts."""
        self.person: Final = person
        """None for somebody whom the control plane does not know: a stored entity."""
        self.person_uid: Final = "" if person is None else person.uid
        self.assignments: Final = assignments
        self.roles: Final = roles
        self.departments: Final = tuple(sorted({a.department for a in assignments if a.department}))
        self.held: Final = tuple((a.held(), a.patient or "") for a in assignments)
        self.since: Final = since
        self.until: Final = until
        """Milliseconds: from then on an assignment more counts, or one less."""
        self.default_purpose: Final = purposes.default(roles, assignments)
        self.purposes: Final = purposes.claimable(roles)
        """What may be claimed, narrower codes included."""
        self.offered: Final = purposes.offered(roles)
        """The purposes that her roles list."""
        self.break_glass: Final = purposes.break_glass(roles)
        """Categories for which the emergency procedure is open to her."""
        # With one assignment, the person and her assignment are the same question.
        self.alone: Final[tuple[Entity, ...]] = (
            tuple(person_entity(person, (a,)) for a in _distinct(assignments))
            if person is not None and len(_distinct(assignments)) > 1
            else ()
        )

    def holds_at(self, at_ms: int) -> bool:
        """Whether the standing is the one of that time."""
        return self.since <= at_ms < self.until

    @property
    def parts(self) -> int:
        """How much there is of it, for whoever keeps it."""
        return 1 + len(self.alone)


def _distinct(assignments: tuple[Assignment, ...]) -> tuple[Assignment, ...]:
    """One of each that policies cannot tell apart: the times differ at most."""
    found: dict[object, Assignment] = {}
    for one in assignments:
        found.setdefault((one.role, one.department, one.reference, one.patient), one)
    return tuple(found.values())


class People(Protocol):
    """The people of the control plane, as they are now."""

    def standing(self, uid: EntityUid, at_ms: int, /) -> Standing | None:
        """Who that is at the time; None for nobody, and for a closed account."""

    def names(self, type_: str, after: str = "", /) -> Iterator[str]:
        """Ids of everybody of the entity type with an open account, in order, after the given."""


class Claims:
    """Which purposes roles may claim, worked out once per combination of roles."""

    def __init__(self, rolebook: RoleBook) -> None:
        self._book: Final = rolebook
        self.wider: Final = {
            name: frozenset(
                {uid.id for uid in rolebook.entities().ancestors(EntityUid("Purpose", name))}
            )
            for name in rolebook.purposes
        }
        """Purpose -> itself and every wider one."""
        self._claimable: Final[dict[tuple[str, ...], frozenset[str]]] = {}

    @property
    def is_limited(self) -> bool:
        """Whether there is a book of purposes at all."""
        return bool(self._book.purposes)

    def knows_role(self, name: str) -> bool:
        """Whether the policies know the role."""
        return name in self._book.roles

    def default(self, roles: tuple[str, ...], assignments: tuple[Assignment, ...]) -> str:
        """The purpose of somebody who names none: of the first live assignment that has one."""
        for name in [a.role for a in assignments] or roles:
            role = self._book.roles.get(name)
            if role is not None and role.default_purpose:
                return role.default_purpose
        return ""

    def offered(self, roles: tuple[str, ...]) -> tuple[str, ...]:
        """The purposes that the roles list, in the book's order."""
        held = [self._book.roles[name] for name in roles if name in self._book.roles]
        return tuple(dict.fromkeys(purpose for role in held for purpose in role.purposes))

    def claimable(self, roles: tuple[str, ...]) -> frozenset[str]:
        """Those, and every narrower one."""
        found = self._claimable.get(roles)
        if found is None:
            listed = set(self.offered(roles))
            found = frozenset(name for name, wider in self.wider.items() if wider & listed)
            self._claimable[roles] = found
        return found

    def break_glass(self, roles: tuple[str, ...]) -> frozenset[str]:
        """The categories for which one of the roles may break the glass."""
        held = [self._book.roles[name] for name in roles if name in self._book.roles]
        return frozenset(name for role in held for name in getattr(role, "break_glass", ()))


class PersonStandings:
    """``People`` from a mapping by login name that always shows everybody as they are now."""

    def __init__(
        self, persons: Mapping[str, Person], rolebook: RoleBook, *, most_parts: int = _MOST_PARTS
    ) -> None:
        self._persons: Final = persons
        self._book: Final = rolebook
        self._claims: Final = Claims(rolebook)
        self._kept: Final[dict[str, Standing]] = {}
        self._parts = 0
        self._most: Final = most_parts
        self._names: list[str] | None = None

    def standing(self, uid: EntityUid, at_ms: int, /) -> Standing | None:
        """Who that is at the time; None for nobody, and for a closed account."""
        person = self._persons.get(uid[1])
        if person is None or uid[0] != PERSON_TYPE:
            return None
        kept = self._kept.get(uid[1])
        # The person is compared, so that a change counts even if nobody told of it.
        if kept is not None and kept.person is person and kept.since <= at_ms < kept.until:
            return kept
        if not person.active:
            return None
        return self._keep(uid[1], self._made(uid, person, at_ms))

    def names(self, type_: str, after: str = "", /) -> Iterator[str]:
        """Ids of everybody of the entity type with an open account, in order, after the given."""
        if type_ != PERSON_TYPE:
            return
        names = self._names
        if names is None or len(names) != len(self._persons):
            names = self._names = sorted(self._persons)
        for name in names[bisect_right(names, after) :]:
            person = self._persons.get(name)
            if person is not None and person.active:
                yield name

    def forget(self, name: str) -> None:
        """The person is another now, or gone."""
        gone = self._kept.pop(name, None)
        if gone is not None:
            self._parts -= gone.parts
        self._names = None

    def _made(self, uid: EntityUid, person: Person, at_ms: int) -> Standing:
        known = self._book.known_of(person).assignments
        spans = [
            (
                first_millisecond(a.valid_from),
                FOREVER if a.valid_until is None else first_millisecond(a.valid_until),
                a,
            )
            for a in known
        ]
        live = tuple(a for begin, end, a in spans if begin <= at_ms < end)
        turns = [turn for begin, end, _ in spans for turn in (begin, end)]
        return Standing(
            uid,
            person_entity(person, live),
            self._claims,
            person=person,
            assignments=live,
            roles=tuple(sorted({a.role for a in live})),
            since=max((turn for turn in turns if turn <= at_ms), default=-FOREVER),
            until=min((turn for turn in turns if turn > at_ms), default=FOREVER),
        )

    def _keep(self, name: str, made: Standing) -> Standing:
        before = self._kept.pop(name, None)
        self._kept[name] = made
        self._parts += made.parts - (0 if before is None else before.parts)
        while self._parts > self._most and len(self._kept) > 1:
            # The oldest first: somebody who is still at work is made again.
            oldest = self._kept.pop(next(iter(self._kept)), None)
            self._parts -= 0 if oldest is None else oldest.parts
        return made


def plain_standing(entity: Entity, claims: Claims) -> Standing:
    """A stored entity as a subject: what it holds is what the store says."""
    roles = sorted(uid.id for uid in entity.parents if uid.type == "Role")
    return Standing(
        entity.uid, entity, claims, roles=tuple(r for r in roles if claims.knows_role(r))
    )


class PersonView:
    """All entities, one of them as ``entity`` says: a view with the person laid over it.

    Serves the compiled engine as ``EntityView`` does. It is kept with the person, so that a
    decision makes nothing.
    """

    __slots__ = ("_base", "_entity", "_own", "_uid", "found")

    def __init__(self, base: View, entity: Entity) -> None:
        self._base: Final = base
        self._entity: Final = Entity(
            entity.uid, dict(entity.attrs), entity.parents, dict(entity.tags)
        )
        self._uid: Final = entity.uid
        own = self._walk(entity.uid)
        self._own: Final = own
        self.found: Final[dict[EntityUid, Known]] = {entity.uid: (own, self._entity.attrs)}

    def get(self, uid: EntityUid, /) -> Entity | None:
        """The entity, or None."""
        return self._entity if uid == self._uid else self._base.get(uid)

    def ancestors(self, uid: EntityUid, /) -> frozenset[EntityUid]:
        """Everything the entity is in, itself included."""
        if uid == self._uid:
            return self._own
        found = self._base.ancestors(uid)
        return self._walk(uid) if self._uid in found else found

    def known(self, uid: EntityUid, /) -> Known:
        """Ancestors and attributes at once."""
        if uid == self._uid:
            return self.found[uid]
        found = self._base.found.get(uid) or self._base.known(uid)
        if self._uid in found[0]:
            found = (self._walk(uid), found[1])
        elif uid in self._base.found:
            # As in the view below: uids that callers make up must not fill the memory.
            self.found[uid] = found
        return found

    def with_(self, *entities: Entity) -> Entities:
        """This view with some entities added or replaced, for one request."""
        return Entities(entities, base=self)  # type: ignore[arg-type]

    def _walk(self, uid: EntityUid) -> frozenset[EntityUid]:
        return Entities((self._entity,), base=self._base).ancestors(uid)  # type: ignore[arg-type]

"""Standings: what counts when, how long it holds, and that a change is seen whoever told of it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chartgate.app.rolebook import Role, RoleBook, person_entity
from chartgate.app.standing import (
    FOREVER,
    Claims,
    PersonStandings,
    PersonView,
    first_millisecond,
    plain_standing,
)
from chartgate.cedar.entities import Entities, Entity
from chartgate.model.principal import Assignment, EntityUid, Person
from chartgate.targets.entity_store import EntityStore

AT = datetime(2026, 6, 1, tzinfo=UTC)
AT_MS = 1_780_272_000_000
BOOK = RoleBook(
    roles={
        "staff": Role("staff", "", (), "", ()),
        "nurse": Role("nurse", "", ("staff",), "TREAT", ("TREAT",)),
        "clerk": Role("clerk", "", ("staff",), "PAY", ("PAY",)),
    },
    purposes={"TREAT": (), "ETREAT": ("TREAT",), "PAY": ()},
)


def uid(name: str) -> EntityUid:
    return EntityUid("User", name)


def held(role: str, **more: Any) -> Assignment:
    begin = more.pop("begin", AT - timedelta(days=1))
    return Assignment(role, more.pop("department", None), begin, more.pop("until", None), **more)


def person(name: str, *assignments: Assignment, active: bool = True) -> Person:
    return Person(f"uid-{name}", name, name, active, assignments)


def test_what_is_live_counts_from_its_first_millisecond_to_its_last() -> None:
    until = AT + timedelta(seconds=1)
    later = held("clerk", begin=AT + timedelta(microseconds=500))
    people = {"ann": person("ann", held("nurse", until=until), later)}
    standings = PersonStandings(people, BOOK)
    for ms, roles in (
        (-86_400_001, ()),
        (0, ("nurse",)),
        (1, ("clerk", "nurse")),
        (1000, ("clerk",)),
    ):
        standing = standings.standing(uid("ann"), AT_MS + ms)
        assert standing is not None
        assert standing.roles == roles, ms
        assert standing.holds_at(AT_MS + ms)
        live = people["ann"].live(at=AT + timedelta(milliseconds=ms))
        assert standing.assignments == live
    first = standings.standing(uid("ann"), AT_MS)
    assert first is not None
    assert (first.since, first.until) == (AT_MS - 86_400_000, AT_MS + 1)
    assert standings.standing(uid("ann"), AT_MS) is first
    assert standings.standing(uid("ann"), AT_MS + 1) is not first


@pytest.mark.parametrize("micro", [0, 1, 999, 1000, 1001])
def test_a_whole_millisecond_is_after_an_instant_as_the_clock_says(micro: int) -> None:
    instant = AT + timedelta(microseconds=micro)
    for ms in range(4):
        at = AT + timedelta(milliseconds=ms)
        assert (at >= instant) == (AT_MS + ms >= first_millisecond(instant))


def test_nobody_and_a_closed_account_have_no_standing() -> None:
    standings = PersonStandings({"ann": person("ann", held("nurse"), active=False)}, BOOK)
    assert standings.standing(uid("ann"), AT_MS) is None
    assert standings.standing(uid("bob"), AT_MS) is None
    assert standings.standing(EntityUid("Service", "ann"), AT_MS) is None


def test_an_assignment_of_a_role_that_the_policies_do_not_know_counts_for_nothing() -> None:
    standings = PersonStandings({"ann": person("ann", held("nurse"), held("wizard"))}, BOOK)
    standing = standings.standing(uid("ann"), AT_MS)
    assert standing is not None
    assert standing.roles == ("nurse",)
    assert standing.alone == ()


def test_each_assignment_alone_is_there_where_there_are_several() -> None:
    one, other = held("nurse", department="east"), held("clerk", department="west", patient="7")
    ann = person("ann", one, other, one)
    standing = PersonStandings({"ann": ann}, BOOK).standing(uid("ann"), AT_MS)
    assert standing is not None
    assert standing.alone == (person_entity(ann, (one,)), person_entity(ann, (other,)))
    assert standing.entity == person_entity(ann, (one, other, one))
    assert standing.departments == ("east", "west")
    assert standing.held == (("nurse@east", ""), ("clerk@west", "7"), ("nurse@east", ""))
    assert standing.parts == 3


def test_purposes_are_those_of_the_roles_and_narrower_ones() -> None:
    standings = PersonStandings({"ann": person("ann", held("clerk"), held("nurse"))}, BOOK)
    standing = standings.standing(uid("ann"), AT_MS)
    assert standing is not None
    assert standing.default_purpose == "PAY"
    assert standing.purposes == {"PAY", "TREAT", "ETREAT"}
    assert standing.offered == ("PAY", "TREAT")
    empty = PersonStandings({"bob": person("bob")}, BOOK).standing(uid("bob"), AT_MS)
    assert empty is not None
    assert (empty.purposes, empty.default_purpose, empty.until) == (frozenset(), "", FOREVER)


def test_a_changed_person_is_another_whether_or_not_somebody_told() -> None:
    people = {"ann": person("ann", held("nurse"))}
    standings = PersonStandings(people, BOOK)
    before = standings.standing(uid("ann"), AT_MS)
    people["ann"] = person("ann", held("clerk"))
    after = standings.standing(uid("ann"), AT_MS)
    assert before is not after
    assert after is not None
    assert after.roles == ("clerk",)
    people["ann"] = person("ann", active=False)
    standings.forget("ann")
    assert standings.standing(uid("ann"), AT_MS) is None


def test_what_is_kept_is_bounded_by_how_much_there_is_of_it() -> None:
    many = tuple(held("nurse", department=f"d{n}") for n in range(4))
    people = {f"p{n}": person(f"p{n}", *many) for n in range(10)}
    standings = PersonStandings(people, BOOK, most_parts=12)
    made = [standings.standing(uid(f"p{n}"), AT_MS) for n in range(10)]
    assert all(standing is not None and standing.parts == 5 for standing in made)
    assert standings.standing(uid("p9"), AT_MS) is made[9]
    assert standings.standing(uid("p8"), AT_MS) is made[8]
    assert standings.standing(uid("p0"), AT_MS) is not made[0]


def test_names_come_in_order_from_where_the_last_page_ended() -> None:
    people = {name: person(name, active=name != "carl") for name in ("dora", "ann", "carl", "Bea")}
    standings = PersonStandings(people, BOOK)
    assert list(standings.names("User")) == ["Bea", "ann", "dora"]
    assert list(standings.names("User", "ann")) == ["dora"]
    assert list(standings.names("Service")) == []
    people["eve"] = person("eve")
    standings.forget("eve")
    assert list(standings.names("User", "d")) == ["dora", "eve"]


def test_a_view_with_a_person_laid_over_it_is_the_reference_overlay() -> None:
    roles = [
        Entity(EntityUid("Role", "staff")),
        Entity(EntityUid("Role", "nurse"), parents=frozenset({EntityUid("Role", "staff")})),
        Entity(EntityUid("Role", "odd"), parents=frozenset({uid("ann")})),
    ]
    base = EntityStore([*roles, Entity(uid("ann"), {"old": 1}), Entity(uid("bob"))]).view
    ann = person_entity(person("ann"), (held("nurse"),))
    view = PersonView(base, ann)
    reference = Entities((ann,), base=Entities([*roles, Entity(uid("bob"))]))
    for name in (uid("ann"), uid("bob"), uid("none"), *(role.uid for role in roles)):
        assert view.ancestors(name) == reference.ancestors(name)
        assert view.known(name)[0] == reference.ancestors(name)
        found = reference.get(name)
        assert (view.get(name) is None) == (found is None)
        if found is not None:
            assert dict(view.known(name)[1]) == dict(found.attrs)
    assert view.with_(Entity(uid("ann"))).get(uid("ann")) == Entity(uid("ann"))
    assert uid("none") not in view.found


def test_a_stored_entity_stands_with_the_roles_it_is_stored_with() -> None:
    roles = frozenset({EntityUid("Role", "nurse"), EntityUid("Role", "wizard"), uid("boss")})
    standing = plain_standing(Entity(uid("app"), {}, roles), Claims(BOOK))
    assert standing.roles == ("nurse",)
    assert standing.default_purpose == "TREAT"
    assert standing.person is None
    assert standing.holds_at(0)

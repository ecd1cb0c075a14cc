"""The entity store: views that never change, updates that cost what they change."""

from chartgate.cedar.entities import Entity
from chartgate.model.principal import EntityUid
from chartgate.targets.entity_store import EntityStore


def uid(name: str) -> EntityUid:
    return EntityUid("Team", name)


def entity(name: str, *parents: str, **attrs: int) -> Entity:
    return Entity(uid(name), attrs, frozenset(uid(parent) for parent in parents))


def above(store: EntityStore, name: str) -> set[str]:
    return {found.id for found in store.view.ancestors(uid(name))}


def test_ancestors_follow_a_change_in_the_middle_of_the_hierarchy() -> None:
    store = EntityStore([entity("a", "b"), entity("b", "c"), entity("c", "d"), entity("x", "y")])
    assert above(store, "a") == {"a", "b", "c", "d"}
    store.update(entity("c", "x"))
    assert above(store, "a") == {"a", "b", "c", "x", "y"}
    store.remove(uid("b"))
    assert above(store, "a") == {"a", "b"}
    store.update(entity("b", "c"))
    assert above(store, "a") == {"a", "b", "c", "x", "y"}


def test_a_cycle_ends_the_walk() -> None:
    store = EntityStore([entity("a", "b"), entity("b", "a", "b"), entity("z", "a")])
    for name in "ab":
        assert above(store, name) == {"a", "b"}
    assert above(store, "z") == {"z", "a", "b"}
    store.update(entity("b"))
    assert above(store, "z") == {"z", "a", "b"}
    assert above(store, "b") == {"b"}


def test_a_view_keeps_what_it_had() -> None:
    store = EntityStore([entity("a", "b", n=1), entity("b", "c")])
    before = store.view
    store.update(entity("a", "b", n=2), entity("c", "d"), removed=[uid("nobody")])
    after = store.view
    store.remove(uid("a"))
    assert before.get(uid("a")) == entity("a", "b", n=1)
    assert after.get(uid("a")) == entity("a", "b", n=2)
    assert store.view.get(uid("a")) is None
    assert {e.id for e in before.ancestors(uid("a"))} == {"a", "b", "c"}
    assert {e.id for e in after.ancestors(uid("a"))} == {"a", "b", "c", "d"}
    assert store.view.ancestors(uid("a")) == {uid("a")}
    assert before.known(uid("nobody")) == (frozenset({uid("nobody")}), {})
    assert (len(before), len(after), len(store.view)) == (2, 3, 2)
    assert {found.uid.id for found in after} == {"a", "b", "c"}


def test_an_update_copies_what_it_touches_and_shares_the_rest() -> None:
    store = EntityStore(entity(str(n), "team") for n in range(20_000))
    for n in range(0, 20_000, 7):
        store.view.ancestors(uid(str(n)))
    before = store.view
    store.update(entity("7", "team", n=1))
    changed = [a is not b for a, b in zip(before._tables, store.view._tables, strict=True)]
    assert sum(changed) == 1
    # Whoever is not below what changed keeps her ancestors, and they are not worked out again.
    assert store.view.ancestors(uid("14")) is before.ancestors(uid("14"))
    assert store.view.ancestors(uid("7")) is before.ancestors(uid("7"))


def test_an_own_entity_can_be_laid_over_a_view() -> None:
    store = EntityStore([entity("a", "b"), entity("b", "c")])
    laid = store.view.with_(entity("b", "d"))
    assert {found.id for found in laid.ancestors(uid("a"))} == {"a", "b", "d"}
    assert above(store, "a") == {"a", "b", "c"}

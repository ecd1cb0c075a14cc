"""Compiled policies answer as the reference evaluator does: decision, reasons, errors, words.

Sets are larger than a leaf, so that splits, guards and the nodes for missing attributes are used;
the conditions that splits look for are drawn more often than chance would.
"""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chartgate.cedar.authorize import authorize
from chartgate.cedar.entities import Entities, Entity, entities_from_json, record_from_json
from chartgate.cedar.evaluate import Env
from chartgate.cedar.parse import parse_policies
from chartgate.model.principal import EntityUid
from chartgate.targets.compiled import compile_policies
from chartgate.targets.entity_store import EntityStore

pytestmark = pytest.mark.timeout(3600)


def _neighbour(name: str) -> Any:
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"{name}_strategies", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


drawn = _neighbour("test_cedar_agrees_with_cedarpy")


@st.composite
def clauses(draw: st.DrawFn) -> str:
    """A condition of the kinds that splits look up, or any other."""
    one = lambda options: draw(st.sampled_from(options))  # noqa: E731
    uid = lambda: drawn.uid_text(one(drawn.UIDS))  # noqa: E731
    text = lambda: drawn.quoted(one(drawn.STRINGS))  # noqa: E731
    value = lambda: draw(st.sampled_from((uid, uid, text)))()  # noqa: E731, PLW0108
    path = lambda: (  # noqa: E731
        f"{one(('resource', 'resource', 'principal', 'context'))}[{drawn.quoted(one(('who', 's', 'n')))}]"
    )
    return one(
        (
            lambda: f"{path()} == {value()}",
            lambda: f"{path()} == {value()}",
            lambda: f"{value()} == {path()}",
            lambda: f"[{value()}, {value()}, {value()}].contains({path()})",
            lambda: (lambda p: f"{p} == {value()} || {p} == {value()}")(path()),
            lambda: f"{path()} in {uid()}",
            lambda: f"{path()} in [{uid()}, {uid()}]",
            lambda: f"principal in [{uid()}, {uid()}]",
            lambda: f"principal in {uid()} || principal in {uid()}",
            lambda: f"resource in {uid()}",
            lambda: f"{path()} has s && {path()} == {value()}",
            lambda: drawn.boolean(draw, 1),
        )
    )()


@st.composite
def crowds(draw: st.DrawFn) -> list[str]:
    """Enough policies for a tree."""
    found = []
    for _ in range(draw(st.integers(4, 24))):
        parts = draw(st.lists(clauses(), max_size=4))
        uid = drawn.uid_text(draw(st.sampled_from(drawn.UIDS)))
        who = draw(
            st.sampled_from(("", "", f"in {uid}", f"== {uid}", "is Staff", f"is Team in {uid}"))
        )
        what = draw(st.sampled_from(("", "", "", f"in {uid}", f"== {uid}", "is Chart")))
        doing = draw(
            st.sampled_from(
                ("", "", '== Action::"view"', 'in [Action::"read", Action::"x"]', '== Action::"x"')
            )
        )
        effect = draw(st.sampled_from(("permit", "permit", "forbid")))
        body = " ".join(
            f"{draw(st.sampled_from(('when', 'when', 'unless')))} {{ {part} }}" for part in parts
        )
        found.append(f"{effect}(principal {who}, action {doing}, resource {what}) {body};")
    return found


def _agree(
    texts: list[str],
    forms: Any,
    requests: list[tuple[EntityUid, EntityUid, dict[str, Any]]],
    own: Entity | None,
) -> None:
    policies = parse_policies({"p": "\n".join(texts)}, ids="order")
    compiled = compile_policies(policies)
    entities = entities_from_json(forms)
    listed = [e for uid in (*drawn.UIDS, drawn.VIEW) if (e := entities.get(uid)) is not None]
    view = EntityStore(listed).view
    laid = entities if own is None else entities.with_(own)
    for who, what, form in requests:
        context = record_from_json(form, {})
        for hardened in (False, True):
            expected = authorize(
                policies, Env(who, drawn.VIEW, what, context, laid), forbid_error_denies=hardened
            )
            asked = (who, drawn.VIEW, what, context)
            for held in (view, entities):
                answer = compiled.decide(*asked, held, own, forbid_error_denies=hardened)
                assert answer == expected
            assert compiled.decide(*asked, laid, forbid_error_denies=hardened) == expected


REQUESTS = st.lists(st.tuples(drawn.PEOPLE, drawn.PEOPLE, drawn.RECORDS), min_size=1, max_size=3)
OWN = st.none() | st.builds(
    lambda uid, form, parents: Entity(uid, record_from_json(form, {}), frozenset(parents)),
    drawn.PEOPLE,
    drawn.RECORDS,
    st.lists(drawn.PEOPLE, max_size=2),
)


@given(crowds(), drawn.stores(), REQUESTS, OWN)
def test_a_crowd_of_policies_answers_as_the_reference_does(
    texts: list[str], forms: Any, requests: Any, own: Entity | None
) -> None:
    _agree(texts, forms, requests, own)


@given(drawn.POLICIES, drawn.stores(), REQUESTS, OWN)
def test_any_policies_answer_as_the_reference_does(
    texts: list[str], forms: Any, requests: Any, own: Entity | None
) -> None:
    _agree(texts, forms, requests, own)


UID = st.sampled_from([EntityUid("Team", str(number)) for number in range(6)])
CHANGES = st.lists(
    st.tuples(st.booleans(), UID, st.frozensets(UID, max_size=3)), min_size=1, max_size=12
)


@given(st.lists(CHANGES, min_size=1, max_size=6))
def test_every_view_keeps_the_ancestors_of_its_own_moment(batches: Any) -> None:
    store = EntityStore()
    truth: dict[EntityUid, Entity] = {}
    seen = []
    for changes in batches:
        changed = {uid: Entity(uid, {"n": len(seen)}, parents) for _, uid, parents in changes}
        removed = [uid for gone, uid, _ in changes if gone]
        for uid in removed:
            truth.pop(uid, None)
            changed.pop(uid, None)
        truth.update(changed)
        store.update(*changed.values(), removed=removed)
        seen.append((store.view, Entities(truth.values())))
    for view, expected in (*reversed(seen), *seen):
        for number in range(7):
            uid = EntityUid("Team", str(number))
            assert view.ancestors(uid) == expected.ancestors(uid)
            assert view.get(uid) == expected.get(uid)

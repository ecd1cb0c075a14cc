"""What the prover takes the gate to decide is what ``app.levels`` decides, person by person.

Pinned to one person with several assignments, one record and one moment, the formulas of the shipped
policies must have exactly the answer of the reference meaning, for every action.
"""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chartgate.adapters.policy_files import load_policy_version
from chartgate.app.levels import RECORD, Asking, level_of, may_change
from chartgate.app.policy_bundle import PolicyVersion
from chartgate.app.prover import Prover, Target, Who
from chartgate.app.rolebook import person_entity
from chartgate.cedar.schema import Attribute, EntityRef, SetType
from chartgate.cedar.values import CedarSet, DateTime, RecordValue, Value
from chartgate.model.disclosure import VIEW_ACTIONS
from chartgate.model.principal import Assignment, EntityUid, Person
from chartgate.targets.smt.logic import Truth, agree, all_of, both, negated
from chartgate.targets.smt.solve import Nothing
from chartgate.targets.smt.symbols import SymRecord

ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)
ACTIONS = (*VIEW_ACTIONS.values(), "create", "update", "delete", "export")
PLACES = ("oncology", "surgery")
PEOPLE = ("me", "somebody")


@pytest.fixture(scope="module")
def version(project_root: Path) -> PolicyVersion:
    return load_policy_version(project_root / "policies")


@st.composite
def assignments(draw: st.DrawFn, roles: list[str]) -> tuple[Assignment, ...]:
    def one() -> Assignment:
        return Assignment(
            draw(st.sampled_from(roles)),
            draw(st.sampled_from((None, *PLACES))),
            ALWAYS,
            None,
            draw(st.sampled_from((None, "ticket 7"))),
            draw(st.sampled_from((None, "patient 1", "patient 2"))),
        )

    return tuple(one() for _ in range(draw(st.integers(1, 3))))


def values(draw: st.DrawFn, version: PolicyVersion, kind: str) -> EntityUid:
    enum = version.schema.entities[kind].enum if kind in version.schema.entities else None
    pools = {"Department": PLACES, "User": PEOPLE, "Patient": ("patient 1", "patient 2")}
    return EntityUid(kind, draw(st.sampled_from(enum or pools[kind])))


def attribute(draw: st.DrawFn, version: PolicyVersion, of: Attribute) -> Value | None:
    if isinstance(of.type, SetType):
        assert isinstance(of.type.element, EntityRef)
        name = of.type.element.name
        return CedarSet.of(values(draw, version, name) for _ in range(draw(st.integers(0, 2))))
    assert isinstance(of.type, EntityRef)
    if not of.required and draw(st.booleans()):
        return None
    return values(draw, version, of.type.name)


@given(data=st.data())
@settings(max_examples=max(10, settings().max_examples // 4))
def test_pinned_to_a_person_and_a_record_the_formulas_say_what_levels_say(
    version: PolicyVersion, data: st.DataObject
) -> None:
    draw = data.draw
    held = draw(assignments(sorted(version.roles.roles)))
    me = Person("me", "me", "me", True, held)
    declared = version.schema.entities["Record"].attributes
    label = values(draw, version, "Category").id
    found = {
        name: attribute(draw, version, of)  # type: ignore[arg-type]
        for name, of in declared.items()
        if name != "category"
    }
    record = RecordValue([(n, v) for n, v in found.items() if v is not None])
    context = RecordValue(
        [
            (
                "purpose",
                EntityUid("Purpose", draw(st.sampled_from(sorted(version.roles.purposes)))),
            ),
            ("now", DateTime(draw(st.integers(0, 2**42)))),
            ("source", "clinic"),
        ]
    )
    hierarchy = version.roles.entities()
    asking = Asking(
        policies=version.policies,
        entities=hierarchy.with_(person_entity(me, held)),
        principal=EntityUid("User", "me"),
        context=context,
        parts=(hierarchy.with_(person_entity(me, held[:1])),),
    )

    prover = Prover(version, now=ALWAYS, timeout=30)
    question = prover.question(Who(), Target("Record", ACTIONS, (label,)))
    scene, thing = question.scene, question.thing
    encoder = scene.encoder("view", thing, whole=True)

    def pinned(symbols: SymRecord, actual: RecordValue) -> list[Truth]:
        said: list[Truth] = []
        for name, (there, value) in symbols.fields.items():
            if name == "category":
                continue
            said.append(there if name in actual else negated(there))
            if name in actual:
                said.append(scene.shared.sets.equal(value, encoder._literal(actual[name])))
        return said

    def attrs(some: tuple[Assignment, ...]) -> RecordValue:
        return RecordValue(person_entity(me, some).attrs)

    roles = {a.role for a in held}
    pins = all_of(
        [
            scene.universe.same_entity(scene.person.uid, encoder._literal(asking.principal)),  # type: ignore[arg-type]
            scene.universe.same_entity(thing.uid, encoder._literal(RECORD)),  # type: ignore[arg-type]
            *pinned(scene.person.part, attrs(held[:1])),
            *pinned(scene.person.whole, attrs(held)),
            *(agree(t, name == held[0].role) for name, t in scene.person.part_roles.items()),
            *(agree(t, name in roles) for name, t in scene.person.whole_roles.items()),
            *pinned(thing.attributes, record),
            *pinned(scene.context("view"), context),
        ]
    )
    session = scene.session
    assert not isinstance(session.satisfiable(pins, timeout_ms=30_000), Nothing)
    level = level_of(asking, record, label).level
    right = [agree(question.allowed(a), level >= at) for at, a in VIEW_ACTIONS.items()]
    for action in ACTIONS[len(VIEW_ACTIONS) :]:
        allowed = may_change(asking, action, record, (label,)).allowed
        right.append(agree(question.allowed(action), allowed))
    wrong = both(pins, negated(all_of(right)))
    assert isinstance(session.satisfiable(wrong, timeout_ms=30_000), Nothing)

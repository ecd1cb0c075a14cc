"""The engine: hardened decisions, and one step from what was in force to what is."""

import threading
from pathlib import Path

import pytest

from chartgate.adapters.engine_warmup import EngineLoader
from chartgate.adapters.policy_files import load_policy_version
from chartgate.app.engine import Engine, IdTaken, Refusal, Unvalidated, ValidPolicies, validated
from chartgate.cedar.authorize import Answer, authorize
from chartgate.cedar.entities import Entity
from chartgate.cedar.evaluate import Env
from chartgate.cedar.parse import InvalidPolicies, parse_policies, parse_schema
from chartgate.cedar.values import CedarSet, DateTime
from chartgate.errors import Misconfigured
from chartgate.model.principal import EntityUid

SCHEMA = """
entity Role in [Role];
entity User in [Role];
entity Chart = { ward: String, risk: Long };
entity Log;
action reading;
action view in [reading] appliesTo { principal: [User], resource: [Chart], context: { n: Long } };
action audit appliesTo { principal: [User], resource: [Log], context: {} };
"""
ANN = EntityUid("User", "ann")
NURSE = EntityUid("Role", "nurse")
VIEW = EntityUid("Action", "view")
CHART = EntityUid("Chart", "7")


def valid(*texts: str, entities: tuple[Entity, ...] = ()) -> ValidPolicies:
    policies = parse_policies({"p": "\n".join(texts)})
    return validated(policies, parse_schema(SCHEMA, "s"), entities)


def permit(name: str, ward: str = "w", scope: str = 'principal in Role::"nurse"') -> str:
    return (
        f'@id("{name}") permit ({scope}, action in Action::"reading", resource) '
        f'when {{ resource.ward == "{ward}" }};'
    )


NURSES = (Entity(ANN, {}, frozenset({NURSE})), Entity(NURSE))


def ask(engine: Engine, ward: str = "w", n: int = 1, risk: int = 0) -> Answer:
    return engine.decide(ANN, VIEW, CHART, {"n": n}, Entity(CHART, {"ward": ward, "risk": risk}))


def test_a_version_decides_with_its_own_entities_and_those_of_the_house() -> None:
    engine = Engine(valid(permit("p")), NURSES)
    assert ask(engine) == Answer(True, ("p",), ())
    assert ask(engine, "x") == Answer(False, (), ())
    assert engine.entities.get(ANN) is not None


def test_a_forbid_that_fails_denies_and_is_named() -> None:
    overflow = '@id("f") forbid (principal, action == Action::"view", resource) when { context.n * 2 > 5 };'
    engine = Engine(valid(permit("p"), overflow), NURSES)
    assert ask(engine).allowed
    assert ask(engine, n=2**62) == Answer(
        False, ("f",), (("f", "overflow: the result does not fit 64 bits"),)
    )


@pytest.mark.parametrize(
    ("who", "action", "what", "reason"),
    [
        (ANN, EntityUid("Action", "fly"), CHART, "the policies know no such action"),
        (EntityUid("Robot", "r"), VIEW, CHART, "the policies know no such kind of principal"),
        (ANN, VIEW, EntityUid("Ship", "s"), "the policies know no such kind of resource"),
        (ANN, VIEW, EntityUid("Log", "l"), "view does not apply to a Log asked for by a User"),
        (
            ANN,
            EntityUid("Action", "reading"),
            CHART,
            "reading does not apply to a Chart asked for by a User",
        ),
    ],
)
def test_what_the_schema_does_not_allow_to_ask_is_denied_in_words(
    who: EntityUid, action: EntityUid, what: EntityUid, reason: str
) -> None:
    anyone = '@id("any") permit (principal, action, resource);'
    answer = Engine(valid(anyone)).decide(who, action, what, {"n": 1})
    assert answer == Refusal(False, (), (), reason)
    assert not answer.allowed


def test_policies_that_were_not_validated_are_refused_and_nothing_changes() -> None:
    engine = Engine(valid(permit("p")), NURSES)
    before = engine.hash
    bare = parse_policies({"p": '@id("x") permit (principal, action, resource);'})
    for refused in (bare, None, "permit"):
        with pytest.raises(Unvalidated):
            engine.load(refused)  # type: ignore[arg-type]
        with pytest.raises(Misconfigured):
            Engine(refused)  # type: ignore[arg-type]
    with pytest.raises(InvalidPolicies):
        valid('@id("x") permit (principal, action, resource) when { resource.wrd == "w" };')
    assert engine.hash == before
    assert ask(engine).allowed


def test_nothing_of_a_new_version_counts_before_its_last_step() -> None:
    engine = Engine(valid(permit("old")), NURSES)
    new = valid(permit("new"), *(permit(f"n{n}", f"ward{n}") for n in range(30)))
    steps = 0
    for _ in engine.loading(new):
        steps += 1
        assert ask(engine).determining == ("old",)
    assert steps > 3
    assert ask(engine).determining == ("new",)
    assert engine.hash == new.hash


def test_the_roles_of_a_version_change_with_its_policies() -> None:
    senior = EntityUid("Role", "senior")
    old = valid(permit("p"), entities=(Entity(senior, {}, frozenset({NURSE})), Entity(NURSE)))
    new = valid(permit("p"), entities=(Entity(NURSE),))
    engine = Engine(old, [Entity(ANN, {}, frozenset({senior}))])
    assert ask(engine).allowed
    engine.load(new)
    assert not ask(engine).allowed
    assert engine.entities.get(senior) is None
    engine.load(old)
    assert ask(engine).allowed


def test_an_entity_changes_for_the_next_decision() -> None:
    engine = Engine(valid(permit("p")), NURSES)
    engine.update(Entity(ANN))
    assert not ask(engine).allowed
    engine.update(Entity(ANN, {}, frozenset({NURSE})))
    assert ask(engine).allowed
    engine.update(removed=[ANN])
    assert not ask(engine).allowed


def granted(name: str, ward: str = "x") -> list:
    text = permit(name, ward, 'principal == User::"ann"')
    return list(parse_policies({"g": text}).policies)


def test_a_grant_counts_beside_every_version_until_it_is_revoked() -> None:
    engine = Engine(valid(permit("p")), NURSES)
    engine.grant(*granted("g"))
    assert ask(engine, "x").determining == ("g",)
    engine.load(valid(permit("q")))
    assert ask(engine, "x").determining == ("g",)
    assert engine.revoke("g")
    assert not ask(engine, "x").allowed


def test_a_grant_is_held_against_the_schema_and_its_id_against_the_policies() -> None:
    engine = Engine(valid(permit("p")), NURSES)
    text = '@id("g") permit (principal == User::"ann", action, resource) when { resource.nothing };'
    with pytest.raises(InvalidPolicies):
        engine.grant(*parse_policies({"g": text}).policies)
    with pytest.raises(IdTaken):
        engine.grant(*granted("p"))
    engine.grant(*granted("g"))
    with pytest.raises(IdTaken):
        engine.load(valid(permit("g")))
    assert ask(engine).determining == ("p",)


def test_a_grant_given_while_a_version_warms_up_is_held_against_it_too() -> None:
    engine = Engine(valid(permit("p")), NURSES)
    steps = engine.loading(valid(permit("late")))
    next(steps)
    engine.grant(*granted("late"))
    with pytest.raises(IdTaken):
        list(steps)
    assert ask(engine).determining == ("p",)


def test_the_shipped_policies_are_decided_as_the_reference_decides(project_root: Path) -> None:
    version = load_policy_version(project_root / "policies")
    people = [
        Entity(
            EntityUid("User", role),
            {
                "departments": CedarSet.of([EntityUid("Department", "oncology")]),
                "references": CedarSet.of([]),
            },
            frozenset({EntityUid("Role", role)}),
        )
        for role in version.roles.roles
    ]
    engine = Engine(version, people)
    allowed = 0
    for person in people:
        for label in version.schema.entities["Category"].enum or ():
            record = Entity(
                EntityUid("Record", "asked"),
                {
                    "category": EntityUid("Category", label),
                    "departments": CedarSet.of([EntityUid("Department", "oncology")]),
                    "care_team": CedarSet.of([person.uid]),
                },
            )
            for action in ("view", "view_masked", "update", "delete"):
                for purpose in ("TREAT", "HPAYMT"):
                    context = {
                        "purpose": EntityUid("Purpose", purpose),
                        "now": DateTime(0),
                        "source": "hospital",
                    }
                    asked = (person.uid, EntityUid("Action", action), record.uid, context)
                    answer = engine.decide(*asked, record)
                    env = Env(*asked, engine.entities.with_(record))
                    assert answer == authorize(version.policies, env, forbid_error_denies=True)
                    allowed += answer.allowed
    assert allowed > 50


def test_answers_during_swaps_are_of_one_version_or_the_other_entirely() -> None:
    versions = {
        name: valid(
            *(permit(f"{name}{n}") for n in range(12)),
            *(permit(f"{name}x{n}", "x") for n in range(9)),
        )
        for name in ("old", "new")
    }
    whole = {tuple(f"{name}{n}" for n in range(12)) for name in versions}
    engine = Engine(versions["old"], NURSES)
    wrong: list[Answer] = []
    counted = 0
    done = threading.Event()

    def work() -> None:
        nonlocal counted
        while not done.is_set():
            answer = ask(engine)
            counted += 1
            if answer.determining not in whole or not answer.allowed or answer.errors:
                wrong.append(answer)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    with EngineLoader(engine) as loader:
        for number in range(30):
            loader.load(versions["new" if number % 2 == 0 else "old"]).result(30)
            engine.update(Entity(ANN, {}, frozenset({NURSE, EntityUid("Role", str(number))})))
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert counted > 0


def test_a_refused_version_is_told_by_its_future_and_the_loader_goes_on() -> None:
    engine = Engine(valid(permit("p")), NURSES)
    with EngineLoader(engine) as loader:
        bad = loader.load(parse_policies({"p": permit("x")}))  # type: ignore[arg-type]
        good = loader.load(valid(permit("q")))
        assert isinstance(bad.exception(30), Unvalidated)
        assert good.result(30) is None
    assert ask(engine).determining == ("q",)

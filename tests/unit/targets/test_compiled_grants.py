"""Grants beside a compiled set: one person's, decided with everything else, ended at once."""

import pytest

from chartgate.cedar.authorize import Answer
from chartgate.cedar.entities import Entities, Entity
from chartgate.cedar.parse import parse_policies
from chartgate.model.principal import EntityUid
from chartgate.targets.compiled import compile_policies
from chartgate.targets.compiled_grants import Grants, NotAGrant

ANN, BEN = EntityUid("User", "ann"), EntityUid("User", "ben")
VIEW, CHART = EntityUid("Action", "view"), EntityUid("Chart", "7")


def policies(*texts: str) -> list:
    return list(parse_policies({"p": "\n".join(texts)}).policies)


def grant(name: str, who: str, effect: str = "permit", when: str = "true") -> str:
    return (
        f'@id("{name}") {effect} (principal == User::"{who}", action == Action::"view", resource) '
        f"when {{ {when} }};"
    )


def ask(decider, who: EntityUid, entities: Entities | None = None) -> Answer:
    held = Entities() if entities is None else entities
    return decider.decide(who, VIEW, CHART, {}, held, forbid_error_denies=True)


def test_a_grant_allows_its_person_alone_until_it_is_ended() -> None:
    decider = compile_policies(
        policies('@id("base") permit (principal, action, resource in Chart::"x");')
    )
    decider.grants.add(*policies(grant("g1", "ann")))
    assert ask(decider, ANN) == Answer(True, ("g1",), ())
    assert ask(decider, BEN) == Answer(False, (), ())
    assert decider.grants.remove("g1")
    assert not decider.grants.remove("g1")
    assert ask(decider, ANN) == Answer(False, (), ())
    assert len(decider.grants) == 0


def test_a_base_forbid_beats_a_grant_and_a_granted_forbid_beats_a_base_permit() -> None:
    base = policies(
        '@id("open") permit (principal, action, resource);',
        '@id("shut") forbid (principal, action, resource) when { resource.shut };',
    )
    decider = compile_policies(base)
    decider.grants.add(*policies(grant("g1", "ann"), grant("g2", "ann", "forbid", "context.x")))
    shut = Entities([Entity(CHART, {"shut": True})])
    open_ = Entities([Entity(CHART, {"shut": False})])
    answer = ask(decider, ANN, shut)
    assert answer.determining == ("shut", "g2")
    assert answer.errors == (("g2", "missing_attribute: no attribute 'x'"),)
    assert ask(decider, BEN, open_) == Answer(True, ("open",), ())
    assert decider.grants.remove("g2")
    assert ask(decider, ANN, open_) == Answer(True, ("open", "g1"), ())


def test_many_grants_of_one_person_are_told_in_their_order() -> None:
    decider = compile_policies([])
    decider.grants.add(*policies(*(grant(f"g{n}", "ann") for n in range(9))))
    assert decider.grants.remove("g4")
    assert ask(decider, ANN).determining == tuple(f"g{n}" for n in range(9) if n != 4)
    assert [p.id for p in decider.grants.policies()] == [f"g{n}" for n in range(9) if n != 4]


def test_what_names_no_single_person_is_no_grant() -> None:
    grants = Grants()
    for scope in ("principal", 'principal in Role::"r"', "principal is User"):
        text = f'@id("g") permit ({scope}, action, resource);'
        with pytest.raises(NotAGrant, match="a grant names one principal"):
            grants.add(*policies(grant("fine", "ann"), text))
    assert len(grants) == 0
    [template] = parse_policies(
        {"p": '@id("t") permit (principal == ?principal, action, resource);'}, templates=True
    ).policies
    with pytest.raises(NotAGrant):
        grants.add(template)


def test_an_id_is_granted_once() -> None:
    grants = Grants()
    grants.add(*policies(grant("g", "ann")))
    with pytest.raises(NotAGrant, match="there is such a grant"):
        grants.add(*policies(grant("g", "ben")))
    assert "g" in grants
    assert BEN not in grants.held


def test_grants_outlive_the_set_they_were_given_beside() -> None:
    grants = Grants()
    grants.add(*policies(grant("g", "ann")))
    for _ in range(2):
        assert ask(compile_policies([], grants=grants), ANN).determining == ("g",)

"""The prover's reading of a policy is the reference evaluator's, on random well-typed policies.

Two directions: pinned to one concrete request, the formulas say what the evaluator says, value and
error; and over all requests, what is proved holds for every request drawn, while what is refuted
comes with a request that the evaluator confirms (never with one that falls).
"""

from dataclasses import dataclass

from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from chartgate.cedar.ast import Policy
from chartgate.cedar.authorize import authorize
from chartgate.cedar.entities import entities_from_json
from chartgate.cedar.evaluate import Env, EvaluationError, evaluate
from chartgate.cedar.parse import parse_policies
from chartgate.model.principal import EntityUid
from chartgate.targets.smt.analysis import Analysis, Proved, Refuted
from chartgate.targets.smt.encode import Encoder
from chartgate.targets.smt.logic import Truth, agree, all_of, both, negated
from chartgate.targets.smt.requests import AnyRequest, RequestKind, uses_texts
from chartgate.targets.smt.sets import Sets
from chartgate.targets.smt.solve import Nothing, Unknown, satisfiable
from chartgate.targets.smt.symbols import SymEntity, Unencodable
from chartgate.targets.smt.universe import Universe
from chartgate.targets.smt.worlds import AnyWorld
from strategies.cedar import Case, cases
from strategies.cedar_world import Draw, record_form, uids_of

SPURIOUS = "the solver's counterexample did not stand up to evaluation"


@dataclass(frozen=True)
class Whole:
    """A request in which every entity that can be mentioned is stored, as proofs assume."""

    env: Env
    stored: tuple[EntityUid, ...]


@st.composite
def whole_cases(draw: st.DrawFn, most: int = 2) -> tuple[Case, tuple[Policy, ...], list[Whole]]:
    case = draw(cases(most=most, worlds=2, templates=False))
    assume(case.text)
    d = Draw.of(draw)
    wholes = []
    for world in case.worlds:
        forms = list(world.forms)
        known = {EntityUid(form["uid"]["type"], form["uid"]["id"]) for form in forms}
        for name, declared in case.schema.entities.items():
            for uid in uids_of(case.schema, name):
                if uid not in known and declared.enum is None:
                    attrs = record_form(d, case.schema, declared.attributes)
                    forms.append({"uid": uid._asdict(), "attrs": attrs, "parents": []})
                    known.add(uid)
        e = world.env
        store = entities_from_json(forms, case.schema)
        env = Env(e.principal, e.action, e.resource, e.context, store)
        wholes.append(Whole(env, tuple(sorted(known))))
    return case, parse_policies({"case": case.text}, ids="order").policies, wholes


def _kind(env: Env) -> RequestKind:
    return RequestKind(env.principal.type, env.action, env.resource.type)


def _outcome(policy: Policy, env: Env) -> tuple[bool, bool]:
    try:
        return evaluate(policy.condition(), env) is True, False
    except EvaluationError:
        return False, True


def _pinned(
    universe: Universe, encoder: Encoder, sets: Sets, request: AnyRequest, whole: Whole
) -> Truth:
    """That the request and its entities are these."""
    env, asked = whole.env, request.asked
    world = asked.world
    assert isinstance(world, AnyWorld)
    said: list[Truth] = [
        universe.same_entity(asked.principal, universe.entity(env.principal)),
        universe.same_entity(asked.resource, universe.entity(env.resource)),
        sets.equal(asked.context, encoder._literal(env.context)),
    ]
    for uid in whole.stored:
        entity, symbol = env.entities.get(uid), universe.entity(uid)
        assert entity is not None
        for name in universe.schema.entities[uid.type].attributes:
            field = world.attribute(symbol, name)
            assert field is not None
            if name in entity.attrs:
                said.append(field[0])
                said.append(sets.equal(field[1], encoder._literal(entity.attrs[name])))
            else:
                said.append(negated(field[0]))
        if universe.schema.entities[uid.type].tags is not None:
            said += _pinned_tags(universe, encoder, sets, world, symbol, dict(entity.tags))
    for child in whole.stored:
        for parent in whole.stored:
            within = universe.within(universe.entity(child), universe.entity(parent))
            said.append(agree(within, parent in env.entities.ancestors(child)))
    return all_of(said)


def _pinned_tags(
    universe: Universe,
    encoder: Encoder,
    sets: Sets,
    world: AnyWorld,
    symbol: SymEntity,
    tags: dict,
) -> list[Truth]:
    said: list[Truth] = []
    asked = [name for _, names in world.tagged.values() for name in names]
    # A tag whose name is worked out is pinned by the names that it can have in this world.
    literal = {name.term for name in asked if isinstance(name.term, str)} | set(tags)
    assume(all(isinstance(name.term, str) for name in asked))
    for name in sorted(literal):
        found = world.tag(symbol, encoder._literal(name))
        assert found is not None
        said.append(agree(found[0], name in tags))
        if name in tags:
            said.append(sets.equal(found[1], encoder._literal(tags[name])))
    return said


@given(whole_cases())
@settings(max_examples=max(10, settings().max_examples // 4))
def test_pinned_to_a_request_the_formulas_say_what_the_evaluator_says(
    drawn: tuple[Case, tuple[Policy, ...], list[Whole]],
) -> None:
    case, policies, wholes = drawn
    for whole in wholes:
        universe = Universe(
            case.schema, {}, texts=uses_texts(policy.condition() for policy in policies)
        )
        sets = Sets(universe)
        try:
            request = AnyRequest(universe, _kind(whole.env))
            encoder = Encoder(universe, sets, request.asked)
            said = [encoder.holds(policy.condition()) for policy in policies]
            pinned = _pinned(universe, encoder, sets, request, whole)
        except Unencodable as reason:
            event(f"not translated: {reason}")
            continue
        event("translated")
        found = satisfiable(universe, pinned, timeout_ms=20_000)
        assert not isinstance(found, Nothing), "no request is like the one that was drawn"
        wrong = [
            both(agree(true, actual[0]), agree(fails, actual[1]))
            for policy, (true, fails) in zip(policies, said, strict=True)
            for actual in [_outcome(policy, whole.env)]
        ]
        other = satisfiable(universe, both(pinned, negated(all_of(wrong))), timeout_ms=20_000)
        assert isinstance(other, Nothing | Unknown), case


@given(whole_cases(most=3), st.sampled_from(("implies", "equivalent", "disjoint")))
def test_what_is_proved_holds_for_every_request_and_what_is_refuted_falls_for_one(
    drawn: tuple[Case, tuple[Policy, ...], list[Whole]], question: str
) -> None:
    case, policies, wholes = drawn
    left, right = policies[:1], policies[1:]
    verdict = getattr(Analysis(case.schema, _kind(wholes[0].env)), question)(left, right)
    event(f"{question}: {type(verdict).__name__}")
    if isinstance(verdict, Unknown):
        event(verdict.why)
        assert verdict.why != SPURIOUS, case
    asked = [w.env for w in wholes if _kind(w.env) == _kind(wholes[0].env)]
    if isinstance(verdict, Refuted):
        assert _breaks(question, left, right, verdict.request)
    elif isinstance(verdict, Proved):
        assert not any(_breaks(question, left, right, env) for env in asked), case


def _breaks(question: str, left: tuple[Policy, ...], right: tuple[Policy, ...], env: Env) -> bool:
    one, other = (authorize(p, env, forbid_error_denies=False).allowed for p in (left, right))
    if question == "implies":
        return one and not other
    return one is not other if question == "equivalent" else one and other

"""Compiled, reference and cedarpy: one answer to well-typed policies, however the entities are held.

Crowds of policies share literals here, so that the compiled tree splits on attributes and on the
principal's groups; templates have been linked.
"""

from collections.abc import Iterator

import pytest
from hypothesis import given

from chartgate.cedar.ast import PolicySet
from chartgate.cedar.authorize import Answer, authorize
from chartgate.cedar.entities import Entities
from chartgate.cedar.evaluate import Env
from chartgate.cedar.parse import parse_policies
from chartgate.cedar.templates import with_links
from chartgate.cedar.values import RecordValue
from chartgate.model.principal import EntityUid
from chartgate.targets.compiled import compile_policies
from chartgate.targets.entity_store import EntityStore
from strategies.cedar import Case, cases
from strategies.cedar_world import World

pytestmark = pytest.mark.timeout(7200)


def every_way(policies: PolicySet, world: World, *, hard: bool) -> Iterator[tuple[str, Answer]]:
    """The compiled answer with each way to hold the entities and to know the actions."""
    env = world.env
    groups = {uid: env.entities.ancestors(uid) for uid in world.schema.actions}
    stored = world.entities
    resource = env.entities.get(env.resource)
    others = [entity for entity in stored if entity.uid != env.resource]
    for kind, compiled in (
        ("free actions", compile_policies(policies)),
        ("fixed actions", compile_policies(policies, actions=groups)),
    ):
        held = [("plain", env.entities, None), ("store", EntityStore(stored).view, None)]
        if resource is not None:
            held.append(("plain, own", Entities(others), resource))
            held.append(("store, own", EntityStore(others).view, resource))
        for name, entities, own in held:
            yield (
                f"{kind}, {name}",
                compiled.decide(
                    env.principal, env.action, env.resource, env.context, entities, own,
                    forbid_error_denies=hard,
                ),
            )  # fmt: skip


def disagreements(policies: PolicySet, world: World) -> list[str]:
    wrong = []
    for hard in (False, True):
        wanted = authorize(policies, world.env, forbid_error_denies=hard)
        for name, answer in every_way(policies, world, hard=hard):
            if answer != wanted:
                wrong.append(f"{name}, hard={hard}: {answer} is not {wanted}")
    return wrong


@given(cases(most=16))
def test_the_compiled_answer_is_the_reference_answer(case: Case) -> None:
    policies = parse_policies({"p": case.text}, ids="order", templates=True)
    linked = with_links(policies, case.links, case.schema)
    for world in case.worlds:
        assert disagreements(linked, world) == []


# Found by drawing, kept as they were found: (condition, context).
FOUND = [
    # The context alone has a name of one letter and is no entity.
    ("[{}].contains(context)", {}),
    ("[{a: 1}].contains(context)", {"a": 1}),
    ("[{a: 1}].contains(context)", {"a": 2}),
    ("[{a: 1}, {a: 2}].containsAny([context])", {"a": 2}),
]


@pytest.mark.parametrize(("condition", "context"), FOUND)
def test_what_was_once_answered_otherwise(condition: str, context: dict[str, int]) -> None:
    text = f"permit (principal, action, resource) when {{ {condition} }};"
    policies = parse_policies({"p": text}, ids="order")
    who = (EntityUid("User", "a"), EntityUid("Action", "view"), EntityUid("Rec", "r"))
    env = Env(*who, RecordValue(context), Entities())
    for form in (RecordValue(context), context):
        answer = compile_policies(policies).decide(
            *who, form, Entities(), None, forbid_error_denies=False
        )
        assert answer == authorize(policies, env, forbid_error_denies=False)

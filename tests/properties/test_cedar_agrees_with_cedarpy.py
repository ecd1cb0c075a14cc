"""Random policies over random entities: our answer is cedarpy's, in decision, reasons and errors.

Policies are drawn as text, typed most of the time and ill-typed in places, so that parsing is
under test too. The laws of authorization follow, on the same policies.
"""

import json
import re
from typing import Any

import cedarpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chartgate.cedar.authorize import Answer, authorize
from chartgate.cedar.entities import Entities, entities_from_json, record_from_json
from chartgate.cedar.evaluate import Env
from chartgate.cedar.parse import parse_policies, policy_set
from chartgate.model.principal import EntityUid

# Twenty thousand nightly examples take longer than a test may otherwise.
pytestmark = pytest.mark.timeout(3600)

TYPES = ("Staff", "Team", "Chart")
IDS = ("a", "b", 'q"\\', "\u0001é")
UIDS = [EntityUid(t, i) for t in TYPES for i in IDS]
ATTRS = ("n", "s", "flag", "who", "many", "rec", "when", "price", "addr", "span", "odd name")

LONGS = (0, 1, -1, 2, 7, 2**31, 2**63 - 1, -(2**63))
STRINGS = ("", "a", "ab", "a*b", "x\ny", "é𝒳", '"', "n", "odd name")
PATTERNS = ("*", "", "a*", "*b", r"a\*b", "*a*b*", "x*y", "é*")
KINDS = (
    "bool",
    "long",
    "string",
    "entity",
    "set",
    "record",
    "decimal",
    "ip",
    "datetime",
    "duration",
)
DECIMALS = ("0.0", "1.5", "-1.5", "1.50", "922337203685477.5807", "1.23456", "x")
IPS = ("10.0.0.1", "10.0.0.0/8", "127.0.0.1", "::1", "ff02::1/8", "::/0", "224.0.0.0/3", "1.2.3")
DATETIMES = (
    "2026-01-01",
    "0000-02-29",
    "2026-01-01T10:00:00.123+0130",
    "1969-12-31T23:59:59Z",
    "2026",
)
DURATIONS = ("0ms", "1d2h", "-1h", "9223372036854775807ms", "-9223372036854775808ms", "1h1d")


def quoted(text: str) -> str:
    """A Cedar string literal."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return '"' + "".join(c if c.isprintable() else f"\\u{{{ord(c):x}}}" for c in escaped) + '"'


def uid_text(uid: EntityUid) -> str:
    return f"{uid.type}::{quoted(uid.id)}"


def leaf(draw: st.DrawFn, kind: str) -> str:
    one = lambda options: draw(st.sampled_from(options))  # noqa: E731
    attribute = f"{one(('principal', 'resource', 'context'))}[{quoted(one(ATTRS))}]"
    if draw(st.integers(0, 3)) == 0:
        return attribute
    match kind:
        case "bool":
            return one(("true", "false"))
        case "long":
            return f"({one(LONGS)})"
        case "string":
            return quoted(one(STRINGS))
        case "entity":
            return one(("principal", "resource", "action", uid_text(one(UIDS))))
        case "decimal":
            return f"decimal({quoted(one(DECIMALS))})"
        case "ip":
            return f"ip({quoted(one(IPS))})"
        case "datetime":
            return f"datetime({quoted(one(DATETIMES))})"
        case "duration":
            return f"duration({quoted(one(DURATIONS))})"
        case "set":
            return one(("[]", "[1, true]", '["a", "a"]', "[principal]"))
        case _:
            return one(("{}", "context", "{n: 1}", '{"odd name": true, s: "a"}'))


def term(draw: st.DrawFn, kind: str, depth: int) -> str:
    one = lambda options: draw(st.sampled_from(options))  # noqa: E731
    # One in twelve operands is of any type: errors must agree as well as values.
    if draw(st.integers(0, 11)) == 0:
        kind = one(KINDS)
    if depth == 0:
        return leaf(draw, kind)
    sub = lambda k: term(draw, k, depth - 1)  # noqa: E731
    if draw(st.integers(0, 9)) == 0:
        return f"(if {sub('bool')} then {sub(kind)} else {sub(kind)})"
    match kind:
        case "bool":
            return boolean(draw, depth)
        case "long":
            return one(
                (
                    lambda: f"({sub('long')} {one('+-*')} {sub('long')})",
                    lambda: f"(-{sub('long')})",
                    lambda: (
                        f"{sub('duration')}.{one(('toMilliseconds', 'toSeconds', 'toMinutes', 'toHours', 'toDays'))}()"
                    ),
                )
            )()
        case "set":
            items = ", ".join(sub(one(KINDS)) for _ in range(draw(st.integers(0, 3))))
            return f"[{items}]"
        case "record":
            names = draw(st.lists(st.sampled_from(ATTRS), unique=True, max_size=3))
            members = ", ".join(f"{quoted(n)}: {sub(one(KINDS))}" for n in names)
            return "{" + members + "}"
        case "datetime":
            return one(
                (
                    lambda: f"{sub('datetime')}.offset({sub('duration')})",
                    lambda: f"{sub('datetime')}.toDate()",
                )
            )()
        case "duration":
            return one(
                (
                    lambda: f"{sub('datetime')}.durationSince({sub('datetime')})",
                    lambda: f"{sub('datetime')}.toTime()",
                )
            )()
        case "string" | "decimal" | "ip" | "entity":
            return one(
                (
                    lambda: leaf(draw, kind),
                    lambda: f"{sub('record')}[{quoted(one(ATTRS))}]",
                    lambda: f"{sub('entity')}.getTag({sub('string')})",
                )
            )()
    return leaf(draw, kind)


def boolean(draw: st.DrawFn, depth: int) -> str:
    one = lambda options: draw(st.sampled_from(options))  # noqa: E731
    sub = lambda k: term(draw, k, depth - 1)  # noqa: E731
    ordered = one(("long", "datetime", "duration"))
    same = one(KINDS)
    return one(
        (
            lambda: f"({sub('bool')} && {sub('bool')})",
            lambda: f"({sub('bool')} || {sub('bool')})",
            lambda: f"(!{sub('bool')})",
            lambda: f"({sub(same)} {one(('==', '!='))} {sub(same)})",
            lambda: f"({sub(ordered)} {one(('<', '<=', '>', '>='))} {sub(ordered)})",
            lambda: f"({sub('entity')} in {sub('entity')})",
            lambda: f"({sub('entity')} in [{sub('entity')}, {sub('entity')}])",
            lambda: f"({sub(one(('entity', 'record')))} has {quoted(one(ATTRS))})",
            lambda: f"({sub('record')} has rec.n)",
            lambda: f'({sub("string")} like "{one(PATTERNS)}")',
            lambda: f"({sub('entity')} is {one(TYPES)})",
            lambda: f"({sub('entity')} is {one(TYPES)} in {sub('entity')})",
            lambda: f"{sub('set')}.contains({sub(same)})",
            lambda: f"{sub('set')}.{one(('containsAll', 'containsAny'))}({sub('set')})",
            lambda: f"{sub('set')}.isEmpty()",
            lambda: f"{sub('entity')}.hasTag({sub('string')})",
            lambda: (
                f"{sub('decimal')}.{one(('lessThan', 'lessThanOrEqual', 'greaterThan', 'greaterThanOrEqual'))}({sub('decimal')})"
            ),
            lambda: f"{sub('ip')}.{one(('isIpv4', 'isIpv6', 'isLoopback', 'isMulticast'))}()",
            lambda: f"{sub('ip')}.isInRange({sub('ip')})",
        )
    )()


@st.composite
def policy_texts(draw: st.DrawFn) -> str:
    """One policy with a scope and up to two clauses."""
    one = lambda options: draw(st.sampled_from(options))  # noqa: E731
    uid = lambda: uid_text(one(UIDS))  # noqa: E731

    def scope(name: str) -> str:
        return one(
            (
                lambda: name,
                lambda: name,
                lambda: f"{name} == {uid()}",
                lambda: f"{name} in {uid()}",
                lambda: f"{name} is {one(TYPES)}",
                lambda: f"{name} is {one(TYPES)} in {uid()}",
            )
        )()

    action = one(
        (
            "action",
            "action",
            'action == Action::"view"',
            'action in [Action::"read"]',
            "action in []",
        )
    )
    clauses = " ".join(
        f"{one(('when', 'unless'))} {{ {term(draw, 'bool', draw(st.integers(0, 3)))} }}"
        for _ in range(draw(st.integers(0, 2)))
    )
    effect = one(("permit", "permit", "forbid"))
    return f"{effect}({scope('principal')}, {action}, {scope('resource')}) {clauses};"


def extension(fn: str, argument: str) -> dict[str, Any]:
    return {"__extn": {"fn": fn, "arg": argument}}


def entity(uid: EntityUid) -> dict[str, Any]:
    return {"__entity": {"type": uid.type, "id": uid.id}}


SCALARS = st.one_of(
    st.booleans(),
    st.sampled_from(LONGS),
    st.sampled_from(STRINGS),
    st.sampled_from(UIDS).map(entity),
    st.sampled_from(DECIMALS[:5]).map(lambda s: extension("decimal", s)),
    st.sampled_from(IPS[:7]).map(lambda s: extension("ip", s)),
    st.sampled_from(DATETIMES[:4]).map(lambda s: extension("datetime", s)),
    st.sampled_from(DURATIONS[:5]).map(lambda s: extension("duration", s)),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(ATTRS), inner, max_size=3)
    ),
    max_leaves=4,
)
RECORDS = st.dictionaries(st.sampled_from(ATTRS), VALUES, max_size=6)


@st.composite
def stores(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Entities without cycles; some of the possible uids stay absent, also as parents."""
    present = draw(st.lists(st.sampled_from(UIDS), unique=True, max_size=8))
    forms = []
    for uid in present:
        above = UIDS[UIDS.index(uid) + 1 :]
        parents = draw(st.lists(st.sampled_from(above), unique=True, max_size=3)) if above else []
        form = {
            "uid": uid._asdict(),
            "attrs": draw(RECORDS),
            "parents": [parent._asdict() for parent in parents],
        }
        if draw(st.booleans()):
            form["tags"] = draw(st.dictionaries(st.sampled_from(STRINGS), VALUES, max_size=3))
        forms.append(form)
    view = {"type": "Action", "id": "view"}
    forms.append({"uid": view, "attrs": {}, "parents": [{"type": "Action", "id": "read"}]})
    return forms


POLICIES = st.lists(policy_texts(), max_size=4)
PEOPLE = st.sampled_from(UIDS)
VIEW = EntityUid("Action", "view")


def environment(who: EntityUid, what: EntityUid, context: Any, forms: Any) -> Env:
    entities = entities_from_json(forms) if forms else Entities()
    return Env(who, VIEW, what, record_from_json(context, {}), entities)


@given(POLICIES, PEOPLE, PEOPLE, RECORDS, stores())
def test_decision_reasons_and_errors_are_those_of_cedarpy(
    texts: list[str],
    who: EntityUid,
    what: EntityUid,
    context: dict[str, Any],
    forms: list[dict[str, Any]],
) -> None:
    text = "\n".join(texts)
    env = environment(who, what, context, forms)
    ours = authorize(parse_policies({"p": text}, ids="order"), env, forbid_error_denies=False)
    request = {
        "principal": who._asdict(),
        "action": VIEW._asdict(),
        "resource": what._asdict(),
        "context": context,
    }
    theirs = cedarpy.is_authorized(request, text, json.dumps(forms))
    failed = [
        re.match(r"error while evaluating policy `([^`]+)`", e) for e in theirs.diagnostics.errors
    ]
    assert None not in failed, theirs.diagnostics.errors
    assert ours.allowed == theirs.allowed
    assert set(ours.determining) == set(theirs.diagnostics.reasons)
    assert {i for i, _ in ours.errors} == {found.group(1) for found in failed if found}


def answers(texts: list[str], env: Env) -> tuple[Answer, Answer]:
    """Pure Cedar's answer, and the one at an enforcement point."""
    policies = parse_policies({"p": "\n".join(texts)}, ids="order")
    return (
        authorize(policies, env, forbid_error_denies=False),
        authorize(policies, env, forbid_error_denies=True),
    )


@given(PEOPLE, PEOPLE, RECORDS, stores())
def test_nothing_is_allowed_without_a_policy(
    who: EntityUid, what: EntityUid, context: Any, forms: Any
) -> None:
    for answer in answers([], environment(who, what, context, forms)):
        assert answer == Answer(False, (), ())


@given(POLICIES, policy_texts(), PEOPLE, PEOPLE, RECORDS, stores())
def test_adding_a_forbid_never_allows_more(
    texts: list[str], more: str, who: EntityUid, what: EntityUid, context: Any, forms: Any
) -> None:
    env = environment(who, what, context, forms)
    forbid = "forbid" + more.removeprefix("permit").removeprefix("forbid")
    for before, after in zip(answers(texts, env), answers([*texts, forbid], env), strict=True):
        assert before.allowed or not after.allowed


@given(POLICIES, PEOPLE, PEOPLE, RECORDS, stores())
def test_an_allow_rests_on_permits_alone_and_the_hardening_only_denies(
    texts: list[str], who: EntityUid, what: EntityUid, context: Any, forms: Any
) -> None:
    pure, hard = answers(texts, environment(who, what, context, forms))
    effect = {f"policy{i}": text.split("(")[0] for i, text in enumerate(texts)}
    for answer in (pure, hard):
        wanted = "permit" if answer.allowed else "forbid"
        assert {effect[i] for i in answer.determining} <= {wanted}
        assert bool(answer.determining) or not answer.allowed
    assert pure.allowed or not hard.allowed
    failed_forbids = {i for i, _ in hard.errors if effect[i] == "forbid"}
    assert failed_forbids <= set(hard.determining)
    assert not (hard.allowed and failed_forbids)


@given(POLICIES, st.randoms())
def test_the_hash_does_not_depend_on_order(texts: list[str], random: Any) -> None:
    policies = list(parse_policies({"p": "\n".join(texts)}, ids="order").policies)
    before = policy_set(policies).hash
    random.shuffle(policies)
    assert policy_set(policies).hash == before

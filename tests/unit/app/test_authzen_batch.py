"""Several questions in one request: defaults, bad items in place, the three semantics."""

import json
from typing import Any

import pytest

from chartgate.app.authzen import answers
from chartgate.app.authzen_batch import BadItem, Batch, parse_evaluations
from chartgate.app.authzen_errors import BadRequest, RecordedAt, TooManyItems
from chartgate.app.node_asked import Semantic
from chartgate.app.question import Action, Question, Resource, Subject
from chartgate.app.ruling import Reason, Ruling

ALICE = {"type": "User", "id": "alice"}
READ = {"name": "read"}
ONE = {"type": "Record", "id": "1", "properties": {"status": "active"}}
TWO = {"type": "Record", "id": "2"}
YES, NO = Ruling(allowed=True), Ruling(allowed=False)


def batch(**body: Any) -> Batch:
    read = parse_evaluations(json.dumps(body).encode())
    assert isinstance(read, Batch)
    return read


def refusal(**body: Any) -> str:
    with pytest.raises(BadRequest) as refused:
        parse_evaluations(json.dumps(body).encode())
    return str(refused.value)


def question(resource: Resource, context: dict[str, Any] | None = None) -> Question:
    return Question(Subject("User", "alice"), Action("read"), resource, context or {})


def test_an_item_replaces_a_default_whole():
    read = batch(
        subject=ALICE,
        action=READ,
        resource=ONE,
        context={"purpose": "TREAT", "a": 1},
        evaluations=[{}, {"resource": TWO, "context": {"a": 2}}, {"context": {}}],
    )
    one = Resource("Record", "1", {"status": "active"})
    default = {"purpose": "TREAT", "a": 1}
    assert read.items == (
        question(one, default),
        question(Resource("Record", "2"), {"a": 2}),
        question(one),
    )


@pytest.mark.parametrize("evaluations", [..., []])
def test_without_items_it_is_one_question(evaluations: Any):
    body = {"subject": ALICE, "action": READ, "resource": TWO, "evaluations": evaluations}
    body = {name: value for name, value in body.items() if value is not ...}
    assert parse_evaluations(json.dumps(body).encode()) == question(Resource("Record", "2"))


@pytest.mark.parametrize("name", ["subject", "action", "resource"])
def test_one_question_needs_all_of_it(name: str):
    body = {"subject": ALICE, "action": READ, "resource": TWO}
    del body[name]
    assert name in refusal(**body)


@pytest.mark.parametrize("name", ["subject", "action", "resource"])
def test_an_item_that_nothing_completes_is_bad_in_its_place(name: str):
    defaults = {"subject": ALICE, "action": READ, "resource": TWO}
    del defaults[name]
    whole = {"subject": ALICE, "action": READ, "resource": TWO}
    read = batch(**defaults, evaluations=[whole, {}, whole])
    assert [isinstance(item, BadItem) for item in read.items] == [False, True, False]
    bad = read.items[1]
    assert isinstance(bad, BadItem)
    assert bad.status == 400
    assert name in bad.message


@pytest.mark.parametrize(
    "item",
    [
        5,
        None,
        "x",
        [],
        {"resource": "x"},
        {"resource": {"type": "Record"}},
        {"context": 1},
        {"action": {"name": 1}},
        {"subject": None},
        {"context": {"a": 10**20}},
        {"context": {"a": ["\0"]}},
        {"resource": {"type": "Record", "id": "1", "properties": {"a": 10**20}}},
        {"resource": {"type": "Record", "id": "\0"}},
        "\0",
        {"context": {"a": [[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]}},
    ],
)
def test_an_ill_typed_item_is_bad_in_its_place(item: Any):
    read = batch(subject=ALICE, action=READ, resource=TWO, evaluations=[{}, item, {}])
    assert [isinstance(one, BadItem) for one in read.items] == [False, True, False]
    assert read.questions == (question(Resource("Record", "2")),) * 2


@pytest.mark.parametrize(
    "body",
    [
        {"evaluations": None},
        {"evaluations": {}},
        {"evaluations": "x"},
        {"options": []},
        {"options": {"evaluations_semantic": "deny_most"}},
        {"options": {"evaluations_semantic": 1}},
        {"options": {"evaluations_semantic": None}},
        {"subject": "alice"},
        {"subject": {"type": "User"}},
        {"context": None},
        {"context": {"a": 10**30}},
        {"context": {"a": "\0"}},
        {"subject": {"type": "User", "id": "a", "properties": {"a": 1e30}}},
        {"action": {"name": "read", "properties": {"a": 10**30}}},
        {"subject": {"type": "User", "id": "\0"}},
    ],
)
def test_a_fault_outside_of_the_items_refuses_everything(body: dict[str, Any]):
    whole = {"subject": ALICE, "action": READ, "resource": TWO, "evaluations": [{}, {}]}
    assert refusal(**(whole | body))


def test_no_key_is_there_twice_in_a_batch_not_even_beside_a_bad_item():
    for items in (b'{"action": {"name": "a", "name": "b"}}', b'{"context": {}, "context": {}}, 5'):
        body = b'{"subject": {"type": "User", "id": "a"}, "evaluations": [' + items + b"]}"
        with pytest.raises(BadRequest, match="a key is there twice"):
            parse_evaluations(body)


def test_options_that_nobody_knows_are_ignored():
    read = batch(subject=ALICE, action=READ, resource=TWO, options={"x": 1}, evaluations=[{}])
    assert read.semantic is Semantic.EXECUTE_ALL


def test_a_batch_has_no_more_items_than_is_said():
    body = {"subject": ALICE, "action": READ, "resource": TWO}
    assert len(batch(**body, evaluations=[{}] * 1000).items) == 1000
    with pytest.raises(TooManyItems) as refused:
        parse_evaluations(json.dumps(body | {"evaluations": [{}] * 1001}).encode())
    assert refused.value.status == 400
    with pytest.raises(TooManyItems):
        parse_evaluations(json.dumps(body | {"evaluations": [5] * 11}).encode(), at_most=10)


def test_malformed_and_deeply_nested_batches_are_refused():
    for body in (b"", b"{", b'{"evaluations": ' + b"[" * 100_000, b"[]", b"\xff"):
        with pytest.raises(BadRequest):
            parse_evaluations(body)


@pytest.mark.parametrize(
    ("semantic", "decided", "answered"),
    [
        ("execute_all", [YES, NO, YES], [YES, NO, YES]),
        ("deny_on_first_deny", [YES, NO, YES], [YES, NO]),
        ("deny_on_first_deny", [YES, YES, YES], [YES, YES, YES]),
        ("permit_on_first_permit", [NO, YES, NO], [NO, YES]),
        ("permit_on_first_permit", [NO, NO, NO], [NO, NO, NO]),
    ],
)
def test_answers_end_with_the_one_that_decides(
    semantic: str, decided: list[Ruling], answered: list[Ruling]
):
    read = batch(
        subject=ALICE,
        action=READ,
        resource=TWO,
        evaluations=[{}] * 3,
        options={"evaluations_semantic": semantic},
    )
    assert len(read.questions) == 3
    assert read.placed(decided) == answered
    # Whoever decides may stop by itself: what it has not decided is not answered.
    assert read.placed(answered) == answered


def test_no_question_goes_unanswered():
    read = batch(subject=ALICE, action=READ, resource=TWO, evaluations=[{}] * 3)
    with pytest.raises(ValueError, match="fewer rulings"):
        read.placed([YES, YES])


def test_a_bad_item_is_a_denial_for_the_semantic_too():
    asked = {"subject": ALICE, "action": READ, "resource": TWO, "evaluations": [{}, 5, {}]}
    first_deny = batch(**asked, options={"evaluations_semantic": "deny_on_first_deny"})
    assert len(first_deny.questions) == 1
    assert [type(one) for one in first_deny.placed([YES])] == [Ruling, BadItem]
    assert first_deny.placed([NO]) == [NO]
    first_permit = batch(**asked, options={"evaluations_semantic": "permit_on_first_permit"})
    assert len(first_permit.questions) == 2
    assert [type(one) for one in first_permit.placed([NO, YES])] == [Ruling, BadItem, Ruling]


def test_answers_are_in_order_with_the_fault_of_a_bad_item_in_its_context():
    at = RecordedAt("log.example/one", 7)
    denied = Ruling(allowed=False, reason=Reason("out_of_scope", "Words."))
    told = json.loads(answers([YES, BadItem(400, "there is no action"), denied], at, 2))
    audit = {"audit": {"log": "log.example/one", "index": 7}, "epoch": 2}
    assert told == {
        "evaluations": [
            {"decision": True, "context": audit},
            {
                "decision": False,
                "context": {"error": {"status": 400, "message": "there is no action"}},
            },
            {
                "decision": False,
                "context": audit | {"reason": {"code": "out_of_scope", "text": "Words."}},
            },
        ]
    }


def test_each_answer_may_name_an_entry_of_its_own():
    entries = [RecordedAt("l", 1), RecordedAt("l", 2)]
    told = json.loads(answers([YES, NO], entries))
    assert [one["context"]["audit"]["index"] for one in told["evaluations"]] == [1, 2]
    assert json.loads(answers([YES])) == {"evaluations": [{"decision": True, "context": {}}]}

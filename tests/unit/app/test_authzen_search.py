"""Searches on the wire, and the tokens that continue them."""

import json
from base64 import urlsafe_b64encode
from typing import Any

import pytest

from chartgate.app.authzen_errors import BadPage, BadRequest, RecordedAt
from chartgate.app.authzen_paging import MAX_TOKEN, Page, Pager
from chartgate.app.authzen_search import (
    ActionSearch,
    Found,
    ResourceSearch,
    Sought,
    SubjectSearch,
    parse_action_search,
    parse_resource_search,
    parse_subject_search,
    search_answer,
)
from chartgate.app.question import Action, Resource, Subject

PAGER = Pager(b"k" * 32)
SUBJECT: dict[str, Any] = {
    "subject": {"type": "User"},
    "action": {"name": "read"},
    "resource": {"type": "Record", "id": "1"},
}
RESOURCE: dict[str, Any] = {
    "subject": {"type": "User", "id": "alice"},
    "action": {"name": "read"},
    "resource": {"type": "Record"},
}
ACTION: dict[str, Any] = {
    "subject": {"type": "User", "id": "alice"},
    "resource": {"type": "Record", "id": "1"},
}


def subject_search(asker: str = "app", **changes: Any) -> Sought:
    return parse_subject_search(json.dumps(SUBJECT | changes).encode(), PAGER, asker)


def resource_search(**changes: Any) -> Sought:
    return parse_resource_search(json.dumps(RESOURCE | changes).encode(), PAGER, "app")


def action_search(**changes: Any) -> Sought:
    return parse_action_search(json.dumps(ACTION | changes).encode(), PAGER, "app")


def next_token(sought: Sought, *names: str) -> str:
    told = json.loads(search_answer(sought, Found(names, more=True), PAGER))
    token = told["page"]["next_token"]
    assert isinstance(token, str)
    return token


def test_searches_are_read_whole():
    context = {"purpose": "TREAT"}
    assert subject_search(context=context).query == SubjectSearch(
        subject=subject_search().query.subject,  # type: ignore[arg-type]  # compared below
        action=Action("read"),
        resource=Resource("Record", "1"),
        context=context,
    )
    assert subject_search().query.subject.type == "User"
    found = resource_search(resource={"type": "Record", "properties": {"patient": "p"}}).query
    assert isinstance(found, ResourceSearch)
    assert found.subject == Subject("User", "alice")
    assert found.resource.properties == {"patient": "p"}
    assert isinstance(action_search().query, ActionSearch)


@pytest.mark.parametrize("ignored", ["alice", 5, None, {"x": []}])
def test_the_id_of_what_is_searched_for_is_ignored(ignored: Any):
    assert subject_search(subject={"type": "User", "id": ignored}) == subject_search()
    assert resource_search(resource={"type": "Record", "id": ignored}) == resource_search()


def test_an_action_in_an_action_search_is_ignored():
    assert action_search(action={"name": "read"}) == action_search()
    assert action_search(action=5) == action_search()


@pytest.mark.parametrize("name", ["subject", "action", "resource"])
def test_a_search_without_one_of_its_entities_is_refused(name: str):
    for body, parse in (
        (SUBJECT, parse_subject_search),
        (RESOURCE, parse_resource_search),
        (ACTION, parse_action_search),
    ):
        if name in body:
            left = {field: value for field, value in body.items() if field != name}
            with pytest.raises(BadRequest, match=name):
                parse(json.dumps(left).encode(), PAGER, "app")


@pytest.mark.parametrize(
    ("search", "change"),
    [
        (subject_search, {"resource": {"type": "Record"}}),
        (subject_search, {"subject": {"id": "alice"}}),
        (subject_search, {"context": {"a": 10**20}}),
        (subject_search, {"context": {"a": "\0"}}),
        (subject_search, {"action": {"name": "read", "properties": {"a": 10**20}}}),
        (resource_search, {"subject": {"type": "User"}}),
        (resource_search, {"resource": {}}),
        (action_search, {"subject": {"type": "User"}}),
        (action_search, {"resource": {"type": "Record"}}),
        (action_search, {"page": None}),
        (action_search, {"page": {"token": 5}}),
    ],
)
def test_every_other_entity_needs_all_of_it(search: Any, change: dict[str, Any]):
    with pytest.raises(BadRequest):
        search(**change)


def test_no_key_is_there_twice_in_a_search():
    body = json.dumps(SUBJECT).encode()[:-1] + b', "page": {"limit": 1, "limit": 2}}'
    with pytest.raises(BadRequest, match="a key is there twice"):
        parse_subject_search(body, PAGER, "app")


@pytest.mark.parametrize(
    ("asked", "limit"),
    [
        ({}, 100),
        ({"limit": 1}, 1),
        ({"limit": 5.0}, 5),
        ({"limit": 1e20}, 1000),
        ({"limit": 1000}, 1000),
        ({"limit": 10**30}, 1000),
    ],
)
def test_a_page_has_a_limit(asked: dict[str, float], limit: int):
    assert subject_search(page=asked).page == Page(limit)
    assert subject_search().page == Page(100)
    assert subject_search(page=asked | {"token": ""}).page == Page(limit)


@pytest.mark.parametrize("limit", [0, -1, "5", 1.5, True, None])
def test_what_is_no_limit_is_refused(limit: Any):
    with pytest.raises(BadRequest) as refused:
        subject_search(page={"limit": limit})
    assert refused.value.status == 400
    assert "page.limit" in str(refused.value)


def test_a_token_continues_after_the_last_result():
    token = next_token(subject_search(page={"limit": 2}), "anna", "bob:ü")
    expected = Page(2, "bob:ü")
    assert subject_search(page={"token": token}).page == expected
    assert subject_search(page={"token": token, "limit": 2}).page == expected
    again = subject_search(
        page={"token": token}, subject={"type": "User", "id": "ignored"}, unknown=1
    )
    assert again.page == expected


@pytest.mark.parametrize(
    "change",
    [
        {"action": {"name": "write"}},
        {"action": {"name": "read", "properties": {"a": 1}}},
        {"resource": {"type": "Record", "id": "2"}},
        {"resource": {"type": "Record", "id": "1", "properties": {"a": 1}}},
        {"subject": {"type": "Other"}},
        {"subject": {"type": "User", "properties": {"a": 1}}},
        {"context": {"purpose": "TREAT"}},
        {"asker": "another"},
    ],
)
def test_with_a_token_nothing_else_may_be_asked(change: dict[str, Any]):
    token = next_token(subject_search(page={"limit": 2}), "anna", "bob")
    with pytest.raises(BadPage):
        subject_search(**{"page": {"token": token}, **change})


def test_with_a_token_another_limit_is_refused():
    token = next_token(subject_search(page={"limit": 2}), "anna", "bob")
    with pytest.raises(BadPage, match=r"page\.limit"):
        subject_search(page={"token": token, "limit": 3})


def test_a_token_of_one_search_is_none_of_another():
    token = next_token(action_search(page={"limit": 2}), "read")
    with pytest.raises(BadPage):
        subject_search(page={"token": token})
    with pytest.raises(BadPage):
        resource_search(page={"token": token})


def test_a_token_that_was_changed_anywhere_is_refused():
    token = next_token(subject_search(page={"limit": 2}), "anna")
    for at, letter in enumerate(token):
        changed = token[:at] + ("A" if letter != "A" else "B") + token[at + 1 :]
        with pytest.raises(BadPage):
            subject_search(page={"token": changed})


@pytest.mark.parametrize(
    "token",
    ["x", "=", "é", "\n", " ", "A" * 5, "A" * 60, "A" * (MAX_TOKEN + 1), "../..", "AAAA AAAA"],
)
def test_what_is_no_token_is_refused(token: str):
    with pytest.raises(BadPage):
        subject_search(page={"token": token})


def test_a_token_signed_with_another_key_is_refused():
    sought = subject_search(page={"limit": 2})
    token = Pager(b"j" * 32).token(Page(2, "bob"), sought.digest)
    with pytest.raises(BadPage):
        subject_search(page={"token": token})


def test_a_token_has_one_spelling():
    token = next_token(subject_search(page={"limit": 2}), "anna")
    for other in (token + "=", token + "\n", token[:4] + " " + token[4:], token + "*"):
        with pytest.raises(BadPage):
            subject_search(page={"token": other})


def test_a_key_is_long_enough():
    with pytest.raises(ValueError, match="16 bytes"):
        Pager(b"short")


def test_answers_are_of_the_type_that_was_searched_for():
    at = RecordedAt("log.example/one", 7)
    told = json.loads(
        search_answer(
            subject_search(), Found(("anna", "bob")), PAGER, policy_set="aa", audit=at, epoch=4
        )
    )
    assert told == {
        "results": [{"type": "User", "id": "anna"}, {"type": "User", "id": "bob"}],
        "page": {"next_token": "", "count": 2},
        "context": {
            "policy_set": "aa",
            "audit": {"log": "log.example/one", "index": 7},
            "epoch": 4,
        },
    }
    told = json.loads(search_answer(resource_search(), Found(("1",)), PAGER))
    assert told["results"] == [{"type": "Record", "id": "1"}]
    assert told["context"] == {}
    told = json.loads(search_answer(action_search(), Found(("read",)), PAGER))
    assert told["results"] == [{"name": "read"}]


def test_what_else_names_a_result_is_among_its_properties():
    found = Found(("p1", "p2"), properties=({"patient": "p1"}, {}))
    told = json.loads(search_answer(resource_search(), found, PAGER))
    assert told["results"] == [
        {"type": "Record", "id": "p1", "properties": {"patient": "p1"}},
        {"type": "Record", "id": "p2"},
    ]


def test_a_page_may_end_behind_its_last_result_even_with_none():
    for names in ((), ("anna",)):
        told = json.loads(
            search_answer(subject_search(), Found(names, more=True, after="mia"), PAGER)
        )
        token = told["page"]["next_token"]
        assert subject_search(page={"token": token}).page == Page(100, "mia")


def test_nothing_found_is_an_empty_last_page():
    told = json.loads(search_answer(subject_search(), Found((), more=True), PAGER))
    assert told["results"] == []
    assert told["page"] == {"next_token": "", "count": 0}


def test_tokens_are_not_guessable_from_their_form():
    forged = urlsafe_b64encode(b"\0" * 16 + b"\x01\x00\x02bob").rstrip(b"=").decode()
    with pytest.raises(BadPage):
        subject_search(page={"token": forged})

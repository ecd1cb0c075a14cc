"""What an application asked, as log entries: no key, no free text, never too large."""

import msgspec
import pytest

from chartgate.app.evaluation_events import (
    MAX_PART,
    CachedTokens,
    Keys,
    Unrecordable,
    evaluation_events,
    search_events,
)
from chartgate.app.question import Action, Question, Resource, Subject
from chartgate.app.ruling import Reason, Ruling
from chartgate.app.tokens import PatientTokens
from chartgate.model.event import Evaluation, EvaluationItem, Search, decode

AT = "2026-03-02T09:00:00.000000Z"
TOKENS = PatientTokens({2026: b"k" * 32}, "hospital")


def question(number: int = 1, **parts: object) -> Question:
    return Question(
        Subject("User", "jdoe"),
        Action(str(parts.get("action", "view"))),
        Resource("Record", f"r{number}", {"patient": f"p{number}"}),
        {"note": "a word about somebody"},
    )


def ruling(number: int = 1, **parts: object) -> Ruling:
    facts: dict[str, object] = {
        "allowed": True,
        "levels": {"labs": "full", "notes": "masked"},
        "determining": ("hosp.nurse_view",),
        "person": "p_1",
        "patient": f"p{number}",
        "policy_set": "ps",
        "data_map": "dm",
        "roles": ("nurse",),
        "held": (("nurse@icu", ""), ("proxy", f"p{number}")),
    }
    return Ruling(**{**facts, **parts})


def entries(asked: list[tuple[Question, Ruling]], **parts: object) -> tuple[bytes, ...]:
    facts: dict[str, object] = {
        "at": AT,
        "node": "n1",
        "service": "s_1",
        "channel": "https",
        "request": "r1",
        "tokens": TOKENS,
        "trace": "t",
    }
    return evaluation_events(asked, **{**facts, **parts})


def token(domain: str, value: str) -> str:
    return TOKENS.token(domain, value, year=2026)


def test_an_evaluation_holds_tokens_and_what_was_answered():
    (entry,) = entries([(question(), ruling())])
    assert decode(entry) == Evaluation(
        at=AT,
        node="n1",
        service="s_1",
        channel="https",
        request="r1",
        policy_set="ps",
        data_map="dm",
        trace="t",
        items=(
            EvaluationItem(
                action="view",
                resource_type="Record",
                resource=token("resource", "Record:r1"),
                allowed=True,
                person="p_1",
                patient=token("patient", "p1"),
                levels={"labs": "full", "notes": "masked"},
                determining=("hosp.nurse_view",),
                roles=("nurse",),
                assignments=("nurse@icu", f"proxy!{token('patient', 'p1')}"),
            ),
        ),
    )
    assert b"p1" not in entry.replace(b"p_1", b"")
    assert b"somebody" not in entry


@pytest.mark.parametrize("count", [1, 99, 400, 1000])
def test_a_batch_is_split_and_nothing_is_lost(count):
    asked = [(question(n), ruling(n)) for n in range(count)]
    parts = [decode(entry) for entry in entries(asked)]
    items = [item for part in parts for item in part.items]
    assert [item.patient for item in items] == [token("patient", f"p{n}") for n in range(count)]
    assert [part.part for part in parts] == list(range(len(parts)))
    assert {part.request for part in parts} == {"r1"}
    assert all(len(entry) <= MAX_PART for entry in entries(asked))
    assert len(parts) == 1 or all(len(entry) > MAX_PART - 1000 for entry in entries(asked)[:-1])
    assert not entries([])


def test_parts_are_of_one_version_each():
    asked = [(question(), ruling()), (question(), ruling(policy_set="other"))]
    assert [(p.policy_set, p.part) for p in map(decode, entries(asked))] == [
        ("ps", 0),
        ("other", 1),
    ]


def test_names_that_only_the_caller_knows_are_not_repeated():
    refused = ruling(allowed=False, reason=Reason("not_askable", "no such action"))
    asked = [(question(action="look at Miller"), refused)]
    (item,) = decode(entries(asked)[0]).items
    assert (item.action, item.resource_type, item.subject_type) == ("unknown",) * 3
    (item,) = decode(entries(asked, names={"Record", "User"})[0]).items
    assert (item.action, item.resource_type, item.subject_type) == ("unknown", "Record", "User")
    claimed = ruling(allowed=False, reason=Reason("purpose_refused", "no"), purpose="Miller")
    (item,) = decode(entries([(question(), claimed)])[0]).items
    assert (item.action, item.purpose, item.reason) == ("view", "unknown", "purpose_refused")


def test_what_is_too_large_is_shortened_but_for_what_was_shown():
    many = tuple((f"carer@{n}", f"p{n}") for n in range(3000))
    large = ruling(
        7,
        held=many,
        determining=tuple(f"policy.{n}" for n in range(3000)),
        context={"reason": "x" * 300, "acr": '"mfa"'},
        recipient="r" * 1000,
    )
    (entry,) = entries([(question(7), large)])
    assert len(entry) < 65_535
    (item,) = decode(entry).items
    assert item.levels == {"labs": "full", "notes": "masked"}
    assert item.assignments == (f"carer@7!{token('patient', 'p7')}",)
    assert (len(item.determining), item.determining[-1]) == (101, "…")
    assert item.recipient == "r" * 256
    with pytest.raises(Unrecordable):
        entries([(question(), ruling(levels={f"c{n}" * 100: "full" for n in range(500)}))])


def test_free_text_of_a_context_is_not_kept():
    (entry,) = entries([(question(), ruling(context={"reason": "x" * 300, "acr": '"mfa"'}))])
    assert decode(entry).items[0].context == {"reason": "unknown", "acr": '"mfa"'}


def test_tokens_are_made_once():
    made: list[str] = []

    class Counting:
        def token(self, domain: str, value: str, *, year: int) -> str:
            made.append(value)
            return TOKENS.token(domain, value, year=year)

    cached = CachedTokens(Counting(), limit=4)
    first = entries([(question(), ruling())] * 50, tokens=cached)
    assert first == entries([(question(), ruling())] * 50)
    assert sorted(made) == ["Record:r1", "p1"]
    for number in range(10):
        entries([(question(number), ruling(number))], tokens=cached)
    assert len(cached._known) <= 4


def test_whoever_has_no_key_writes_placeholders():
    (entry,) = entries([(question(), ruling())], tokens=Keys())
    (item,) = decode(entry).items
    assert item.patient == "~patient:7031~"
    assert item.assignments == ("nurse@icu", "proxy!~patient:7031~")


def test_a_search_names_what_its_page_showed_in_parts():
    persons = [f"p_{n}" for n in range(1500)]
    patients = [f"k{n}" for n in range(2600)]
    found = search_events(
        at=AT,
        node="n1",
        service="s_1",
        channel="https",
        request="r1",
        sought="subject",
        policy_set="ps",
        tokens=TOKENS,
        action="view",
        resource_type="Record",
        patient="p1",
        results=4100,
        persons=persons,
        patients=patients,
    )
    assert all(len(entry) <= MAX_PART for entry in found)
    parts = [decode(entry) for entry in found]
    assert all(isinstance(part, Search) for part in parts)
    assert [name for part in parts for name in part.persons] == persons
    assert [t for part in parts for t in part.patients] == [token("patient", k) for k in patients]
    assert all(len(part.persons) + len(part.patients) <= 1000 for part in parts)
    assert {part.patient for part in parts} == {token("patient", "p1")}
    assert [part.part for part in parts] == list(range(len(parts)))


def test_a_search_without_results_is_one_entry():
    found = search_events(
        at=AT,
        node="n1",
        service="s",
        channel="unix",
        request="r",
        sought="action",
        policy_set="ps",
        tokens=TOKENS,
    )
    assert len(found) == 1
    assert msgspec.json.decode(found[0])["sought"] == "action"
    with pytest.raises(Unrecordable):
        search_events(
            at=AT,
            node="n1",
            service="s",
            channel="unix",
            request="r",
            sought="action",
            policy_set="ps",
            tokens=TOKENS,
            persons=["x" * 60_000],
        )

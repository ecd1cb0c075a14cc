"""What the log answers of applications: accesses, attempts and searches of one patient or person."""

from datetime import UTC, date, datetime

import pytest

from chartgate.adapters.replay_log import RecordedPeople, Requests
from chartgate.app.audit_queries import of_user, who_accessed
from chartgate.app.replay_report import replay
from chartgate.errors import Corrupt
from chartgate.model.event import Evaluation, EvaluationItem, Search, encode

ANN, BOB = "a" * 32, "b" * 32
WELBY, ADAMS = "p_0000000000000001", "p_0000000000000002"


def item(**parts: object) -> EvaluationItem:
    facts: dict[str, object] = {
        "action": "view",
        "resource_type": "Record",
        "allowed": True,
        "person": WELBY,
        "patient": ANN,
        "levels": {"labs": "full"},
        "purpose": "TREAT",
        "determining": ("hosp.view",),
    }
    return EvaluationItem(**{**facts, **parts})


def asked(*items: EvaluationItem, day: int = 2, part: int = 0) -> Evaluation:
    return Evaluation(
        at=f"2026-03-{day:02}T09:00:00.000000Z",
        node="n1",
        service="s_1",
        channel="https",
        request="r1",
        part=part,
        policy_set="ps",
        items=items,
    )


def search(**parts: object) -> Search:
    facts: dict[str, object] = {
        "at": "2026-03-02T10:00:00.000000Z",
        "node": "n1",
        "service": "s_1",
        "channel": "unix",
        "request": "r2",
        "sought": "resource",
        "policy_set": "ps",
    }
    return Search(**{**facts, **parts})


def numbered(*events: object) -> list[tuple[int, object]]:
    return list(enumerate(events, 10))


def test_what_an_application_could_show_is_an_access_and_a_denial_an_attempt():
    report = who_accessed(
        numbered(
            asked(
                item(),
                item(patient=BOB),
                item(allowed=False, levels={"labs": "masked", "notes": "withheld"}),
                item(allowed=False, levels={"labs": "withheld"}, reason="no_permit"),
                item(action="update", levels={}, person=ADAMS),
                item(action="share", levels={}, recipient="Dr Who, Gallifrey"),
                item(action="export", levels={}, allowed=False, reason="recipient_needed"),
            )
        ),
        frozenset({ANN}),
    ).applications
    told = [(r.person, r.action, r.allowed, r.levels, r.recipient) for r in report.accesses]
    assert told == [
        (WELBY, "view", True, {"labs": "full"}, ""),
        (WELBY, "view", False, {"labs": "masked", "notes": "withheld"}, ""),
        (ADAMS, "update", True, {}, ""),
        (WELBY, "share", True, {}, "Dr Who, Gallifrey"),
    ]
    assert [(r.action, r.reason) for r in report.attempts] == [
        ("view", "no_permit"),
        ("export", "recipient_needed"),
    ]
    first = report.accesses[0]
    assert (first.index, first.service, first.channel) == (10, "s_1", "https")
    assert first.at == datetime(2026, 3, 2, 9, tzinfo=UTC)


def test_questions_of_a_batch_that_differ_in_nothing_else_are_one_row():
    report = who_accessed(
        numbered(
            asked(
                item(levels={"labs": "masked"}),
                item(levels={"labs": "full", "notes": "summary"}, determining=("hosp.other",)),
                item(levels={"labs": "summary"}),
                item(purpose="HPAYMT"),
            )
        ),
        frozenset({ANN}),
    ).applications
    first, other = report.accesses
    assert (first.questions, first.levels) == (3, {"labs": "full", "notes": "summary"})
    assert first.determining == ("hosp.view", "hosp.other")
    assert (other.questions, other.purpose) == (1, "HPAYMT")


def test_searches_that_asked_about_or_named_the_patient_are_listed():
    report = who_accessed(
        numbered(
            search(patients=(BOB, ANN), results=2),
            search(sought="subject", patient=ANN),
            search(patients=(BOB,)),
        ),
        frozenset({ANN}),
    ).applications
    assert [(r.index, r.is_asked, r.is_named) for r in report.searches] == [
        (10, False, True),
        (11, True, False),
    ]


def test_people_whom_nobody_knows_are_told_apart():
    report = who_accessed(
        numbered(
            asked(
                item(person="", subject="c" * 32, allowed=False, levels={}),
                item(person="", subject="d" * 32, allowed=False, levels={}),
                item(person="", subject="d" * 32, allowed=False, levels={}),
            )
        ),
        frozenset({ANN}),
    ).applications
    assert [(r.subject, r.questions) for r in report.attempts] == [("c" * 32, 1), ("d" * 32, 2)]


def test_what_a_search_was_about_and_which_actions_it_named_is_told():
    report = who_accessed(
        numbered(
            search(sought="action", patient=ANN, found=("share", "view"), results=2),
            search(patients=(ANN,), found=("e" * 32,), categories=("labs",), results=1),
        ),
        frozenset({ANN}),
    ).applications
    assert [(r.actions, r.categories) for r in report.searches] == [
        (("share", "view"), ()),
        ((), ("labs",)),
    ]


def test_only_the_day_that_was_asked_for_counts():
    events = numbered(asked(item(), day=2), asked(item(), day=3))
    report = who_accessed(events, frozenset({ANN}), date(2026, 3, 3))
    assert [r.index for r in report.applications.accesses] == [11]


def test_what_a_person_did_includes_applications():
    report = of_user(
        numbered(
            asked(item(), item(patient=BOB), item(patient=""), item(person=ADAMS)),
            search(person=WELBY, sought="action"),
            search(person="", patients=(ANN,)),
        ),
        WELBY,
    ).applications
    (row,) = report.accesses
    assert (row.questions, row.patients) == (3, 2)
    assert [r.index for r in report.searches] == [11]


def test_a_replay_counts_the_questions_of_applications_and_decides_none():
    requests = Requests(RecordedPeople({}), since=datetime(2026, 3, 3, tzinfo=UTC))
    events = [asked(item(), item(), day=2), asked(item(), item(), item(), day=3), search()]
    requests.read(enumerate(map(encode, events)))
    assert requests.evaluations == 3
    assert requests.entries == 3
    found = replay(requests.tallies(), lambda *_: (), "c", evaluations=requests.evaluations)
    assert (found.decisions, found.evaluations) == (0, 3)
    for bad in (
        b'{"kind":"evaluation",',
        encode(asked(item())).replace(b'"at"', b'"version":9,"at"'),
    ):
        with pytest.raises(Corrupt):
            requests.read([(7, bad)])

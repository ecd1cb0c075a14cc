"""What the log answers, on a small log that can be read at a glance."""

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from chartgate.app.audit_queries import Outcome, of_user, who_accessed
from chartgate.app.audit_tail import describe, tail
from chartgate.model.event import (
    AuditRead,
    Completed,
    Decision,
    Event,
    LoginRefused,
    NodeStarted,
    NodeStopped,
    Recovered,
    Release,
    SessionEnded,
    SessionStarted,
    TableUse,
    decode,
    encode,
)

ANN, BOB = "a" * 32, "b" * 32
WELBY, ADAMS = "p_0000000000000001", "p_0000000000000002"


def at(hour: int, day: int = 2) -> str:
    return f"2026-03-{day:02}T{hour:02}:00:00.000000Z"


def decision(
    hour: int = 9,
    *,
    day: int = 2,
    person: str = WELBY,
    allowed: bool = True,
    sought: tuple[str, ...] = (),
    scope_only: bool = False,
    reason: str = "",
) -> Decision:
    return Decision(
        at=at(hour, day),
        node="n1",
        session="s1",
        person=person,
        request="r1",
        allowed=allowed,
        action="select" if allowed else "refused",
        purpose="TREAT",
        statement="SELECT value FROM lab_result WHERE patient_id = $1",
        reason=reason,
        tables=(
            TableUse(
                table="lab_result",
                columns={"value": "summary", "test": "full", "note": "withheld"},
                row_filter=True,
            ),
        ),
        determining=("physician-labs",),
        policy_set="ps",
        roles=("physician",),
        sought=sought,
        scope_only=scope_only,
    )


def release(
    of: int,
    *seen: str,
    written: tuple[str, ...] = (),
    hour: int = 9,
    day: int = 2,
    companion: bool = False,
    person: str = WELBY,
) -> Release:
    return Release(
        at=at(hour, day),
        node="n1",
        session="s1",
        person=person,
        request="r1",
        decision=of,
        seen=seen,
        written=written,
        rows=len(seen),
        companion=companion,
    )


def completed(of: int, sqlstate: str = "00000", rows: int = 1) -> Completed:
    return Completed(
        at=at(9),
        node="n1",
        session="s1",
        person=WELBY,
        request="r1",
        decision=of,
        rows=rows,
        sqlstate=sqlstate,
    )


def log(*events: Event) -> list[tuple[int, Event]]:
    return [(index, decode(encode(event))) for index, event in enumerate(events)]


def test_who_saw_the_patient_is_named_with_role_purpose_and_levels() -> None:
    report = who_accessed(log(decision(), release(0, ANN, BOB), completed(0)), frozenset({ANN}))
    (row,) = report.accesses
    assert (row.index, row.person, row.roles, row.purpose) == (0, WELBY, ("physician",), "TREAT")
    assert row.seen
    assert not row.written
    assert not row.sought
    (table,) = row.tables
    assert list(table.levels.items()) == [
        ("full", ("test",)),
        ("summary", ("value",)),
        ("withheld", ("note",)),
    ]
    assert row.outcome is Outcome.DELIVERED
    assert row.determining == ("physician-labs",)
    assert row.releases == (1,)
    assert report.entries == 3
    assert report.closing == "0 scope-only statements may include this patient"


def test_a_statement_about_others_is_not_an_access() -> None:
    report = who_accessed(log(decision(), release(0, BOB), completed(0)), frozenset({ANN}))
    assert report.accesses == report.sought == report.refused == ()


def test_any_year_s_token_finds_the_patient() -> None:
    report = who_accessed(log(decision(), release(0, ANN)), frozenset({BOB, ANN}))
    assert len(report.accesses) == 1


def test_without_a_completed_event_it_may_have_been_delivered() -> None:
    (row,) = who_accessed(log(decision(), release(0, ANN)), frozenset({ANN})).accesses
    assert row.outcome is Outcome.MAYBE
    assert row.sqlstate is None


def test_an_error_after_rows_had_left_is_still_an_access() -> None:
    events = log(decision(), release(0, ANN), completed(0, "57014"))
    (row,) = who_accessed(events, frozenset({ANN})).accesses
    assert (row.outcome, row.sqlstate) == (Outcome.FAILED, "57014")


def test_a_companion_query_says_that_the_answer_only_may_be_about_the_patient() -> None:
    events = log(decision(), release(0, BOB), release(0, ANN, companion=True), completed(0))
    (row,) = who_accessed(events, frozenset({ANN})).accesses
    assert row.companion


def test_a_written_patient_is_an_access() -> None:
    events = log(decision(), release(0, written=(ANN,)), completed(0))
    (row,) = who_accessed(events, frozenset({ANN})).accesses
    assert row.written
    assert not row.seen


def test_refused_and_empty_statements_that_sought_the_patient_stand_apart() -> None:
    events = log(
        decision(sought=(ANN,)),
        completed(0, rows=0),
        decision(person=ADAMS, allowed=False, sought=(ANN,), reason="table ssn_vault"),
        decision(person=ADAMS, allowed=False, sought=(BOB,), reason="table ssn_vault"),
    )
    report = who_accessed(events, frozenset({ANN}))
    assert report.accesses == ()
    assert [(r.index, r.outcome) for r in report.sought] == [(0, Outcome.DELIVERED)]
    assert [(r.index, r.outcome, r.reason) for r in report.refused] == [
        (2, Outcome.REFUSED, "table ssn_vault")
    ]


def test_the_answer_always_ends_with_the_scope_only_statements() -> None:
    events = log(decision(scope_only=True), completed(0), decision(scope_only=True, sought=(ANN,)))
    report = who_accessed(events, frozenset({ANN}))
    assert report.closing == "2 scope-only statements may include this patient"
    assert [r.index for r in report.scope_only] == [0, 2]
    assert [r.index for r in report.sought] == [2]
    one = who_accessed(events[:2], frozenset({BOB}))
    assert one.closing == "1 scope-only statement may include this patient"


def test_a_refused_count_is_not_a_scope_only_statement() -> None:
    events = log(decision(scope_only=True, allowed=False))
    assert who_accessed(events, frozenset({ANN})).scope_only == ()


def test_a_day_is_a_day_of_the_stated_zone() -> None:
    events = log(decision(3), release(0, ANN, hour=3), completed(0))
    tokens = frozenset({ANN})
    new_york = ZoneInfo("America/New_York")
    assert len(who_accessed(events, tokens, date(2026, 3, 2)).accesses) == 1
    assert who_accessed(events, tokens, date(2026, 3, 2), zone=new_york).accesses == ()
    report = who_accessed(events, tokens, date(2026, 3, 1), zone=new_york)
    assert len(report.accesses) == 1
    assert report.zone == "America/New_York"
    assert who_accessed(events, tokens).zone == "UTC"


def test_a_statement_over_midnight_belongs_to_both_days() -> None:
    events = log(decision(23, day=1), release(0, ANN, hour=0, day=2), completed(0))
    for day in (1, 2):
        assert len(who_accessed(events, frozenset({ANN}), date(2026, 3, day)).accesses) == 1


def test_whoever_asked_about_the_patient_is_listed() -> None:
    asked = AuditRead(
        at=at(10),
        node="n1",
        person=ADAMS,
        question="who accessed a patient",
        allowed=False,
        parameters={"patient": f"{BOB},{ANN}"},
    )
    (row,) = who_accessed(log(asked), frozenset({ANN})).asked
    assert (row.person, row.allowed) == (ADAMS, False)
    assert who_accessed(log(asked), frozenset({"c" * 32})).asked == ()


def test_a_restart_does_not_forget_what_was_released_before() -> None:
    started = NodeStarted(at=at(9), node="n1", policy_set="ps", data_map="dm", software="1")
    events = log(decision(), release(0, ANN), decision(), started)
    assert [r.index for r in who_accessed(events, frozenset({ANN})).accesses] == [0]


def test_a_release_without_its_decision_is_told_not_dropped() -> None:
    events = log(decision(), completed(0), release(0, ANN), release(0, BOB))
    report = who_accessed(events, frozenset({ANN}))
    assert report.accesses == ()
    assert report.loose == (2,)


def test_all_that_a_person_did_and_nothing_of_others() -> None:
    events = log(
        SessionStarted(at=at(8), node="n1", session="s1", person=WELBY, channel="postgresql"),
        decision(),
        release(1, ANN, BOB),
        release(1, ANN),
        completed(1, rows=3),
        decision(person=ADAMS),
        decision(allowed=False, reason="function pg_read_file"),
        SessionEnded(at=at(10), node="n1", session="s1", person=WELBY, reason="client left"),
        LoginRefused(at=at(11), node="n1", login=WELBY, channel="postgresql", reason="expired"),
        decision(day=3),
    )
    report = of_user(events, WELBY)
    assert [s.what for s in report.sessions] == ["login", "logout", "login refused"]
    assert [(r.index, r.patients_seen, r.rows) for r in report.statements] == [
        (1, 2, 3),
        (6, 0, 0),
        (9, 0, 0),
    ]
    assert [r.index for r in of_user(events, WELBY, date(2026, 3, 3)).statements] == [9]


def test_a_person_s_own_questions_are_among_what_she_did() -> None:
    questions = [
        AuditRead(at=at(10), node="n1", person=person, question="the newest events", allowed=True)
        for person in (WELBY, ADAMS)
    ]
    assert [a.index for a in of_user(log(*questions), ADAMS).asked] == [1]


def test_the_tail_is_the_newest_events_oldest_first() -> None:
    events = log(*(decision(h) for h in range(5)))
    assert [row.index for row in tail(events, 2)] == [3, 4]
    assert [row.index for row in tail(events, 9)] == [0, 1, 2, 3, 4]
    assert tail(events, 2)[0].at == datetime(2026, 3, 2, 3, tzinfo=UTC)


def test_no_line_of_the_tail_shows_a_patient_s_token() -> None:
    events: list[Event] = [
        decision(sought=(ANN,), scope_only=True),
        decision(allowed=False, sought=(ANN,), reason="table x"),
        release(0, ANN, written=(ANN,)),
        completed(0),
        completed(0, "57014"),
        AuditRead(
            at=at(1),
            node="n1",
            person=ADAMS,
            question="who accessed a patient",
            allowed=False,
            parameters={"patient": ANN},
        ),
        LoginRefused(at=at(1), node="n1", login="unknown", channel="pg", reason="no"),
        SessionStarted(
            at=at(1),
            node="n1",
            session="s",
            person=WELBY,
            channel="pg",
            application="psql",
            purpose="TREAT",
        ),
        SessionEnded(at=at(1), node="n1", session="s", person=WELBY, reason="x"),
        Recovered(at=at(1), node="n1", dropped_bytes=3, dropped_sha256="00", size=4),
        NodeStarted(at=at(1), node="n1", policy_set="p", data_map="d", software="1"),
        NodeStopped(at=at(1), node="n1", reason="asked"),
    ]
    for row in tail(log(*events), 99):
        assert row.text
        assert ANN not in row.text
    assert {describe(event) for event in events} == {r.text for r in tail(log(*events), 99)}


@given(
    st.lists(
        st.tuples(st.booleans(), st.lists(st.sampled_from([ANN, BOB]), max_size=2), st.booleans()),
        max_size=12,
    )
)
def test_a_statement_is_listed_exactly_when_the_log_ties_it_to_the_patient(
    statements: list[tuple[bool, list[str], bool]],
) -> None:
    events: list[Event] = []
    expected: list[int] = []
    for allowed, seen, ends in statements:
        index = len(events)
        events.append(decision(allowed=allowed))
        if allowed:
            events.append(release(index, *seen))
            if ANN in seen:
                expected.append(index)
            if ends:
                events.append(completed(index))
    assert [r.index for r in who_accessed(log(*events), frozenset({ANN})).accesses] == expected

"""What an auditor reads: plain text, nothing that steers a terminal, the closing sentence last."""

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chartgate.app.audit_evaluations import ApplicationReport, EvaluationRow, SearchRow
from chartgate.app.audit_queries import (
    AskedRow,
    Outcome,
    SessionRow,
    StatementRow,
    TableLevels,
    UserReport,
    WhoReport,
)
from chartgate.app.audit_tail import TailRow
from chartgate.cli import render

AT = datetime(2026, 3, 2, 3, tzinfo=UTC)
NAMES = {"p_1": "Marcus Welby"}


def row(**changes: object) -> StatementRow:
    values: dict[str, object] = {
        "index": 7,
        "at": AT,
        "person": "p_1",
        "session": "s",
        "action": "select",
        "roles": ("physician",),
        "departments": ("cardiology",),
        "purpose": "TREAT",
        "tables": (TableLevels("lab_result", {"full": ("test",), "withheld": ("note",)}, True),),
        "statement": "",
        "outcome": Outcome.DELIVERED,
        "sqlstate": "00000",
        "rows": 1,
        "reason": "",
    }
    return StatementRow(**{**values, **changes})  # type: ignore[arg-type]


def report(**changes: object) -> WhoReport:
    values: dict[str, object] = {
        "on": None,
        "zone": "UTC",
        "entries": 9,
        "accesses": (),
        "sought": (),
        "refused": (),
        "asked": (),
        "loose": (),
        "scope_only": (),
    }
    return WhoReport(**{**values, **changes})  # type: ignore[arg-type]


def who(answer: WhoReport, *, patient: str = "100-1", zone: object = UTC) -> str:
    out = io.StringIO()
    render.show_who(
        render.console(out),
        answer,
        NAMES,
        patient=patient,
        zone=zone,
        notes=[],  # type: ignore[arg-type]
    )
    return out.getvalue()


def test_an_access_reads_as_who_when_why_what_and_how_it_ended() -> None:
    text = " ".join(who(report(accesses=(row(seen=True),))).split())
    for words in ("2026-03-02 03:00:00", "Marcus Welby", "physician in cardiology; TREAT"):
        assert words in text
    assert "seen" in text
    assert "delivered" in text


def test_no_line_is_wider_than_a_terminal_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "_PAPER_WIDTH", 80)
    wordy = row(
        seen=True,
        companion=True,
        outcome=Outcome.MAYBE,
        determining=tuple(f"a_policy_with_a_long_name_{n}" for n in range(9)),
        tables=(TableLevels("public.lab_result", {"mixed": ("test", "value") * 9}, True),),
    )
    text = who(
        report(
            accesses=(wordy,),
            scope_only=(wordy,),
            asked=(AskedRow(index=13, at=AT, person="p_1", question="who " * 20, allowed=True),),
        )
    )
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("a_policy_with_a_long_name_") == 9, "names are not broken into pieces"


def test_what_went_through_applications_is_told_with_service_levels_and_recipient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(render, "_PAPER_WIDTH", 80)
    told = EvaluationRow(
        index=7,
        at=AT,
        person="p_1",
        service="s_1",
        channel="https",
        request="r",
        action="share",
        resource_type="Record",
        allowed=True,
        disclosed=True,
        questions=2,
        levels={"labs": "masked", "notes": "full"},
        patients=1,
        recipient="Dr\x1b[2J Who",
        purpose="TREAT",
        purpose_claimed=True,
        roles=("physician",),
        determining=("hosp.share",),
    )
    denied = replace(
        told, allowed=False, disclosed=False, reason="no_permit", person="", subject="f" * 32
    )
    partly = replace(told, allowed=False)
    search = SearchRow(
        index=9,
        at=AT,
        person="",
        service="s_1",
        channel="unix",
        request="r",
        sought="resource",
        action="view",
        resource_type="Record",
        purpose="",
        results=1,
        is_asked=False,
        is_named=True,
        categories=("labs", "notes"),
    )
    acts = replace(search, sought="action", results=2, actions=("share", "view"))
    through = ApplicationReport(
        accesses=(told, partly), attempts=(denied,), searches=(search, acts)
    )
    text = who(report(applications=through))
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    words = " ".join(text.split())
    for expected in (
        "What applications could show about this patient",
        "Marcus Welby allowed",
        "physician; TREAT (claimed)",
        "share Record, 2 questions",
        "s_1 (https)",
        "full notes; masked labs",
        "recipient Dr",
        "Marcus Welby partly shown",
        "Denied to applications, questions about this patient",
        "unknown to the control plane denied",
        f"named token {'f' * 32}",
        "reason no permit",
        "Searches by applications that concern this patient",
        "resource view Record",
        "of labs, notes",
        "found 1 result",
        "found 2 results: share, view",
        "among the results",
    ):
        assert expected in words, expected
    out = io.StringIO()
    of = UserReport(
        uid="p_1",
        on=None,
        zone="UTC",
        entries=1,
        sessions=(),
        statements=(),
        asked=(),
        applications=through,
    )
    render.show_user(render.console(out), of, NAMES, name="welby", zone=UTC, notes=[])
    assert "2 questions about 1 patient" in " ".join(out.getvalue().split())


def test_the_newest_events_say_once_what_all_of_them_share() -> None:
    out = io.StringIO()
    events = [
        TailRow(index=n, at=AT, node="demo", kind="k", person="p_1", text="t") for n in (1, 2)
    ]
    render.show_tail(render.console(out), events, NAMES, zone=UTC)
    assert out.getvalue().count("2026-03-02") == out.getvalue().count("demo") == 1
    out = io.StringIO()
    other = TailRow(index=3, at=AT + timedelta(days=1), node="b", kind="k", person="p_1", text="t")
    render.show_tail(render.console(out), [*events, other], NAMES, zone=UTC)
    assert out.getvalue().count("2026-03-02 03:00:00") == 2
    assert "Node" in out.getvalue()


def test_an_application_is_shown_by_its_name_and_kept_by_its_uid() -> None:
    event = TailRow(
        index=1, at=AT, node="n", kind="service step", person="p_1", service="s_1",
        text="service s_1 token revoked",
    )  # fmt: skip
    line = render.tail_line(event, {**NAMES, "s_1": "ehr"}, UTC)
    assert line.endswith("service ehr token revoked")
    out = io.StringIO()
    render.show_tail(render.console(out), [event], {**NAMES, "s_1": "ehr"}, zone=UTC)
    assert "service ehr token revoked" in " ".join(out.getvalue().split())
    assert "s_1" in render.tail_line(event, NAMES, UTC)
    assert event.service == "s_1" in event.text


def test_the_last_words_are_the_scope_only_statements() -> None:
    assert who(report()).rstrip().endswith("0 scope-only statements may include this patient.")
    listed = who(report(scope_only=(row(index=4711, scope_only=True),)))
    assert "1 scope-only statement may include this patient:" in listed
    assert "4711" in listed.split("may include this patient:")[1]


def test_every_part_of_an_answer_is_shown() -> None:
    text = who(
        report(
            sought=(row(index=11, sought=True, outcome=Outcome.MAYBE),),
            refused=(row(index=12, sought=True, outcome=Outcome.REFUSED, reason="table x"),),
            asked=(AskedRow(index=13, at=AT, person="p_1", question="who", allowed=False),),
            loose=(14,),
            accesses=(row(index=15, written=True, outcome=Outcome.FAILED, sqlstate="57014"),),
        )
    )
    for words in ("11", "may have been delivered", "table x", "13", "events 14", "error 57014"):
        assert words in text
    assert "reason table x" in " ".join(text.split())


def test_times_are_in_the_stated_zone() -> None:
    zone = ZoneInfo("America/New_York")
    text = who(report(zone="America/New_York", accesses=(row(seen=True),)), zone=zone)
    assert "2026-03-01 22:00:00" in text
    assert "Days and times are in America/New_York" in text


@given(st.text(max_size=20))
def test_nothing_from_the_log_steers_the_terminal(text: str) -> None:
    hostile = f"{text}\x1b[31m[bold]\r\x07"
    answer = report(
        accesses=(row(seen=True, purpose=hostile, roles=(hostile,), person=hostile),),
        refused=(row(outcome=Outcome.REFUSED, reason=hostile),),
    )
    shown = who(answer, patient=hostile)
    assert not {c for c in shown if not c.isprintable()} - {"\n"}
    line = render.tail_line(
        TailRow(index=1, at=AT, node="n", kind="k", person="p", text=hostile), {}, UTC
    )
    assert line.isprintable()


def test_markup_in_a_value_is_shown_as_it_is() -> None:
    assert "[bold]x[/bold]" in who(
        report(refused=(row(outcome=Outcome.REFUSED, reason="[bold]x[/bold]"),))
    )


def test_a_person_s_report_has_sessions_statements_and_questions() -> None:
    out = io.StringIO()
    answer = UserReport(
        uid="p_1",
        on=None,
        zone="UTC",
        entries=3,
        sessions=(SessionRow(index=1, at=AT, what="login", detail="postgresql"),),
        statements=(row(patients_seen=2, patients_written=1), row(scope_only=True)),
        asked=(AskedRow(index=3, at=AT, person="p_1", question="who", allowed=True),),
    )
    render.show_user(render.console(out), answer, NAMES, name="mwelby", zone=UTC, notes=["N."])
    text = " ".join(out.getvalue().split())
    for words in (
        "Marcus Welby (mwelby, p_1)",
        "login",
        "2 seen, 1 written",
        "counted, not listed",
    ):
        assert words in text


def test_a_person_of_whom_nothing_is_recorded() -> None:
    out = io.StringIO()
    answer = UserReport(
        uid="p_1", on=None, zone="UTC", entries=0, sessions=(), statements=(), asked=()
    )
    render.show_user(render.console(out), answer, NAMES, name="m", zone=UTC, notes=[])
    assert "Nothing is recorded." in out.getvalue()

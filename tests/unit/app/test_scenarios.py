"""Scenario files: strict reading, and a verdict in words."""

import tomllib
from datetime import UTC, datetime

import pytest

from chartgate.app.rolebook import read_rolebook
from chartgate.app.scenarios import InvalidScenario, Result, read_scenarios, run, unused
from chartgate.cedar.parse import parse_policies

NOW = datetime(2026, 11, 22, tzinfo=UTC)
BOOK = read_rolebook(
    {
        "roles": {
            "nurse": {"parents": ["staff"], "purposes": ["TREAT"]},
            "auditor": {"parents": ["staff"], "purposes": ["HCOMPL"]},
            "staff": {"parents": [], "purposes": []},
            "proxy": {"parents": [], "purposes": ["HCOMPL"]},
        }
    },
    {"TREAT": [], "ETREAT": ["TREAT"], "HCOMPL": []},
)
POLICIES = parse_policies(
    {
        "few.cedar": """
        @id("nurse_labs") permit (principal in Role::"nurse", action == Action::"view", resource)
        when { context.purpose in Purpose::"TREAT" }
        when { resource.category == Category::"labs" }
        when { resource.care_team.contains(principal) };
        @id("nurse_writes")
        permit (principal in Role::"nurse", action == Action::"create", resource)
        when { resource has author && resource.author == principal }
        when { !principal.references.isEmpty() };
        @id("auditor_reads")
        permit (principal in Role::"auditor", action == Action::"read_audit", resource);
        @id("staff_directory") permit (principal in Role::"staff", action == Action::"view", resource)
        when { resource.category == Category::"scheduling" && !(resource has patient) };
        @id("proxy_labs") permit (principal in Role::"proxy", action == Action::"view", resource)
        when { resource has patient && principal.patients.contains(resource.patient) }
        when { resource.age_bands.contains(AgeBand::"child") };
        @id("never_genetic") forbid (principal, action == Action::"view", resource)
        when { resource.category == Category::"genetic" };
        """
    }
)
BASE = """
[[scenario]]
title = "a nurse reads the lab results of her patient"
who = { role = "nurse", department = "cardiology" }
purpose = "TREAT"
asks = "view"
record = { category = "labs", care_team = ["self"] }
expect = "full"
"""


def result(text: str) -> Result:
    (only,) = run(read_scenarios("some.toml", tomllib.loads(text)), POLICIES, BOOK, NOW)
    return only


def edited(old: str, new: str) -> str:
    assert old in BASE
    return BASE.replace(old, new)


def test_a_scenario_passes_when_the_policies_do_what_it_expects() -> None:
    found = result(BASE)
    assert found.passed
    assert found.determining == ("nurse_labs",)
    assert found.message == "a nurse reads the lab results of her patient: full, as expected"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('care_team = ["self"]', 'care_team = ["somebody else"]'),
        ('purpose = "TREAT"', 'purpose = "HCOMPL"'),
        ('category = "labs"', 'category = "notes"'),
        ('care_team = ["self"]', 'care_team = ["self"], labels = ["notes"]'),
        ('role = "nurse"', 'role = "staff"'),
        ('department = "cardiology"', "assignment_until = 2026-11-22"),
        ('department = "cardiology"', "assignment_until = 2026-11-21T23:59:59Z"),
    ],
)
def test_without_one_of_its_conditions_the_record_is_withheld(old: str, new: str) -> None:
    assert result(edited(old, new)).got == "withheld"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('purpose = "TREAT"', 'purpose = "ETREAT"'),
        ('role = "nurse"', 'role = "staff", also = ["nurse"]'),
        ('department = "cardiology"', "assignment_until = 2026-11-23"),
    ],
)
def test_a_narrower_purpose_a_second_role_and_a_live_assignment_count(old: str, new: str) -> None:
    assert result(edited(old, new)).got == "full"


def test_a_row_about_no_patient_is_directory_data() -> None:
    there = edited('"labs", care_team = ["self"]', '"scheduling"')
    assert result(there).got == "withheld"
    assert result(there.replace('"scheduling"', '"scheduling", patient = false')).got == "full"


@pytest.mark.parametrize(
    ("who", "record", "got"),
    [
        ('role = "proxy", patient = "Ann"', 'whose = "Ann", age = "child"', "full"),
        ('role = "staff", also = ["proxy for Ann"]', 'whose = "Ann", age = "child"', "full"),
        ('role = "staff", also = ["proxy@x for Ann"]', 'whose = "Ann", age = "child"', "full"),
        ('role = "proxy", patient = "Ann"', 'whose = "Ann", age = "adult"', "withheld"),
        ('role = "proxy", patient = "Ann"', 'whose = "Ann"', "withheld"),
        ('role = "proxy", patient = "Ann"', 'whose = "Bob", age = "child"', "withheld"),
        ('role = "proxy", patient = "Ann"', 'age = "child"', "withheld"),
        ('role = "proxy"', 'whose = "Ann", age = "child"', "withheld"),
        # an assignment is about its own patient and no other assignment's
        ('role = "staff", patient = "Ann", also = ["proxy"]', 'whose = "Ann", age = "child"',
         "withheld"),
    ],
)  # fmt: skip
def test_whose_record_it_is_counts_by_assignment(who: str, record: str, got: str) -> None:
    text = edited('role = "nurse", department = "cardiology"', who).replace(
        'care_team = ["self"]', record
    )
    assert result(text).got == got


def test_changes_are_allowed_or_refused() -> None:
    text = edited('asks = "view"', 'asks = "create"').replace('"full"', '"allowed"')
    assert result(text).got == "refused"
    own = text.replace('"labs",', '"labs", author = "self",')
    assert result(own).got == "refused"
    assert result(own.replace("department", 'reference = "T-1", department')).got == "allowed"


def test_reading_the_log_needs_no_record() -> None:
    text = """
    [[scenario]]
    title = "an auditor reads who saw whom"
    who = { role = "auditor" }
    purpose = "HCOMPL"
    asks = "read_audit"
    expect = "allowed"
    """
    assert result(text).passed
    assert result(text.replace('"auditor"', '"nurse"')).got == "refused"


def test_a_guardrail_is_tried_against_a_permit_for_everything() -> None:
    text = edited('"labs", care_team = ["self"]', '"genetic"').replace('"full"', '"summary"')
    assert result(text).got == "withheld"
    assert result(text + "even_if_permitted = true\n").passed


def test_a_failure_says_who_gets_what_instead_of_what_and_why() -> None:
    assert result(edited('expect = "full"', 'expect = "withheld"')).message == (
        "some.toml: a nurse reads the lab results of her patient: expected withheld, but the person "
        "(nurse of cardiology), asking for TREAT, sees labs in full, because of nurse_labs"
    )
    unmet = edited('"labs", care_team = ["self"]', '"notes", labels = ["labs"]')
    assert result(unmet).message.endswith(
        "sees nothing of notes + labs, because no policy permits more"
    )
    refused = edited('asks = "view"', 'asks = "update"').replace('"full"', '"allowed"')
    assert "may not update labs" in result(refused).message


def test_the_policies_that_decided_nothing_are_named() -> None:
    scenarios = read_scenarios("some.toml", tomllib.loads(BASE))
    assert unused(run(scenarios, POLICIES, BOOK, NOW), POLICIES) == (
        "nurse_writes",
        "auditor_reads",
        "staff_directory",
        "proxy_labs",
        "never_genetic",
    )


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"labs"', '"lab"', "category is one of"),
        ('asks = "view"', 'asks = "look"', "asks is one of"),
        (
            'expect = "full"',
            'expect = "allowed"',
            "expect is one of withheld, masked, summary, full",
        ),
        ('asks = "view"', 'asks = "create"', "expect is one of allowed, refused"),
        ('asks = "view"', 'asks = "read_audit"', "names a record"),
        ('purpose = "TREAT"\n', "", "purpose is missing"),
        ('purpose = "TREAT"', "purpose = 3", "purpose is not a text"),
        ('purpose = "TREAT"', 'purpose = "TREATS"', "there is no purpose TREATS"),
        ('role = "nurse"', 'role = "nurses"', "there is no role nurses"),
        ('expect = "full"', 'expects = "full"', "expect is missing"),
        ('expect = "full"', 'expect = "full"\nnote = "x"', "unknown key note"),
        ('department = "cardiology"', 'dept = "cardiology"', "unknown key dept"),
        ("care_team =", "careteam =", "unknown key careteam"),
        ('["self"]', '"self"', "care_team is not a list of texts"),
        ('["self"]', '["self"], patient = "no"', "patient is true or false"),
        ('["self"]', '["self"], whose = true', "whose is not a text"),
        ('["self"]', '["self"], age = "old"', "age is one of child, adolescent, adult"),
        ('["self"]', '["self"], patient = false, whose = "Ann"', "says nothing of one"),
        ('["self"]', '["self"], patient = false, age = "adult"', "says nothing of one"),
        ('{ role = "nurse", department = "cardiology" }', '"a nurse"', "who: not a table"),
        ('department = "cardiology"', 'assignment_until = "soon"', "is not a date"),
        ('department = "cardiology"', "assignment_until = 2026-01-01T00:00:00", "no time zone"),
        ("[[scenario]]", "[[scenarios]]", "consists of [[scenario]] tables"),
        ('title = "a nurse reads the lab results of her patient"\n', "", "title is missing"),
    ],
)
def test_a_line_that_is_not_understood_is_a_fault_of_the_file(
    old: str, new: str, words: str
) -> None:
    with pytest.raises(InvalidScenario) as caught:
        result(edited(old, new))
    assert str(caught.value).startswith("some.toml: ")
    assert words in str(caught.value)


def test_two_scenarios_of_a_file_cannot_share_a_title() -> None:
    with pytest.raises(InvalidScenario, match="two scenarios are titled"):
        read_scenarios("some.toml", tomllib.loads(BASE + BASE))


def test_a_file_without_scenarios_is_a_fault() -> None:
    with pytest.raises(InvalidScenario):
        read_scenarios("empty.toml", {})
    with pytest.raises(InvalidScenario):
        read_scenarios("empty.toml", {"scenario": []})
    with pytest.raises(InvalidScenario, match="scenario 1: not a table"):
        read_scenarios("odd.toml", {"scenario": ["x"]})

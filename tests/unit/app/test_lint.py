"""Lints: for each rule a policy that it finds, and a neighbour that it leaves alone."""

from datetime import date
from pathlib import Path

import pytest

from chartgate.adapters.policy_files import read_bundle
from chartgate.app.clauses import Citation, citations, parse_citation
from chartgate.app.duties import read_duties
from chartgate.app.lint import Finding, Severity, lint
from chartgate.app.policy_bundle import Bundle, InvalidBundle, PolicyVersion, open_bundle
from chartgate.app.policy_listing import UnknownRole, listing

POLICIES = Path(__file__).resolve().parents[3] / "policies"
SHIPPED = read_bundle(POLICIES)
TODAY = date(2026, 11, 22)

NOTES = '@id("p")\n@owner("Privacy Officer")\n@clause("164.506(c)")\n@review("2027-06-30")\n'
NURSE = 'principal in Role::"nurse"'
VIEW = 'action == Action::"view"'
FOR_CARE = 'when { context.purpose in Purpose::"TREAT" }'
LABS = 'when { resource.category == Category::"labs" }'
SOUND = f"permit ({NURSE}, {VIEW}, resource) {FOR_CARE} {LABS};"


def version(text: str, **files: str) -> PolicyVersion:
    kept = {
        name: SHIPPED.files[name] for name in ("schema.cedarschema", "roles.toml", "purposes.toml")
    }
    return open_bundle(Bundle({**kept, "x.cedar": text, **files}))


def found(text: str, notes: str = NOTES, today: date = TODAY) -> list[Finding]:
    return list(lint(version(notes + text), today=today))


def rules(text: str, notes: str = NOTES, today: date = TODAY) -> dict[str, str]:
    return {one.rule: one.severity.label for one in found(text, notes, today)}


def test_a_sound_policy_gives_nothing_to_say() -> None:
    assert rules(SOUND) == {}


@pytest.mark.parametrize(
    ("rule", "severity", "bad", "good"),
    [
        (
            "names-a-person", "error",
            f'permit (principal == User::"anna", {VIEW}, resource) {FOR_CARE} {LABS};',
            SOUND,
        ),
        (
            "names-a-person", "error",
            f'permit ({NURSE}, {VIEW}, resource) {FOR_CARE} {LABS} when {{ resource has author && resource.author == User::"anna" }};',
            f"permit ({NURSE}, {VIEW}, resource) {FOR_CARE} {LABS} when {{ resource has author && resource.author == principal }};",
        ),
        (
            "names-a-person", "note",
            f'forbid (principal == User::"anna", {VIEW}, resource);',
            f"forbid ({NURSE}, {VIEW}, resource);",
        ),
        (
            "open-to-anybody", "error",
            f"permit (principal, {VIEW}, resource) {FOR_CARE} {LABS};",
            f'permit (principal, {VIEW}, resource) {FOR_CARE} {LABS} when {{ principal in [Role::"nurse", Role::"physician"] }};',
        ),
        (
            "open-to-anybody", "error",
            f"permit (principal is User, {VIEW}, resource) {FOR_CARE} {LABS};",
            f'permit (principal is User in Role::"nurse", {VIEW}, resource) {FOR_CARE} {LABS};',
        ),
        (
            "no-role", "warning",
            f"permit (principal, {VIEW}, resource) {FOR_CARE} {LABS} when {{ resource.care_team.contains(principal) }};",
            f"permit ({NURSE}, {VIEW}, resource) {FOR_CARE} {LABS} when {{ resource.care_team.contains(principal) }};",
        ),
        (
            "every-action", "error",
            f"permit ({NURSE}, action, resource is Record) {FOR_CARE} {LABS};",
            f'permit ({NURSE}, action in [Action::"view", Action::"update"], resource) {FOR_CARE} {LABS};',
        ),
        (
            "every-record", "error",
            f"permit ({NURSE}, {VIEW}, resource) {FOR_CARE};",
            SOUND,
        ),
        (
            "every-category", "warning",
            f"permit ({NURSE}, {VIEW}, resource) {FOR_CARE} when {{ resource.care_team.contains(principal) }};",
            f'permit ({NURSE}, {VIEW}, resource) {FOR_CARE} when {{ resource.category == Category::"labs" || resource.category == Category::"notes" }};',
        ),
        (
            "every-category", "warning",
            f'permit ({NURSE}, {VIEW}, resource) {FOR_CARE} when {{ resource.category == Category::"labs" || resource.category != Category::"labs" }};',
            f'permit ({NURSE}, {VIEW}, resource) {FOR_CARE} unless {{ resource.category != Category::"labs" }};',
        ),
        (
            "no-purpose", "warning",
            f"permit ({NURSE}, {VIEW}, resource) {LABS};",
            f"permit ({NURSE}, {VIEW}, resource) {LABS} when {{ !(resource has patient) }};",
        ),
        (
            "no-purpose", "warning",
            f'permit ({NURSE}, {VIEW}, resource) {LABS} unless {{ context.purpose in Purpose::"HMARKT" }};',
            f'permit ({NURSE}, {VIEW}, resource) {LABS} when {{ context.purpose in Purpose::"TREAT" || context.purpose == Purpose::"COC" }};',
        ),
        (
            "wildcard-like", "warning",
            f'permit ({NURSE}, {VIEW}, resource) {FOR_CARE} {LABS} when {{ context.source like "*" }};',
            f'permit ({NURSE}, {VIEW}, resource) {FOR_CARE} {LABS} when {{ context.source like "ward*" }};',
        ),
        (
            "not-a-role", "warning",
            f'permit ({NURSE}, {VIEW}, resource) {FOR_CARE} {LABS} unless {{ principal in Role::"vendor_contractor" }};',
            f'forbid ({NURSE}, {VIEW}, resource) {LABS} unless {{ principal in Role::"physician" }};',
        ),
        (
            "not-a-role", "warning",
            f'permit ({NURSE}, {VIEW}, resource) {FOR_CARE} {LABS} when {{ !(principal in [Role::"vendor_contractor"]) && context.source == "a" }};',
            f'permit ({NURSE}, {VIEW}, resource) {FOR_CARE} {LABS} when {{ !(!(principal in [Role::"clinician"])) }};',
        ),
        (
            "not-a-role", "warning",
            f'permit ({NURSE}, {VIEW}, resource) {FOR_CARE} {LABS} when {{ if principal in Role::"proxy" then false else true }};',
            f'permit ({NURSE}, {VIEW}, resource) {FOR_CARE} {LABS} when {{ if context.source == "a" then principal in Role::"clinician" else true }};',
        ),
        (
            "not-a-role", "warning",
            f'permit ({NURSE}, {VIEW}, resource) {FOR_CARE} {LABS} unless {{ principal is User in Role::"proxy" }};',
            f'permit (principal, {VIEW}, resource) {FOR_CARE} {LABS} when {{ principal is User in Role::"nurse" }};',
        ),
        (
            "no-purpose", "warning",
            f'permit ({NURSE}, {VIEW}, resource) {LABS} when {{ context.purpose in Purpose::"TREAT" || context.source == "a" }};',
            f'permit ({NURSE}, {VIEW}, resource) {LABS} when {{ [Purpose::"TREAT", Purpose::"ETREAT"].contains(context.purpose) }};',
        ),
        (
            "every-category", "warning",
            f'permit ({NURSE}, {VIEW}, resource) {FOR_CARE} when {{ Category::"labs" == resource.category || resource.care_team.contains(principal) }};',
            f'permit ({NURSE}, {VIEW}, resource) {FOR_CARE} when {{ (Category::"labs" == resource.category && context.source == "a") || resource.category in [Category::"notes"] }};',
        ),
        (
            "every-record", "error",
            f'permit ({NURSE}, {VIEW}, resource) {FOR_CARE} when {{ context.source == "a" }};',
            f'permit ({NURSE}, {VIEW}, resource == Record::"1") {FOR_CARE};',
        ),
        (
            "never-applies", "warning",
            f'permit ({NURSE}, {VIEW}, resource) {FOR_CARE} {LABS} when {{ resource.category == Category::"notes" }};',
            f'permit ({NURSE}, {VIEW}, resource) {FOR_CARE} {LABS} when {{ [Category::"notes", Category::"labs"].contains(resource.category) }};',
        ),
        (
            "never-applies", "warning",
            f"permit ({NURSE}, {VIEW}, resource) {FOR_CARE} {LABS} when {{ 1 > 2 }};",
            f"permit ({NURSE}, {VIEW}, resource) {FOR_CARE} {LABS} when {{ true }};",
        ),
        (
            "never-applies", "warning",
            f'permit ({NURSE}, {VIEW}, resource) {FOR_CARE} {LABS} when {{ principal in Role::"billing_coder" }};',
            f'permit ({NURSE}, {VIEW}, resource) {FOR_CARE} {LABS} when {{ principal in Role::"workforce" }};',
        ),
        (
            "never-applies", "warning",
            f'permit ({NURSE}, {VIEW}, resource) {LABS} when {{ context.purpose in Purpose::"HRESCH" }};',
            f'permit ({NURSE}, {VIEW}, resource) {LABS} when {{ context.purpose in Purpose::"ETREAT" }};',
        ),
        (
            "never-applies", "warning",
            f"permit ({NURSE}, {VIEW}, resource) {FOR_CARE} {LABS} when {{ 9223372036854775807 + 1 > 0 }};",
            f"permit ({NURSE}, {VIEW}, resource) {FOR_CARE} {LABS} when {{ 9223372036854775806 + 1 > 0 }};",
        ),
        (
            "says-nothing", "note",
            f"permit ({NURSE}, {VIEW}, resource) {FOR_CARE} {LABS} when {{ 1 < 2 }};",
            f"permit ({NURSE}, {VIEW}, resource) {FOR_CARE} {LABS} when {{ true }};",
        ),
    ],
)  # fmt: skip
def test_a_policy_is_found_by_its_rule_and_its_neighbour_is_not(
    rule: str, severity: str, bad: str, good: str
) -> None:
    assert rules(bad).get(rule) == severity
    assert rule not in rules(good)


@pytest.mark.parametrize(
    ("rule", "severity", "old", "new"),
    [
        ("no-owner", "warning", '@owner("Privacy Officer")', ""),
        ("no-owner", "warning", "Privacy Officer", " "),
        ("no-clause", "warning", '@clause("164.506(c)")', ""),
        ("unknown-clause", "warning", "164.506(c)", "164.506(c); HIPAA"),
        ("unknown-clause", "warning", "164.506(c)", "999.1"),
        ("no-review", "warning", '@review("2027-06-30")', ""),
        ("bad-review", "error", "2027-06-30", "30.06.2027"),
        ("bad-review", "error", "2027-06-30", "20270630"),
        ("bad-review", "error", "2027-06-30", "2027-02-30"),
        ("review-overdue", "warning", "2027-06-30", "2026-11-21"),
    ],
)
def test_what_is_missing_around_a_policy_is_told(
    rule: str, severity: str, old: str, new: str
) -> None:
    assert rules(SOUND, NOTES.replace(old, new)) == {rule: severity}


def test_a_review_is_due_the_day_after_its_date() -> None:
    assert rules(SOUND, today=date(2027, 6, 30)) == {}
    assert rules(SOUND, today=date(2027, 7, 1)) == {"review-overdue": "warning"}


def test_a_finding_has_a_place_and_says_what_to_do() -> None:
    [finding] = found("\n\n" + SOUND.replace(LABS, ""), "// first\n" + NOTES)
    assert (finding.file, finding.line, finding.policy) == ("x.cedar", 2, "p")
    assert str(finding) == (
        "x.cedar:2: error: policy p: covers every record of every patient: say which categories, "
        "and whose [every-record]"
    )


def test_findings_come_worst_first() -> None:
    text = f"permit (principal, {VIEW}, resource) when {{ 1 < 2 }};"
    severities = [finding.severity for finding in found(text)]
    assert severities == sorted(severities)
    assert severities[0] is Severity.ERROR


def test_nothing_in_a_policy_reaches_a_terminal_raw() -> None:
    notes = NOTES.replace("164.506(c)", "\\u{1b}[2J").replace("2027-06-30", "\\u{202e}")
    for finding in found(SOUND, notes):
        assert str(finding).isprintable()


def test_the_shipped_policies_have_no_error() -> None:
    findings = lint(open_bundle(SHIPPED), today=TODAY)
    assert [str(one) for one in findings if one.severity is Severity.ERROR] == []
    of_policies = [one for one in findings if one.policy]
    assert [str(one) for one in of_policies] == []


# Duties.

CLERK = f'permit ({NURSE}, action == Action::"update", resource) {FOR_CARE} {LABS};'
READER = (
    'permit (principal in Role::"privacy_officer", action == Action::"read_audit", resource)'
    ' when { context.purpose in Purpose::"HCOMPL" };'
)
DUTIES = '[[conflict]]\ntitle = "apart"\none = ["read_audit"]\nother = ["update", "delete"]\nclause = "164.312(b)"\n'


def conflicts(*texts: str, duties: str = DUTIES) -> list[tuple[str, str]]:
    notes = [NOTES.replace('"p"', f'"p{n}"') for n in range(len(texts))]
    text = "\n".join(n + t for n, t in zip(notes, texts, strict=True))
    findings = lint(version(text, **{"duties.toml": duties}), today=TODAY)
    return [
        (one.severity.label, one.message) for one in findings if one.rule.endswith(
            ("conflicting-duties", "duties-accepted")
        )
    ]  # fmt: skip


def test_two_roles_of_one_person_with_conflicting_duties_are_told() -> None:
    [(severity, message)] = conflicts(CLERK, READER)
    assert severity == "warning"
    assert message.startswith(
        "apart (164.312(b)), but nurse together with privacy_officer may read_audit and update"
    )


def test_one_role_with_conflicting_duties_is_an_error() -> None:
    both = READER.replace("privacy_officer", "nurse").replace("HCOMPL", "TREAT")
    [(severity, message)] = conflicts(CLERK, both)
    assert severity == "error"
    assert "nurse may read_audit and update" in message


def test_an_accepted_conflict_is_a_note_with_its_reason() -> None:
    accepted = DUTIES + 'accepted = ["nurse", "privacy_officer"]\nbecause = "small clinic"\n'
    [(severity, message)] = conflicts(CLERK, READER, duties=accepted)
    assert severity == "note"
    assert message.endswith("accepted: small clinic")


@pytest.mark.parametrize(
    ("guardrail", "prevents"),
    [
        ('forbid (principal in Role::"privacy_officer", action == Action::"update", resource);', True),
        (
            ('forbid (principal, action == Action::"update", resource)'
            ' when { principal in [Role::"privacy_officer", Role::"proxy"] }'
            ' when { resource.category != Category::"notes" };'),
            True,
        ),
        (
            ('forbid (principal in Role::"privacy_officer", action == Action::"update", resource)'
            ' when { resource.category == Category::"notes" };'),
            False,
        ),
        (
            ('forbid (principal in Role::"privacy_officer", action == Action::"update", resource)'
            " when { resource.care_team.contains(principal) };"),
            False,
        ),
        ('forbid (principal == User::"anna", action == Action::"update", resource);', False),
        ('forbid (principal is User, action == Action::"update", resource);', True),
        ('forbid (principal in Role::"proxy", action == Action::"update", resource);', False),
        ('forbid (principal in Role::"privacy_officer", action == Action::"create", resource);', False),
    ],
)  # fmt: skip
def test_a_guardrail_counts_only_where_it_certainly_holds(guardrail: str, prevents: bool) -> None:
    assert (conflicts(CLERK, READER, guardrail) == []) is prevents


@pytest.mark.parametrize(
    "document",
    [
        {"conflicts": []},
        {"conflict": {}},
        {"conflict": [1]},
        {"conflict": [{"title": "x", "one": ["view"], "other": ["view"], "color": 1}]},
        {"conflict": [{"title": "x", "one": "view", "other": ["view"]}]},
        {"conflict": [{"title": "x", "one": ["view"]}]},
        {"conflict": [{"one": ["view"], "other": ["update"]}]},
        {"conflict": [{"title": "x", "one": ["view"], "other": ["view"], "accepted": ["a"]}]},
    ],
)
def test_duties_that_are_misspelt_are_refused(document: dict[str, object]) -> None:
    with pytest.raises(InvalidBundle, match=r"duties\.toml"):
        read_duties(document)


@pytest.mark.parametrize(
    "change",
    [("read_audit", "read_audits"), ("clause", 'accepted = ["nobody"]\nbecause = "x"\nclause')],
)
def test_duties_name_actions_and_roles_that_exist(change: tuple[str, str]) -> None:
    with pytest.raises(InvalidBundle, match="apart"):
        conflicts(CLERK, READER, duties=DUTIES.replace(*change))


# Clauses, and the list that is found by them.


def test_a_citation_has_one_meaning() -> None:
    assert parse_citation("164.506(c)(1)") == Citation("45", "164.506", ("c", "1"))
    assert parse_citation("45 CFR 164.506") == Citation("45", "164.506")
    assert parse_citation("2.13") == parse_citation("42 CFR 2.13") == Citation("42", "2.13")
    assert str(Citation("42", "2.31", ("a",))) == "42 CFR 2.31(a)"
    for strange in ("", "164", "42 CFR 164.1", "45 CFR 2.13", "164.506(", "x164.506", "200.1"):
        assert parse_citation(strange) is None
    known, unknown = citations(" 164.506(c);42 CFR 2.13; x;")
    assert [str(one) for one in known] == ["164.506(c)", "42 CFR 2.13"]
    assert unknown == ("x",)


@pytest.mark.parametrize(
    ("cited", "asked", "expected"),
    [
        ("164.508(a)(2)", "164.508", True),
        ("164.508(a)(2)", "164.508(a)", True),
        ("164.508(a)(2)", "164.508(a)(2)", True),
        ("164.508", "164.508(a)", False),
        ("164.508(a)(2)", "164.508(b)", False),
        ("164.508", "164.50", False),
        ("164.5", "164.508", False),
    ],
)
def test_a_wider_citation_finds_what_is_within_it(cited: str, asked: str, expected: bool) -> None:
    one, wider = parse_citation(cited), parse_citation(asked)
    assert one is not None
    assert wider is not None
    assert one.is_within(wider) is expected


def test_policies_are_listed_by_clause_and_by_role() -> None:
    shipped = open_bundle(SHIPPED)
    assert len(listing(shipped)) == len(shipped.policies)
    served = {row.id for row in listing(shipped, clause=parse_citation("164.508(a)(2)"))}
    assert "psychotherapy_notes_author_only" in served
    assert "nurse_cares" not in served
    of_nurses = {row.id for row in listing(shipped, role="nurse")}
    assert {"nurse_cares", "workforce_directory", "never_for_marketing"} <= of_nurses
    assert not any(one.startswith("billing") for one in of_nurses)
    with pytest.raises(UnknownRole):
        listing(shipped, role="docter")


def test_a_listed_policy_is_told_in_short() -> None:
    [row] = listing(version(NOTES + SOUND))
    assert (row.effect, row.who, row.what) == ("permit", "nurse", "view: labs")
    assert (row.clause, row.owner, row.review) == ("164.506(c)", "Privacy Officer", "2027-06-30")
    [row] = listing(version(NOTES + "forbid (principal, action, resource);"))
    assert (row.who, row.what) == ("anybody", "every action")

"""What changes between two versions: each kind of change, on a hospital of two roles."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from chartgate.app.policy_bundle import Bundle, PolicyVersion, open_bundle
from chartgate.app.policy_diff import SEVERAL, Claims, PolicyDiff, Verdict, policy_diff
from chartgate.app.proof_diff import Comparison

SCHEMA = """
entity Category enum ["notes", "billing"];
entity Purpose in [Purpose];
entity Role in [Role];
entity Department;
entity Patient;
entity User in [Role] = {
  departments: Set<Department>, references: Set<String>, patients: Set<Patient>
};
entity Record = {
  category: Category, department?: Department, departments: Set<Department>,
  care_team: Set<User>, author?: User
};
entity AuditLog;
type Asked = { purpose: Purpose, now: datetime, source: String };
action view, view_summary, view_masked, update appliesTo {
  principal: [User], resource: [Record], context: Asked
};
action read_audit appliesTo { principal: [User], resource: [AuditLog], context: Asked };
"""
ROLES = """
[roles.nurse]
title = "Nurse"
parents = []
default_purpose = "TREAT"
purposes = ["TREAT"]
[roles.clerk]
title = "Clerk"
parents = []
default_purpose = "HPAYMT"
purposes = ["HPAYMT"]
"""
PURPOSES = "TREAT = []\nHPAYMT = []\nETREAT = ['TREAT']\n"
POLICIES = """
// what a nurse reads
@id("nurse_reads")
permit (principal in Role::"nurse", action == Action::"view", resource)
when { context.purpose in Purpose::"TREAT" && resource.category == Category::"notes" }
when { resource.departments.containsAny(principal.departments) };

@id("clerk_bills")
permit (principal in Role::"clerk", action == Action::"view_summary", resource)
when { resource.category == Category::"billing" };

@id("clerk_files")
permit (principal in Role::"clerk", action == Action::"update", resource)
when { resource.category == Category::"billing" };

@id("own_notes_only")
forbid (principal, action in [Action::"view", Action::"update"], resource)
when { resource.category == Category::"notes" }
unless { resource has author && resource.author == principal };
"""


def version(
    policies: str = POLICIES,
    *,
    roles: str = ROLES,
    purposes: str = PURPOSES,
    schema: str = SCHEMA,
    **files: str,
) -> PolicyVersion:
    return open_bundle(
        Bundle(
            {
                "schema.cedarschema": schema,
                "roles.toml": roles,
                "purposes.toml": purposes,
                "all.cedar": policies,
                **files,
            }
        )
    )


def compared(after: PolicyVersion, before: PolicyVersion | None = None) -> PolicyDiff:
    one = before or version()
    now = datetime(2026, 3, 2, 9, tzinfo=UTC)
    return policy_diff(one, after, lambda: Comparison(one, after, now=now, timeout=10))


def changed(diff: PolicyDiff) -> dict[tuple[str, str, str | None], Verdict]:
    return {(c.role, c.action, c.category): c.verdict for c in diff.changed}


def test_other_comments_order_and_files_are_the_same_meaning() -> None:
    first, second, *rest = POLICIES.split("\n\n")
    moved = version("\n\n".join([second, *rest]), **{"more.cedar": first.replace("//", "// now:")})

    def never() -> Comparison:
        raise AssertionError("what is written the same needs no proof")

    diff = policy_diff(version(), moved, never)
    assert diff.is_same
    assert diff.facts.facts == ()
    assert diff.facts.files == ("all.cedar", "more.cedar")


def test_another_annotation_is_told_and_changes_nothing() -> None:
    diff = compared(
        version(POLICIES.replace('@id("clerk_bills")', '@id("clerk_bills")\n@owner("CFO")'))
    )
    assert diff.is_same
    [fact] = diff.facts.facts
    assert (fact.part, fact.name, fact.change, fact.detail) == (
        "policy", "clerk_bills", "changed", "annotations",
    )  # fmt: skip


def test_another_way_to_say_the_same_is_proved_to_change_nothing() -> None:
    said = '!(resource.category != Category::"billing")'
    diff = compared(version(POLICIES.replace('resource.category == Category::"billing"', said)))
    assert diff.is_same
    assert [f.detail for f in diff.facts.facts] == ["conditions", "conditions"]
    assert len(diff.cells) == 2 * (4 * 2 + 1)


def test_a_permit_more_is_newly_allowed_for_its_role_and_category_alone() -> None:
    diff = compared(
        version(
            POLICIES + '@id("nurse_bills") permit (principal in Role::"nurse", action == '
            'Action::"view_summary", resource) when { resource.category == Category::"billing" };'
        )
    )
    assert changed(diff) == {
        ("nurse", "view_summary", "billing"): Verdict.ALLOWED,
        ("nurse", "view_masked", "billing"): Verdict.ALLOWED,
    }
    shown = diff.changed[0].more
    assert shown is not None
    assert (shown.before, shown.after) == ("withheld", "summary")
    assert [a.role for a in shown.example.who.assignments] == ["nurse"]


def test_a_higher_level_is_a_level_raised() -> None:
    raised = POLICIES.replace(
        '"clerk", action == Action::"view_summary"', '"clerk", action == Action::"view"'
    )
    diff = compared(version(raised))
    assert changed(diff) == {("clerk", "view", "billing"): Verdict.RAISED}
    [cell] = diff.changed
    assert cell.more is not None
    assert (cell.more.before, cell.more.after) == ("summary", "full")
    assert changed(compared(version(), version(raised))) == {
        ("clerk", "view", "billing"): Verdict.LOWERED
    }


def test_a_guardrail_removed_raises_the_level_where_a_permit_waits_behind_it() -> None:
    without = POLICIES[: POLICIES.index('@id("own_notes_only")')]
    diff = compared(version(without))
    assert changed(diff) == {("nurse", "view", "notes"): Verdict.RAISED}
    assert [(f.name, f.change) for f in diff.facts.facts] == [("own_notes_only", "removed")]


def test_a_permit_less_is_newly_denied() -> None:
    head, _, tail = POLICIES.partition('@id("clerk_files")')
    diff = compared(version(head + tail[tail.index("@id") :]))
    assert changed(diff) == {("clerk", "update", "billing"): Verdict.DENIED}


def test_a_condition_about_other_records_allows_some_and_denies_others() -> None:
    other = POLICIES.replace(
        "resource.departments.containsAny(principal.departments)",
        "resource.care_team.contains(principal)",
    )
    cells = {c.action: c for c in compared(version(other)).changed}
    assert {c.verdict for c in cells.values()} == {Verdict.BOTH}
    both = cells["view"]
    assert both.more is not None
    assert both.less is not None
    assert both.more.after == both.less.before == "full"


def test_a_narrower_purpose_that_moves_takes_with_it_what_was_asked_for_it() -> None:
    diff = compared(version(purposes=PURPOSES.replace("['TREAT']", "[]")))
    verdicts = changed(diff)
    assert set(verdicts) == {("nurse", a, "notes") for a in ("view", "view_summary", "view_masked")}
    assert set(verdicts.values()) == {Verdict.DENIED}
    assert diff.claims == (Claims("nurse", (), ("ETREAT",)),)


def test_a_purpose_that_may_no_longer_be_claimed_is_told_without_a_cell() -> None:
    diff = compared(version(roles=ROLES.replace('purposes = ["HPAYMT"]', "purposes = []")))
    assert not diff.is_same
    assert diff.changed == ()
    assert diff.claims == (Claims("clerk", (), ("HPAYMT",)),)


def test_what_only_people_of_two_roles_notice_is_shown_as_that() -> None:
    diff = compared(
        version(
            POLICIES + '@id("apart") forbid (principal in Role::"nurse", action, resource) '
            'when { principal in Role::"clerk" };'
        )
    )
    assert {c.role for c in diff.changed} == {SEVERAL}
    for cell in diff.changed:
        assert cell.less is not None
        assert {a.role for a in cell.less.example.who.assignments} == {"nurse", "clerk"}


def test_an_attribute_more_in_the_schema_is_told_and_changes_nothing() -> None:
    diff = compared(version(schema=SCHEMA.replace("author?: User", "author?: User, ward?: String")))
    assert diff.is_same
    [fact] = diff.facts.facts
    assert (fact.part, fact.name, fact.detail) == ("entity type", "Record", "with ward")


def test_scenarios_and_invariants_are_facts_that_decide_nothing() -> None:
    scenario = '[[scenario]]\ntitle = "a"\n'
    one = version(**{"scenarios/s.toml": scenario})
    other = version(**{"scenarios/s.toml": scenario.replace('"a"', '"b"')})
    diff = compared(other, one)
    assert diff.is_same
    assert [(f.part, f.name, f.change) for f in diff.facts.facts] == [
        ("scenario", "s.toml: a", "removed"),
        ("scenario", "s.toml: b", "added"),
    ]


@pytest.mark.parametrize("name", ["nurse", "clerk"])
def test_every_example_is_decided_by_both_versions_as_it_says(name: str) -> None:
    after = version(POLICIES.replace(f'Role::"{name}"', 'Role::"nurse"'))
    before = version()

    def level(of: PolicyVersion, ask: Callable[[PolicyVersion], str]) -> str:
        return ask(of)

    for cell in compared(after, before).changed:
        for shown in (cell.more, cell.less):
            if shown is None or cell.action == "update":
                continue
            example = replace(shown.example)
            assert (
                level(before, lambda v, e=example: e.level(v.policies, v.roles).label)
                == shown.before
            )
            assert (
                level(after, lambda v, e=example: e.level(v.policies, v.roles).label) == shown.after
            )

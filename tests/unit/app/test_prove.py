"""Invariants proved, refuted and left open, on a clinic small enough to see through."""

import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from chartgate.app.ceilings import InvalidCeilings, ceilings_of, prove_ceilings
from chartgate.app.invariants import InvalidInvariant, count_invariants, invariants_of
from chartgate.app.policy_bundle import Bundle, PolicyVersion, open_bundle
from chartgate.app.proof_diff import Comparison
from chartgate.app.proof_example import Example
from chartgate.app.prove import Proof, prove, prove_version, prover_of
from chartgate.app.scenarios import read_scenarios, run
from chartgate.model.disclosure import Disclosure
from chartgate.targets.smt.solve import Nothing, Unknown

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)

SCHEMA = """
entity Category enum ["notes", "labs", "billing"];
entity Purpose in [Purpose];
entity Role in [Role];
entity Department;
entity Patient;
entity User in [Role] = {
  departments: Set<Department>, references: Set<String>, patients: Set<Patient>
};
entity Record = {
  category: Category, patient?: Patient, department?: Department, departments: Set<Department>,
  care_team: Set<User>, author?: User
};
entity AuditLog;
type Asked = { purpose: Purpose, now: datetime, source: String };
action view, view_summary, view_masked, create, update, delete, export appliesTo {
  principal: [User], resource: [Record], context: Asked
};
action read_audit appliesTo { principal: [User], resource: [AuditLog], context: Asked };
"""
ROLES = """
[roles.staff]
title = "Staff"
parents = []
default_purpose = "TREAT"
purposes = ["TREAT"]
[roles.nurse]
title = "Nurse"
parents = ["staff"]
default_purpose = "TREAT"
purposes = ["TREAT"]
[roles.clerk]
title = "Clerk"
parents = ["staff"]
default_purpose = "PAY"
purposes = ["PAY"]
[roles.boss]
title = "Boss"
parents = []
default_purpose = "PAY"
purposes = ["PAY"]
"""
PURPOSES = """
TREAT = []
URGENT = ["TREAT"]
PAY = []
"""
POLICIES = """
@id("nurse_team")
permit (principal in Role::"nurse", action == Action::"view", resource)
when { context.purpose in Purpose::"TREAT" && resource.category == Category::"labs" }
when { resource.care_team.contains(principal) || resource.departments.containsAny(principal.departments) };

@id("own_notes")
permit (principal in Role::"nurse", action == Action::"view", resource)
when { resource.category == Category::"notes" };

@id("notes_of_others_closed")
forbid (principal, action in [Action::"view", Action::"view_summary"], resource)
when { resource.category == Category::"notes" }
unless { (resource has author && resource.author == principal) || principal in Role::"boss" };

@id("clerk_bills")
permit (principal in Role::"clerk", action == Action::"view_summary", resource)
when { resource.category == Category::"billing" && !principal.references.isEmpty() };

@id("clerk_writes")
permit (principal in Role::"clerk", action == Action::"update", resource)
when { resource.category == Category::"billing" };

@id("audit_by_boss")
permit (principal in Role::"boss", action == Action::"read_audit", resource)
when { context.now >= datetime("2026-01-01") };
"""
FILES = {
    "schema.cedarschema": SCHEMA,
    "roles.toml": ROLES,
    "purposes.toml": PURPOSES,
    "clinic.cedar": POLICIES,
}


def clinic(policies: str = "", /, **files: str) -> PolicyVersion:
    named = {name.replace("__", "/") + ".toml": text for name, text in files.items()}
    return open_bundle(Bundle({**FILES, "more.cedar": policies or "// nothing more", **named}))


def invariant(**keys: object) -> str:
    lines = ["[[invariant]]", 'id = "it"', 'words = "It holds"', 'clause = "164.502(b)"']
    for key, value in keys.items():
        if isinstance(value, tuple):
            shown = "[" + ", ".join(f"'{item}'" for item in value) + "]"
        else:
            shown = f"'''{value}'''"
        lines.append(f"{key} = {shown}")
    return "\n".join(lines) + "\n"


def proof(more: str = "", /, **keys: object) -> Proof:
    version = clinic(more, invariants__one=invariant(**keys))
    invariants = invariants_of(version)
    prover = prover_of(version, invariants, now=NOW, timeout=20)
    (found,) = prove(prover, invariants, clock=lambda: 0.0)
    return found


VIEWS = ("view", "view_summary", "view_masked")


# --- never, at_most ---------------------------------------------------------------------------


def test_what_no_request_gets_is_proved() -> None:
    found = proof(claim="never", roles=("clerk",), categories=("labs", "notes"))
    assert (found.verdict, found.why, found.example) == ("proved", "", None)
    assert found.claimed == (
        "Nobody whose assignments are all of role clerk, for whatever purpose and at whatever time, "
        "is ever allowed any action on a record labelled labs or notes."
    )


def test_what_some_request_gets_is_shown_by_a_person_and_a_record() -> None:
    found = proof(claim="never", actions=VIEWS, categories=("labs",))
    assert found.verdict == "violated"
    assert found.why.startswith("person 1, nurse, asking for ")
    assert "sees labs in full" in found.why
    assert found.why.endswith("because of nurse_team")


def test_a_counterexample_is_a_scenario_that_fails_until_the_policies_are_mended() -> None:
    found = proof(claim="never", actions=VIEWS, categories=("notes",))
    assert found.scenario is not None
    scenarios = read_scenarios("found.toml", tomllib.loads(found.scenario))
    version = clinic()
    (result,) = run(scenarios, version.policies, version.roles, NOW)
    assert not result.passed
    mended = clinic(
        '@id("shut") forbid (principal, action, resource is Record)'
        ' when { resource.category == Category::"notes" };'
    )
    (result,) = run(scenarios, mended.policies, mended.roles, NOW)
    assert result.passed


def test_an_exception_is_part_of_the_claim() -> None:
    author = "resource has author && resource.author == principal"
    closed = {"claim": "never", "actions": ("view",), "categories": ("notes",)}
    assert proof(**closed, unless=author).verdict == "violated"
    assert proof(**closed, unless=f'{author} || principal in Role::"boss"').verdict == "proved"
    assert proof(**closed, when='context.purpose in Purpose::"PAY"').verdict == "violated"


def test_held_alone_and_held_with_others_are_two_claims() -> None:
    # A boss lifts the forbid for the nurse she also is.
    claim = {
        "claim": "never",
        "actions": ("view",),
        "categories": ("notes",),
        "roles": ("nurse",),
        "unless": "resource has author && resource.author == principal",
    }
    assert proof(**claim).verdict == "proved"
    found = proof(**claim, held="with_others")
    assert found.verdict == "violated"
    assert "nurse and boss" in found.why
    assert "by that assignment, whatever other roles she holds" in found.claimed


def test_a_permit_is_asked_of_each_assignment_alone() -> None:
    # The nurse she also is permits nothing to the clerk.
    claim = {"claim": "never", "categories": ("labs",), "held": "with_others"}
    assert proof(**claim, roles=("clerk",)).verdict == "proved"
    # Nor do two roles together hold for either of them.
    both = (
        '@id("both") permit (principal in Role::"nurse", action == Action::"view", resource)'
        ' when { principal in Role::"clerk" };'
    )
    found = proof(both, claim="not_vacuous")
    assert (found.verdict, found.why) == ("violated", "both: holds for no request")


def test_a_role_counts_in_the_department_it_is_held_in() -> None:
    far = "!resource.care_team.contains(principal) && !resource.departments.containsAny(principal.departments)"
    assert (
        proof(claim="never", actions=("view",), categories=("labs",), when=far).verdict == "proved"
    )


def test_a_ceiling_is_the_most_that_is_seen() -> None:
    assert proof(claim="at_most", level="summary", categories=("billing",)).verdict == "proved"
    found = proof(claim="at_most", level="masked", categories=("billing",))
    assert found.verdict == "violated"
    assert "sees billing in summary" in found.why
    assert found.scenario is not None
    assert 'expect = "masked"' in found.scenario
    assert found.claimed.endswith("ever sees a record labelled billing better than masked.")


def test_the_log_is_a_thing_like_any_other() -> None:
    closed = {"claim": "never", "actions": ("read_audit",)}
    assert proof(**closed, unless='principal in Role::"boss"').verdict == "proved"
    found = proof(**closed)
    assert found.verdict == "violated"
    assert "may read_audit the audit log" in found.why
    assert found.scenario is not None
    assert proof(**closed, when='context.now < datetime("2026-01-01")').verdict == "proved"


def test_a_forbid_that_cannot_be_evaluated_denies() -> None:
    # Of an author only the uid is known: to read more of him is an error.
    failing = (
        '@id("author_known") forbid (principal, action == Action::"update", resource)'
        " when { resource has author && resource.author.departments.isEmpty() };"
    )
    other = "resource has author && resource.author != principal"
    assert proof(failing, claim="never", actions=("update",), when=other).verdict == "proved"
    found = proof(failing, claim="never_errors")
    assert found.verdict == "violated"
    assert found.why.startswith("author_known cannot be evaluated: ")


# --- always -----------------------------------------------------------------------------------


def test_what_every_request_of_a_kind_gets_is_proved() -> None:
    on_team = 'resource.care_team.contains(principal) && context.purpose in Purpose::"TREAT"'
    claim = {"claim": "always", "actions": ("view",), "categories": ("labs",), "roles": ("nurse",)}
    assert proof(**claim, when=on_team).verdict == "proved"
    assert proof(**claim, when=on_team, held="with_others").verdict == "proved"
    found = proof(**claim, when="resource.care_team.contains(principal)")
    assert found.verdict == "violated"
    assert "sees nothing of labs" in found.why
    assert found.scenario is not None
    assert 'expect = "full"' in found.scenario


def test_always_counts_the_forbids_of_the_whole_person() -> None:
    closed = (
        '@id("no_boss") forbid (principal in Role::"boss", action, resource is Record)'
        ' when { resource.category == Category::"labs" };'
    )
    claim = {
        "claim": "always",
        "actions": ("view",),
        "categories": ("labs",),
        "roles": ("nurse",),
        "when": 'resource.care_team.contains(principal) && context.purpose in Purpose::"TREAT"',
    }
    assert proof(closed, **claim).verdict == "proved"
    found = proof(closed, **claim, held="with_others")
    assert found.verdict == "violated"
    assert "boss" in found.why


# --- comparisons ------------------------------------------------------------------------------


def test_expressions_are_compared_over_every_request() -> None:
    urgent, treat = 'context.purpose in Purpose::"URGENT"', 'context.purpose in Purpose::"TREAT"'
    assert proof(claim="implies", expressions=(urgent, treat)).verdict == "proved"
    assert proof(claim="implies", expressions=(treat, urgent)).verdict == "violated"
    assert (
        proof(claim="equivalent", expressions=(treat, f"{treat} || {urgent}")).verdict == "proved"
    )
    pay = 'context.purpose in Purpose::"PAY"'
    assert proof(claim="disjoint", expressions=(treat, pay, f"!({treat}) && !({pay})")).verdict == (
        "proved"
    )
    found = proof(claim="disjoint", expressions=(treat, urgent))
    assert f"{treat} and {urgent} holds here" in found.why


def test_policies_are_compared_by_when_they_hold() -> None:
    twin = (
        '@id("twin") permit (principal in Role::"clerk", action == Action::"update", resource)'
        ' when { Category::"billing" == resource.category };'
    )
    assert proof(twin, claim="equivalent", policies=("twin", "clerk_writes")).verdict == "proved"
    assert proof(claim="disjoint", policies=("nurse_team", "own_notes")).verdict == "proved"
    found = proof(claim="implies", policies=("own_notes", "notes_of_others_closed"))
    assert found.verdict == "violated"
    assert found.scenario is None


def test_a_policy_that_changes_nothing_is_found() -> None:
    assert proof(claim="not_shadowed").verdict == "proved"
    twin = (
        '@id("twin") permit (principal in Role::"clerk", action == Action::"update", resource)'
        ' when { resource.category == Category::"billing" && context.source == "x" };'
    )
    found = proof(twin, claim="not_shadowed")
    assert (found.verdict, found.why) == ("violated", "twin: changes no answer")
    assert proof(twin, claim="not_shadowed", policies=("clerk_writes",)).verdict == "proved"
    assert proof(twin, claim="not_vacuous", policies=("twin", "own_notes")).verdict == "proved"


def test_policies_without_a_request_that_breaks_them_never_fail() -> None:
    found = proof(claim="never_errors")
    assert (found.verdict, found.scenario) == ("proved", None)


# --- unknown ----------------------------------------------------------------------------------


def test_what_cannot_be_translated_is_unknown_and_says_so() -> None:
    strange = (
        '@id("strange") permit (principal, action == Action::"view", resource)'
        ' when { context.source like "\\u{10ffff}*" };'
    )
    found = proof(strange, claim="never", actions=("view",))
    assert found.verdict == "unknown"
    assert found.why == "not translated: a text with a character beyond U+2FFFF"
    for claim in ("never_errors", "not_vacuous", "not_shadowed"):
        assert proof(strange, claim=claim).verdict == "unknown"
    both = ("strange", "own_notes")
    assert proof(strange, claim="disjoint", policies=both).verdict == "unknown"


# --- a whole version ----------------------------------------------------------------------------

LEVELS = """
[nurse]
notes = "full"
labs = "full"
billing = "withheld"
[clerk]
notes = "withheld"
labs = "withheld"
billing = "summary"
"""


def test_a_version_passes_when_all_it_claims_is_proved() -> None:
    good = invariant(claim="never", roles=("clerk",), categories=("labs",))
    found = prove_version(clinic(ceilings=LEVELS, invariants__one=good), now=NOW)
    assert found.passed
    assert found.summary == "1 invariants and 6 ceilings, all proved"


def test_a_version_fails_by_the_first_thing_that_is_not_proved() -> None:
    bad = invariant(claim="never", roles=("clerk",), categories=("billing",))
    found = prove_version(clinic(ceilings=LEVELS, invariants__one=bad), now=NOW)
    assert not found.passed
    assert found.summary.startswith("it is violated: person 1, clerk")
    low = LEVELS.replace('"summary"', '"masked"')
    found = prove_version(clinic(ceilings=low), now=NOW)
    assert found.summary.startswith("clerk: billing at most masked is violated: person 1, clerk")
    assert prove_version(clinic(), now=NOW).passed


def test_every_ceiling_has_its_verdict_and_its_counterexample() -> None:
    version = clinic(ceilings=LEVELS.replace('labs = "full"', 'labs = "masked"'))
    prover = prover_of(version, (), now=NOW, timeout=20)
    seen = []
    cells = prove_ceilings(prover, ceilings_of(version), clock=lambda: 0.0, progress=seen.append)
    assert tuple(seen) == cells
    assert {(c.role, c.category): c.verdict for c in cells} == {
        ("nurse", "notes"): "proved",
        ("nurse", "labs"): "violated",
        ("nurse", "billing"): "proved",
        ("clerk", "notes"): "proved",
        ("clerk", "labs"): "proved",
        ("clerk", "billing"): "proved",
    }
    (broken,) = [c for c in cells if c.verdict == "violated"]
    assert broken.ceiling is Disclosure.MASKED
    assert broken.scenario is not None
    assert 'title = "nurse: labs is seen masked at most"' in broken.scenario


def test_the_stronger_table_counts_what_another_role_lifts() -> None:
    low = LEVELS.replace('notes = "full"', 'notes = "masked"')
    lift = (
        '@id("only_boss") forbid (principal, action in [Action::"view", Action::"view_summary"],'
        ' resource) when { resource.category == Category::"notes" }'
        ' unless { principal in Role::"boss" };'
    )
    version = clinic(lift, ceilings=low)
    prover = prover_of(version, (), now=NOW, timeout=20)

    def verdicts(*, others: bool) -> Mapping[tuple[str, str], str]:
        cells = prove_ceilings(prover, ceilings_of(version), clock=lambda: 0.0, others=others)
        return {(c.role, c.category): c.verdict for c in cells}

    assert verdicts(others=False)["nurse", "notes"] == "proved"
    assert verdicts(others=True)["nurse", "notes"] == "violated"


def test_an_undecided_ceiling_is_unknown() -> None:
    strange = (
        '@id("strange") permit (principal in Role::"clerk", action == Action::"view", resource)'
        ' when { context.source like "\\u{10ffff}*" };'
    )
    version = clinic(strange, ceilings=LEVELS)
    prover = prover_of(version, (), now=NOW, timeout=20)
    cells = prove_ceilings(prover, ceilings_of(version), clock=lambda: 0.0)
    assert {c.verdict for c in cells if c.role == "clerk"} == {"unknown"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[pilot]\nnotes = 'full'", "pilot: there is no such role"),
        ("nurse = 3", "nurse: not a table of categories"),
        (LEVELS + "[boss]\nnotes = 'full'", "boss: says nothing of labs, billing"),
        (LEVELS.replace("notes", "nots"), "nurse: there is no category nots"),
        (LEVELS.replace('"withheld"', '"none"'), "nurse.billing: one of withheld, masked"),
    ],
)
def test_ceilings_are_read_strictly(text: str, said: str) -> None:
    with pytest.raises(InvalidCeilings, match=said.replace(".", "\\.")):
        ceilings_of(clinic(ceilings=text))


# --- reading invariants -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"claim": "sometimes"}, "claim is one of never, at_most, always"),
        ({"claim": "never", "role": "nurse"}, "unknown key role"),
        ({"claim": "never", "roles": ("pilot",)}, "roles: there is no 'pilot'"),
        ({"claim": "never", "categories": ("nots",)}, "categories: there is no 'nots'"),
        ({"claim": "never", "actions": ("see",)}, "actions: there is no 'see'"),
        ({"claim": "never", "actions": ()}, "actions is empty"),
        ({"claim": "never", "roles": ("nurse", "nurse")}, "roles names something twice"),
        ({"claim": "never", "roles": "nurse"}, "roles is not a list of texts"),
        ({"claim": "never", "level": "masked"}, "level belongs to at_most"),
        ({"claim": "at_most"}, "level belongs to at_most"),
        ({"claim": "at_most", "level": "full"}, "level is withheld, masked or summary"),
        ({"claim": "at_most", "level": "masked", "actions": ("view",)}, "no actions"),
        ({"claim": "never", "held": "with_others"}, "it needs roles"),
        ({"claim": "never", "held": "loosely", "roles": ("nurse",)}, "alone or with_others"),
        ({"claim": "never", "policies": ("own_notes",)}, "no policies or expressions"),
        ({"claim": "always"}, "always says which actions"),
        ({"claim": "never_errors", "roles": ("nurse",)}, "mean nothing to never_errors"),
        ({"claim": "never_errors", "when": "true"}, "no actions, when or unless"),
        ({"claim": "not_vacuous", "expressions": ("true", "false")}, "not expressions"),
        ({"claim": "implies"}, "compares policies or expressions"),
        ({"claim": "implies", "expressions": ("true",)}, "at least two"),
        ({"claim": "never", "when": "resource.colour"}, "attribute `colour`"),
        ({"claim": "never", "when": "true } when { true"}, "one Cedar expression"),
        ({"claim": "never", "when": "true &&"}, "when: "),
        ({"claim": "never", "when": 'principal in Role::"pilot"'}, "unknown Role"),
    ],
)
def test_invariants_are_read_strictly(keys: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidInvariant, match=said) as fault:
        proof(**keys)
    assert "invariants/one.toml" in str(fault.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "consists of"),
        ("invariant = [3]", "invariant 1: not a table"),
        ("[[invariant]]\nid = 'Big Id'", "small letters"),
        ("[[invariant]]\nclaim = 'never'", "id is missing"),
        ("[[invariant]]\nid = 'a'\nclaim = 'never'\nwords = ' '", "words is missing"),
    ],
)
def test_a_file_of_invariants_is_tables_with_their_words(text: str, said: str) -> None:
    with pytest.raises(InvalidInvariant, match=said):
        invariants_of(clinic(invariants__one=text))


def test_an_id_is_given_once_in_the_folder() -> None:
    one = invariant(claim="never_errors")
    version = clinic(invariants__one=one, invariants__two=one)
    assert count_invariants(version.bundle) == 2
    with pytest.raises(InvalidInvariant, match=r"is also in invariants/one\.toml"):
        invariants_of(version)


# --- what changes ------------------------------------------------------------------------------


def compared(before: PolicyVersion, after: PolicyVersion) -> Comparison:
    return Comparison(before, after, now=NOW, timeout=20)


MORE = (
    '@id("more") permit (principal in Role::"clerk", action == Action::"view", resource)'
    ' when { resource.category == Category::"labs" && context.source == "lab" };'
)


def test_what_is_newly_allowed_and_newly_denied_has_an_example() -> None:
    found = compared(clinic(), clinic(MORE)).differences("clerk", "view", "labs")
    assert isinstance(found.newly_allowed, Example)
    assert found.newly_allowed.category == "labs"
    assert found.newly_denied == Nothing()
    back = compared(clinic(MORE), clinic()).differences("clerk", "view", "labs")
    assert isinstance(back.newly_denied, Example)
    assert back.newly_allowed == Nothing()


def test_what_does_not_change_is_proved_not_to() -> None:
    comparison = compared(clinic(), clinic(MORE))
    for role, action, category in (
        ("clerk", "view", "billing"),
        ("nurse", "view", "labs"),
        ("boss", "read_audit", None),
    ):
        found = comparison.differences(role, action, category)
        assert (found.newly_allowed, found.newly_denied) == (Nothing(), Nothing())


def test_a_permit_for_a_level_changes_the_levels_below() -> None:
    found = compared(clinic(), clinic(MORE)).differences("clerk", "view_masked", "labs")
    assert isinstance(found.newly_allowed, Example)


def test_a_change_of_the_role_book_is_a_change() -> None:
    files = {
        **FILES,
        "roles.toml": ROLES.replace(
            '[roles.boss]\ntitle = "Boss"\nparents = []',
            '[roles.boss]\ntitle = "Boss"\nparents = ["clerk"]',
        ),
    }
    promoted = open_bundle(Bundle(files))
    found = compared(clinic(), promoted).differences("boss", "update", "billing")
    assert isinstance(found.newly_allowed, Example)
    assert compared(promoted, promoted).differences("boss", "update", "billing").newly_allowed == (
        Nothing()
    )


def test_an_attribute_that_is_new_is_one_more_thing_to_ask() -> None:
    files = {
        **FILES,
        "schema.cedarschema": SCHEMA.replace("author?: User", "author?: User, closed?: Department"),
        "more.cedar": '@id("more") forbid (principal, action, resource is Record)'
        " when { resource has closed };",
    }
    found = compared(clinic(), open_bundle(Bundle(files))).differences("clerk", "update", "billing")
    assert isinstance(found.newly_denied, Example)
    assert found.newly_allowed == Nothing()


def test_an_attribute_of_another_type_makes_every_change_unknown() -> None:
    files = {
        **FILES,
        "schema.cedarschema": SCHEMA.replace("department?: Department", "department?: String"),
    }
    found = compared(clinic(), open_bundle(Bundle(files))).differences("clerk", "update", "billing")
    assert isinstance(found.newly_allowed, Unknown)
    assert "one type before and another after" in found.newly_allowed.why


def test_what_cannot_be_translated_changes_in_ways_unknown() -> None:
    strange = (
        '@id("strange") permit (principal in Role::"clerk", action == Action::"view", resource)'
        ' when { context.source like "\\u{10ffff}*" };'
    )
    found = compared(clinic(), clinic(strange)).differences("clerk", "view", "labs")
    assert isinstance(found.newly_allowed, Unknown)


def test_an_action_that_nobody_asks_of_such_a_thing_is_told() -> None:
    found = compared(clinic(), clinic()).differences("boss", "read_audit", "labs")
    assert isinstance(found.newly_allowed, Nothing)
    found = compared(clinic(), clinic(MORE)).differences("boss", "read_audit")
    assert found.newly_allowed == Nothing()

"""Explanations of the shipped policies: what decided, what is missing, what would change it."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from chartgate.adapters.policy_files import load_policy_version
from chartgate.app.explain import Explanation, explain
from chartgate.app.explain_change import By, Kind, Suggestion, suggestions
from chartgate.app.explain_conjuncts import Verdict, conjuncts_of
from chartgate.app.explain_question import (
    Question,
    UnknownQuestion,
    check_question,
    decide,
    judging,
)
from chartgate.app.policy_bundle import Bundle, PolicyVersion, open_bundle
from chartgate.app.policy_words import value_words, words_of
from chartgate.cedar.ast import And
from chartgate.cedar.evaluate import evaluate
from chartgate.cedar.values import CedarSet, RecordValue, Value
from chartgate.model.principal import Assignment, EntityUid, Person

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def version(project_root: Path) -> PolicyVersion:
    return load_policy_version(project_root / "policies")


def person(*held: tuple[str, str] | Assignment, name: str = "ann", active: bool = True) -> Person:
    assignments = tuple(
        a if isinstance(a, Assignment) else Assignment(*a, LONG_AGO, None) for a in held
    )
    return Person(name, name, name, active, assignments)


PHYSICIAN = person(("physician", "cardiology"))


def record(
    departments: tuple[str, ...] = (), care_team: tuple[str, ...] = (), **more: Value
) -> Mapping[str, Value]:
    return RecordValue(
        {
            "departments": CedarSet.of(EntityUid("Department", d) for d in departments),
            "care_team": CedarSet.of(EntityUid("User", u) for u in care_team),
            "queues": CedarSet.of(()),
            "age_bands": CedarSet.of(()),
            "patient": EntityUid("Patient", "p"),
            **more,
        }
    )


def asked(
    version: PolicyVersion,
    who: Person,
    action: str,
    labels: str,
    purpose: str,
    about: Mapping[str, Value],
) -> Explanation:
    names = tuple(labels.split("+")) if labels else ()
    question = Question(action, names, purpose, NOW, about)
    return explain(version, who, check_question(question, version.schema))


def told(found: tuple[Suggestion, ...]) -> list[tuple[str, ...]]:
    return [tuple(c.words for c in one.changes) for one in found]


def test_a_yes_names_the_policy_the_assignment_and_every_condition(version: PolicyVersion) -> None:
    found = asked(version, PHYSICIAN, "view", "labs", "TREAT", record(("cardiology",)))
    (label,) = found.labels
    assert found.as_asked
    assert [a.policy.id for a in label.giving] == list(found.reached.determining)
    assert label.giving[0].assignment == PHYSICIAN.assignments[0]
    assert {c.verdict for c in label.giving[0].conjuncts} == {Verdict.HOLDS}
    assert suggestions(version, found) == ()


def test_a_no_names_the_nearest_policy_and_the_one_condition_it_misses(
    version: PolicyVersion,
) -> None:
    found = asked(version, PHYSICIAN, "view", "labs", "TREAT", record(("oncology",)))
    nearest = found.labels[0].nearest[0]
    assert nearest.policy.id == "physician_treats"
    (missing,) = nearest.failing
    assert "care team" in words_of(missing.expr)
    values = {value_words(o.value) for o in missing.observed}
    assert values == {"oncology", "none", "cardiology"}


def test_what_was_looked_up_is_told_without_its_value(version: PolicyVersion) -> None:
    question = Question(
        "view", ("labs",), "TREAT", NOW, record(("oncology",)), hidden=frozenset({"departments"})
    )
    (missing,) = explain(version, PHYSICIAN, question).labels[0].nearest[0].failing
    assert [o.shown for o in missing.observed] == [True, False, True]


def test_the_smallest_change_comes_first_and_says_who_must_act(version: PolicyVersion) -> None:
    found = suggestions(
        version, asked(version, PHYSICIAN, "view", "labs", "TREAT", record(("oncology",)))
    )
    assert told(found)[:2] == [
        ("she is put on the patient's care team",),
        ("she holds her role also as physician in oncology",),
    ]
    assert all(one.needs_approval for one in found)


def test_another_purpose_is_suggested_where_she_may_claim_it(version: PolicyVersion) -> None:
    found = suggestions(
        version, asked(version, PHYSICIAN, "view", "labs", "HPAYMT", record(("cardiology",)))
    )
    (change,) = found[0].changes
    assert change.kind is Kind.PURPOSE
    assert "TREAT" in change.words
    assert change.by is By.HERSELF
    assert not found[0].needs_approval
    # the narrower purposes would do as well; the plain one is told, and only that
    assert sum(one.changes[0].kind is Kind.PURPOSE for one in found) == 1


def test_a_purpose_that_may_not_be_claimed_is_the_reason(version: PolicyVersion) -> None:
    receptionist = person(("receptionist_scheduler", "cardiology"))
    found = asked(version, receptionist, "view", "labs", "TREAT", record(("cardiology",)))
    assert found.reached.refused is not None
    assert not found.as_asked


def test_an_assignment_that_ended_is_said_and_its_renewal_suggested(version: PolicyVersion) -> None:
    over = Assignment("physician", "cardiology", LONG_AGO, NOW - timedelta(days=1))
    found = asked(version, person(over), "view", "labs", "TREAT", record(("cardiology",)))
    assert found.not_live == (over,)
    assert any("it is renewed" in words for (words, *_) in told(suggestions(version, found)))


def test_a_closed_account_is_suggested_to_be_opened(version: PolicyVersion) -> None:
    who = person(("physician", "cardiology"), active=False)
    found = asked(version, who, "view", "labs", "TREAT", record(("cardiology",)))
    assert ("her account is opened again",) in told(suggestions(version, found))


def test_a_forbid_that_bars_is_named_and_the_role_that_brings_it(version: PolicyVersion) -> None:
    both = person(("it_support_dba", "it"), ("privacy_officer", "compliance"))
    found = asked(version, both, "read_audit", "", "HCOMPL", RecordValue())
    assert "support_never_reads_who_saw_whom" in [a.policy.id for a in found.labels[0].barring]
    assert any(
        one.changes[0].kind is Kind.END and "it_support_dba" in one.changes[0].words
        for one in suggestions(version, found)
    )


def test_what_nothing_can_open_has_no_suggestion(version: PolicyVersion) -> None:
    found = asked(version, PHYSICIAN, "export", "labs", "TREAT", record(("cardiology",)))
    assert [a.policy.id for a in found.labels[0].barring] == [
        "nothing_leaves_without_a_recipient",
        "export_needs_a_second_factor",
    ]
    assert suggestions(version, found) == ()


def test_of_two_labels_the_lower_is_the_answer_and_each_is_explained(
    version: PolicyVersion,
) -> None:
    about = record(("cardiology",))
    found = asked(version, PHYSICIAN, "view", "labs+protected_person", "TREAT", about)
    assert [label.reached.rank for label in found.labels] == [3, 0]
    assert found.reached.rank == 0


@pytest.mark.parametrize(
    ("who", "action", "labels", "purpose"),
    [
        (PHYSICIAN, "view", "labs", "HPAYMT"),
        (PHYSICIAN, "view", "gov_ids", "TREAT"),
        (PHYSICIAN, "update", "scheduling", "TREAT"),
        (person(("it_support_dba", "it")), "view_masked", "labs", "HSYSADMIN"),
        (person(("behavioral_health_clinician", "psychiatry")), "view", "psychotherapy_notes", "TREAT"),
        (person(("receptionist_scheduler", "oncology")), "view_summary", "labs", "PATADMIN"),
        (person(), "view", "demographics", "TREAT"),
    ],
)  # fmt: skip
def test_every_suggestion_is_borne_out_by_the_reference(
    version: PolicyVersion, who: Person, action: str, labels: str, purpose: str
) -> None:
    found = asked(version, who, action, labels, purpose, record(("oncology",)))
    for one in suggestions(version, found):
        situation = (found.person, found.question)
        for change in one.changes:
            situation = change.apply(situation)
        again = decide(judging(version, *situation), version.policies)
        assert again.rank > found.reached.rank
        assert again == one.reached


def test_a_policy_that_cannot_be_evaluated_is_shown_as_that(version: PolicyVersion) -> None:
    text = """
    @id("reckons") @clause("x")
    forbid (principal, action == Action::"view", resource)
    when { 9223372036854775807 + 1 > 0 };
    """
    broken = open_bundle(Bundle({**version.bundle.files, "broken.cedar": text}))
    found = asked(broken, PHYSICIAN, "view", "labs", "TREAT", record(("cardiology",)))
    (barring,) = found.labels[0].barring
    assert barring.policy.id == "reckons"
    assert Verdict.ERRS in {c.verdict for c in barring.conjuncts}
    # it bars the full view; a summary is still given
    assert found.reached.rank == 2


def test_the_conjuncts_of_every_policy_mean_what_the_policy_means(version: PolicyVersion) -> None:
    for policy in version.policies.policies:
        conjuncts = [expr for expr, _ in conjuncts_of(policy)]
        whole = conjuncts[0]
        for expr in conjuncts[1:]:
            whole = And(whole, expr)
        for purpose in ("TREAT", "HCOMPL", "BTG"):
            for about in (
                record(("cardiology",)),
                record((), ("ann",), author=EntityUid("User", "ann")),
            ):
                question = Question("view", ("labs",), purpose, NOW, about)
                env = judging(version, PHYSICIAN, question).env("view", "labs")
                assert evaluate(whole, env) == evaluate(policy.condition(), env)


@pytest.mark.parametrize(
    ("action", "labels", "message"),
    [
        ("peek", ("labs",), "no action"),
        ("view", (), "name one"),
        ("view", ("lab",), "no category"),
        ("read_audit", ("labs",), "name no category"),
    ],
)
def test_a_question_without_words_in_the_schema_is_refused(
    version: PolicyVersion, action: str, labels: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UnknownQuestion, match=message):
        check_question(Question(action, labels, "TREAT", NOW), version.schema)


def test_every_policy_has_words_for_every_condition(version: PolicyVersion) -> None:
    for policy in version.policies.policies:
        for expr, _ in conjuncts_of(policy):
            words = words_of(expr, version.roles)
            assert words
            assert "`" not in words, f"{policy.id}: {words}"

"""Roles and purposes: what may be claimed, and what a policy may name."""

from datetime import UTC, datetime
from typing import Any

import pytest

from chartgate.app.rolebook import PurposeRefused, UnknownName, person_entity, read_rolebook
from chartgate.cedar.parse import parse_policies
from chartgate.cedar.values import CedarSet
from chartgate.model.principal import Assignment, EntityUid, Person

NOW = datetime(2026, 11, 22, tzinfo=UTC)
ROLES: dict[str, Any] = {
    "roles": {
        "staff": {"title": "Staff"},
        "doctor": {"parents": ["staff"], "default_purpose": "TREAT", "purposes": ["TREAT"]},
        "coder": {"default_purpose": "HPAYMT", "purposes": ["HPAYMT"]},
    }
}
PURPOSES: dict[str, Any] = {"TREAT": [], "ETREAT": ["TREAT"], "BTG": ["ETREAT"], "HPAYMT": []}
BOOK = read_rolebook(ROLES, PURPOSES)


def held(*roles: str) -> list[Assignment]:
    return [Assignment(role, None, NOW, None) for role in roles]


def test_the_default_purpose_is_that_of_the_first_role_that_has_one() -> None:
    assert BOOK.default_purpose(held("staff", "coder", "doctor")) == "HPAYMT"
    assert BOOK.default_purpose(held("staff", "gone")) is None


@pytest.mark.parametrize("purpose", ["TREAT", "ETREAT", "BTG"])
def test_a_role_may_claim_its_purposes_and_narrower_ones(purpose: str) -> None:
    BOOK.check_claim(purpose, held("staff", "gone", "doctor"))


@pytest.mark.parametrize(
    ("purpose", "roles", "message"),
    [
        ("HPAYMT", ["doctor"], "none of your roles may act for the purpose HPAYMT"),
        ("TREAT", [], "none of your roles"),
        ("TREAT", ["staff", "gone"], "none of your roles"),
        ("TREAT'; --", ["doctor"], "that is not a purpose of use"),
    ],
)
def test_no_other_purpose_may_be_claimed(purpose: str, roles: list[str], message: str) -> None:
    with pytest.raises(PurposeRefused, match=message):
        BOOK.check_claim(purpose, held(*roles))


@pytest.mark.parametrize("uid", ['Role::"docter"', 'Purpose::"TREATMENT"'])
def test_a_policy_that_names_what_does_not_exist_is_refused_with_its_place(uid: str) -> None:
    for text in (f"principal in {uid}", f"[{uid}, {uid}].contains(principal)"):
        written = f'@id("p")\npermit (principal, action, resource) when {{ {text} }};'
        with pytest.raises(UnknownName, match=r"p\.cedar:\d+: policy p: unknown"):
            BOOK.check_policies(parse_policies({"p.cedar": written}))


def test_a_policy_may_name_roles_purposes_and_anything_else() -> None:
    text = (
        '@id("p") permit (principal in Role::"doctor", action, resource) when '
        '{ context.purpose in Purpose::"ETREAT" && resource == Ward::"any" && 1 == 1 };'
    )
    BOOK.check_policies(parse_policies({"p.cedar": text}))


def test_roles_and_purposes_are_hierarchies() -> None:
    entities = BOOK.entities()
    assert EntityUid("Role", "staff") in entities.ancestors(EntityUid("Role", "doctor"))
    assert EntityUid("Purpose", "TREAT") in entities.ancestors(EntityUid("Purpose", "BTG"))


def test_a_person_is_what_her_counting_assignments_say() -> None:
    person = Person("u1", "me", "Me", True, ())
    found = person_entity(
        person,
        [
            Assignment("doctor", "ward", NOW, None, "T-1"),
            Assignment("doctor", "icu", NOW, None),
            Assignment("coder", None, NOW, None, "T-1"),
            Assignment("coder", None, NOW, None, "T-1", "4711"),
        ],
    )
    assert found.uid == EntityUid("User", "me")
    assert found.parents == {EntityUid("Role", "doctor"), EntityUid("Role", "coder")}
    assert found.attrs["references"] == CedarSet.of(["T-1"])
    assert found.attrs["departments"] == CedarSet.of(
        [EntityUid("Department", "icu"), EntityUid("Department", "ward")]
    )
    assert found.attrs["patients"] == CedarSet.of([EntityUid("Patient", "4711")])


@pytest.mark.parametrize(
    ("roles", "purposes", "words"),
    [
        (
            {"a": {"parents": ["b"]}, "b": {"parents": ["c"]}, "c": {"parents": ["b"]}},
            {},
            "roles.toml: role 'b' is in itself: 'b' in 'c' in 'b'",
        ),
        ({"a": {"parents": ["a"]}}, {}, "roles.toml: role 'a' is in itself: 'a' in 'a'"),
        ({}, {"A": ["B"], "B": ["A"]}, "purposes.toml: purpose 'A' is in itself: 'A' in 'B' in 'A'"),
        ({"a": {"parents": ["b"]}}, {}, "roles.toml: role 'a': parent 'b' does not exist"),
        ({"a": {"purposes": ["B"]}}, {}, "roles.toml: role 'a': purpose 'B' does not exist"),
        ({"a": {"default_purpose": "B"}}, {}, "role 'a': purpose 'B' does not exist"),
        ({}, {"A": ["B"]}, "purposes.toml: purpose 'A': parent 'B' does not exist"),
        ({"a": {"parents": "staff"}}, {}, "roles.toml: role 'a': parents: not a list of names"),
        ({"a": {"purposes": [1]}}, {}, "roles.toml: role 'a': purposes: not a list of names"),
        ({"a": {"parent": ["staff"]}}, {}, "roles.toml: role 'a': unknown key 'parent'"),
        ({"a": ["staff"]}, {}, "roles.toml: role 'a': not a table"),
        ({"a": {"title": 1}}, {}, "strings"),
        ({"a\x1b[31m": 1}, {}, "role 'a\\x1b[31m': not a table"),
        ({"roles": 1}, {}, "roles.toml: not a table"),
        ({}, {"A": "B"}, "purposes.toml: purpose 'A': not a list of names"),
    ],
)  # fmt: skip
def test_a_book_that_says_other_than_it_means_is_refused_with_file_and_name(
    roles: dict[str, Any], purposes: dict[str, Any], words: str
) -> None:
    with pytest.raises(UnknownName) as refused:
        read_rolebook(roles, purposes)
    assert words in str(refused.value)


def test_a_long_chain_and_a_diamond_are_no_cycles() -> None:
    chain = {f"r{n}": {"parents": [f"r{n + 1}"]} for n in range(3_000)} | {"r3000": {}}
    assert len(read_rolebook(chain, {}).roles) == 3_001
    diamond = {
        "a": {"parents": ["b", "c"]},
        "b": {"parents": ["d"]},
        "c": {"parents": ["d"]},
        "d": {},
    }
    read_rolebook(diamond, {})


def test_an_assignment_of_a_role_that_the_book_does_not_know_counts_for_nothing() -> None:
    always = datetime(2020, 1, 1, tzinfo=UTC)
    known = Assignment("doctor", "a", always, None)
    unknown = Assignment("ghost", "b", always, None)
    person = Person("p_1", "ann", "Ann", True, (known, unknown))
    kept = BOOK.known_of(person)
    assert kept.assignments == (known,)
    assert BOOK.known_of(kept) is kept


def test_whom_the_emergency_procedure_is_open_to_is_listed_by_role() -> None:
    book = read_rolebook({"doctor": {"break_glass": ["labs", "notes"]}, "coder": {}}, {})
    assert book.roles["doctor"].break_glass == ("labs", "notes")
    assert book.roles["coder"].break_glass == ()
    book.check_categories(("labs", "notes", "billing"))


def test_a_glass_that_is_before_no_category_is_a_fault() -> None:
    book = read_rolebook({"doctor": {"break_glass": ["labs", "lab"]}}, {})
    with pytest.raises(UnknownName, match=r"role 'doctor': break_glass: category 'lab' does not"):
        book.check_categories(("labs", "notes"))
    with pytest.raises(UnknownName, match="break_glass: not a list of names"):
        read_rolebook({"doctor": {"break_glass": "labs"}}, {})

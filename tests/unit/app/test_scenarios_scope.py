"""What a scope does not admit is passed over, and no answer is another for it."""

import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from chartgate.adapters.policy_files import load_policy_version
from chartgate.app import scenarios
from chartgate.app.policy_bundle import scenarios_of
from chartgate.app.rolebook import read_rolebook
from chartgate.app.scenarios import read_scenarios, run
from chartgate.cedar.ast import Scope
from chartgate.cedar.parse import parse_policies

NOW = datetime(2026, 11, 22, tzinfo=UTC)
BOOK = read_rolebook(
    {
        "roles": {
            "nurse": {"parents": ["staff"], "purposes": ["TREAT"]},
            "coder": {"parents": ["staff"], "purposes": ["TREAT"]},
            "staff": {"parents": [], "purposes": []},
        }
    },
    {"TREAT": []},
)
FAILS = "when { context.nothing }"
SEEN = '@id("seen") permit (principal in Role::"staff", action, resource);'


def got(forbid: str, role: str = "nurse", asks: str = "view") -> tuple[str, tuple[str, ...]]:
    text = f"""
    [[scenario]]
    title = "labs"
    who = {{ role = "{role}", name = "anna" }}
    purpose = "TREAT"
    asks = "{asks}"
    record = {{ category = "labs" }}
    expect = "{"full" if asks == "view" else "allowed"}"
    """
    policies = parse_policies({"f": f'{SEEN} @id("no") {forbid} {FAILS};'})
    (only,) = run(read_scenarios("f", tomllib.loads(text)), policies, BOOK, NOW)
    return only.got, only.determining


@pytest.mark.parametrize(
    "scope",
    [
        "principal, action, resource",
        'principal, action == Action::"view", resource',
        'principal in Role::"staff", action in [Action::"view", Action::"update"], resource',
        'principal == User::"anna", action in Action::"view", resource',
        'principal is User in Role::"nurse", action, resource is Record',
        "principal is User, action, resource",
    ],
)
def test_a_forbid_that_fails_denies_whom_its_scope_admits(scope: str) -> None:
    level, by = got(f"forbid ({scope})")
    assert level in ("summary", "withheld")
    assert "no" in by


@pytest.mark.parametrize(
    "scope",
    [
        'principal, action == Action::"update", resource',
        'principal, action in [Action::"create", Action::"update"], resource',
        "principal, action in [], resource",
        'principal in Role::"coder", action, resource',
        'principal == User::"bert", action, resource',
        'principal is User in Role::"coder", action, resource',
        "principal is Role, action, resource",
    ],
)
def test_a_forbid_that_would_fail_touches_nobody_else(scope: str) -> None:
    assert got(f"forbid ({scope})") == ("full", ("seen",))


def test_one_level_of_seeing_is_barred_by_its_own_action() -> None:
    assert got('forbid (principal, action == Action::"view_masked", resource)')[0] == "withheld"
    assert got('forbid (principal, action == Action::"view_masked", resource)', asks="update") == (
        "allowed",
        ("seen",),
    )


def test_passing_over_policies_changes_no_result_of_the_shipped_scenarios(
    project_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = load_policy_version(project_root / "policies")
    some = scenarios_of(version.bundle)[::7]
    quick = run(some, version.policies, version.roles, NOW)

    def everybody(_scope: Scope, _uid: object, _above: object) -> bool:
        return True

    monkeypatch.setattr(scenarios, "_admits", everybody)
    assert run(some, version.policies, version.roles, NOW) == quick

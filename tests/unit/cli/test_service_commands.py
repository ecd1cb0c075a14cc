"""``chartgate service``: what may be asked for, and how accounts are shown."""

import io
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from chartgate.adapters.policy_files import load_policy_version
from chartgate.adapters.service_accounts import ListedCertificate, ListedService, ListedToken
from chartgate.cedar.schema import Schema
from chartgate.cli import service_render as shown
from chartgate.cli.service_desk import check_scope, revoke, scope_of
from chartgate.cli.serving import QUESTION, curl
from chartgate.demo.applications import APPLICATIONS
from chartgate.errors import Misconfigured
from chartgate.model.service import Scope

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def schema(project_root: Path) -> Schema:
    return load_policy_version(project_root / "policies").schema


def token(number: str, *, days: float, revoked: bool = False) -> ListedToken:
    return ListedToken(
        number, NOW - timedelta(days=30), NOW + timedelta(days=days), NOW if revoked else None
    )


def service(
    *tokens: ListedToken, active: bool = True, pinned: Sequence[ListedCertificate] = ()
) -> ListedService:
    scope = Scope(actions=frozenset({"view"}), resource_types=frozenset({"Record"}))
    return ListedService(
        "s_0123456789abcdef", "portal", "Portal\x1b[2J", active, scope, NOW, tokens, tuple(pinned)
    )


def printed(show, *arguments: object) -> str:
    out = Console(file=io.StringIO(), width=100, markup=False, highlight=False)
    show(out, *arguments)
    return out.file.getvalue()


def test_options_and_commas_say_the_same() -> None:
    one = scope_of(["view,share"], None, ["labs", "notes"], ["context.acr"], search=True)
    assert one == Scope(
        frozenset({"view", "share"}),
        frozenset({"Record"}),
        frozenset({"labs", "notes"}),
        frozenset({"context.acr"}),
        may_search=True,
    )
    assert scope_of(None, ["AuditLog"], None, None, search=False).actions == frozenset()


@pytest.mark.parametrize(
    "scope",
    [
        *(application.scope for application in APPLICATIONS),
        Scope(frozenset("*"), frozenset("*"), frozenset("*"), frozenset({"context.*"})),
        Scope(frozenset({"read_audit"}), frozenset({"AuditLog"})),
        Scope(resource_types=frozenset({"Record"}), asserts=frozenset({"resource.author"})),
        Scope(resource_types=frozenset({"Record"}), asserts=frozenset({"resource.labels"})),
    ],
)
def test_what_the_policies_know_may_be_in_a_scope(scope: Scope, schema: Schema) -> None:
    check_scope(scope, schema)


@pytest.mark.parametrize(
    ("scope", "words"),
    [
        (Scope(actions=frozenset({"veiw"})), "know no action veiw"),
        (Scope(resource_types=frozenset({"Chart"})), "know no type Chart"),
        (Scope(categories=frozenset({"lab"})), "know no category lab"),
        (Scope(asserts=frozenset({"acr"})), "acr is no PLACE.NAME"),
        (Scope(asserts=frozenset({"session.acr"})), "session.acr is no PLACE.NAME"),
        (Scope(asserts=frozenset({"context.acrs"})), "know no context.acrs"),
        (Scope(asserts=frozenset({"context.now"})), "no application is believed it"),
        (Scope(asserts=frozenset({"context.source"})), "no application is believed it"),
        (Scope(asserts=frozenset({"subject.departments"})), "no application is believed it"),
        (Scope(asserts=frozenset({"subject.references"})), "no application is believed it"),
    ],
)
def test_what_would_never_count_is_refused(scope: Scope, words: str, schema: Schema) -> None:
    with pytest.raises(Misconfigured, match=words):
        check_scope(scope, schema)


def test_a_token_that_ends_soon_is_said_so() -> None:
    told = printed(shown.show_services, [service(token("aaaaaaaa", days=3.5))], NOW)
    assert "portal: its last token ends in 3 days" in told
    rotated = service(token("aaaaaaaa", days=3.5), token("bbbbbbbb", days=90))
    assert list(shown.warnings(rotated, NOW)) == []
    hours = service(token("aaaaaaaa", days=1.1))
    assert list(shown.warnings(hours, NOW)) == ["its last token ends in 26 hours"]


def test_an_application_that_nothing_makes_known_is_said_so() -> None:
    for mute in (
        service(),
        service(token("a", days=-1)),
        service(token("a", days=9, revoked=True)),
    ):
        assert shown.is_mute(mute, NOW)
        assert "no token or certificate counts" in printed(shown.show_service, mute, NOW)
    pinned = ListedCertificate(1, "ab" * 32, None, None)
    assert not shown.is_mute(service(pinned=[pinned]), NOW)
    assert not shown.is_mute(service(active=False), NOW)
    assert list(shown.warnings(service(active=False), NOW)) == []


def test_an_account_is_shown_whole_and_steers_no_terminal() -> None:
    pinned = [ListedCertificate(7, None, "CN=portal\x07", None)]
    one = service(
        token("aaaaaaaa", days=90),
        token("bbbbbbbb", days=-1),
        token("cccccccc", days=5, revoked=True),
        pinned=pinned,
    )
    told = printed(shown.show_service, one, NOW)
    for words in ("aaaaaaaa", "valid", "ended", "revoked 2026-11-22", "CN=portal", "view"):
        assert words in told
    assert "\x1b" not in told
    assert "\x07" not in told
    assert [t["counts"] for t in shown.service_json(one, NOW)["tokens"]] == [True, False, False]


def test_a_new_scope_says_what_it_adds_and_takes() -> None:
    before = Scope(actions=frozenset({"view"}), categories=frozenset({"labs"}))
    after = Scope(actions=frozenset({"view", "share"}), may_search=True)
    told = printed(shown.show_change, "portal", before, after)
    assert "+ action share" in told
    assert "+ search" in told
    assert "- category labs" in told
    assert "action view\n" not in told
    assert "It is what it was." in printed(shown.show_change, "portal", before, before)


def test_without_an_account_it_is_said_how_to_open_one() -> None:
    assert "chartgate service add" in printed(shown.show_services, [], NOW)


def test_a_tokens_text_is_no_argument(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="arguments are no secret"):
        revoke("cgs_00000000_x", tmp_path, "sofficer", json=False)


def test_a_line_to_copy_quotes_what_a_shell_would_read() -> None:
    line = curl("https://h:1", Path("/a b/ca.pem"), Path("/a b/t"), QUESTION)
    assert "--cacert '/a b/ca.pem'" in line
    assert "$(cat '/a b/t')" in line
    assert line.endswith("https://h:1/access/v1/evaluation")
    assert "--cacert" not in curl("http://h:1", None, "t", QUESTION)

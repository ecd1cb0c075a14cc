"""A grant is obeyed for what somebody else approved in a trusted log, and for nothing beside it."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chartgate.app.grants import (
    Given,
    Grant,
    GrantNotObeyed,
    NotGrantable,
    check_given,
    check_grant,
    check_text,
    content_hash,
    grant_text,
    instant_text,
)
from chartgate.app.policy_orders import Sealed
from chartgate.cedar.parse import parse_policies, parse_schema, validate
from chartgate.model.event import VERSION, AuditRead, Event, GrantStep, encode
from chartgate.tlog.checkpoint import Checkpoint, sign_checkpoint
from chartgate.tlog.note import ED25519, VerifierKey
from chartgate.tlog.proof import inclusion_proof, subtrees_of
from chartgate.tlog.proof_text import LogProof
from chartgate.tlog.tree import leaf_hash, tree_root

SINCE = datetime(2026, 3, 1, tzinfo=UTC)
UNTIL = SINCE + timedelta(hours=8)
SHE, SECOND = "p_00000000000000aa", "p_00000000000000bb"
LABS = Given(("view", "view_summary"), categories=("labs",), patient='4"711', purpose="TREAT")
TEXT = grant_text("g_1", "ann", LABS, since=SINCE, until=UNTIL)


@dataclass
class Log:
    """A log in memory, with a key of its own."""

    secret: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    entries: list[bytes] = field(default_factory=list)

    @property
    def key(self) -> VerifierKey:
        return VerifierKey("t.example/log", ED25519, self.secret.public_key().public_bytes_raw())

    def seal(self, event: Event) -> Sealed:
        self.entries.append(encode(event))
        leaves = [leaf_hash(entry) for entry in self.entries]
        checkpoint = sign_checkpoint(
            Checkpoint("t.example/log", len(leaves), tree_root(leaves)), self.key, self.secret.sign
        )
        index = len(leaves) - 1
        hashes = inclusion_proof(index, len(leaves), subtrees_of(leaves))
        return Sealed(self.entries[index], str(LogProof(index, hashes, checkpoint)))


@pytest.fixture
def log() -> Log:
    return Log()


def approval(**given: object) -> GrantStep:
    wanted: dict[str, object] = {
        "at": "2026-03-01T00:00:00.000000Z",
        "node": "n",
        "person": SECOND,
        "step": "approved",
        "grant": "g_1",
        "beneficiary": SHE,
        "content": content_hash(TEXT),
        "until": instant_text(UNTIL),
    }
    return GrantStep(**{**wanted, **given})  # type: ignore[arg-type]


def grant(log: Log, **given: object) -> Grant:
    return Grant("g_1", SHE, TEXT, UNTIL, log.seal(approval(**given)))


def test_what_a_second_person_approved_is_obeyed(log: Log) -> None:
    policy = check_grant(grant(log), "ann", [log.key])
    assert (policy.id, policy.effect) == ("g_1", "permit")


def test_a_grant_is_strictly_valid_under_the_shipped_schema(project_root: Path) -> None:
    text = (project_root / "policies" / "schema.cedarschema").read_text("utf-8")
    validate(parse_policies({"g": TEXT}), parse_schema(text, "schema"))


def test_a_grant_may_be_about_one_resource_alone() -> None:
    text = grant_text(
        "g_1", "ann", Given(("read",), "Chart", resource="7"), since=SINCE, until=UNTIL
    )
    assert 'resource == Chart::"7"' in text
    assert check_text(Grant("g_1", SHE, text, UNTIL, Sealed(b"", "")), "ann").resource.op == "=="


def test_a_grant_that_allows_nothing_or_never_begins_is_not_written() -> None:
    with pytest.raises(NotGrantable, match="action"):
        grant_text("g_1", "ann", Given(()), since=SINCE, until=UNTIL)
    with pytest.raises(NotGrantable, match="begins"):
        grant_text("g_1", "ann", LABS, since=UNTIL, until=SINCE)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"step": "revoked"}, "no approval"),
        ({"step": "refused"}, "no approval"),
        ({"grant": "g_2"}, "another grant"),
        ({"content": content_hash("other")}, "another text"),
        ({"beneficiary": SECOND}, "somebody else"),
        ({"beneficiary": ""}, "somebody else"),
        ({"person": SHE}, "second person"),
        ({"person": ""}, "second person"),
        ({"until": instant_text(UNTIL + timedelta(hours=1))}, "another end"),
        ({"version": VERSION + 1}, "not a step"),
    ],
)
def test_an_approval_of_something_else_is_none(
    log: Log, given: dict[str, object], reason: str
) -> None:
    with pytest.raises(GrantNotObeyed, match=reason):
        check_grant(grant(log, **given), "ann", [log.key])


def test_an_approval_that_is_in_no_trusted_log_is_none(log: Log) -> None:
    held = grant(log)
    other = Log()
    read = AuditRead(
        at="2026-03-01T00:00:00.000000Z", node="n", person=SECOND, question="q", allowed=True
    )
    for wrong in (
        replace(held, sealed=Sealed(b"", "")),
        replace(held, sealed=Sealed(held.sealed.entry + b" ", held.sealed.proof)),
        replace(held, sealed=other.seal(approval())),
        replace(held, sealed=log.seal(read)),
    ):
        with pytest.raises(GrantNotObeyed):
            check_grant(wrong, "ann", [log.key])


END = f'context.now < datetime("{instant_text(UNTIL)}")'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("permit (", "not a policy"),
        ("", "not one policy"),
        (TEXT + TEXT.replace("g_1", "g_2"), "not one policy"),
        (TEXT.replace("g_1", "g_2"), "own id"),
        (TEXT.replace("permit (", "forbid ("), "own id"),
        (TEXT.replace('User::"ann"', 'User::"bob"'), "person alone"),
        (TEXT.replace("principal ==", "principal in"), "person alone"),
        (TEXT.replace('principal == User::"ann"', "principal"), "person alone"),
        (TEXT.replace(END, "true"), "does not end"),
        (TEXT.replace(END, f"({END} || true)"), "does not end"),
        (TEXT.replace(END, END.replace("<", "<=")), "does not end"),
        (TEXT.replace(END, END.replace("now", "soon")), "does not end"),
        (TEXT.replace("when {", "unless {"), "does not end"),
        (TEXT.replace(instant_text(UNTIL), "2027-03-01"), "does not end"),
    ],
)
def test_a_text_that_is_not_a_grants_gives_nothing(text: str, reason: str) -> None:
    with pytest.raises(GrantNotObeyed, match=reason):
        check_text(Grant("g_1", SHE, text, UNTIL, Sealed(b"", "")), "ann")


def test_an_instant_has_one_spelling() -> None:
    assert instant_text(UNTIL) == "2026-03-01T08:00:00.000Z"
    assert instant_text(UNTIL.astimezone()) == instant_text(UNTIL)


SCHEMA = parse_schema(
    """
    entity User; entity Purpose in [Purpose]; entity Category enum ["labs", "notes"];
    entity Record { category: Category }; entity Grant;
    action view, view_summary appliesTo { principal: User, resource: Record };
    action approve_grant appliesTo { principal: User, resource: Grant };
    action reading;
    """,
    "s",
)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            Given(("veiw",)),
            "know no action veiw on Record; they know reading, view, view_summary",
        ),
        (Given(("view", "approve_grant")), "know no action approve_grant on Record; they know "),
        (Given(("view",), categories=("labs", "lab")), "no category lab; they know labs, notes"),
        (Given(("view",), resource_type="Chart"), "know no type Chart; they know Category, Grant"),
        (Given(("a\nb",)), "know no action a"),
    ],
)
def test_what_the_policies_have_no_name_for_is_told_with_those_they_have(
    given: Given, words: str
) -> None:
    with pytest.raises(NotGrantable, match=words) as caught:
        check_given(given, SCHEMA)
    assert len(str(caught.value).splitlines()) == 1


def test_what_the_policies_have_names_for_may_be_given() -> None:
    check_given(LABS, SCHEMA)
    check_given(Given(("reading",), purpose="TREAT"), SCHEMA)

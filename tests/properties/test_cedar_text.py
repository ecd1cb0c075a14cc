"""Writing a policy and reading it again gives the same policy, whatever it holds."""

import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chartgate.cedar.ast import (
    WILDCARD,
    And,
    Binary,
    Call,
    Condition,
    Expr,
    GetAttr,
    HasAttr,
    If,
    Is,
    Like,
    Literal,
    Not,
    Or,
    Policy,
    RecordExpr,
    Scope,
    SetExpr,
    Slot,
    Unary,
    Var,
)
from chartgate.cedar.parse import parse_policies
from chartgate.cedar.text import policy_text
from chartgate.model.principal import EntityUid

pytestmark = pytest.mark.timeout(3600)

NAMES = st.sampled_from(
    ("a", "B_1", "if", "true", "in", "__cedar", "principal", "ip", "", "a b", "é", '"', "\\", "\n")
) | st.text(st.characters(exclude_categories=("Cs",)), max_size=4)
TYPES = st.sampled_from(("User", "N::Team", "A::B::C"))
UIDS = st.builds(EntityUid, TYPES, NAMES)
LITERALS = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.sampled_from((0, -1, -(2**63)))
    | NAMES
    | UIDS
).map(Literal)
LEAVES = LITERALS | st.sampled_from(("principal", "action", "resource", "context")).map(Var)  # type: ignore[arg-type]
OPS = (
    "==", "!=", "<", "<=", ">", ">=", "+", "-", "*", "in",
    "contains", "containsAll", "containsAny", "hasTag", "getTag",
)  # fmt: skip


@st.composite
def patterns(draw: st.DrawFn) -> tuple[object, ...]:
    chunks: list[object] = []
    for part in draw(st.lists(st.just(WILDCARD) | NAMES | st.just("a*b"), max_size=4)):
        if part == "" or (chunks and isinstance(part, str) and isinstance(chunks[-1], str)):
            continue
        chunks.append(part)
    return tuple(chunks)


def grown(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    return st.one_of(
        st.builds(And, inner, inner),
        st.builds(Or, inner, inner),
        st.builds(Not, inner),
        st.builds(If, inner, inner, inner),
        st.builds(Binary, st.sampled_from(OPS), inner, inner),
        st.builds(Unary, st.sampled_from(("neg", "isEmpty")), inner),
        st.builds(GetAttr, inner, NAMES),
        st.builds(HasAttr, inner, NAMES),
        st.builds(Like, inner, patterns()),
        st.builds(Is, inner, TYPES, st.none() | inner),
        st.lists(inner, max_size=3).map(tuple).map(SetExpr),
        st.dictionaries(NAMES, inner, max_size=3).map(lambda d: RecordExpr(tuple(sorted(d.items(), key=lambda kv: kv[0])))),
        st.builds(Call, st.sampled_from(("ip", "decimal", "datetime", "duration")), st.lists(inner, max_size=2).map(tuple)),
        st.builds(Call, st.sampled_from(("isIpv4", "lessThan", "toDate", "offset")), st.lists(inner, min_size=1, max_size=3).map(tuple)),
    )  # fmt: skip


EXPRESSIONS = st.recursive(LEAVES, grown, max_leaves=12)


def scopes(slot: str | None) -> st.SearchStrategy[Scope]:
    targets = UIDS | st.just(Slot(slot)) if slot else UIDS  # type: ignore[arg-type]
    return st.one_of(
        st.just(Scope()),
        st.builds(lambda t: Scope("==", (t,)), targets),
        st.builds(lambda t: Scope("in", (t,)), targets),
        st.builds(lambda k: Scope("is", (), k), TYPES),
        st.builds(lambda k, t: Scope("is in", (t,), k), TYPES, targets),
    )


ACTION_UIDS = st.builds(EntityUid, st.sampled_from(("Action", "N::Action")), NAMES)
ACTIONS = st.one_of(
    st.just(Scope()),
    st.builds(lambda t: Scope("==", (t,)), ACTION_UIDS),
    st.builds(lambda t: Scope("in", tuple(t)), st.lists(ACTION_UIDS, max_size=3)),
)
NOTES = st.dictionaries(st.sampled_from(("id", "clause", "owner")), NAMES, max_size=3)


@given(
    st.sampled_from(("permit", "forbid")),
    scopes("?principal"),
    ACTIONS,
    scopes("?resource"),
    st.lists(st.builds(Condition, st.sampled_from(("when", "unless")), EXPRESSIONS), max_size=2),
    NOTES,
)
def test_what_is_written_is_read_as_the_same_policy(
    effect: str,
    principal: Scope,
    action: Scope,
    resource: Scope,
    conditions: list[Condition],
    notes: dict[str, str],
) -> None:
    policy = Policy(
        "policy0", effect, principal, action, resource, tuple(conditions), tuple(sorted(notes.items())),
    )  # type: ignore[arg-type]  # fmt: skip
    text = policy_text(policy)
    [read] = parse_policies({"t": text}, ids="order", templates=True).policies
    assert (read.principal, read.action, read.resource) == (principal, action, resource), text
    assert read.conditions == policy.conditions, text
    assert read.annotations == policy.annotations, text
    assert policy_text(read) == text


def test_every_policy_of_cedars_corpus_survives_being_written(shared_dir: Path) -> None:
    count = 0
    with tarfile.open(shared_dir / "conformance" / "cedar-corpus.tar.gz") as archive:
        for member in archive.getmembers():
            if not member.name.endswith(".cedar"):
                continue
            text = archive.extractfile(member).read().decode()  # type: ignore[union-attr]
            policies = parse_policies({"p": text}, ids="order", templates=True).policies
            written = "\n".join(map(policy_text, policies))
            again = parse_policies({"p": written}, ids="order", templates=True).policies
            assert [p.condition() for p in again] == [p.condition() for p in policies], member.name
            count += len(policies)
    assert count >= 1_000

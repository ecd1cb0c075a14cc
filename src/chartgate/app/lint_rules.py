"""Lints of single policies: too broad, without an answerable owner, without effect, or a trap.

The rules kept: each lint says what to do; what can be proved is left to ``policy prove``, so that a
lint needs no solver and no request; an error is what must never go in force, such as a policy in a
file that names a person, who will leave.
"""

from collections.abc import Callable, Iterator
from datetime import date
from typing import Final

from chartgate.app.clauses import citations
from chartgate.app.lint_facts import ROLE, Facts, conjuncts, mentions, named, walk
from chartgate.app.lint_finding import Finding, Severity, found
from chartgate.cedar.ast import (
    And,
    Binary,
    Expr,
    If,
    Is,
    Like,
    Literal,
    Not,
    Or,
    Policy,
    Var,
    Wildcard,
)
from chartgate.cedar.entities import Entities
from chartgate.cedar.evaluate import Env, EvaluationError, evaluate
from chartgate.cedar.text import expression_text, uid_text
from chartgate.model.principal import EntityUid

_ERROR, _WARNING, _NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE


def names_a_person(policy: Policy, facts: Facts) -> Iterator[Finding]:
    """People come and go; a file that names one still does when she has gone."""
    people = sorted(
        {
            node.value
            for node in walk(policy.condition())
            if isinstance(node, Literal)
            and isinstance(node.value, EntityUid)
            and node.value.type in facts.principal_types
        }
    )
    if people and policy.effect == "permit":
        yield found(
            _ERROR, "names-a-person", policy,
            f"names {uid_text(people[0])}: give the person a role or a grant, which ends",
        )  # fmt: skip
    elif people:
        yield found(
            _NOTE, "names-a-person", policy,
            f"names {uid_text(people[0])}: forbid a role, or suspend the account",
        )  # fmt: skip


def open_to_anybody(policy: Policy, facts: Facts) -> Iterator[Finding]:
    """A permit says who: a role, or at least something about the person."""
    if policy.effect != "permit" or facts.role_demands(policy):
        return
    if policy.principal.op in ("==", "in", "is in"):
        return
    about_her = [expr for expr in conjuncts(policy) if mentions(expr, "principal")]
    if not about_her:
        yield found(
            _ERROR, "open-to-anybody", policy,
            'every account meets it: say who, for example principal in Role::"…"',
        )  # fmt: skip
    else:
        yield found(
            _WARNING, "no-role", policy,
            'asks for no role: whoever has an account may meet it; add principal in Role::"…"',
        )  # fmt: skip


def every_action(policy: Policy, facts: Facts) -> Iterator[Finding]:
    """A permit of every action covers export and approval, and actions not yet invented."""
    if policy.effect == "permit" and policy.action.op == "all":
        yield found(
            _ERROR, "every-action", policy, "permits every action: name the actions that are meant"
        )


def every_record(policy: Policy, facts: Facts) -> Iterator[Finding]:
    """A permit on records says which categories (minimum necessary, 164.502(b))."""
    if policy.effect != "permit" or not facts.is_about_records(policy):
        return
    limit = facts.category_limit(policy)
    if limit is not None:
        if facts.categories and limit == facts.categories:
            yield found(
                _WARNING, "every-category", policy,
                "lists every category: leave out what the role does not need (164.514(d)(2))",
            )  # fmt: skip
        return
    if policy.resource.op in ("==", "in", "is in"):
        return
    if any(mentions(expr, "resource") for expr in conjuncts(policy)):
        yield found(
            _WARNING, "every-category", policy,
            "covers every category of the records it is about: list the categories "
            "(164.514(d)(2))",
        )  # fmt: skip
    else:
        yield found(
            _ERROR, "every-record", policy,
            "covers every record of every patient: say which categories, and whose",
        )  # fmt: skip


def no_purpose(policy: Policy, facts: Facts) -> Iterator[Finding]:
    """A permit on patient data says what for."""
    if policy.effect != "permit" or not facts.is_about_patients(policy):
        return
    if facts.purpose_limit(policy) is None:
        yield found(
            _WARNING, "no-purpose", policy,
            'holds for every purpose: add when { context.purpose in Purpose::"…" }',
        )  # fmt: skip


def wildcard_like(policy: Policy, facts: Facts) -> Iterator[Finding]:
    """``like "*"`` is true of every text."""
    for node in walk(policy.condition()):
        if (
            isinstance(node, Like)
            and node.pattern
            and all(isinstance(part, Wildcard) for part in node.pattern)
        ):
            yield found(
                _WARNING, "wildcard-like", policy,
                f"{expression_text(node)} is true of every text: say what it should look like, "
                "or leave it out",
            )  # fmt: skip


def trap_of_the_other_role(policy: Policy, facts: Facts) -> Iterator[Finding]:
    """A permit asked of each assignment alone is not stopped by what another one brings."""
    if policy.effect != "permit":
        return
    for clause in policy.conditions:
        for node in _negated(clause.body, negative=clause.kind == "unless"):
            yield found(
                _WARNING, "not-a-role", policy,
                f"!({expression_text(node)}) is met by the person's other role: whom it should "
                "keep out belongs into a forbid",
            )  # fmt: skip


def _negated(expr: Expr, *, negative: bool) -> Iterator[Expr]:
    match expr:
        case Not(arg):
            yield from _negated(arg, negative=not negative)
        case And(left, right) | Or(left, right):
            yield from _negated(left, negative=negative)
            yield from _negated(right, negative=negative)
        case If(test, then, otherwise):
            # The test decides for either side.
            yield from _negated(test, negative=True)
            yield from _negated(then, negative=negative)
            yield from _negated(otherwise, negative=negative)
        case Binary("in", Var("principal"), right) if negative and named(right, ROLE) is not None:
            yield expr
        case Is(Var("principal"), _, inside) if negative and inside is not None:
            yield expr


def unreachable(policy: Policy, facts: Facts) -> Iterator[Finding]:
    """A policy that can never apply, by simple means."""
    for expr in conjuncts(policy):
        value = _constant(expr)
        if value is False or value is _FAILS:
            what = "always fails" if value is _FAILS else "is never true"
            yield found(
                _WARNING, "never-applies", policy,
                f"{_short(expr)} {what}: correct it, or remove the policy",
            )  # fmt: skip
        elif value is True and not isinstance(expr, Literal):
            yield found(
                _NOTE, "says-nothing", policy, f"{_short(expr)} is always true: leave it out"
            )
    if facts.category_limit(policy) == frozenset():
        yield found(
            _WARNING, "never-applies", policy,
            "asks for two categories at once: a decision is about one",
        )  # fmt: skip
    if policy.effect == "permit" and facts.role_demands(policy):
        yield from _unmet(policy, facts)


def _unmet(policy: Policy, facts: Facts) -> Iterator[Finding]:
    holders = facts.held_by(policy)
    if not holders:
        yield found(
            _WARNING, "never-applies", policy,
            "asks for roles that no single role is in, and a permit is asked of each assignment "
            "alone",
        )  # fmt: skip
        return
    wanted = facts.purpose_limit(policy)
    if wanted is not None and not any(facts.claimable(role) & wanted for role in holders):
        yield found(
            _WARNING, "never-applies", policy,
            f"asks for a purpose that {_list(holders)} may not claim: see roles.toml",
        )  # fmt: skip


_NOWHERE: Final = Env(EntityUid("", ""), EntityUid("", ""), EntityUid("", ""), {}, Entities())


_FAILS: Final = object()


def _constant(expr: Expr) -> object:
    """The value of a condition that depends on nothing; None if it depends on something."""
    if any(isinstance(node, Var) for node in walk(expr)):
        return None
    try:
        return evaluate(expr, _NOWHERE)
    except EvaluationError:
        return _FAILS


def _short(expr: Expr) -> str:
    text = expression_text(expr)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _list(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))


def answerable(policy: Policy, facts: Facts) -> Iterator[Finding]:
    """Every policy has an owner, and a rule that it serves (164.316(b)(1))."""
    if not (policy.annotation("owner") or "").strip():
        yield found(
            _WARNING, "no-owner", policy, 'nobody answers for it: add @owner("…"), an office'
        )
    clause = policy.annotation("clause") or ""
    known, unknown = citations(clause)
    if not known and not unknown:
        yield found(
            _WARNING, "no-clause", policy,
            'serves no rule: add @clause("164.…"), or ask why it is there',
        )  # fmt: skip
    for part in unknown:
        yield found(
            _WARNING, "unknown-clause", policy,
            f"{part!r} is no citation: write 164.506(c), 45 CFR 164.506(c) or 42 CFR 2.13, "
            "several with ; between them",
        )  # fmt: skip


def reviewed(today: date) -> Callable[[Policy, Facts], Iterator[Finding]]:
    """Every policy is looked at again by a date (164.316(b)(2)(iii))."""

    def check(policy: Policy, facts: Facts) -> Iterator[Finding]:
        text = policy.annotation("review")
        if not text:
            yield found(
                _WARNING, "no-review", policy,
                'is never looked at again: add @review("YYYY-MM-DD")',
            )  # fmt: skip
            return
        try:
            due = date.fromisoformat(text)
        except ValueError:
            due = None
        # fromisoformat takes more spellings than this one, which sorts as it reads.
        if due is None or due.isoformat() != text:
            yield found(
                _ERROR, "bad-review", policy,
                f"@review({text!r}) is no date: write YYYY-MM-DD",
            )  # fmt: skip
        elif due < today:
            yield found(
                _WARNING, "review-overdue", policy,
                f"was to be reviewed by {text}: its owner confirms it, or changes it",
            )  # fmt: skip

    return check


RULES: Final[tuple[Callable[[Policy, Facts], Iterator[Finding]], ...]] = (
    names_a_person,
    open_to_anybody,
    every_action,
    every_record,
    no_purpose,
    wildcard_like,
    trap_of_the_other_role,
    unreachable,
    answerable,
)

"""Recorded decisions, decided again under other policies: what would have come out, for whom.

The rules kept (45 CFR 164.316(b)(2)(iii), review of changes; 164.308(a)(8), evaluation): a replay
decides with the gate's own code, so under the policies that were in force it changes nothing; what
the log cannot tell is counted apart and said, never guessed; a statement that no policy could have
allowed was refused for its form and is not a decision of policy.

Pure. A request is decided once however often it was made: callers count equal requests together.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from chartgate.app.entitlement import Asker, DecisionPoint
from chartgate.app.person_views import TablePlanner
from chartgate.app.replay_alike import Alike, Classes
from chartgate.app.replay_deciding import Deciding
from chartgate.app.rolebook import PurposeRefused
from chartgate.app.session_views import Source
from chartgate.app.table_uses import WRITE_ACTIONS
from chartgate.cedar.ast import Expr, GetAttr, HasAttr, Policy, PolicySet, Scope, Var
from chartgate.cedar.schema import Schema
from chartgate.errors import Refused
from chartgate.model.disclosure import Disclosure
from chartgate.model.event import TableUse
from chartgate.model.principal import EntityUid, Person
from chartgate.sql.parse import split
from chartgate.sql.statement import Kind
from chartgate.sql.views import TableName
from chartgate.targets.admissible import ROW_ACTIONS, children
from chartgate.targets.disclosure import LEVELS, LabelRules, Rule
from chartgate.targets.formula import NEVER

_ABOUT_RECORDS: Final = frozenset({"select", "insert", "update", "delete"})
_EVERYTHING: Final = Policy(
    "everything is permitted",
    "permit",
    action=Scope("in", tuple(EntityUid("Action", action) for action in sorted(ROW_ACTIONS))),
)
_NOTHING: Final = LabelRules(dict.fromkeys(LEVELS, Rule(NEVER, frozenset())))
_LEVELS: Final[Mapping[str, int]] = {level.label: level for level in Disclosure}


class Flip(StrEnum):
    """What a candidate would have changed, the gravest first."""

    ALLOWED = "allowed instead of refused"
    SHOWN = "table shown instead of hidden"
    RAISED = "column shown better"
    REFUSED = "refused instead of allowed"
    HIDDEN = "table hidden instead of shown"
    LOWERED = "column shown less"
    PARTLY = "column shown otherwise, by row"
    ROWS = "other rows"
    WRITES = "other rows or columns to write"


_BY_TEXT: Final = frozenset({Flip.PARTLY, Flip.ROWS, Flip.WRITES})
"""What is told from a view's text alone."""


class Apart(StrEnum):
    """Why a decision was not decided again: counted, and told with the result."""

    NO_RECORD = "asked for no record (settings, transactions, catalog)"
    FORM = "refused for their form: no policy could have allowed them"
    VALUE = "refused for a value that the log does not hold"
    TEXT = "refused, and their text is not in the log"
    ROLES = "the log does not say which role was held where"
    NOT_MAPPED = "about a table that is not in the data map now"
    VERSION = "decided by policies that are not at hand, and told apart by them alone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A request and what was decided of it. ``who`` has exactly the assignments that counted.

    ``is_exact``: the log names who it was as policies know her; else row filters that hold a name
    or a patient are not compared.
    """

    who: Person | None
    uid: str
    held: tuple[str, ...]
    """The assignments, as the log spells them."""
    purpose: str
    allowed: bool
    action: str
    statement: str = ""
    is_whole: bool = True
    """The text was not cut when it was recorded."""
    tables: tuple[TableUse, ...] = ()
    policy_set: str = ""
    data_map: str = ""
    is_exact: bool = True


@dataclass(frozen=True, slots=True)
class Tally:
    """Equal requests: how many, from when to when, and the log index of the first."""

    recorded: Recorded
    statements: int
    first: datetime
    last: datetime
    example: int


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that the candidate decides otherwise."""

    flip: Flip
    table: str = ""
    column: str = ""
    before: str = ""
    after: str = ""
    why: str = ""


Outcome = tuple[Change, ...] | Apart
"""What changes (nothing: the empty tuple), or why that cannot be told."""


def needs_clock(policies: PolicySet) -> bool:
    """Whether a decision can depend on when it is made."""
    return any(_reads_clock(policy.condition()) for policy in policies.policies)


def _reads_clock(expr: Expr) -> bool:
    if isinstance(expr, GetAttr | HasAttr) and isinstance(expr.base, Var):
        return expr.base.name == "context" and expr.attr == "now"
    if isinstance(expr, Var):
        return expr.name == "context"
    return any(_reads_clock(child) for child in children(expr))


class Replay:
    """A candidate over one source. ``known``: decision points of other policy versions, by the
    hash that the log names them with; the one in force helps to tell causes apart."""

    def __init__(
        self,
        candidate: DecisionPoint,
        schema: Schema,
        source: Source,
        known: Mapping[str, DecisionPoint] | None = None,
    ) -> None:
        self.candidate: Final = candidate
        self._source: Final = source
        self._known: Final = {candidate.policies.hash: candidate} | dict(known or {})
        # Under a permit for everything, what is still refused is refused by no policy.
        self._anything: Final = DecisionPoint(
            PolicySet((_EVERYTHING,), "everything"), schema, candidate.roles, candidate.data_map
        )
        self._hidden: Final[dict[TableName, str]] = {}
        self._clocked: Final[dict[str, bool]] = {}
        self._asker: Asker | None = None
        self._classes: Final = Classes(
            (point.policies for point in self._known.values()), candidate.data_map.source
        )
        self._alike: Alike | None = None
        self._shared: Final[dict[tuple[Asker, str], Deciding]] = {}
        self._claims: Final[dict[tuple[tuple[str, ...], str], str | None]] = {}
        self._deciding: Final[dict[str, Deciding]] = {}

    @property
    def reads_clock(self) -> bool:
        """Whether equal requests at different times can have different answers."""
        return any(map(self._is_clocked, self._known.values()))

    def until(self, recorded: Recorded, at: datetime) -> datetime | None:
        """The first instant at which the same request could be answered otherwise."""
        if recorded.who is None:
            return None
        asker = Asker(recorded.who, recorded.who.assignments, recorded.purpose)
        bounds = (point.valid_until(asker, at=at) for point in self._known.values())
        return min((bound for bound in bounds if bound is not None), default=None)

    def _is_clocked(self, point: DecisionPoint) -> bool:
        key = point.policies.hash
        if key not in self._clocked:
            self._clocked[key] = needs_clock(point.policies)
        return self._clocked[key]

    def outcome(self, recorded: Recorded, at: datetime) -> Outcome:
        """The request under the candidate. Ask for one person's requests after each other."""
        if recorded.allowed and recorded.action not in _ABOUT_RECORDS:
            return Apart.NO_RECORD
        if recorded.who is None:
            return Apart.ROLES
        asker = Asker(recorded.who, recorded.who.assignments, recorded.purpose)
        self._alike = self._classes.of(asker)
        if self._alike is not None:
            found = self._decided(recorded, self._alike.asker, at)
            if isinstance(found, Apart) or not any(c.flip in _BY_TEXT for c in found):
                return found
            self._alike = None
        if asker != self._asker:
            self._deciding.clear()
            self._asker = asker
        return self._decided(recorded, asker, at)

    def _decided(self, recorded: Recorded, asker: Asker, at: datetime) -> Outcome:
        if recorded.allowed:
            return self._allowed(recorded, asker, at)
        return self._refused(recorded, asker, at)

    def _of(self, point: DecisionPoint, asker: Asker, at: datetime) -> Deciding:
        key = point.policies.hash
        shared = self._alike is not None
        found = self._shared.get((asker, key)) if shared else self._deciding.get(key)
        if found is None or not found.covers(at):
            found = Deciding(point, asker, self._source, at, always=not self._is_clocked(point))
            if shared:
                self._shared[asker, key] = found
            else:
                self._deciding[key] = found
        return found

    # (1) What was refused.

    def _refused(self, recorded: Recorded, asker: Asker, at: datetime) -> Outcome:
        if not recorded.is_whole or not _is_read(recorded.statement):
            return Apart.TEXT
        if self._of(self._anything, asker, at).refuses(recorded.statement) is not None:
            return Apart.FORM
        if self._claim(asker) is not None:
            return ()
        if self._of(self.candidate, asker, at).refuses(recorded.statement) is not None:
            return ()
        before = self._known.get(recorded.policy_set)
        if before is None:
            return Apart.VERSION
        why = self._of(before, asker, at).refuses(recorded.statement)
        if why is None:  # what was refused is no longer in the text
            return Apart.VALUE
        return (Change(Flip.ALLOWED, before="refused", after="allowed", why=why),)

    def _claim(self, asker: Asker) -> str | None:
        key = (asker.roles, asker.purpose)
        if key not in self._claims:
            try:
                self.candidate.roles.check_claim(asker.purpose, asker.assignments)
            except PurposeRefused as refusal:
                self._claims[key] = refusal.recorded
            else:
                self._claims[key] = None
        return self._claims[key]

    # (2) What was allowed.

    def _allowed(self, recorded: Recorded, asker: Asker, at: datetime) -> Outcome:
        why = self._claim(asker)
        if why is not None:
            return (Change(Flip.REFUSED, before="allowed", after="refused", why=why),)
        now = self._of(self.candidate, asker, at)
        changes: list[Change] = []
        unsure = False
        is_same = True
        for use in recorded.tables:
            name = self._name(use.table)
            if name is None:
                return Apart.NOT_MAPPED
            after = now.use(name, tuple(use.columns), self._alike)
            is_same = is_same and after == use
            found = self._compared(recorded, use, after, asker, at)
            unsure = unsure or found is None
            changes += found or ()
        writes = recorded.action != "select"
        if is_same and not writes:
            return ()
        refusal = self._refusal(recorded, asker, at)
        if refusal is not None:
            return (Change(Flip.REFUSED, before="allowed", after="refused", why=refusal),)
        if writes:
            changes += self._written(recorded, asker, at)
        if unsure and not changes:
            return Apart.VERSION
        return tuple(changes)

    def _refusal(self, recorded: Recorded, asker: Asker, at: datetime) -> str | None:
        """The candidate's refusal of the statement, unless the text in the log is what it is for."""
        if not recorded.statement or not recorded.is_whole:
            return None
        why = self._of(self.candidate, asker, at).refuses(recorded.statement)
        if why is None:
            return None
        form = self._of(self._anything, asker, at).refuses(recorded.statement)
        return why if form is None else None

    def _compared(
        self, recorded: Recorded, use: TableUse, after: TableUse, asker: Asker, at: datetime
    ) -> list[Change] | None:
        """What changes for a table; ``None`` when only the policies of then could tell."""
        name = self._name(use.table)
        assert name is not None
        was_hidden = self._was_hidden(recorded, use, name)
        is_hidden = after.residual == self._hidden_residual(name)
        if was_hidden or is_hidden:
            if was_hidden and is_hidden:
                return []
            flip = Flip.SHOWN if was_hidden else Flip.HIDDEN
            words = ("no rows", "rows") if was_hidden else ("rows", "no rows")
            return [Change(flip, use.table, before=words[0], after=words[1])]
        changes = [
            Change(_direction(level, after.columns[column]), use.table, column, level,
                   after.columns[column])
            for column, level in use.columns.items()
            if column in after.columns and after.columns[column] != level
        ]  # fmt: skip
        is_comparable = recorded.is_exact and recorded.data_map == self.candidate.data_map.hash
        if changes or use.residual == after.residual:
            return changes
        if use.row_filter != after.row_filter:
            words = ("all rows", "only some rows")
            before, then = words if after.row_filter else reversed(words)
            return [Change(Flip.ROWS, use.table, before=before, after=then)]
        if not is_comparable and recorded.policy_set == self.candidate.policies.hash:
            return []
        # The residual is that of the whole table: another column may be all that changed.
        point = self._known.get(recorded.policy_set)
        if point is None:
            return None
        old = self._of(point, asker, at)
        new = self._of(self.candidate, asker, at)
        if old.rows(name) != new.rows(name):
            return [Change(Flip.ROWS, use.table, before="some rows", after="other rows")]
        return [
            Change(Flip.PARTLY, use.table, column, level, after.columns.get(column, level))
            for column, level in use.columns.items()
            if old.expression(name, column) != new.expression(name, column)
        ]

    def _written(self, recorded: Recorded, asker: Asker, at: datetime) -> list[Change]:
        """Rows or columns that may be written now and might not before, or the reverse."""
        point = self._known.get(recorded.policy_set)
        if point is None or point is self.candidate or not recorded.tables:
            return []
        name = self._name(recorded.tables[0].table)
        action = WRITE_ACTIONS[Kind(recorded.action)]
        if name is None:
            return []
        before = self._of(point, asker, at).writable(action, name)
        after = self._of(self.candidate, asker, at).writable(action, name)
        if before == after:
            return []
        return [Change(Flip.WRITES, str(name), before="some", after="others")]

    def _was_hidden(self, recorded: Recorded, use: TableUse, name: TableName) -> bool:
        if recorded.data_map == self.candidate.data_map.hash:
            return use.residual == self._hidden_residual(name)
        return use.row_filter and set(use.columns.values()) == {"withheld"}

    def _hidden_residual(self, name: TableName) -> str:
        found = self._hidden.get(name)
        if found is None:
            planner = TablePlanner(
                self._source.tables[name], self.candidate.plan(name.name), secret=""
            )
            nothing = dict.fromkeys(self.candidate.plan(name.name).labels, _NOTHING)
            found = self._hidden[name] = planner.read(nothing).residual
        return found

    def _name(self, text: str) -> TableName | None:
        schema = self.candidate.data_map.schema
        name = TableName(schema, text.removeprefix(f"{schema}."))
        mapped = name.name in self.candidate.data_map.tables and name in self._source.tables
        return name if mapped and str(name) == text else None


def _is_read(text: str) -> bool:
    """Whether a recorded text can be decided: for some statements the log holds the kind alone."""
    try:
        return bool(split(text))
    except Refused:
        return False


def _direction(before: str, after: str) -> Flip:
    low, high = _LEVELS.get(before), _LEVELS.get(after)
    if low is not None and high is not None:
        return Flip.RAISED if high > low else Flip.LOWERED
    # "mixed" and "key" depend on the row: more than nothing, less than everything.
    if before == "withheld" or after == "full":
        return Flip.RAISED
    if after == "withheld" or before == "full":
        return Flip.LOWERED
    return Flip.PARTLY

"""One person's views of the tables: policies, data map and catalog joined.

A cell's level is the minimum over its labels: its column's category, the row's labels that apply,
the patient's labels that apply. A row exists for a person only if its row category (and those
labels) is viewable at some level. What cannot be known to be allowed is withheld.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from chartgate.app.table_plan import RECORD_IDS, TablePlan, mentioned
from chartgate.datamap.model import KEY, UNLABELLED, ColumnLabel, DataMap
from chartgate.datamap.read import literal, quoted
from chartgate.errors import Refused
from chartgate.model.disclosure import Disclosure
from chartgate.sql.views import (
    Column,
    ColumnView,
    Level,
    Table,
    TableName,
    TableView,
    WriteAction,
    WriteView,
)
from chartgate.targets.disclosure import LabelRules, Rule
from chartgate.targets.formula import (
    ALWAYS,
    NEVER,
    Formula,
    Labelled,
    conjunction,
    conjuncts,
    disjunction,
    implies,
)
from chartgate.targets.sql import to_sql

_PSEUDONYM_HEX: Final = (
    "pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to({secret} || {value}::pg_catalog.text,"
    " 'UTF8')), 'hex')"
)
_NO_ROW: Final = WriteView(row_predicate="false", columns={})


class UnknownTable(Refused):
    """The relation is not in the data map, so nothing is known of what it holds."""

    code = "unknown_table"
    sqlstate = "42P01"


@dataclass(frozen=True, slots=True)
class PlannedTable:
    """A view with what the audit log says about it."""

    view: TableView
    residual: str
    determining: frozenset[str]


class TablePlanner:
    """Builds the views of one table for one person from the rules of its labels."""

    def __init__(self, table: Table, plan: TablePlan, secret: str) -> None:
        self._table = table
        self._plan = plan
        self._secret = secret
        self._arms: dict[tuple[str, Disclosure], _Arm] = {}
        self._extras: dict[Disclosure, Formula] = {}

    def read(self, rules: Mapping[str, LabelRules]) -> PlannedTable:
        """The view for reading."""
        row = self._at_least(self._plan.row_category, Disclosure.MASKED, rules)
        columns = tuple(self._column(column, row, rules) for column in self._table.columns)
        predicate = self._sql(row)
        view = TableView(
            table=self._table,
            row_predicate=predicate,
            columns=columns,
            patient=self._plan.patient,
            patient_columns=self._plan.patient_columns,
        )
        text = "\n".join((predicate or "", *(c.expression for c in columns)))
        if self._secret:
            # The session's secret must not make equal residuals look different in the log.
            text = text.replace(self._secret, "")
        return PlannedTable(
            view,
            residual=hashlib.sha256(text.encode()).hexdigest()[:16],
            determining=frozenset().union(
                *(
                    rule.determining
                    for label in self._plan.labels
                    for rule in rules[label].at_least.values()
                )
            ),
        )

    def shows(self, rules: Mapping[str, LabelRules]) -> bool:
        """Whether some row could be visible; only the rules of ``row_labels`` are needed."""
        return self._at_least(self._plan.row_category, Disclosure.MASKED, rules) != NEVER

    def write(self, action: WriteAction, rules: Mapping[str, Rule]) -> WriteView:
        """What may be written: each column by its category, the row by its row category."""
        row = self._writable(self._plan.row_category, rules)
        if row == NEVER or self._plan.read_only:
            return _NO_ROW
        columns: dict[str, str | None] = {}
        for name, label in self._plan.columns.items():
            if label.category == UNLABELLED:
                continue
            if label.category == KEY and action == "update":
                # A changed key is another record: whose, policy has not said.
                continue
            category = self._plan.row_category if label.category == KEY else label.category
            formula = self._writable(category, rules)
            if formula != NEVER:
                columns[name] = self._sql(_beyond(formula, row))
        return WriteView(
            row_predicate=self._sql(row),
            columns=columns,
            policy_columns=mentioned(
                self._plan.read_columns, (column.name for column in self._table.columns)
            ),
        )

    def creates(self, rules: Mapping[str, Rule]) -> bool:
        """Whether some row could be written; only the rules of ``row_labels`` are needed."""
        return not self._plan.read_only and self._writable(self._plan.row_category, rules) != NEVER

    def _at_least(
        self, category: str, level: Disclosure, rules: Mapping[str, LabelRules]
    ) -> Formula:
        whatever = self._extras.get(level)
        if whatever is None:
            # What the row's other labels ask is the same for every column.
            whatever = self._extras[level] = conjunction(
                disjunction((Labelled(extra, negated=True), rules[extra].at_least[level].formula))
                for extra in self._plan.extra_labels
            )
        return conjunction((rules[category].at_least[level].formula, whatever))

    def _writable(self, category: str, rules: Mapping[str, Rule]) -> Formula:
        return conjunction(
            (
                rules[category].formula,
                *(
                    disjunction((Labelled(extra, negated=True), rules[extra].formula))
                    for extra in self._plan.extra_labels
                ),
            )
        )

    def _sql(self, formula: Formula) -> str | None:
        return None if formula == ALWAYS else to_sql(formula, self._plan.row)

    def _column(self, column: Column, row: Formula, rules: Mapping[str, LabelRules]) -> ColumnView:
        label = self._plan.columns.get(column.name, ColumnLabel(UNLABELLED))
        raw = "this." + quoted(column.name)
        null = f"NULL::{column.type_sql}"
        if label.category == UNLABELLED or row == NEVER:
            return ColumnView(column.name, null, "withheld", clear=False, full_when="false")
        if label.category == KEY:
            full = self._arm(RECORD_IDS, Disclosure.FULL, row, rules)
            shown = [_Shown(full, raw, Disclosure.FULL)]
            stand_in = pseudonym(raw, column.type_sql, self._key(column, label))
            return _case(column.name, shown, _Shown(_ELSE, stand_in, Disclosure.MASKED), raw, "key")
        forms = (
            (Disclosure.FULL, raw),
            (Disclosure.SUMMARY, label.summary),
            (Disclosure.MASKED, label.masked),
        )
        shown = [
            _Shown(self._arm(label.category, level, row, rules), _form(form, raw, column), level)
            for level, form in forms
            if form is not None
        ]
        return _case(column.name, shown, _Shown(_ELSE, null, Disclosure.WITHHELD), raw)

    def _arm(
        self, category: str, level: Disclosure, row: Formula, rules: Mapping[str, LabelRules]
    ) -> "_Arm":
        """When a visible row's cell of the category is at the level; the same for many columns."""
        found = self._arms.get((category, level))
        if found is None:
            formula = self._at_least(category, level, rules)
            beyond = _beyond(formula, row)
            found = _Arm(
                never=formula == NEVER, sql=None if beyond == ALWAYS else self._sql(beyond)
            )
            self._arms[category, level] = found
        return found

    def _key(self, column: Column, label: ColumnLabel) -> str:
        """What pseudonyms of the column are keyed with: the session and what it is a key of."""
        domain = label.domain or column.key_domain or f"{self._table.name}.{column.name}"
        return f"{self._secret}:{domain}:"


@dataclass(frozen=True, slots=True)
class _Arm:
    """The condition of a CASE arm on visible rows; ``None`` = it holds on all of them."""

    never: bool
    sql: str | None


_ELSE: Final = _Arm(never=False, sql=None)


@dataclass(frozen=True, slots=True)
class _Shown:
    """What stands for a cell under a condition."""

    arm: _Arm
    expression: str
    level: Disclosure


def _case(
    name: str, arms: list[_Shown], last: _Shown, raw: str, level: Level | None = None
) -> ColumnView:
    """``CASE WHEN full THEN … ELSE NULL END``, without the arms that the row decides."""
    whole = arms[0].arm
    kept: list[_Shown] = []
    for shown in arms:
        if shown.arm.sql is None:
            last = shown
            break
        if not shown.arm.never:
            kept.append(shown)
    while kept and kept[-1].expression == last.expression:
        kept.pop()
    levels = {shown.level for shown in (*kept, last)}
    whens = " ".join(f"WHEN {shown.arm.sql} THEN {shown.expression}" for shown in kept)
    if level is None:
        level = "mixed" if len(levels) > 1 else _WORDS[last.level]
    return ColumnView(
        name,
        f"CASE {whens} ELSE {last.expression} END" if kept else last.expression,
        level,
        clear={shown.expression for shown in (*kept, last)} == {raw},
        full_when="false" if whole.never else whole.sql,
    )


def pseudonym(raw: str, type_sql: str, key: str) -> str:
    """A keyed stand-in of the column's own type: equal values under one key stay equal.

    A type without room for a stand-in that is unlikely to meet another's gets NULL. (In the 31
    bits of an integer two of 2,000 keys meet once in a thousand sessions.)
    """
    digest = _PSEUDONYM_HEX.format(secret=literal(key), value=raw)
    hexadecimal = f"pg_catalog.substr({digest}, 1, {{}})"
    number = f"('x' || {hexadecimal.format(15)})::bit(60)::bigint"
    base, _, size = type_sql.removesuffix(")").partition("(")
    match base:
        case "bigint":
            stand_in = number
        case "integer":
            stand_in = f"('x' || {hexadecimal.format(8)})::bit(31)::integer"
        case "uuid":
            stand_in = f"{hexadecimal.format(32)}::uuid"
        case "numeric" if _digits(size) >= 9:
            stand_in = f"pg_catalog.mod({number}, {10 ** min(_digits(size), 18)})::{type_sql}"
        case "text" | "character varying" | "character" if _length(size) >= 9:
            stand_in = f"('k' || {hexadecimal.format(min(_length(size) - 1, 20))})::{type_sql}"
        case _:
            return f"NULL::{type_sql}"
    return f"CASE WHEN {raw} IS NULL THEN NULL ELSE {stand_in} END"


def _digits(size: str) -> int:
    """Digits before the point of ``numeric(precision,scale)``."""
    precision, _, scale = size.partition(",")
    return int(precision) - int(scale or 0) if size else 18


def _length(size: str) -> int:
    return int(size) if size else 21


def _form(form: str, raw: str, column: Column) -> str:
    return raw if form == raw else f"({form})::{column.type_sql}"


def _beyond(formula: Formula, row: Formula) -> Formula:
    """What the formula asks beyond what every visible row already satisfies."""
    return conjunction(part for part in conjuncts(formula) if not implies(row, part))


_WORDS: Final[Mapping[Disclosure, Level]] = {
    Disclosure.FULL: "full",
    Disclosure.SUMMARY: "summary",
    Disclosure.MASKED: "masked",
    Disclosure.WITHHELD: "withheld",
}


def table_of(
    data_map: DataMap, tables: Mapping[TableName, Table], schema: str | None, name: str
) -> TableName:
    """The mapped table a name means; raises ``UnknownTable`` naming it."""
    found = TableName(schema or data_map.schema, name)
    if found.schema != data_map.schema or name not in data_map.tables or found not in tables:
        raise UnknownTable(
            f'relation "{found}" is not in the data map, so nobody may read it here',
            recorded="a relation that is not in the data map",
        )
    return found

"""One person's views of the tables: policies, data map and catalog joined.

A cell's level is the minimum over its labels: its column's category, the row's labels that apply,
the patient's labels that apply. A row exists for a person only if its row category (and those
labels) is viewable at some level. What cannot be known to be allowed is withheld.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from chartgate.datamap.model import KEY, UNLABELLED, ColumnLabel, DataMap, MappedTable, Relation
from chartgate.datamap.read import literal, quoted
from chartgate.errors import Refused
from chartgate.model.disclosure import Disclosure
from chartgate.sql.qualify import qualified
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
from chartgate.targets.sql import RowSql, to_sql

RECORD_IDS: Final = "record_ids"
_PSEUDONYM_HEX: Final = (
    "pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to({secret} || {value}::text,"
    " 'UTF8')), 'hex')"
)


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

    def __init__(
        self,
        table: Table,
        mapped: MappedTable,
        data_map: DataMap,
        entity_types: Mapping[str, str],
        secret: str,
    ) -> None:
        self._table = table
        self._mapped = mapped
        self._map = data_map
        self._secret = secret
        self._row = row_sql(mapped, data_map, entity_types)
        patient_labels = data_map.patient_labels if mapped.patient is not None else ()
        self._extra_labels = tuple(
            (label.category, in_place(label.when, mapped.patient))
            for label in (*mapped.row_labels, *patient_labels)
        )

    @property
    def labels(self) -> frozenset[str]:
        """Every category that a decision is needed for."""
        columns = {c.category for c in self._mapped.columns.values()} - {KEY, UNLABELLED}
        extra = {category for category, _ in self._extra_labels}
        return frozenset({self._mapped.row_category, RECORD_IDS, *columns, *extra})

    def read(self, rules: Mapping[str, LabelRules]) -> PlannedTable:
        """The view for reading."""
        row = self._at_least(self._mapped.row_category, Disclosure.MASKED, rules)
        columns = tuple(self._column(column, row, rules) for column in self._table.columns)
        predicate = self._sql(row)
        view = TableView(
            table=self._table,
            row_predicate=predicate,
            columns=columns,
            patient=self._patient_text(),
            patient_columns=self._patient_columns(),
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
                    for label in self.labels
                    for rule in rules[label].at_least.values()
                )
            ),
        )

    def shows(self, rules: Mapping[str, LabelRules]) -> bool:
        """Whether some row could be visible; without working out the view."""
        return self._at_least(self._mapped.row_category, Disclosure.MASKED, rules) != NEVER

    def write(self, action: WriteAction, rules: Mapping[str, Rule]) -> WriteView:
        """What may be written: each column by its category, the row by its row category."""
        row = self._writable(self._mapped.row_category, rules)
        columns: dict[str, str | None] = {}
        for name, label in self._mapped.columns.items():
            if label.category == UNLABELLED:
                continue
            category = self._mapped.row_category if label.category == KEY else label.category
            formula = self._writable(category, rules)
            if formula != NEVER:
                columns[name] = self._sql(_beyond(formula, row))
        if action == "update":
            # A changed key is another record: whose, policy has not said.
            columns = {n: c for n, c in columns.items() if self._mapped.columns[n].category != KEY}
        return WriteView(
            row_predicate=self._sql(row),
            columns={} if row == NEVER else columns,
            policy_columns=self._policy_columns(),
        )

    def _at_least(
        self, category: str, level: Disclosure, rules: Mapping[str, LabelRules]
    ) -> Formula:
        return conjunction(
            (
                rules[category].at_least[level].formula,
                *(
                    disjunction(
                        (Labelled(when, negated=True), rules[extra].at_least[level].formula)
                    )
                    for extra, when in self._extra_labels
                ),
            )
        )

    def _writable(self, category: str, rules: Mapping[str, Rule]) -> Formula:
        return conjunction(
            (
                rules[category].formula,
                *(
                    disjunction((Labelled(when, negated=True), rules[extra].formula))
                    for extra, when in self._extra_labels
                ),
            )
        )

    def _sql(self, formula: Formula) -> str | None:
        return None if formula == ALWAYS else self._written_out(to_sql(formula, self._row))

    def _written_out(self, text: str) -> str:
        """Map SQL as the source reads it: with no search path to speak of."""
        return qualified(text, self._map.schema)

    def _column(self, column: Column, row: Formula, rules: Mapping[str, LabelRules]) -> ColumnView:
        label = self._mapped.columns.get(column.name, ColumnLabel(UNLABELLED))
        raw = "this." + quoted(column.name)
        null = f"NULL::{column.type_sql}"
        if label.category == UNLABELLED or row == NEVER:
            return ColumnView(column.name, null, "withheld", clear=False, full_when="false")
        if label.category == KEY:
            full = self._at_least(RECORD_IDS, Disclosure.FULL, rules)
            arms: list[tuple[Formula, str, Disclosure]] = [(full, raw, Disclosure.FULL)]
            last = (pseudonym(raw, column.type_sql, self._secret), Disclosure.MASKED)
        else:
            summary, masked = label.summary, label.masked
            arms = [(self._at_least(label.category, Disclosure.FULL, rules), raw, Disclosure.FULL)]
            if summary is not None:
                arms.append(
                    (
                        self._at_least(label.category, Disclosure.SUMMARY, rules),
                        _form(summary, raw, column),
                        Disclosure.SUMMARY,
                    )
                )
            if masked is not None:
                arms.append(
                    (
                        self._at_least(label.category, Disclosure.MASKED, rules),
                        _form(masked, raw, column),
                        Disclosure.MASKED,
                    )
                )
            last = (null, Disclosure.WITHHELD)
        return self._case(column.name, arms, last, row, raw, key=label.category == KEY)

    def _case(
        self,
        name: str,
        arms: list[tuple[Formula, str, Disclosure]],
        last: tuple[str, Disclosure],
        row: Formula,
        raw: str,
        *,
        key: bool,
    ) -> ColumnView:
        """``CASE WHEN full THEN … ELSE NULL END``, without the arms that the row decides."""
        full_when = self._sql(_beyond(arms[0][0], row))
        kept: list[tuple[str, str, Disclosure]] = []
        for formula, expression, level in arms:
            if formula == NEVER:
                continue
            if implies(row, formula):
                last = (expression, level)
                break
            kept.append((to_sql(_beyond(formula, row), self._row), expression, level))
        while kept and kept[-1][1] == last[0]:
            kept.pop()
        levels = {level for _, _, level in kept} | {last[1]}
        expressions = {expression for _, expression, _ in kept} | {last[0]}
        if not kept:
            expression = last[0]
        else:
            whens = " ".join(f"WHEN {when} THEN {then}" for when, then, _ in kept)
            expression = f"CASE {whens} ELSE {last[0]} END"
        shown: Level = "key" if key else "mixed" if len(levels) > 1 else _word(levels.pop())
        return ColumnView(
            name,
            self._written_out(expression),
            shown,
            clear=expressions == {raw},
            full_when=full_when,
        )

    def _patient_text(self) -> str | None:
        if self._mapped.patient is None:
            return None
        return self._written_out(f"({self._mapped.patient})::text")

    def _patient_columns(self) -> dict[str, str]:
        found = {}
        patient = self._map.patient
        for column in self._table.columns:
            raw = "this." + quoted(column.name)
            if self._mapped.patient in {raw, f"this.{column.name}"}:
                found[column.name] = "patient"
            elif self._mapped.name == patient.table and column.name == patient.identifier:
                found[column.name] = "mrn"
        return found

    def _policy_columns(self) -> frozenset[str]:
        """Columns that decide who may see the row: named by any SQL of the map about rows."""
        texts = [
            self._mapped.patient or "",
            *self._mapped.attributes.values(),
            *(when for _, when in self._extra_labels),
        ]
        joined = " ".join(texts)
        return frozenset(
            c.name
            for c in self._table.columns
            if f"this.{c.name}" in joined or f"this.{quoted(c.name)}" in joined
        )


def row_sql(mapped: MappedTable, data_map: DataMap, entity_types: Mapping[str, str]) -> RowSql:
    """Where the attributes of one table's rows are found."""
    scalars = dict(mapped.attributes)
    relations: dict[str, Relation] = {}
    if mapped.patient is not None:
        scalars["patient"] = f"({mapped.patient})::text"
    for name, relation in data_map.relations.items():
        if mapped.patient is not None or "{patient}" not in relation.where:
            relations[name] = replace(relation, where=in_place(relation.where, mapped.patient))
    return RowSql(scalars=scalars, relations=relations, entity_types=entity_types)


def in_place(text: str, patient: str | None) -> str:
    """Map SQL with ``{patient}`` replaced by the table's patient key."""
    return text if patient is None else text.replace("{patient}", f"({patient})")


def pseudonym(raw: str, type_sql: str, secret: str) -> str:
    """A keyed stand-in of the column's own type: equal keys stay equal within a session only."""
    digest = _PSEUDONYM_HEX.format(secret=literal(secret), value=raw)
    hexadecimal = f"pg_catalog.substr({digest}, 1, {{}})"
    base = type_sql.split("(", maxsplit=1)[0].strip()
    match base:
        case "bigint" | "numeric":
            number = f"('x' || {hexadecimal.format(15)})::bit(60)::bigint"
            stand_in = number if base == "bigint" else f"({number})::{type_sql}"
        case "integer":
            stand_in = f"('x' || {hexadecimal.format(7)})::bit(28)::integer"
        case "uuid":
            stand_in = f"{hexadecimal.format(32)}::uuid"
        case "text":
            stand_in = f"('k' || {hexadecimal.format(20)})"
        case "character varying" | "character":
            stand_in = f"('k' || {hexadecimal.format(20)})::{type_sql}"
        case _:
            return f"NULL::{type_sql}"
    return f"CASE WHEN {raw} IS NULL THEN NULL ELSE {stand_in} END"


def _form(form: str, raw: str, column: Column) -> str:
    return raw if form == raw else f"({form})::{column.type_sql}"


def _beyond(formula: Formula, row: Formula) -> Formula:
    """What the formula asks beyond what every visible row already satisfies."""
    return conjunction(part for part in conjuncts(formula) if not implies(row, part))


def _word(level: Disclosure) -> Level:
    words: dict[Disclosure, Level] = {
        Disclosure.FULL: "full",
        Disclosure.SUMMARY: "summary",
        Disclosure.MASKED: "masked",
        Disclosure.WITHHELD: "withheld",
    }
    return words[level]


def table_of(
    data_map: DataMap, tables: Mapping[TableName, Table], schema: str | None, name: str
) -> TableName:
    """The mapped table a name means; raises ``UnknownTable`` naming it."""
    found = TableName(schema or data_map.schema, name)
    if found.schema != data_map.schema or name not in data_map.tables or found not in tables:
        raise UnknownTable(f'relation "{found}" is not in the data map, so nobody may read it here')
    return found

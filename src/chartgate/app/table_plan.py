"""What the data map says of one table, made ready once: its SQL read, whole and written out.

Nothing of a person is here. Every piece of SQL in the map is parsed when the map is loaded, so that
a mistake stops the start and never a statement.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from chartgate.app.attribute_columns import UnfitColumn, attribute_sql, member_sql
from chartgate.datamap.model import (
    KEY,
    UNLABELLED,
    ColumnLabel,
    DataMap,
    MappedTable,
    Relation,
)
from chartgate.datamap.read import quoted
from chartgate.model.principal import EntityUid
from chartgate.sql.qualify import InvalidExpression, column_names, qualified, qualified_source
from chartgate.targets.partial import RowShape
from chartgate.targets.sql import RowSql

RECORD_IDS: Final = "record_ids"
_NO_FAMILIES: Final[Mapping[str, frozenset[EntityUid]]] = {}


@dataclass(frozen=True, slots=True)
class TablePlan:
    """One mapped table, ready for anybody's view.

    ``extra_labels``: the categories a row may carry beside those of its columns; ``row`` holds
    their conditions. ``read_columns``: names that the map's SQL about a row mentions (``*`` = all).
    """

    name: str
    row_category: str
    columns: Mapping[str, ColumnLabel]
    row: RowSql
    shape: RowShape
    extra_labels: tuple[str, ...]
    patient: str | None
    patient_columns: Mapping[str, str]
    read_columns: frozenset[str]
    read_only: bool

    @property
    def row_labels(self) -> frozenset[str]:
        """The categories that decide whether a row is there for a person."""
        return frozenset({self.row_category, *self.extra_labels})

    @property
    def labels(self) -> frozenset[str]:
        """Every category that a decision is needed for."""
        columns = {c.category for c in self.columns.values()} - {KEY, UNLABELLED}
        return self.row_labels | columns | {RECORD_IDS}


def table_plan(
    mapped: MappedTable,
    data_map: DataMap,
    *,
    kinds: Mapping[str, str],
    declared_sets: frozenset[str],
    families: Mapping[str, frozenset[EntityUid]] = _NO_FAMILIES,
) -> TablePlan:
    """Make a table ready. Raises ``InvalidExpression`` or ``UnfitColumn`` naming map and table."""
    try:
        return _plan(mapped, data_map, kinds, declared_sets, families)
    except (InvalidExpression, UnfitColumn) as exc:
        words = f"data map {data_map.source}: tables.{mapped.name}: {exc}"
        raise type(exc)(words) from exc


def _plan(
    mapped: MappedTable,
    data_map: DataMap,
    kinds: Mapping[str, str],
    declared_sets: frozenset[str],
    families: Mapping[str, frozenset[EntityUid]],
) -> TablePlan:
    schema = data_map.schema
    patient = None if mapped.patient is None else qualified(mapped.patient, schema)
    scalars = {
        name: _scalar(qualified(sql, schema), name, mapped, kinds)
        for name, sql in mapped.attributes.items()
    }
    if patient is not None:
        scalars["patient"] = f"({patient})::pg_catalog.text"
    conditions = _conditions(mapped, data_map, patient)
    relations = {
        name: _relation(relation, patient, schema, kinds.get(name, ""))
        for name, relation in data_map.relations.items()
        if patient is not None or not _asks_for_patient(relation)
    }
    return TablePlan(
        name=mapped.name,
        row_category=mapped.row_category,
        columns={
            name: replace(label, **_forms(name, label, schema))
            for name, label in mapped.columns.items()
        },
        row=RowSql(
            scalars=scalars,
            relations=relations,
            labels={name: _either(whens) for name, whens in conditions.items()},
            kinds={name: kinds[name] for name in scalars if name in kinds},
        ),
        shape=RowShape(
            scalars=frozenset(scalars),
            sets=frozenset(relations),
            declared_sets=declared_sets,
            kinds=kinds,
            families=families,
        ),
        extra_labels=tuple(sorted(conditions)),
        patient=scalars.get("patient"),
        patient_columns=_patient_columns(mapped, data_map),
        read_columns=frozenset().union(
            *(
                column_names(text)
                for text in (
                    *scalars.values(),
                    *(w for whens in conditions.values() for w in whens),
                )
            )
        ),
        read_only=mapped.read_only,
    )


def _conditions(
    mapped: MappedTable, data_map: DataMap, patient: str | None
) -> dict[str, tuple[str, ...]]:
    """The conditions of each label that rows may carry, its own and its patient's."""
    labels = (*mapped.row_labels, *(data_map.patient_labels if patient is not None else ()))
    found: dict[str, tuple[str, ...]] = {}
    for label in labels:
        when = qualified(in_place(label.when, patient), data_map.schema)
        found[label.category] = (*found.get(label.category, ()), when)
    return found


def _either(conditions: tuple[str, ...]) -> str:
    """Any of them; as with a single one, what is NULL counts."""
    if len(conditions) == 1:
        return conditions[0]
    return " OR ".join(f"(({when}) IS NOT FALSE)" for when in conditions)


def _scalar(sql: str, name: str, mapped: MappedTable, kinds: Mapping[str, str]) -> str:
    try:
        return attribute_sql(sql, mapped.attribute_types.get(name), kinds.get(name, ""))
    except UnfitColumn as exc:
        raise UnfitColumn(f"{name}: {exc}") from exc


def _relation(relation: Relation, patient: str | None, schema: str, kind: str) -> Relation:
    return replace(
        relation,
        source=qualified_source(in_place(relation.source, patient), schema),
        where=qualified(in_place(relation.where, patient), schema),
        value=member_sql(qualified(in_place(relation.value, patient), schema), kind),
    )


def _asks_for_patient(relation: Relation) -> bool:
    return any("{patient}" in text for text in (relation.source, relation.where, relation.value))


def _forms(name: str, label: ColumnLabel, schema: str) -> dict[str, str]:
    raw = "this." + quoted(name)
    return {
        level: form if form == raw else qualified(form, schema)
        for level, form in (("summary", label.summary), ("masked", label.masked))
        if form is not None
    }


def _patient_columns(mapped: MappedTable, data_map: DataMap) -> dict[str, str]:
    found = {}
    for column in mapped.columns:
        if mapped.patient in {"this." + quoted(column), f"this.{column}"}:
            found[column] = "patient"
        elif (mapped.name, column) == (data_map.patient.table, data_map.patient.identifier):
            found[column] = "mrn"
    return found


def in_place(text: str, patient: str | None) -> str:
    """Map SQL with ``{patient}`` replaced by the table's patient key."""
    return text if patient is None else text.replace("{patient}", f"({patient})")


def mentioned(names: frozenset[str], columns: Iterable[str]) -> frozenset[str]:
    """Which of the columns are among the names."""
    return frozenset(columns) if "*" in names else names & frozenset(columns)

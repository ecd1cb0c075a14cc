"""What the source says of one patient, as policies see it: the query, and the meaning of its answer.

Rules kept: the query is made of the data map alone, and the patient's key is its one parameter; it
finds the same sets and labels as the filter of every statement does, since it is the same map read
the same way. Only the patient's key is in sight of the map's SQL: what depends on the single row
(it mentions ``this``) is no fact about the patient, and stays open.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from chartgate.app.attribute_columns import member_sql
from chartgate.app.explain_reduced import Known
from chartgate.app.table_plan import in_place
from chartgate.cedar.schema import EntityRef, PrimitiveType, Schema, SetType, Type
from chartgate.cedar.values import CedarSet, Value
from chartgate.datamap.model import DataMap, Relation, RowLabel
from chartgate.datamap.read import quoted
from chartgate.errors import Misconfigured
from chartgate.model.principal import EntityUid
from chartgate.sql.qualify import qualified, qualified_source
from chartgate.targets.admissible import attribute_kinds, record_attributes

PATIENT: Final = "patient"
_KEY: Final = '"__cg_patient"."__cg_key"'
_ROW: Final = re.compile(r"\bthis\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PatientQuery:
    """SQL with the patient's key, as text, for ``$1``. It answers one row: for each of ``sets`` an
    array of texts, then for each of ``labels`` whether the patient's record carries it."""

    text: str
    sets: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PatientsQuery:
    """The same for many. Each row of an answer begins with the key, as text.

    ``some``: the keys, an array of the key's own type, for ``$1``, so that an index serves; and the
    same keys as texts for ``$2``, since a patient has one spelling. ``some_as_text``: as texts, for
    ``$1``, when one of them is no value of the key's type. ``following``: in the order of the keys as
    bytes, those after the text for ``$1``, at most ``$2`` of them.
    """

    one: PatientQuery
    some: str
    some_as_text: str
    following: str


@dataclass(frozen=True, slots=True)
class PatientRecord:
    """What holds for every row about the patient: attributes, and labels beside the row's own."""

    known: Known
    labels: tuple[str, ...]

    def labels_with(self, asked: Sequence[str]) -> tuple[str, ...]:
        """The labels of a cell of hers: those asked about, and the patient's."""
        return tuple(dict.fromkeys((*asked, *self.labels))) if asked else ()


def patient_query(data_map: DataMap, schema: Schema) -> PatientQuery:
    """How to ask the source for what the schema knows of a patient."""
    kinds = attribute_kinds(schema)
    attributes = record_attributes(schema)
    relations = {
        name: relation
        for name, relation in data_map.relations.items()
        if name in attributes and name in kinds and not _is_of_row(relation)
    }
    labels: dict[str, list[RowLabel]] = {}
    for label in data_map.patient_labels:
        if _ROW.search(label.when):
            raise Misconfigured(
                f"data map {data_map.source}: the patient label {label.category} depends on the "
                "row: it cannot be told of a patient"
            )
        labels.setdefault(label.category, []).append(label)
    columns = [_set(relation, data_map, kinds[name]) for name, relation in relations.items()]
    columns += [
        " OR ".join(f"(({_told(label.when, data_map)}) IS NOT FALSE)" for label in several)
        for several in labels.values()
    ]
    return PatientQuery(
        f"SELECT {', '.join(columns) or 'true'} "
        f'FROM ({_keys(data_map)} WHERE {_text_of(data_map)} = $1) AS "__cg_patient"',
        tuple(relations),
        tuple(labels),
    )


def patients_query(data_map: DataMap, schema: Schema) -> PatientsQuery:
    """How to ask for many patients at once: the same words for each of them."""
    one = patient_query(data_map, schema)
    columns = one.text[len("SELECT ") : one.text.rindex(" FROM (SELECT ")]
    head = f"SELECT ({_KEY})::pg_catalog.text, {columns} FROM ({_keys(data_map)} WHERE"
    # As bytes, whatever the database's collation: Python orders texts of one source the same way.
    text = f'{_text_of(data_map)} COLLATE "C"'
    return PatientsQuery(
        one,
        f"{head} p.{quoted(data_map.patient.key)} = ANY ($1) "
        f'AND {_text_of(data_map)} = ANY ($2::pg_catalog.text[])) AS "__cg_patient"',
        f'{head} {_text_of(data_map)} = ANY ($1::pg_catalog.text[])) AS "__cg_patient"',
        f"{head} {text} > $1 ORDER BY {text} LIMIT $2::pg_catalog.int8) "
        f'AS "__cg_patient" ORDER BY ({_KEY})::pg_catalog.text COLLATE "C"',
    )


def _text_of(data_map: DataMap) -> str:
    return f"(p.{quoted(data_map.patient.key)})::pg_catalog.text"


def _keys(data_map: DataMap) -> str:
    patient = data_map.patient
    return (
        f'SELECT p.{quoted(patient.key)} AS "__cg_key" '
        f"FROM {quoted(data_map.schema)}.{quoted(patient.table)} p"
    )


def patient_record(
    query: PatientQuery, schema: Schema, key: str, row: Sequence[object]
) -> PatientRecord:
    """What the row that the query answered says of the patient with that key."""
    attributes = record_attributes(schema)
    known: dict[str, Value | None] = {}
    if PATIENT in attributes:
        known[PATIENT] = EntityUid("Patient", key)
    for name, members in zip(query.sets, row, strict=False):
        kind = attributes[name].type
        assert isinstance(kind, SetType)
        assert isinstance(members, list)
        known[name] = CedarSet.of(_member(kind.element, str(member)) for member in members)
    carried = row[len(query.sets) :]
    labels = tuple(n for n, held in zip(query.labels, carried, strict=False) if held is not False)
    return PatientRecord(known, labels)


def _is_of_row(relation: Relation) -> bool:
    return any(_ROW.search(text) for text in (relation.source, relation.where, relation.value))


def _told(text: str, data_map: DataMap) -> str:
    return qualified(in_place(text, _KEY), data_map.schema)


def _set(relation: Relation, data_map: DataMap, kind: str) -> str:
    source = qualified_source(in_place(relation.source, _KEY), data_map.schema)
    value = member_sql(_told(relation.value, data_map), kind)
    return (
        f"ARRAY(SELECT ({value})::pg_catalog.text FROM {source} "
        f"WHERE ({_told(relation.where, data_map)}) AND ({value}) IS NOT NULL)"
    )


def _member(kind: Type, text: str) -> Value:
    match kind:
        case EntityRef(name):
            return EntityUid(name, text)
        case PrimitiveType("Long"):
            return int(text)
        case PrimitiveType("Bool"):
            return text == "true"
    return text

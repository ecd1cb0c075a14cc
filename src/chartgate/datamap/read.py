"""From parsed TOML to a ``DataMap``, strictly: an unknown key or category is refused.

Nothing here opens a file: the adapter hands over the parsed document and the code sets.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from chartgate.datamap.model import (
    KEY,
    UNLABELLED,
    ColumnLabel,
    DataMap,
    MappedTable,
    PatientTable,
    Relation,
    RowLabel,
)
from chartgate.errors import Misconfigured

SCALAR_ATTRIBUTES = frozenset({"department", "author"})
"""Row attributes of the shipped schema that a table maps one by one; ``patient`` follows from the
patient key."""

_TOP = frozenset(
    {"source", "title", "schema", "patient", "code_sets", "relations", "patient_labels", "tables"}
)
_TABLE = frozenset(
    {"row_category", "patient", "attributes", "row_labels", "special", "columns", "read_only"}
)


class InvalidMap(Misconfigured):
    """The data map cannot be obeyed as written; the message says where and why."""

    code = "invalid_map"


def read_map(
    document: Mapping[str, Any],
    code_sets: Mapping[str, frozenset[str]],
    *,
    categories: frozenset[str],
    relation_types: Mapping[str, str],
    attributes: frozenset[str] = SCALAR_ATTRIBUTES,
    file: str = "data map",
) -> DataMap:
    """Read a parsed map.

    ``categories`` are the schema's; ``relation_types`` names the set-valued row attributes that
    policy may mention, with their types (``{"care_team": "Set<User>"}``), ``attributes`` the
    others that a table may map.
    Raises ``InvalidMap`` naming file, table and column.
    """
    return _Reader(file, categories, relation_types, attributes, code_sets).map(document)


def literal(text: str) -> str:
    """A string as an SQL literal (``standard_conforming_strings`` is pinned on)."""
    if "\0" in text:
        raise InvalidMap("a value contains the character NUL")
    return "'" + text.replace("'", "''") + "'"


class _Reader:
    def __init__(
        self,
        file: str,
        categories: frozenset[str],
        relation_types: Mapping[str, str],
        attributes: frozenset[str],
        code_sets: Mapping[str, frozenset[str]],
    ) -> None:
        self._file = file
        self._categories = categories
        self._relation_types = relation_types
        self._attributes = attributes
        self._code_sets = code_sets

    def map(self, document: Mapping[str, Any]) -> DataMap:
        self._known(document, _TOP, "")
        patient = self._table_of(document, "patient", "")
        self._known(patient, frozenset({"table", "key", "identifier"}), "patient")
        key = self._text(patient, "key", "patient")
        relations = {
            name: self._relation(name, self._mapping(spec, f"relations.{name}"))
            for name, spec in self._table_of(document, "relations", "", optional=True).items()
        }
        tables = {
            name: self._table(name, self._mapping(spec, f"tables.{name}"))
            for name, spec in self._table_of(document, "tables", "").items()
        }
        if self._text(patient, "table", "patient") not in tables:
            raise self._invalid("patient", "its table is not among the tables")
        labels = tuple(
            self._row_label(self._mapping(spec, "patient_labels"), "patient_labels")
            for spec in document.get("patient_labels", ())
        )
        return DataMap(
            source=self._text(document, "source", ""),
            title=str(document.get("title", document["source"])),
            schema=str(document.get("schema", "public")),
            patient=PatientTable(
                table=patient["table"], key=key, identifier=str(patient.get("identifier", key))
            ),
            tables=tables,
            relations=relations,
            patient_labels=labels,
            hash=self._hash(document),
        )

    def _table(self, name: str, spec: Mapping[str, Any]) -> MappedTable:
        where = f"tables.{name}"
        self._known(spec, _TABLE, where)
        patient = spec.get("patient")
        if patient is not None and not isinstance(patient, str):
            raise self._invalid(where, "patient must be SQL text")
        read_only = spec.get("read_only", False)
        if not isinstance(read_only, bool):
            raise self._invalid(where, "read_only is either true or false")
        attributes = self._table_of(spec, "attributes", where, optional=True)
        for attribute, value in attributes.items():
            if attribute not in self._attributes:
                raise self._invalid(where, f"unknown row attribute {attribute!r}")
            keys = frozenset({"value", "type"})
            self._known(self._mapping(value, f"{where}.{attribute}"), keys, where)
        special = spec.get("special", ())
        if isinstance(special, Mapping):
            special = (special,)
        labels = [
            self._row_label(self._mapping(label, where), where)
            for label in spec.get("row_labels", ())
        ]
        for entry in special:
            labels.extend(self._special(self._mapping(entry, where), where))
        columns = {
            column: self._column(column, label, f"{where}.{column}")
            for column, label in self._table_of(spec, "columns", where).items()
        }
        return MappedTable(
            name=name,
            row_category=self._category(self._text(spec, "row_category", where), where),
            columns=columns,
            patient=patient,
            attributes={
                attribute: self._text(value, "value", f"{where}.{attribute}")
                for attribute, value in attributes.items()
            },
            row_labels=tuple(labels),
            read_only=read_only,
            attribute_types={
                attribute: self._text(value, "type", f"{where}.{attribute}")
                for attribute, value in attributes.items()
                if "type" in value
            },
        )

    def _special(self, spec: Mapping[str, Any], where: str) -> Iterable[RowLabel]:
        """Labels by code. A code that nobody has looked at takes every label: the strictest."""
        self._known(spec, frozenset({"column", "sets", "reviewed", "absent"}), where)
        absent = str(spec.get("absent", "strictest"))
        if absent not in {"strictest", "ordinary"}:
            raise self._invalid(where, "absent is either 'strictest' or 'ordinary'")
        column = "this." + quoted(self._text(spec, "column", where))
        sets = {
            self._category(category, where): self._codes(str(name), where)
            for category, name in self._table_of(spec, "sets", where).items()
        }
        reviewed = self._text(spec, "reviewed", where)
        known = (
            None
            if reviewed == "*"
            else frozenset().union(self._codes(reviewed, where), *sets.values())
        )
        for category, codes in sets.items():
            if known is None:
                # '*' says that every code outside the sets is ordinary, as is no code at all.
                listed = f"{column}::text = ANY ({_array(codes)})"
                yield RowLabel(category, f"COALESCE({listed}, false)")
                continue
            # In the set, or looked at by nobody: anything but what is known to be something else.
            other = f"NOT {column}::text = ANY ({_array(known - codes)})"
            if absent == "strictest":
                yield RowLabel(category, f"{column} IS NULL OR {other}")
            else:
                yield RowLabel(category, f"COALESCE({other}, false)")

    def _column(self, name: str, label: object, where: str) -> ColumnLabel:
        if isinstance(label, str):
            return ColumnLabel(label if label == UNLABELLED else self._category(label, where))
        spec = self._mapping(label, where)
        category = self._category(self._text(spec, "category", where), where)
        if category == KEY:
            # A key has no summary or masked form: below full it is a pseudonym.
            self._known(spec, frozenset({"category", "domain"}), where)
            return ColumnLabel(category, domain=self._text(spec, "domain", where))
        self._known(spec, frozenset({"category", "summary", "masked"}), where)
        forms = {}
        for level in ("summary", "masked"):
            if level in spec:
                form = self._text(spec, level, where)
                forms[level] = "this." + quoted(name) if form == "keep" else form
        return ColumnLabel(category, **forms)

    def _relation(self, name: str, spec: Mapping[str, Any]) -> Relation:
        where = f"relations.{name}"
        self._known(spec, frozenset({"type", "from", "where", "value"}), where)
        if name not in self._relation_types:
            raise self._invalid(where, "the policy schema has no such set of a record")
        relation = Relation(
            attribute=name,
            type=self._text(spec, "type", where),
            source=self._text(spec, "from", where),
            where=self._text(spec, "where", where),
            value=self._text(spec, "value", where),
        )
        if relation.type != self._relation_types[name]:
            raise self._invalid(
                where, f"type {relation.type} is not the schema's {self._relation_types[name]}"
            )
        return relation

    def _row_label(self, spec: Mapping[str, Any], where: str) -> RowLabel:
        self._known(spec, frozenset({"category", "when"}), where)
        return RowLabel(
            self._category(self._text(spec, "category", where), where),
            self._text(spec, "when", where),
        )

    def _codes(self, name: str, where: str) -> frozenset[str]:
        if name not in self._code_sets:
            raise self._invalid(where, f"unknown code set {name!r}")
        return self._code_sets[name]

    def _category(self, name: str, where: str) -> str:
        if name != KEY and name not in self._categories:
            raise self._invalid(where, f"unknown category {name!r}")
        return name

    def _known(self, spec: Mapping[str, Any], keys: frozenset[str], where: str) -> None:
        for key in spec:
            if key not in keys:
                raise self._invalid(where, f"unknown key {key!r}")

    def _text(self, spec: Mapping[str, Any], key: str, where: str) -> str:
        value = spec.get(key)
        if not isinstance(value, str) or not value:
            raise self._invalid(where, f"{key} is missing or not text")
        return value

    def _mapping(self, value: object, where: str) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            raise self._invalid(where, "a table was expected here")
        return value

    def _table_of(
        self, spec: Mapping[str, Any], key: str, where: str, *, optional: bool = False
    ) -> Mapping[str, Any]:
        if optional and key not in spec:
            return {}
        return self._mapping(spec.get(key), f"{where}.{key}".lstrip("."))

    def _invalid(self, where: str, reason: str) -> InvalidMap:
        return InvalidMap(f"{self._file}: {where + ': ' if where else ''}{reason}")

    def _hash(self, document: Mapping[str, Any]) -> str:
        content = {
            "map": document,
            "code_sets": {name: sorted(codes) for name, codes in self._code_sets.items()},
        }
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
        return hashlib.sha256(canonical.encode()).hexdigest()


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _array(codes: Iterable[str]) -> str:
    """An array as one constant: a tree of one node, however many codes there are."""
    quoted_codes = (
        '"' + code.replace("\\", "\\\\").replace('"', '\\"') + '"' for code in sorted(codes)
    )
    return literal("{" + ",".join(quoted_codes) + "}") + "::text[]"

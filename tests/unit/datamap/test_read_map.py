"""A data map is read strictly: what it does not say clearly, it does not say."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import pytest

from chartgate.datamap.model import DataMap
from chartgate.datamap.read import InvalidMap, literal, quoted, read_map

CATEGORIES = frozenset({"demographics", "labs", "sud_part2", "genetic"})
SETS = {"sud": frozenset({"F11", "F10"}), "ordinary": frozenset({"J01", "it's"})}
DOCUMENT: dict[str, Any] = {
    "source": "clinic",
    "patient": {"table": "patient", "key": "id"},
    "code_sets": {"sud": "sud.txt", "ordinary": "ordinary.txt"},
    "relations": {
        "team": {"type": "Set<User>", "from": "t", "where": "t.p = {patient}", "value": "t.u"}
    },
    "patient_labels": [{"category": "genetic", "when": "true"}],
    "tables": {
        "patient": {
            "row_category": "demographics",
            "patient": "this.id",
            "columns": {
                "id": {"category": "key", "domain": "patient"},
                "born": {"category": "demographics", "masked": "NULL"},
                "a.name": {"category": "demographics", "summary": "keep"},
                "note": "none",
                "visit": "key",
            },
        },
        "lab": {
            "row_category": "labs",
            "patient": "this.p",
            "attributes": {"department": {"value": "this.d"}},
            "row_labels": [{"category": "genetic", "when": "this.g"}],
            "special": {"column": "code", "sets": {"sud_part2": "sud"}, "reviewed": "ordinary"},
            "columns": {"code": "labs"},
        },
    },
}  # fmt: skip


def read(document: Mapping[str, Any], sets: Mapping[str, frozenset[str]] = SETS) -> DataMap:
    return read_map(
        document,
        sets,
        categories=CATEGORIES,
        relation_types={"team": "Set<User>"},
        file="clinic.toml",
    )


def changed(path: str, value: Any) -> dict[str, Any]:
    document = deepcopy(DOCUMENT)
    *parents, last = path.split("/")
    place = document
    for name in parents:
        place = place[name]
    place[last] = value
    return document


def test_a_whole_map_is_read() -> None:
    found = read(DOCUMENT)
    assert (found.title, found.schema, found.patient.identifier) == ("clinic", "public", "id")
    patient = found.tables["patient"]
    assert patient.columns["id"].domain == "patient"
    assert patient.columns["visit"].domain is None
    assert not patient.read_only
    assert found.relations["team"].element_type == "User"
    assert found.tables["lab"].attributes == {"department": "this.d"}
    assert read(changed("tables/lab/read_only", True)).tables["lab"].read_only


def test_keep_means_the_column_itself_whatever_its_name() -> None:
    assert read(DOCUMENT).tables["patient"].columns["a.name"].summary == 'this."a.name"'


def test_a_code_that_nobody_looked_at_takes_the_strictest_label() -> None:
    label = read(DOCUMENT).tables["lab"].row_labels[1]
    assert label.category == "sud_part2"
    # In the set or unknown is the same as: not known to be anything else.
    assert label.when == (
        """this."code" IS NULL OR NOT this."code"::text = ANY ('{"J01","it''s"}'::text[])"""
    )


def test_a_table_may_say_that_no_code_is_ordinary() -> None:
    when = read(changed("tables/lab/special/absent", "ordinary")).tables["lab"].row_labels[1].when
    assert when.startswith("COALESCE(")
    assert when.endswith(", false)")


def test_a_star_says_that_every_other_code_is_ordinary() -> None:
    when = read(changed("tables/lab/special/reviewed", "*")).tables["lab"].row_labels[1].when
    assert when == """COALESCE(this."code"::text = ANY ('{"F10","F11"}'::text[]), false)"""


def test_the_hash_follows_map_and_code_sets() -> None:
    other = {**SETS, "sud": frozenset({"F11"})}
    hashes = {read(DOCUMENT).hash, read(DOCUMENT, other).hash, read(changed("title", "x")).hash}
    assert len(hashes) == 3
    assert read(deepcopy(DOCUMENT)).hash == read(DOCUMENT).hash


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("colour", 1, "unknown key 'colour'"),
        ("source", "", "source is missing or not text"),
        ("tables", 3, "tables: a table was expected here"),
        ("patient/table", "other", "patient: its table is not among the tables"),
        ("patient/extra", "x", "patient: unknown key 'extra'"),
        ("relations/team/type", "Set<Ward>", "relations.team: type Set<Ward> is not the schema's"),
        ("relations/clan", {}, "relations.clan: the policy schema has no such set"),
        ("patient_labels", [3], "patient_labels: a table was expected here"),
        ("patient_labels", [{"category": "labs"}], "patient_labels: when is missing"),
        ("tables/lab/patient", 3, "tables.lab: patient must be SQL text"),
        ("tables/lab/read_only", "yes", "tables.lab: read_only is either true or false"),
        ("tables/lab/row_category", "lab", "tables.lab: unknown category 'lab'"),
        ("tables/lab/row_category", None, "tables.lab: row_category is missing"),
        ("tables/lab/hidden", True, "tables.lab: unknown key 'hidden'"),
        ("tables/lab/attributes", {"ward": {"value": "x"}}, "unknown row attribute 'ward'"),
        ("tables/lab/attributes", {"author": {"sql": "x"}}, "unknown key 'sql'"),
        ("tables/lab/attributes", {"author": {}}, "tables.lab.author: value is missing"),
        ("tables/lab/special/absent", "maybe", "absent is either 'strictest' or 'ordinary'"),
        ("tables/lab/special/reviewed", "others", "tables.lab: unknown code set 'others'"),
        ("tables/lab/special/column", "", "tables.lab: column is missing"),
        ("tables/lab/columns/code", "lab", "tables.lab.code: unknown category 'lab'"),
        ("tables/lab/columns/code", {"category": "none"}, "unknown category 'none'"),
        ("tables/lab/columns/code", {"category": "labs", "mask": "x"}, "unknown key 'mask'"),
        ("tables/lab/columns/code", {"category": "labs", "masked": 3}, "masked is missing or not"),
        ("tables/lab/columns/code", {"category": "key", "masked": "x"}, "unknown key 'masked'"),
        ("tables/lab/columns/code", {"category": "key"}, "domain is missing or not text"),
        ("tables/lab/columns/code", {"category": "labs", "domain": "x"}, "unknown key 'domain'"),
    ],
)  # fmt: skip
def test_what_is_not_clear_is_refused_with_its_place(path: str, value: Any, message: str) -> None:
    with pytest.raises(InvalidMap) as refused:
        read(changed(path, value))
    assert str(refused.value).startswith("clinic.toml: ")
    assert message in str(refused.value)


def test_names_and_values_cannot_leave_their_quotes() -> None:
    assert quoted('a"; DROP TABLE x; --') == '"a""; DROP TABLE x; --"'
    assert literal("O'Brien\\") == "'O''Brien\\'"
    with pytest.raises(InvalidMap, match="NUL"):
        literal("a\0b")

"""What a column is a key of follows from the source's foreign keys, wherever they lead."""

from pathlib import Path

import psycopg
import pytest

from chartgate.adapters.embedded_postgres import EmbeddedPostgres
from chartgate.adapters.source_catalog import read_source

pytestmark = pytest.mark.system

DDL = """
CREATE SCHEMA clinic; CREATE SCHEMA other; CREATE TYPE other.mood AS ENUM ('calm');
CREATE TABLE clinic.patient (id integer PRIMARY KEY, mood other.mood);
CREATE TABLE clinic.visit (id integer PRIMARY KEY, patient integer REFERENCES clinic.patient);
CREATE TABLE clinic.detail (visit integer PRIMARY KEY REFERENCES clinic.visit, note text);
CREATE TABLE clinic.line (detail integer REFERENCES clinic.detail, patient integer);
CREATE TABLE other.address (patient integer REFERENCES clinic.patient);
CREATE TABLE clinic.pair (a integer, b integer, PRIMARY KEY (a, b));
CREATE TABLE clinic.of_pair (a integer, b integer, FOREIGN KEY (a, b) REFERENCES clinic.pair);
CREATE TABLE clinic.tree (id integer PRIMARY KEY, parent integer REFERENCES clinic.tree);
CREATE TABLE clinic.hen (id integer PRIMARY KEY);
CREATE TABLE clinic.egg (id integer PRIMARY KEY REFERENCES clinic.hen);
ALTER TABLE clinic.hen ADD FOREIGN KEY (id) REFERENCES clinic.egg;
CREATE TABLE clinic.chick (egg integer REFERENCES clinic.egg);
CREATE TABLE clinic.both (it integer, CONSTRAINT b FOREIGN KEY (it) REFERENCES clinic.visit,
  CONSTRAINT a FOREIGN KEY (it) REFERENCES clinic.patient);
"""


def test_a_key_belongs_where_its_foreign_keys_end(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "server")
    server.start()
    try:
        with psycopg.connect(
            server.conninfo("postgres", "postgres"), autocommit=True
        ) as connection:
            connection.execute(DDL)
            source = read_source(connection, "clinic")
    finally:
        server.stop()
    domains = {
        f"{table.name.name}.{column.name}": column.key_domain
        for table in source.tables.values()
        for column in table.columns
    }
    assert domains["patient.id"] == "clinic.patient.id"
    assert domains["visit.id"] == "clinic.visit.id"
    assert domains["visit.patient"] == "clinic.patient.id"
    assert domains["detail.visit"] == "clinic.visit.id"
    assert domains["line.detail"] == "clinic.visit.id"
    assert domains["line.patient"] == "clinic.line.patient"
    assert domains["detail.note"] == "clinic.detail.note"
    # A pair of columns is a key only together: none of the two is one of another table's.
    assert domains["of_pair.a"] == "clinic.of_pair.a"
    assert domains["tree.parent"] == domains["tree.id"] == "clinic.tree.id"
    assert domains["hen.id"] == domains["egg.id"] == domains["chick.egg"] == "clinic.egg.id"
    assert domains["both.it"] == "clinic.patient.id"
    # A type of another schema is named so that it is found on an empty search path.
    types = {c.name: c.type_sql for t in source.tables.values() for c in t.columns}
    assert types["mood"] == "other.mood"

"""The audit text of statements that were made to break it: a crash would end every session."""

import subprocess
import sys

import pytest

from chartgate.sql.parse import split
from chartgate.sql.redact import statement_class

# Deparsing these with a parameter in place of a constant ends the process.
BREAKING = """
BEGIN ISOLATION LEVEL READ UNCOMMITTED
START TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE
SET TRANSACTION ISOLATION LEVEL READ COMMITTED
SELECT * FROM json_table('{}', '$' COLUMNS (a int PATH '$.a' DEFAULT 1 ON EMPTY))
SELECT extract(year FROM x), overlay('a' placing 'b' from 1 for 2), normalize('a', NFC)
SELECT xmlserialize(content x as text), xmlroot(x, version '1.0', standalone yes)
SELECT 1 FROM t TABLESAMPLE BERNOULLI (50) REPEATABLE (1)
COMMIT PREPARED ''
ROLLBACK PREPARED ''
PREPARE TRANSACTION ''
COPY t FROM PROGRAM 'x' WITH (FORMAT csv, DELIMITER ',', HEADER true) WHERE a > 5
EXPLAIN (ANALYZE true, FORMAT 'json', BUFFERS 1) SELECT 1
CREATE TABLE p PARTITION OF t FOR VALUES WITH (MODULUS 3, REMAINDER 1)
CREATE SEQUENCE s INCREMENT 5 MINVALUE 1
MERGE INTO t USING u ON a = 1 WHEN NOT MATCHED THEN INSERT (a) VALUES (1)
INSERT INTO t VALUES (1) ON CONFLICT (a) WHERE b > 1 DO UPDATE SET a = 5
""".strip().splitlines()
PROGRAM = """
import sys
from chartgate.sql.parse import split
from chartgate.sql.redact import statement_class
for line in sys.stdin:
    for statement in split(line):
        print(statement_class(statement), flush=True)
"""


def test_no_statement_ends_the_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input="\n".join(BREAKING),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, BREAKING[len(done.stdout.splitlines())]
    assert len(done.stdout.splitlines()) == len(BREAKING)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("BEGIN READ ONLY", "BEGIN READ ONLY"),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE", "BEGIN ISOLATION LEVEL SERIALIZABLE"),
        ("START TRANSACTION DEFERRABLE", "START TRANSACTION DEFERRABLE"),
        ('SAVEPOINT "Smith 123-45-6789"', "SAVEPOINT id_1"),
        ('ROLLBACK TO "Smith"', "ROLLBACK TO SAVEPOINT id_1"),
        ("PREPARE TRANSACTION 'Smith'", "PREPARE TRANSACTION"),
        ("CREATE ROLE smith PASSWORD 'secret'", "CREATE ROLE"),
        ("COPY (SELECT 'Smith') TO '/tmp/smith'", "COPY"),
        ("SELECT 'Smith' INTO smith", "SELECT"),
        (
            "SELECT x::varchar(20), x::interval hour",
            "SELECT id_1::varchar(20), id_1::interval hour",
        ),
        ("SELECT x::varchar(123456789)", "SELECT"),
        ("SELECT x::numeric('Smith')", "SELECT"),
        ("SELECT 'Smith', \"Smith\", 5 FROM smith.smith", "SELECT $1, id_1, $2 FROM id_2.id_2"),
    ],
)
def test_the_audit_text_says_what_was_asked_and_no_value(text: str, told: str) -> None:
    (statement,) = split(text)
    assert statement_class(statement) == told

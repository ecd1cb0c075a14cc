"""Statements about the session: what of them goes upstream, and what the gateway keeps."""

import pytest

from chartgate.errors import Refused
from chartgate.sql.parse import split
from chartgate.sql.rewrite import Answer, rewrite
from chartgate.sql.statement import (
    Kind,
    Rewritten,
    SetPurpose,
    Setting,
    ShowPurpose,
    Transaction,
)
from chartgate.sql.views import TableName, TableView, WriteAction, WriteView


class Nobody:
    """No table at all: these statements need none."""

    def resolve(self, schema: str | None, name: str) -> TableName:
        raise Refused("not in the data map")

    def read(self, table: TableName) -> TableView:
        raise Refused("not in the data map")

    def write(self, action: WriteAction, table: TableName) -> WriteView:
        raise Refused("not in the data map")


def rewritten(text: str) -> Answer:
    (statement,) = split(text)
    return rewrite(statement, Nobody())


@pytest.mark.parametrize(
    ("text", "verb", "upstream"),
    [
        ("BEGIN", "begin", "BEGIN ISOLATION LEVEL REPEATABLE READ"),
        (
            "START TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY",
            "begin",
            "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY",
        ),
        (
            "BEGIN ISOLATION LEVEL SERIALIZABLE READ WRITE NOT DEFERRABLE",
            "begin",
            "BEGIN ISOLATION LEVEL SERIALIZABLE, READ WRITE, NOT DEFERRABLE",
        ),
        ("COMMIT", "commit", "COMMIT"),
        ("END AND CHAIN", "commit", "COMMIT AND CHAIN"),
        ("ROLLBACK", "rollback", "ROLLBACK"),
        ('SAVEPOINT "a b"', "savepoint", 'SAVEPOINT "a b"'),
        ("RELEASE a", "release", 'RELEASE "a"'),
        ("ROLLBACK TO SAVEPOINT a", "rollback to", 'ROLLBACK TO "a"'),
    ],
)
def test_a_transaction_is_at_least_repeatable_read(text: str, verb: str, upstream: str) -> None:
    assert rewritten(text) == Transaction(verb, upstream)


@pytest.mark.parametrize(
    ("text", "upstream"),
    [
        ("SET application_name = 'psql'", "SET application_name TO 'psql'"),
        ("SET LOCAL application_name = 'it''s'", "SET LOCAL application_name TO 'it''s'"),
        ("SET client_encoding TO 'UTF8'", "SET client_encoding TO 'UTF8'"),
        ("SET NAMES 'utf8'", "SET client_encoding TO 'utf8'"),
        ("SET DateStyle = ISO, MDY", "SET datestyle TO 'iso, mdy'"),
        ("SET TIME ZONE 'Europe/Berlin'", "SET timezone TO 'Europe/Berlin'"),
        ("SET extra_float_digits = 3", "SET extra_float_digits TO '3'"),
        ("SET statement_timeout TO 5000", "SET statement_timeout TO '5000'"),
        ("RESET timezone", "SET timezone TO DEFAULT"),
        ("RESET ALL", "RESET ALL"),
        ("DISCARD ALL", "DISCARD ALL"),
        ("DISCARD PLANS", "DISCARD PLANS"),
        ("SHOW server_version", "SHOW server_version"),
        (
            "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        ),
        (
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        ),
    ],
)
def test_a_listed_setting_is_written_out_by_us(text: str, upstream: str) -> None:
    done = rewritten(text)
    assert isinstance(done, Setting)
    assert done.sql == upstream


def test_the_search_path_is_kept_by_the_gateway() -> None:
    done = rewritten("SET search_path = clinic, public")
    assert isinstance(done, Setting)
    assert (done.virtual, done.value) == (True, "clinic, public")


def test_the_purpose_is_claimed_and_shown_without_the_server() -> None:
    assert rewritten("SET chartgate.purpose = 'ETREAT'") == SetPurpose("ETREAT")
    assert rewritten("SET chartgate.purpose TO etreat") == SetPurpose("etreat")
    assert rewritten("RESET chartgate.purpose") == SetPurpose("")
    assert rewritten("SHOW chartgate.purpose") == ShowPurpose()


@pytest.mark.parametrize(
    ("text", "upstream"),
    [
        ("DEALLOCATE ALL", "DEALLOCATE ALL"),
        ('DEALLOCATE "_pg3_0"', 'DEALLOCATE "_pg3_0"'),
        ("CLOSE ALL", "CLOSE ALL"),
        ("UNLISTEN *", "UNLISTEN *"),
    ],
)
def test_tidying_up_is_let_through(text: str, upstream: str) -> None:
    done = rewritten(text)
    assert isinstance(done, Rewritten)
    assert (done.kind, done.sql, done.read_only) == (Kind.PREPARED, upstream, True)


@pytest.mark.parametrize(
    "text",
    [
        "SET standard_conforming_strings = off",
        "SET backslash_quote = on",
        "SET client_encoding = 'SQL_ASCII'",
        "SET client_min_messages = debug5",
        "SET session_replication_role = replica",
        "SET row_security = off",
        "SET enable_seqscan = off",
        "SET statement_timeout = 0",
        "SET statement_timeout = '1 h'",
        "SET default_transaction_isolation = 'read committed'",
        "SET transaction_isolation = 'read committed'",
        "SET application_name = E'\\\\''; SELECT 1 --'",
        "SET ROLE owner",
        "SET SESSION AUTHORIZATION owner",
        "SET SESSION AUTHORIZATION DEFAULT",
        "SET TRANSACTION SNAPSHOT '00000003-0000001B-1'",
        "SET x.y = 1",
        "SET timezone FROM CURRENT",
        "SET LOCAL chartgate.purpose = 'TREAT'",
        "SHOW ALL",
        "SHOW data_directory",
        "DISCARD TEMP",
        "DISCARD SEQUENCES",
        "PREPARE TRANSACTION 'x'",
        "COMMIT PREPARED 'x'",
        "SAVEPOINT __cg_x",
        "DEALLOCATE __cg_x",
        "CLOSE c",
        "UNLISTEN x",
        "FETCH 1 FROM c",
    ],
)
def test_what_could_unpin_the_session_is_refused(text: str) -> None:
    first = split(text)[0]
    with pytest.raises(Refused):
        rewrite(first, Nobody())

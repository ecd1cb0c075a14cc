"""The allow-lists name real things, and none that is known to be dangerous."""

import re

import pytest
from postgast import pg_query_pb2

from chartgate.sql import allow

DANGEROUS = re.findall(
    r"\S+",
    """
    query_to_xml table_to_xml schema_to_xml database_to_xml cursor_to_xml ts_stat ts_rewrite
    crosstab connectby xpath_table dblink lo_get lo_import lo_export pg_notify pg_sleep
    pg_advisory_lock pg_terminate_backend pg_cancel_backend pg_export_snapshot nextval setval
    currval lastval setseed txid_current pg_database_size pg_stat_get_live_tuples
    pg_column_size has_table_privilege has_column_privilege pg_has_role pg_mcv_list_items
    pg_read_file pg_ls_dir pg_stat_file pg_get_viewdef pg_stat_get_activity set_config
    current_setting pg_reload_conf pg_logical_slot_get_changes pg_get_triggerdef
""",
)
FORBIDDEN_NODES = re.findall(
    r"\S+",
    """
    CopyStmt ExplainStmt DoStmt CallStmt LockStmt MergeStmt TruncateStmt CreateStmt GrantStmt
    NotifyStmt ListenStmt XmlExpr RangeTableSample RangeTableFunc JsonTable CurrentOfExpr
    CreateTableAsStmt IntoClause LockingClause OnConflictClause MultiAssignRef
""",
)


@pytest.mark.parametrize("name", DANGEROUS)
def test_a_dangerous_function_is_on_no_list(name: str) -> None:
    assert name not in allow.FUNCTIONS
    assert name not in allow.AGGREGATES
    assert name not in allow.WINDOW_FUNCTIONS


@pytest.mark.parametrize("prefix", ["lo_", "pg_advisory", "txid_", "has_", "pg_stat_", "dblink"])
def test_no_function_of_a_dangerous_family_is_listed(prefix: str) -> None:
    found = {name for name in allow.FUNCTIONS if name.startswith(prefix)}
    assert found <= {"pg_advisory_unlock_all"}  # it takes no lock: drivers reset with it


def test_every_listed_node_and_field_exists_in_the_parser() -> None:
    messages = pg_query_pb2.DESCRIPTOR.message_types_by_name
    for name, fields in allow.NODES.items():
        assert fields <= {field.name for field in messages[name].fields}, name


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ("SelectStmt", "into_clause"),
        ("SelectStmt", "locking_clause"),
        ("RangeVar", "catalogname"),
        ("TransactionStmt", "gid"),
        ("InsertStmt", "on_conflict_clause"),
        ("UpdateStmt", "from_clause"),
        ("DeleteStmt", "using_clause"),
        ("ReturningClause", "options"),
        ("TypeName", "setof"),
        ("TypeName", "pct_type"),
    ],
)
def test_a_field_that_reads_or_writes_more_than_it_shows_is_not_listed(
    message: str, field: str
) -> None:
    assert field not in allow.NODES[message]


@pytest.mark.parametrize(
    "message",
    FORBIDDEN_NODES,
)
def test_a_dangerous_statement_or_clause_is_not_listed(message: str) -> None:
    assert message not in allow.NODES


@pytest.mark.parametrize(
    ("name", "value", "admitted"),
    [
        ("jit", "off", True),
        ("jit", "OFF", True),
        ("jit", "whatever", False),
        ("datestyle", "ISO, MDY", True),
        ("datestyle", "iso", True),
        ("datestyle", "iso; drop", False),
        ("timezone", "Europe/Berlin", True),
        ("timezone", "x'y", False),
        ("client_encoding", "UTF8", True),
        ("client_encoding", "SJIS", False),
        ("statement_timeout", "1000", True),
        ("statement_timeout", "5min", True),
        ("statement_timeout", "6min", False),
        ("statement_timeout", "0", False),
        ("statement_timeout", "-1", False),
        ("standard_conforming_strings", "off", False),
        ("standard_conforming_strings", "on", True),
        ("server_version", "18", False),
        ("search_path", "public", True),
        ("extra_float_digits", "3", True),
        ("application_name", "psql", True),
        ("application_name", "a\nb", False),
    ],
)
def test_a_setting_takes_only_the_values_that_change_nothing_but_format(
    name: str, value: str, *, admitted: bool
) -> None:
    assert allow.SETTINGS[name].admits(value) is admitted


@pytest.mark.parametrize(
    "name", ["role", "session_authorization", "row_security", "backslash_quote", "debug_print_plan"]
)
def test_a_setting_that_changes_meaning_is_not_listed(name: str) -> None:
    assert name not in allow.SETTINGS


def test_a_setting_that_is_only_shown_is_not_settable() -> None:
    assert not allow.SETTINGS["server_version"].settable
    assert allow.SETTINGS["search_path"].settable


def test_names_are_as_the_parser_spells_them() -> None:
    names = [*allow.FUNCTIONS, *allow.AGGREGATES, *allow.WINDOW_FUNCTIONS, *allow.TYPES]
    assert all(re.fullmatch(r"[a-z_][a-z0-9_]*", name) for name in names)
    assert all(name == name.lower() for name in allow.SETTINGS)


def test_arrays_of_object_names_have_no_name_that_would_slip_past_their_guard() -> None:
    assert not [name for name in allow.TYPES if name.startswith("_reg")]

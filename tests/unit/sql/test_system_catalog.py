"""Catalog views and functions: hidden relations have no row, no name, no description."""

import postgast
import pytest
from postgast import pg_query_pb2 as pb

from chartgate.errors import Refused
from chartgate.sql.system_catalog import CATALOG_RELATIONS, system_views
from chartgate.sql.system_functions import check_setting_call, substitute
from chartgate.sql.system_objects import Scene
from chartgate.sql.views import Column, Table, TableName

CLASS = TableName("pg_catalog", "pg_class")
CATALOG = {
    CLASS: Table(
        CLASS,
        1259,
        (
            Column("oid", "oid"),
            Column("relname", "name"),
            Column("reltuples", "real"),
            Column("relacl", "aclitem[]"),
            Column("relhastriggers", "boolean"),
            Column("relsamplevalues", "text[]"),
        ),
    ),
    TableName("pg_catalog", "pg_stats"): Table(
        TableName("pg_catalog", "pg_stats"), 12000, (Column("histogram_bounds", "anyarray"),)
    ),
}


def table(schema: str, name: str, oid: int) -> Table:
    return Table(TableName(schema, name), oid, (Column("id", "integer"),))


SCENE = Scene(
    tables=(table("clinic", "patient", 16400), table("clinic", "lab_result", 16402)),
    schemas=("clinic",),
    search_path=("clinic",),
    login="d.o'kafor",
)
NOBODY = Scene((), (), (), "nobody")


def parsed(expression: str) -> pb.Node:
    tree = postgast.parse(f"SELECT {expression}")
    return tree.stmts[0].stmt.select_stmt.target_list[0].res_target.val


def shown(expression: str, scene: Scene = SCENE) -> str | None:
    answer = substitute(parsed(expression), scene)
    if answer is None:
        return None
    tree = postgast.parse("SELECT 1")
    tree.stmts[0].stmt.select_stmt.target_list[0].res_target.val.CopyFrom(answer)
    return postgast.deparse(tree).removeprefix("SELECT ")


def test_only_known_relations_and_known_columns_have_a_view() -> None:
    views = system_views(SCENE, CATALOG)
    assert set(views) == {CLASS}
    assert "relsamplevalues" not in {column.name for column in views[CLASS].columns}


def test_statistics_and_access_lists_are_blank() -> None:
    columns = {column.name: column for column in system_views(SCENE, CATALOG)[CLASS].columns}
    assert columns["reltuples"].expression == "CAST(-1 AS real)"
    assert columns["relacl"].expression == "CAST(NULL AS aclitem[])"
    assert columns["relhastriggers"].expression == "CAST(false AS boolean)"
    assert columns["relname"].clear
    assert not columns["reltuples"].clear
    assert all(columns[name].full_when == "false" for name in ("reltuples", "relacl"))


def test_rows_are_limited_to_visible_oids() -> None:
    predicate = system_views(SCENE, CATALOG)[CLASS].row_predicate
    assert predicate is not None
    assert "16400, 16402" in predicate


def test_a_person_who_sees_no_table_gets_a_predicate_that_still_parses() -> None:
    for name in CATALOG_RELATIONS:
        catalog = {name: Table(name, 1, (Column("oid", "oid"),))}
        for scene in (SCENE, NOBODY):
            view = system_views(scene, catalog)[name]
            postgast.parse(f"SELECT 1 FROM x AS this WHERE {view.row_predicate or 'true'}")


def test_catalogs_with_sample_values_or_other_sessions_are_not_allowed() -> None:
    denied = {"pg_stats", "pg_statistic", "pg_stat_activity", "pg_authid", "pg_user_mappings"}
    assert not {name for name in CATALOG_RELATIONS if name.name in denied}


@pytest.mark.parametrize("call", ["current_user", "session_user", "user", "current_role"])
def test_the_person_sees_their_own_login_and_never_the_service_login(call: str) -> None:
    assert shown(call) == "'d.o''kafor'::pg_catalog.name"


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        ("current_schema", "'clinic'::pg_catalog.name"),
        ("current_schema()", "'clinic'::pg_catalog.name"),
        ("pg_catalog.current_schema()", "'clinic'::pg_catalog.name"),
        ("current_setting('search_path')", "'clinic'"),
    ],
)
def test_the_search_path_is_the_persons_own(call: str, answer: str) -> None:
    assert shown(call) == answer


def test_a_schema_name_that_needs_quotes_gets_them_in_the_search_path() -> None:
    scene = Scene((), ("My Clinic",), ("My Clinic", "b"), "x")
    assert shown("current_setting('search_path')", scene) == "'\"My Clinic\", b'"


@pytest.mark.parametrize(
    "call",
    [
        "pg_table_is_visible(c.oid)",
        "pg_type_is_visible(c.reltype)",
        "c.oid::regclass",
        "'secret_note'::regclass",
        "c.reltype::pg_catalog.regtype",
        "c.x::regproc",
        "c.relnamespace::regnamespace",
        "pg_get_indexdef(c.oid, 0, true)",
        "pg_get_constraintdef(c.oid)",
        "obj_description(c.oid, 'pg_class')",
        "col_description(c.oid, 1)",
        "format_type(c.atttypid, -1)",
        "to_regtype('x')",
        "pg_get_functiondef(c.oid)",
        "pg_get_statisticsobjdef_columns(c.oid)",
        "pg_get_serial_sequence('clinic.secret_note', 'id')",
        "current_schemas(c.relhasindex)",
    ],
)
def test_a_call_that_reads_the_catalog_by_oid_is_answered_for_the_person(call: str) -> None:
    text = shown(call)
    assert text is not None
    assert "__cg_arg" not in text


@pytest.mark.parametrize("name", ["relation", "table", "total_relation"])
def test_a_size_is_unknown_because_it_counts_hidden_rows(name: str) -> None:
    assert shown(f"pg_{name}_size(c.oid)") == "NULL::bigint"


def test_an_argument_keeps_its_meaning_because_nothing_of_ours_is_in_its_scope() -> None:
    text = shown("pg_table_is_visible(oid)")
    assert text is not None
    assert "FROM (SELECT oid::pg_catalog.oid)" in text or "FROM (SELECT oid::oid)" in text


@pytest.mark.parametrize(
    "call",
    [
        "version()",
        "now()",
        "current_date",
        "set_config('jit', 'off', false)",
        "current_setting('jit'::text)",
        "'1'::int4",
        "clinic.current_schema()",
        "1",
    ],
)
def test_what_does_not_depend_on_the_session_stands_as_it_is(call: str) -> None:
    assert shown(call) is None


def test_a_cast_to_an_array_of_object_names_is_refused() -> None:
    with pytest.raises(Refused, match="regclass"):
        shown("ARRAY[16404]::regclass[]")


@pytest.mark.parametrize(
    "call",
    [
        "current_setting('jit')",
        "current_setting('jit', true)",
        "set_config('jit', 'off', false)",
        "set_config('application_name', 'x', false)",
    ],
)
def test_a_listed_setting_by_constant_passes(call: str) -> None:
    check_setting_call(parsed(call).func_call)


@pytest.mark.parametrize(
    "call",
    [
        "current_setting('data_directory')",
        "current_setting()",
        "set_config(c.name, 'off', false)",
        "set_config('role', 'owner', false)",
        "set_config('search_path', 'evil', false)",
        "set_config('jit', c.tax_no, false)",
        "set_config('application_name', c.tax_no, false)",
        "set_config('server_version', '1', false)",
        "set_config('x.y', 'z', false)",
        "set_config()",
    ],
)
def test_a_setting_cannot_carry_a_value_or_change_the_meaning_of_text(call: str) -> None:
    with pytest.raises(Refused, match="function"):
        check_setting_call(parsed(call).func_call)


def test_a_setting_named_at_run_time_is_looked_up_among_the_listed_ones_only() -> None:
    check_setting_call(parsed("current_setting($1)").func_call)
    text = shown("current_setting($1)")
    assert text is not None
    assert "'jit'" in text
    assert "data_directory" not in text
    assert "THEN 'clinic' ELSE pg_catalog.current_setting(__cg_v.o, true)" in text


def test_a_table_behind_an_earlier_schema_of_the_path_is_not_visible_by_its_bare_name() -> None:
    scene = Scene(
        (table("a", "patient", 16400), table("b", "patient", 16402)), ("a", "b"), ("a", "b"), "x"
    )
    assert "16402" in scene.shadowed
    assert "16400" not in scene.shadowed


def test_a_name_with_a_quote_is_one_constant() -> None:
    scene = Scene((table("cl'inic", "p", 16400),), ("cl'inic",), ("cl'inic",), "x")
    assert "'cl''inic'" in scene.is_named("this.table_schema", "this.table_name")
    assert "'cl''inic'" in scene.is_schema("this.nspname")

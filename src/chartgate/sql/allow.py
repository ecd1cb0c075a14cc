"""What a statement may be made of: everything not listed here is refused by its name.

Pure data, each entry with the reason it is harmless. A function is listed by its name in
``pg_catalog`` and is emitted with that schema, so no function of the database's own can stand in
for it. What must never be listed: functions that take SQL text or a table name, signal other
sessions, keep state, read files, or measure what a person cannot see.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


def _listed(groups: Mapping[str, str]) -> Mapping[str, str]:
    """``{reason: "name name …"}`` turned round; a name listed twice is an error of ours."""

    def pairs() -> Iterator[tuple[str, str]]:
        for reason, names in groups.items():
            for name in names.split():
                yield name, reason

    listed = dict(pairs())
    if len(listed) != sum(1 for _ in pairs()):  # pragma: no cover
        raise AssertionError("a name is listed twice")
    return MappingProxyType(listed)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FUNCTIONS: Final[Mapping[str, str]] = _listed(
    {
        "pure function of its text": """
            ascii bit_length btrim char_length character_length chr concat concat_ws convert_from
            convert_to decode encode format initcap left length like_escape lower lpad ltrim md5
            normalize is_normalized octet_length overlay position quote_ident quote_literal
            quote_nullable repeat replace reverse right rpad rtrim sha224 sha256 sha384 sha512
            similar_to_escape split_part starts_with string_to_array string_to_table strpos substr
            substring to_hex translate unistr upper""",
        "regular expression over its text": """
            regexp_count regexp_instr regexp_like regexp_match regexp_matches regexp_replace
            regexp_split_to_array regexp_split_to_table regexp_substr""",
        "pure arithmetic": """
            abs acos acosd acosh asin asind asinh atan atan2 atan2d atand atanh bit_count cbrt ceil
            ceiling cos cosd cosh cot cotd degrees div erf erfc exp factorial floor gcd lcm ln log
            log10 min_scale mod pi pow power radians round scale sign sin sind sinh sqrt tan tand
            tanh trim_scale trunc width_bucket""",
        "a fresh value, of nobody": "random random_normal gen_random_uuid",
        "date and time arithmetic": """
            age date date_bin date_part date_trunc extract isfinite justify_days justify_hours
            justify_interval make_date make_interval make_time make_timestamp make_timestamptz
            overlaps timezone to_char to_date to_number to_timestamp date_add date_subtract""",
        "the server's clock": """
            now clock_timestamp statement_timestamp transaction_timestamp timeofday""",
        "conversion written as a call": """
            bool bpchar bytea float4 float8 int2 int4 int8 interval name numeric text
            time timestamp timestamptz varchar""",
        "builds JSON from its arguments": """
            array_to_json json_build_array json_build_object json_object json_strip_nulls
            jsonb_build_array jsonb_build_object jsonb_object jsonb_pretty jsonb_strip_nulls
            row_to_json to_json to_jsonb""",
        "takes JSON apart": """
            json_array_elements json_array_elements_text json_array_length json_each json_each_text
            json_extract_path json_extract_path_text json_object_keys json_to_record
            json_to_recordset json_typeof jsonb_array_elements jsonb_array_elements_text
            jsonb_array_length jsonb_concat jsonb_contained jsonb_contains jsonb_delete
            jsonb_delete_path jsonb_each jsonb_each_text jsonb_exists jsonb_exists_all
            jsonb_exists_any jsonb_extract_path jsonb_extract_path_text jsonb_insert
            jsonb_object_keys jsonb_path_exists jsonb_path_match jsonb_path_query
            jsonb_path_query_array jsonb_path_query_first jsonb_set jsonb_set_lax jsonb_to_record
            jsonb_to_recordset jsonb_typeof""",
        "pure function of its array": """
            array_append array_cat array_dims array_fill array_length array_lower array_ndims
            array_position array_positions array_prepend array_remove array_replace array_reverse
            array_sample array_shuffle array_sort array_to_string array_upper cardinality
            generate_subscripts trim_array unnest""",
        "counts": "generate_series num_nulls num_nonnulls",
        "pure function of its range": """
            daterange int4range int8range isempty lower_inc lower_inf numrange range_merge tsrange
            tstzrange upper_inc upper_inf""",
        "text search over its text": """
            numnode phraseto_tsquery plainto_tsquery setweight strip to_tsquery to_tsvector
            ts_headline ts_rank ts_rank_cd websearch_to_tsquery""",
        "pure function of its UUID": "uuid_extract_timestamp uuid_extract_version",
        "name of an expression's type": "pg_typeof format_type to_regtype",
        "what clients ask about the server": """
            current_database version pg_client_encoding pg_encoding_to_char pg_get_keywords
            pg_is_in_recovery""",
        "answered from the person's own search path": """
            current_schema current_schemas pg_collation_is_visible pg_conversion_is_visible
            pg_function_is_visible pg_opclass_is_visible pg_operator_is_visible
            pg_opfamily_is_visible pg_statistics_obj_is_visible pg_table_is_visible
            pg_ts_config_is_visible pg_type_is_visible""",
        # asyncpg sends it whenever a connection goes back to its pool
        "releases locks of which a person can hold none": "pg_advisory_unlock_all",
        "describes an object of the catalog by oid, kept to what the person may see": """
            col_description obj_description pg_get_constraintdef pg_get_function_arguments
            pg_get_function_identity_arguments pg_get_function_result pg_get_functiondef
            pg_get_indexdef pg_get_partkeydef pg_get_statisticsobjdef_columns
            pg_relation_is_publishable shobj_description pg_get_serial_sequence""",
        "answered with NULL: a size counts hidden rows too": """
            pg_indexes_size pg_relation_size pg_table_size pg_total_relation_size""",
        "answered with NULL: what is above a table may be hidden": "pg_partition_ancestors",
        "pure function of its number": "pg_size_pretty",
        "reads a stored expression, which only a visible catalog row can supply": "pg_get_expr",
        "name of a database login, as the catalog's own columns show": "pg_get_userbyid",
    }
)
"""Scalar and set-returning functions of ``pg_catalog``."""

QUALIFIED_FUNCTIONS: Final[Mapping[tuple[str, str], str]] = MappingProxyType(
    {("information_schema", "_pg_expandarray"): "pgJDBC: unnests an array with its positions"}
)
"""Functions outside ``pg_catalog``; they are emitted with the schema given here."""

SETTING_FUNCTIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "current_setting": "constant name of a listed setting only; see check_setting_call",
        "set_config": "constant name and value of a settable setting only; asyncpg sends jit",
    }
)
"""Admitted only after ``system_functions.check_setting_call``; not in FUNCTIONS, so that whoever
forgets the check refuses them."""

AGGREGATES: Final[frozenset[str]] = _words(
    """
    any_value array_agg avg bit_and bit_or bit_xor bool_and bool_or corr count covar_pop covar_samp
    every json_agg json_object_agg jsonb_agg jsonb_object_agg max min mode percentile_cont
    percentile_disc regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope regr_sxx
    regr_sxy regr_syy range_agg range_intersect_agg stddev stddev_pop stddev_samp string_agg sum
    var_pop var_samp variance
    """
)
"""Aggregates: they see only rows and values that the person's views let through."""

WINDOW_FUNCTIONS: Final[frozenset[str]] = _words(
    """
    cume_dist dense_rank first_value lag last_value lead nth_value ntile percent_rank rank
    row_number
    """
)
"""Functions that need OVER; some are hypothetical-set aggregates too."""

TYPES: Final[Mapping[str, str]] = _listed(
    {
        "number": "int2 int4 int8 float4 float8 numeric",
        "text": "text varchar bpchar name char",  # "char" with quotes: one byte, in the catalogs
        "truth": "bool",
        "date and time": "date time timetz timestamp timestamptz interval",
        "identifier": "uuid oid",
        "structured": "json jsonb jsonpath bytea",
        "bits": "bit varbit",
        "address": "inet cidr macaddr",
        "range": "int4range int8range numrange daterange tsrange tstzrange",
        "text search": "tsvector tsquery",
        "catalog vectors, to be read as arrays": "int2vector oidvector",
        "name of an object of the catalog, kept to what the person may see": """
            regclass regtype regproc regprocedure regoper regoperator regnamespace regcollation
            regconfig""",
        "array of a listed type by its catalog name": """
            _int2 _int4 _int8 _float4 _float8 _numeric _text _varchar _bpchar _name _char _bool
            _date _time _timetz _timestamp _timestamptz _interval _uuid _oid _json _jsonb _bytea
            """,
    }
)
"""Types of ``pg_catalog`` that a cast may name; arrays of them by brackets."""

_NUMBERS: Final = {
    "bool": (16, 1000), "bytea": (17, 1001), "char": (18, 1002), "name": (19, 1003),
    "int8": (20, 1016), "int2": (21, 1005), "int4": (23, 1007), "text": (25, 1009),
    "json": (114, 199), "float4": (700, 1021), "float8": (701, 1022), "inet": (869, 1041),
    "cidr": (650, 651), "macaddr": (829, 1040), "bpchar": (1042, 1014), "varchar": (1043, 1015),
    "date": (1082, 1182), "time": (1083, 1183), "timestamp": (1114, 1115),
    "timestamptz": (1184, 1185), "interval": (1186, 1187), "timetz": (1266, 1270),
    "bit": (1560, 1561), "varbit": (1562, 1563), "numeric": (1700, 1231), "uuid": (2950, 2951),
    "jsonb": (3802, 3807), "jsonpath": (4072, 4073), "tsvector": (3614, 3643),
    "tsquery": (3615, 3645), "int4range": (3904, 3905), "numrange": (3906, 3907),
    "tsrange": (3908, 3909), "tstzrange": (3910, 3911), "daterange": (3912, 3913),
    "int8range": (3926, 3927), "oid": (26, 1028),
}  # fmt: skip
_UNKNOWN: Final = 705

PARAMETER_TYPES: Final[frozenset[int]] = frozenset(
    {0, _UNKNOWN, *(number for numbers in _NUMBERS.values() for number in numbers)}
)
"""Types that a Parse message may declare for a parameter, by their oid in every release (and 0,
"find out"). A value of any other type is read past every check of ours: as a ``regclass``, 16404
comes back as the name of that table, whoever may know of it."""

OPERATORS: Final[frozenset[str]] = _words(
    """
    = <> != < <= > >= + - * / % ^ |/ ||/ @ & | # ~ << >> || ~* !~ !~* ~~ !~~ ~~* !~~* ^@
    -> ->> #> #>> #- @> <@ ? ?| ?& && &< &> -|- @? @@
    """
)
"""Operator symbols; emitted as ``OPERATOR(pg_catalog.…)`` or under ``search_path=pg_catalog``."""


@dataclass(frozen=True, slots=True)
class SettingRule:
    """Which values of one setting a person may choose; without any rule, it can only be shown.

    ``virtual`` settings are kept by the gateway and never reach the server.
    """

    reason: str
    values: frozenset[str] | None = None
    pattern: str | None = None
    maximum_ms: int | None = None
    virtual: bool = False

    @property
    def settable(self) -> bool:
        """Whether SET may name it at all."""
        return (
            self.virtual
            or self.values is not None
            or self.pattern is not None
            or self.maximum_ms is not None
        )

    def admits(self, value: str) -> bool:
        """Whether SET may give it this value; numbers are given as their text."""
        if self.values is not None:
            return value.lower() in self.values
        if self.pattern is not None:
            return re.fullmatch(self.pattern, value, re.ASCII) is not None
        if self.maximum_ms is not None:
            found = re.fullmatch(r"([1-9][0-9]{0,8}) ?(ms|s|min|)", value, re.ASCII)
            unit = {"ms": 1, "": 1, "s": 1_000, "min": 60_000}
            return found is not None and int(found[1]) * unit[found[2]] <= self.maximum_ms
        return self.virtual


_DATESTYLE = r"(?i:iso|sql|postgres|german|mdy|dmy|ymd|us|euro|european)"
_SHOWN = "shown only: drivers ask for it"

SETTINGS: Final[Mapping[str, SettingRule]] = MappingProxyType(
    {
        "application_name": SettingRule("label of the client", pattern=r"[ -~]{0,63}"),
        "datestyle": SettingRule("output format", pattern=rf"{_DATESTYLE}(?: *, *{_DATESTYLE})?"),
        "intervalstyle": SettingRule(
            "output format", values=_words("postgres postgres_verbose sql_standard iso_8601")
        ),
        "timezone": SettingRule("output format", pattern=r"[A-Za-z0-9_+\-/:<>]{1,64}"),
        "extra_float_digits": SettingRule("output format", pattern=r"-?[0-9]{1,2}"),
        "bytea_output": SettingRule("output format", values=_words("hex escape")),
        "statement_timeout": SettingRule("shorter than ours only", maximum_ms=300_000),
        # (1) any other encoding and the server would read other text than we parsed
        "client_encoding": SettingRule("pinned", values=_words("utf8 utf-8 unicode")),
        # (2) asyncpg turns it off around its own introspection
        "jit": SettingRule("speed only", values=_words("on off true false 0 1")),
        "search_path": SettingRule(
            "kept by us: names are resolved before the server sees them", virtual=True
        ),
        "transaction_read_only": SettingRule(_SHOWN),
        "transaction_isolation": SettingRule(_SHOWN),
        "default_transaction_read_only": SettingRule(_SHOWN),
        "default_transaction_isolation": SettingRule(_SHOWN),
        "server_version": SettingRule(_SHOWN),
        "server_version_num": SettingRule(_SHOWN),
        "server_encoding": SettingRule(_SHOWN),
        "standard_conforming_strings": SettingRule(
            # (3) drivers set what is pinned already; any other value makes two parsers disagree
            "pinned",
            values=_words("on"),
        ),
        "integer_datetimes": SettingRule(_SHOWN),
        "max_identifier_length": SettingRule(_SHOWN),
        "max_index_keys": SettingRule(_SHOWN),
        "lc_collate": SettingRule(_SHOWN),
        "lc_ctype": SettingRule(_SHOWN),
        "in_hot_standby": SettingRule(_SHOWN),
        "is_superuser": SettingRule(_SHOWN),
        "default_table_access_method": SettingRule(_SHOWN),
    }
)
"""Settings by lower-case name. Absent: neither SET nor SHOW."""


def _fields(names: str) -> frozenset[str]:
    return frozenset(names.split())


NODES: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        # the wrappers
        "ParseResult": _fields("version stmts"),
        "RawStmt": _fields("stmt stmt_location stmt_len"),
        "List": _fields("items"),
        # constants
        "A_Const": _fields("ival fval boolval sval bsval isnull location"),
        "Integer": _fields("ival"),
        "Float": _fields("fval"),
        "Boolean": _fields("boolval"),
        "String": _fields("sval"),
        "BitString": _fields("bsval"),
        "ParamRef": _fields("number location"),
        # SELECT; not: into_clause (makes a table), locking_clause (locks rows)
        "SelectStmt": _fields(
            "distinct_clause target_list from_clause where_clause group_clause group_distinct"
            " having_clause window_clause values_lists sort_clause limit_offset limit_count"
            " limit_option with_clause op all larg rarg"
        ),
        "WithClause": _fields("ctes recursive location"),
        # not: search_clause, cycle_clause (they add columns)
        "CommonTableExpr": _fields("ctename aliascolnames ctematerialized ctequery location"),
        "ResTarget": _fields("name indirection val location"),
        "SortBy": _fields("node sortby_dir sortby_nulls location"),
        "WindowDef": _fields(
            "name refname partition_clause order_clause frame_options start_offset end_offset"
            " location"
        ),
        "GroupingSet": _fields("kind content location"),
        "GroupingFunc": _fields("args location"),
        # FROM; not: catalogname (another database), TABLESAMPLE, XMLTABLE, JSON_TABLE
        "RangeVar": _fields("schemaname relname inh relpersistence alias location"),
        "RangeSubselect": _fields("lateral subquery alias"),
        "RangeFunction": _fields("lateral ordinality is_rowsfrom functions alias coldeflist"),
        "ColumnDef": _fields("colname type_name is_local location"),
        "JoinExpr": _fields(
            "jointype is_natural larg rarg using_clause join_using_alias quals alias"
        ),
        "Alias": _fields("aliasname colnames"),
        # expressions
        "ColumnRef": _fields("fields location"),
        "A_Star": frozenset(),
        "A_Expr": _fields("kind name lexpr rexpr rexpr_list_start rexpr_list_end location"),
        "A_ArrayExpr": _fields("elements list_start list_end location"),
        "A_Indices": _fields("is_slice lidx uidx"),
        "A_Indirection": _fields("arg indirection"),
        "BoolExpr": _fields("boolop args location"),
        "NullTest": _fields("arg nulltesttype location"),
        "BooleanTest": _fields("arg booltesttype location"),
        "CaseExpr": _fields("arg args defresult location"),
        "CaseWhen": _fields("expr result location"),
        "CoalesceExpr": _fields("args location"),
        "MinMaxExpr": _fields("op args location"),
        "RowExpr": _fields("args row_format location"),
        "SubLink": _fields("sub_link_type testexpr oper_name subselect location"),
        "SQLValueFunction": _fields("op typmod location"),
        "TypeCast": _fields("arg type_name location"),
        "TypeName": _fields("names typmods typemod array_bounds location"),
        "CollateClause": _fields("arg collname location"),
        "FuncCall": _fields(
            "funcname args agg_order agg_filter over agg_within_group agg_star agg_distinct"
            " func_variadic funcformat location"
        ),
        "NamedArgExpr": _fields("arg name argnumber location"),
        # DML; not: on_conflict_clause (reads the row in its way), OVERRIDING, OLD/NEW options.
        # ``override`` is there because its default has a number too: OVERRIDING_NOT_SET.
        "InsertStmt": _fields("relation cols select_stmt returning_clause with_clause override"),
        "UpdateStmt": _fields("relation target_list where_clause returning_clause with_clause"),
        "DeleteStmt": _fields("relation where_clause returning_clause with_clause"),
        "ReturningClause": _fields("exprs"),
        "SetToDefault": _fields("type_mod location"),
        # transactions, settings, prepared statements; not: gid (two-phase commit)
        "TransactionStmt": _fields("kind options savepoint_name chain location"),
        "DefElem": _fields("defname arg defaction location"),
        "VariableSetStmt": _fields("kind name args jumble_args is_local location"),
        "VariableShowStmt": _fields("name"),
        "DiscardStmt": _fields("target"),
        "DeallocateStmt": _fields("name isall location"),
    }
)
"""Message types of the parser's tree, and which of their fields may be set."""

"""Hostile rows, once in a real PostgreSQL and once as Cedar entities, for tests of row filters.

The columns have types whose own comparison is not Cedar's: citext, blank-padded characters, dates,
fractions finer than milliseconds, infinities, NaN. Each cell is written down twice, as what SQL is
given and as what the attribute is to Cedar (None: absent), and neither is computed from the other.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import psycopg
import sqlalchemy as sa

from chartgate.cedar.entities import Entities, Entity
from chartgate.cedar.evaluate import Env
from chartgate.cedar.extensions import DAY, days_from_civil
from chartgate.cedar.schema import Schema
from chartgate.cedar.validate import parse_schema
from chartgate.cedar.values import CedarSet, DateTime, Decimal, RecordValue, Value
from chartgate.datamap.model import Relation
from chartgate.model.principal import EntityUid
from chartgate.targets.admissible import attribute_kinds, set_attributes
from chartgate.targets.disclosure import Ask, Asks
from chartgate.targets.partial import Known, RowShape
from chartgate.targets.sql import RowSql
from chartgate.targets.sql_values import date_sql
from chartgate.targets.sqlalchemy_filter import RelationColumns, RowColumns

SCHEMA: Final = """
entity Category enum ["labs"];
entity Person;
entity Group in [Group];
entity User in [Group] = {
  few: Set<String>, many: Set<String>, people: Set<Person>, rank: Long, name: String,
};
entity Record = {
  category: Category,
  name?: String, code?: String, size?: Long, count?: Long, ok?: Bool, active?: Bool,
  owner?: Person, deputy?: Person, group?: Group, since?: datetime, until?: datetime,
  price?: decimal, limit?: decimal, unmapped?: String,
  words: Set<String>, team: Set<Person>, numbers: Set<Long>, nowhere: Set<String>,
};
type Asked = { now: datetime, purpose: String };
action view, view_summary, view_masked appliesTo {
  principal: [User], resource: [Record], context: Asked
};
"""

TEXTS: Final = [
    "", " ", "a", "A", "a ", " a", "O'Brien", "''", "back\\slash", "\\", "\\'", "%", "_", "a%b", "a_b",
    "axb", "[x]", "NULL", "null", "é", "e\u0301", "É", "h\u00e9llo\U0001f680", "\t", "a\nb", "$1", "$$",
    "{patient}", "x'; DROP TABLE record; --", "E'\\x41'", "ı", "I", "i", "ß", "ss", "5", "true", "*",
    ":name", "%s", "%(x)s",
]  # fmt: skip
LONGS: Final = [0, 1, -1, 2, -2, 7, 2**31 - 1, 2**62, 2**63 - 1, -(2**63)]
INTEGERS: Final = [0, 1, -1, 5, 2**31 - 1, -(2**31)]
# What SQL is given, and the milliseconds; None: no instant of Cedar's.
INSTANTS: Final[list[tuple[str, int | None]]] = [
    ("1970-01-01 00:00:00+00", 0),
    ("1970-01-01 00:00:00.000999+00", 0),
    ("1969-12-31 23:59:59.999999+00", -1),
    ("1969-12-31 23:59:59.998001+00", -2),
    ("2024-02-29 12:30:00.5+05:30", days_from_civil(2024, 2, 29) * DAY + 7 * 3_600_000 + 500),
    ("2024-06-01 00:00:00+00", days_from_civil(2024, 6, 1) * DAY),
    ("294276-12-31 23:59:59.999999+00", days_from_civil(294_277, 1, 1) * DAY - 1),
    ("4714-11-24 00:00:00+00 BC", days_from_civil(-4713, 11, 24) * DAY),
    ("0001-12-31 00:00:00+00 BC", days_from_civil(0, 12, 31) * DAY),
    ("infinity", None),
    ("-infinity", None),
]
DATES: Final[list[tuple[str, int | None]]] = [
    ("1970-01-01", 0),
    ("1969-12-31", -DAY),
    ("2024-06-01", days_from_civil(2024, 6, 1) * DAY),
    ("4714-11-24 BC", days_from_civil(-4713, 11, 24) * DAY),
    ("5874897-12-31", None),
    ("infinity", None),
]
PRICES: Final[list[tuple[str, int | None]]] = [
    ("0", 0), ("1.5", 15_000), ("-0.0001", -1), ("922337203685477.5807", 2**63 - 1),
    ("-922337203685477.5808", -(2**63)), ("922337203685477.5808", None), ("NaN", None),
]  # fmt: skip
LIMITS: Final[list[tuple[str, int | None]]] = [
    ("1.50", 15_000), ("-1.25", -12_500), ("NaN", None), ("999999.99", 9_999_999_900),
]  # fmt: skip

PEOPLE: Final = [EntityUid("Person", text) for text in TEXTS if text == text.rstrip(" ")]
GROUPS: Final = [EntityUid("Group", name) for name in ("staff", "nurses", "night", "elsewhere")]
ME: Final = EntityUid("User", "me")
ROW: Final = EntityUid("Record", "asked")
NOW: Final = DateTime(days_from_civil(2024, 6, 1) * DAY)

CREATE: Final = """
CREATE EXTENSION IF NOT EXISTS citext;
CREATE TABLE record (id text PRIMARY KEY, name text, code citext, size bigint, count integer,
  ok boolean, active boolean, owner character(40), deputy varchar, "group" text,
  since timestamptz, until date, price numeric(19,4), "limit" numeric(8,2));
CREATE TABLE member (record text, kind text, value character varying(60), padded character(40),
  number bigint);
CREATE INDEX ON member (record);
"""
COLUMNS: Final = (
    "name", "code", "size", "count", "ok", "active", "owner", "deputy", "group", "since", "until",
    "price", "limit",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A row as the evaluator gets it."""

    id: str
    attributes: Mapping[str, Value]


class World:
    """The rows in both forms, and who asks."""

    def __init__(self, connection: psycopg.Connection[Any], rows: list[Row]) -> None:
        self.connection: Final = connection
        self.rows: Final = rows
        self.schema: Final[Schema] = parse_schema(SCHEMA, "test.cedarschema")
        self.families: Final = {"Group": frozenset(GROUPS[:3])}
        kinds = attribute_kinds(self.schema)
        self.row: Final = row_sql(kinds)
        self.columns: Final = row_columns(kinds)
        self.shape: Final = RowShape(
            scalars=frozenset(self.row.scalars),
            sets=frozenset(self.row.relations),
            declared_sets=set_attributes(self.schema),
            kinds=kinds,
            families=self.families,
        )
        self.context: Final = RecordValue({"now": NOW, "purpose": "TREAT"})
        staff, nurses, night, _ = GROUPS
        self.groups: Final = (
            Entity(staff),
            Entity(nurses, parents=frozenset({staff})),
            Entity(night, parents=frozenset({nurses})),
        )

    def person(self, *groups: EntityUid, rank: int = 2, few: int = 3) -> Entities:
        """The store with the person as a member of the groups."""
        attributes = RecordValue(
            {
                "few": CedarSet.of(TEXTS[2 : 2 + few]),
                "many": CedarSet.of(TEXTS[:20]),
                "people": CedarSet.of(PEOPLE[:few]),
                "rank": rank,
                "name": "a_b",
            }
        )
        return Entities((*self.groups, Entity(ME, attributes, frozenset(groups))))

    def env(self, entities: Entities, action: str = "view", row: Row | None = None) -> Env:
        """The request; about a row, or about what is known of every row."""
        attributes = {} if row is None else row.attributes
        record = Entity(ROW, RecordValue({"category": EntityUid("Category", "labs"), **attributes}))
        return Env(ME, EntityUid("Action", action), ROW, self.context, entities.with_(record))

    def asks(self, whole: Entities, parts: tuple[Entities, ...] = ()) -> Asks:
        """The same, for partial evaluation."""

        def ask(entities: Entities) -> Ask:
            return lambda action, _: Known(self.env(entities, action), self.shape)

        return Asks(ask(whole), tuple(ask(part) for part in parts))

    def found(self, conditions: list[str]) -> list[frozenset[str]]:
        """For each SQL condition, the rows for which it is true."""
        shown = ", ".join(f"({condition}) IS TRUE" for condition in conditions)
        return _by_column(
            self.connection.execute(f"SELECT id, {shown} FROM record AS this".encode()).fetchall(),
            len(conditions),
        )


def _by_column(rows: list[Any], width: int) -> list[frozenset[str]]:
    return [frozenset(row[0] for row in rows if row[n + 1]) for n in range(width)]


def row_sql(kinds: Mapping[str, str]) -> RowSql:
    """The columns for ``targets.sql``."""
    scalars = {name: f'this."{name}"' for name in COLUMNS}
    scalars["until"] = date_sql("this.until")
    values = {"words": "m.value", "team": "m.padded", "numbers": "m.number"}
    return RowSql(
        scalars,
        {
            name: Relation(name, "", "member m", f"m.record = this.id AND m.kind = '{name}'", value)
            for name, value in values.items()
        },
        {},
        kinds,
    )


RECORD: Final = sa.table(
    "record",
    sa.column("id", sa.Text),
    *(
        sa.column(name, kind)
        for name, kind in zip(
            COLUMNS,
            (sa.Text(), sa.Text(), sa.BigInteger(), sa.Integer(), sa.Boolean(), sa.Boolean(),
             sa.CHAR(40), sa.String(), sa.Text(), sa.DateTime(timezone=True), sa.Date(),
             sa.Numeric(19, 4), sa.Numeric(8, 2)),
            strict=True,
        )
    ),
)  # fmt: skip
MEMBER: Final = sa.table(
    "member",
    sa.column("record", sa.Text),
    sa.column("kind", sa.Text),
    sa.column("value", sa.String),
    sa.column("padded", sa.CHAR(40)),
    sa.column("number", sa.BigInteger),
)


def row_columns(kinds: Mapping[str, str]) -> RowColumns:
    """The columns for ``targets.sqlalchemy_filter``."""
    scalars: dict[str, sa.ColumnElement[Any]] = {name: RECORD.c[name] for name in COLUMNS}
    scalars["until"] = sa.literal_column(date_sql("record.until"), sa.DateTime(timezone=True))
    values = {"words": MEMBER.c.value, "team": MEMBER.c.padded, "numbers": MEMBER.c.number}
    return RowColumns(
        scalars,
        {
            name: RelationColumns(
                MEMBER,
                sa.and_(MEMBER.c.record == RECORD.c.id, MEMBER.c.kind == sa.literal(name)),
                value,
            )
            for name, value in values.items()
        },
        kinds=kinds,
    )


def load(connection: psycopg.Connection[Any], seed: int, count: int = 90) -> World:
    """Fill the tables with rows drawn by the seed; what was there is gone."""
    rng = random.Random(seed)
    connection.execute("TRUNCATE record, member")
    rows = [_row(connection, rng, str(number)) for number in range(count)]
    return World(connection, rows)


def _row(connection: psycopg.Connection[Any], rng: random.Random, key: str) -> Row:
    cells: dict[str, Any] = dict.fromkeys(COLUMNS)
    attributes: dict[str, Value] = {}

    def put(name: str, cell: Any, value: Value | None) -> None:
        if rng.random() < 0.8:
            cells[name] = cell
            if value is not None:
                attributes[name] = value

    def text(name: str, make: Callable[[str], Value], *, padded: bool = False) -> None:
        chosen = rng.choice(TEXTS)
        # A type that pads with blanks cannot hold blanks at the end.
        put(name, chosen, make(chosen.rstrip(" ") if padded else chosen))

    text("name", str)
    text("code", str)
    if rng.random() < 0.3 and cells["name"] is not None:
        cells["code"] = attributes["code"] = attributes["name"]
    for name, numbers in (("size", LONGS), ("count", INTEGERS)):
        chosen = rng.choice(numbers)
        put(name, chosen, chosen)
    for name in ("ok", "active"):
        flag = rng.random() < 0.5
        put(name, flag, flag)
    text("owner", lambda t: EntityUid("Person", t), padded=True)
    text("deputy", lambda t: EntityUid("Person", t))
    group = rng.choice(GROUPS)
    put("group", group.id, group)
    for name, instants in (("since", INSTANTS), ("until", DATES)):
        shown, ms = rng.choice(instants)
        put(name, shown, None if ms is None else DateTime(ms))
    for name, amounts in (("price", PRICES), ("limit", LIMITS)):
        shown, units = rng.choice(amounts)
        put(name, shown, None if units is None else Decimal(units))
    names = ", ".join(f'"{name}"' for name in ("id", *COLUMNS))
    holes = ", ".join(["%s"] * (len(COLUMNS) + 1))
    connection.execute(
        f"INSERT INTO record ({names}) VALUES ({holes})".encode(), (key, *cells.values())
    )
    words = [_maybe(rng, TEXTS) for _ in range(rng.randrange(5))]
    team = [_maybe(rng, TEXTS) for _ in range(rng.randrange(4))]
    numbers = [_maybe(rng, LONGS) for _ in range(rng.randrange(4))]
    for kind, column, values in (
        ("words", "value", words),
        ("team", "padded", [*team, *team]),
        ("numbers", "number", numbers),
    ):
        for value in values:
            connection.execute(
                f"INSERT INTO member (record, kind, {column}) VALUES (%s, %s, %s)".encode(),
                (key, kind, value),
            )
    # A NULL among the members is no member.
    attributes["words"] = CedarSet.of(word for word in words if word is not None)
    attributes["team"] = CedarSet.of(
        EntityUid("Person", name.rstrip(" ")) for name in team if name is not None
    )
    attributes["numbers"] = CedarSet.of(number for number in numbers if number is not None)
    attributes["nowhere"] = CedarSet.of(())
    return Row(key, attributes)


def _maybe(rng: random.Random, values: list[Any]) -> Any:
    return rng.choice(values) if rng.random() > 0.25 else None

"""Decide, record, act: the conversation against a small world that behaves.

The world has a log whose entries become durable late, and which may fail for good at any commit; a
server that speaks the protocol, keeps statements, portals and transactions, and holds its answers
back until a Flush or Sync; and clients that send any messages in any order. Whatever they do:

- every row key that the client received is in a release event that was durable before;
- every statement that was answered has a durable decision, and every event number it was told
  exists;
- every write that reached the server had a durable decision before;
- no column of the gate's own is seen, and no statement runs with rows of another time;
- the client hears, message by message, what the server alone would have said.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import postgast
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chartgate.adapters.policy_files import load_decision_point
from chartgate.app.commands import (
    Await,
    FromClient,
    FromServer,
    Note,
    Post,
    Record,
    ToClient,
    ToServer,
)
from chartgate.app.conversation import Conversation
from chartgate.app.entitlement import Asker, DecisionPoint, Entitlement
from chartgate.app.gate_session import GateSession
from chartgate.app.in_force import InForce
from chartgate.app.session_views import Source
from chartgate.app.tokens import PatientTokens
from chartgate.demo.generator_schema import TABLES
from chartgate.errors import LogUnavailable
from chartgate.model.event import Completed, Decision, Release
from chartgate.model.principal import Assignment, Person
from chartgate.pgwire.backend import (
    BindComplete,
    CloseComplete,
    EmptyQueryResponse,
    Field,
    ParseComplete,
    PortalSuspended,
)
from chartgate.pgwire.frames import Frame, FrameReader
from chartgate.pgwire.messages import (
    Bind,
    Close,
    CommandComplete,
    DataRow,
    Describe,
    ErrorResponse,
    Execute,
    Flush,
    NoData,
    NoticeResponse,
    ParameterDescription,
    Parse,
    Query,
    ReadyForQuery,
    RowDescription,
    Sync,
    decode_backend,
    decode_frontend,
    error,
)
from chartgate.sql.views import Column, Table, TableName

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
KEYS = ("101", "102", "103", "104", "105")
READS = {
    "by column": "SELECT patient_id, mrn FROM patient",
    "by companion": "SELECT DISTINCT last_name, mrn FROM patient",
    "counted": "SELECT count(*), count(*) FROM patient",
    "sought": "SELECT patient_id, mrn FROM patient WHERE patient_id = $1",
    "sought by companion": "SELECT DISTINCT last_name, mrn FROM patient WHERE patient_id = $1",
    "failing": "SELECT mrn, 1 / 0 FROM patient",
    "failing companion": "SELECT DISTINCT mrn, 1 / 0 FROM patient",
}
WRITE = "UPDATE vital_sign SET systolic = 130 WHERE vital_id = 7"
OTHERS = ("BEGIN", "COMMIT", "ROLLBACK", "DEALLOCATE a", "DEALLOCATE ALL", "DISCARD ALL", "")
REFUSED = ("COPY patient TO STDOUT", "SELECT pg_sleep(1), 2", "SELEC 1")
PURPOSE = "SET chartgate.purpose = 'ETREAT'"
TEXTS = (*READS.values(), WRITE, *OTHERS, *REFUSED)


# The world.


class Failed(Exception):
    """The simulated server raises an error with this SQLSTATE."""


@dataclass
class Held:
    node: Any
    text: str
    params: int

    @property
    def kind(self) -> str | None:
        return self.node.WhichOneof("node") if self.node is not None else None

    @property
    def columns(self) -> int:
        node = self.node
        if self.kind == "select_stmt":
            select = node.select_stmt
            while select.HasField("larg"):
                select = select.larg
            return len(select.target_list)
        return int(" RETURNING " in self.text)


@dataclass
class Open:
    held: Held
    rows: list[tuple[str, ...]] | None = None
    at: int = 0
    done: bool = False


class Server:
    """Enough of PostgreSQL to be wrong about; texts in ``refused`` are errors for it."""

    def __init__(self, on_run: Any = lambda held: None, *, refused: tuple[str, ...] = ()) -> None:
        self.ready = b""
        self._held_back = b""
        self._statements: dict[str, Held] = {}
        self._portals: dict[str, Open] = {}
        self._state = "I"
        self._skipping = False
        self._on_run = on_run
        self._refused = refused

    def take(self, data: bytes) -> None:
        reader = FrameReader()
        reader.feed(data)
        for frame in reader.frames():
            message = decode_frontend(frame.kind, frame.body)
            if self._skipping and not isinstance(message, Sync):
                continue
            try:
                self._on(message)
            except Failed as exc:
                self._fail(str(exc))
                if isinstance(message, Query):
                    self._idle()
                else:
                    self._skipping = True

    def _say(self, message: Any) -> None:
        self._held_back += message.encode()

    def _fail(self, sqlstate: str) -> None:
        self._held_back += error(sqlstate, "what the source says of P-SECRET")
        if self._state == "T":
            self._state = "E"
        self._flush()  # PostgreSQL sends an error at once

    def _idle(self) -> None:
        if self._state == "I":
            self._portals.clear()
        self._say(ReadyForQuery(self._state))
        self._flush()

    def _flush(self) -> None:
        self.ready, self._held_back = self.ready + self._held_back, b""

    def _on(self, message: Any) -> None:
        match message:
            case Sync():
                self._skipping = False
                self._idle()
            case Flush():
                self._flush()
            case Query(sql):
                self._statements.pop("", None)
                self._portals.pop("", None)
                self._query(sql)
                self._idle()
            case Parse(name, sql):
                self._parse(name, sql)
            case Bind(portal, statement):
                held = self._find(self._statements, statement, "26000")
                if self._state == "E" and not self._ends(held):
                    raise Failed("25P02")
                if portal and portal in self._portals:
                    raise Failed("42P03")
                self._portals.pop(portal, None)
                if len(message.params) != held.params:
                    raise Failed("08P01")
                self._portals[portal] = Open(held)
                self._say(BindComplete())
            case Describe("S", name):
                held = self._find(self._statements, name, "26000")
                self._say(ParameterDescription((20,) * held.params))
                self._describe(held)
            case Describe(_, name):
                self._describe(self._find(self._portals, name, "34000").held)
            case Execute(name, limit):
                self._execute(self._find(self._portals, name, "34000"), limit)
            case Close(kind, name):
                (self._statements if kind == "S" else self._portals).pop(name, None)
                self._say(CloseComplete())
            case _:
                raise AssertionError(message)

    @staticmethod
    def _find(table: dict[str, Any], name: str, sqlstate: str) -> Any:
        if name not in table:
            raise Failed(sqlstate)
        return table[name]

    def _read(self, sql: str) -> list[Held]:
        if "chartgate_refused" in sql or any(text in sql for text in self._refused):
            raise Failed("42601")
        texts = [text for text in sql.split("; ") if text]
        nodes = [statement.stmt for statement in postgast.parse(sql).stmts]
        return [
            Held(node, text, 1 if "$1" in text else 0)
            for node, text in zip(nodes, texts, strict=True)
        ]

    def _parse(self, name: str, sql: str) -> None:
        if not name:
            self._statements.pop("", None)
        held = (self._read(sql) or [Held(None, "", 0)])[0]
        if self._state == "E" and not self._ends(held):
            raise Failed("25P02")
        if name in self._statements:
            raise Failed("42P05")
        self._statements[name] = held
        self._say(ParseComplete())

    @staticmethod
    def _ends(held: Held) -> bool:
        return held.kind is None or held.text in {"COMMIT", "ROLLBACK"}

    def _describe(self, held: Held) -> None:
        if self._state == "E" and held.columns:
            raise Failed("25P02")
        columns = held.columns
        fields = tuple(Field(f"c{n}") for n in range(columns))
        self._say(RowDescription(fields) if columns else NoData())

    def _query(self, sql: str) -> None:
        found = self._read(sql)
        if not found:
            self._say(EmptyQueryResponse())
        for held in found:
            if (held.kind == "select_stmt" and self._state != "E") or (
                held.columns and self._state != "E"
            ):
                self._describe(held)
            self._execute(Open(held), 0)

    def _execute(self, portal: Open, limit: int) -> None:
        held = portal.held
        if held.kind is None:
            self._say(EmptyQueryResponse())
            return
        if self._state == "E" and not self._ends(held):
            raise Failed("25P02")
        if portal.done and held.kind != "select_stmt":
            raise Failed("55000")
        self._on_run(held)
        if portal.rows is None:
            portal.rows = list(self._rows(held))
        rest = portal.rows[portal.at :]
        for row in rest[:limit] if limit > 0 else rest:
            self._say(DataRow(tuple(value.encode() for value in row)))
            portal.at += 1
        if 0 < limit <= len(rest):
            self._say(PortalSuspended())
            return
        portal.done = True
        self._run(held)
        tag = {"select_stmt": f"SELECT {len(rest)}", "update_stmt": "UPDATE 1"}
        self._say(CommandComplete(tag.get(held.kind, "DONE")))

    def _rows(self, held: Held) -> Iterator[tuple[str, ...]]:
        if held.kind == "update_stmt":
            yield from [(KEYS[0],) * held.columns] if held.columns else []
        elif held.kind == "select_stmt":
            if "1 / 0" in held.text:
                raise Failed("22012")
            if "count(*)" in held.text:
                yield ("5",) * held.columns
            else:
                yield from ((key,) * held.columns for key in KEYS)

    def _run(self, held: Held) -> None:
        text = held.text.partition(" ISOLATION")[0]
        if text == "BEGIN":
            self._state = "T" if self._state == "I" else self._state
        elif text in {"COMMIT", "ROLLBACK"}:
            self._state = "I"
            self._portals.clear()
        elif text == "DEALLOCATE ALL":
            self._statements.clear()
        elif text == "DISCARD ALL":
            if self._state == "T":
                raise Failed("25001")
            self._statements.clear()
            self._portals.clear()
        elif text.startswith("DEALLOCATE"):
            name = text.removeprefix("DEALLOCATE ").strip('"')
            self._find(self._statements, name, "26000")
            del self._statements[name]


class Log:
    """Entries become durable when somebody waits, or now and then; it may break for good."""

    def __init__(self, rng: random.Random, fails_after: int | None) -> None:
        self.durable: list[Any] = []
        self.is_broken = False
        self._waiting: list[Any] = []
        self._rng = rng
        self._left = fails_after

    def queue(self, events: tuple[Any, ...]) -> int:
        if self.is_broken:
            raise LogUnavailable("broken")
        first = len(self.durable) + len(self._waiting)
        self._waiting += events
        if self._rng.random() < 0.3:
            self.commit()
        return first

    def commit(self) -> None:
        if not self._waiting:
            return
        if self._left == 0:
            self.is_broken = True
            return
        self._left = None if self._left is None else self._left - 1
        self.durable += self._waiting
        self._waiting = []

    def wait(self, first: int) -> int:
        if first >= len(self.durable):
            self.commit()
        if self.is_broken or first >= len(self.durable):
            raise LogUnavailable("broken")
        return first


class Directory:
    def __init__(self) -> None:
        self.department = "cardiology"
        self.active = True

    def person(self, name: str) -> Person | None:
        held = Assignment("nurse", self.department, datetime(2026, 1, 1, tzinfo=UTC), None)
        return Person("u1", name, "Nora Adams", self.active, (held,))

    def is_fresh(self) -> bool:
        return True


class Remembering(DecisionPoint):
    """Works out once what the same asker may see: worlds are many."""

    def __init__(self, point: DecisionPoint) -> None:
        self.__dict__.update(point.__dict__)
        self._known: dict[Any, Entitlement] = {}

    def entitlement(self, asker: Asker, tables: Any, *, at: datetime, secret: str) -> Entitlement:
        if asker not in self._known:
            made = super().entitlement(asker, tables, at=at, secret=secret)
            self._known[asker] = made
        return self._known[asker]


@pytest.fixture(scope="module")
def point(project_root: Path) -> DecisionPoint:
    policies, data_map = project_root / "policies", project_root / "maps" / "hospital.toml"
    return Remembering(load_decision_point(policies, data_map))


def source() -> Source:
    tables = {}
    for oid, table in enumerate(TABLES, 20_000):
        name = TableName("public", table.name)
        columns = tuple(Column(c.name, c.type.removesuffix(" NOT NULL")) for c in table.columns)
        tables[name] = Table(name, oid, columns, (table.key,))
    return Source(tables, {})


SOURCE = source()


class World:
    """Drives one conversation and checks, at every step, what must hold."""

    def __init__(self, point: DecisionPoint, rng: random.Random, fails_after: int | None) -> None:
        self.log = Log(rng, fails_after)
        self.directory = Directory()
        self.session = GateSession(
            session_id="s1",
            name="nadams",
            node="n1",
            channel="test",
            secret="0" * 32,
            purpose="TREAT",
            in_force=InForce(point, SOURCE),
            directory=self.directory,
            tokens=PatientTokens({2026: b"k" * 32}, "hospital"),
            now=lambda: NOW,
        )
        self.server = Server(self.ran)
        self.heard = b""
        self.writes = 0
        self.answers = 0
        self.reason: str | None = None
        self._tokens = {key: self.session.token("patient", key) for key in KEYS}

    def ran(self, held: Held) -> None:
        """The server runs a statement: is it one that was decided for the person as she is?"""
        if held.kind == "update_stmt":
            self.writes += 1
            decided = [e for e in self.log.durable if isinstance(e, Decision)]
            allowed = [e for e in decided if e.allowed and e.action == "update"]
            assert self.writes <= len(allowed), "a write ran without a durable decision"
        if held.kind == "select_stmt" and "patient" in held.text:
            assert f"'{self.directory.department}'" in held.text, "a statement of another time ran"

    def play(self, script: list[Any]) -> None:
        talk = Conversation(self.session).talk()
        steps = iter(script)
        answer: Any = None
        failure: LogUnavailable | None = None
        while True:
            try:
                command = talk.throw(failure) if failure is not None else talk.send(answer)
            except StopIteration as end:
                self.reason = end.value
                return
            answer = failure = None
            try:
                match command:
                    case FromClient():
                        message = next(steps, None)
                        while callable(message):
                            message(self)
                            message = next(steps, None)
                        if message is None:
                            return
                        whole = message.encode()
                        answer = Frame(whole[0], whole[5:])
                    case FromServer():
                        assert self.server.ready, "the gate waits for what the server keeps back"
                        reader, self.server.ready = FrameReader(), b"" + self.server.ready
                        reader.feed(self.server.ready)
                        self.server.ready = b""
                        answer = reader.runs()
                    case ToServer(data):
                        self.server.take(data)
                    case ToClient(data):
                        self.check(data)
                        self.heard += data
                    case Record(events):
                        answer = self.log.wait(self.log.queue(events))
                    case Post(events):
                        answer = self.log.queue(events)
                    case Await(ticket):
                        answer = self.log.wait(ticket)
                    case Note(events):
                        self.log.queue(events)
            except LogUnavailable as exc:
                failure = exc

    def check(self, data: bytes) -> None:
        """These bytes are about to leave."""
        released = {t for e in self.log.durable if isinstance(e, Release) for t in e.seen}
        for message in decoded(data):
            if self.log.is_broken:
                assert message.fields["C"] == "58030", "something left after the log had failed"
                assert message.fields["V"] == "FATAL"
                continue
            match message:
                case DataRow(values):
                    assert len(values) == 2, "a column of the gate's own was seen"
                    for value in values:
                        if (key := value.decode()) in self._tokens:
                            assert self._tokens[key] in released, "a row left unrecorded"
                    self.answered()
                case RowDescription(fields):
                    assert len(fields) == 2, "a column of the gate's own was described"
                case CommandComplete(tag):
                    # A portal that is asked again when it has given all says SELECT 0.
                    self.answers += tag != "SELECT 0"
                    self.answered()
            if isinstance(message, ErrorResponse | NoticeResponse):
                self.check_words(message.fields)

    def answered(self) -> None:
        decided = [e for e in self.log.durable if isinstance(e, Decision) and e.allowed]
        assert self.answers <= len(decided), "an answer left without a durable decision"

    def check_words(self, fields: dict[str, str]) -> None:
        text = " ".join(fields.values())
        assert "P-SECRET" not in text, "the source's own words were passed on"
        for number in re.findall(r"event (\w+)", text):
            assert int(number) < len(self.log.durable), "an event was named before it was written"


def decoded(data: bytes) -> list[Any]:
    reader = FrameReader()
    reader.feed(data)
    return [decode_backend(kind, whole[5:]) for kind, whole in reader.take()]


def kinds(data: bytes) -> str:
    reader = FrameReader()
    reader.feed(data)
    return "".join(chr(kind) for kind, _ in reader.take()).replace("N", "")


def alone(script: list[Any]) -> str:
    """What the server says to the client without a gate; a refused text is an error for it."""
    server = Server(refused=REFUSED)
    for message in script:
        server.take(message.encode())
    return kinds(server.ready)


# What clients do.

NAMES = st.sampled_from(["", "a", "b"])
TEXT = st.sampled_from(TEXTS)
STEP = st.one_of(
    st.builds(
        Query, st.lists(TEXT, min_size=1, max_size=3).map(lambda t: "; ".join(filter(None, t)))
    ),
    st.builds(Parse, NAMES, TEXT),
    st.builds(
        Bind,
        st.sampled_from(["", "p"]),
        NAMES,
        st.sampled_from([(), (1,)]),
        st.sampled_from([(), (b"\0\0\0\0\0\0\0\x65",)]),
        st.sampled_from([(), (0,), (1, 0)]),
    ),
    st.builds(Describe, st.sampled_from("SP"), st.sampled_from(["", "a", "b", "p"])),
    st.builds(Execute, st.sampled_from(["", "p"]), st.sampled_from([0, 0, 2, 5])),
    st.builds(Close, st.sampled_from("SP"), st.sampled_from(["", "a", "p"])),
    st.just(Sync()),
    st.just(Flush()),
)


@st.composite
def queries(draw: Any) -> list[Any]:
    """What drivers do: prepare, bind, describe, execute, perhaps again and in parts."""
    name, portal, text = draw(NAMES), draw(st.sampled_from(["", "p"])), draw(TEXT)
    value = (b"\0\0\0\0\0\0\0\x65",) if "$1" in text else ()
    steps: list[Any] = [Parse(name, text)]
    if draw(st.booleans()):
        steps += [Describe("S", name), draw(st.sampled_from([Sync(), Flush()]))]
    steps.append(Bind(portal, name, (1,) if value else (), value))
    if draw(st.booleans()):
        steps.append(Describe("P", portal))
    steps += [Execute(portal, draw(st.sampled_from([0, 2])))] * draw(st.integers(1, 3))
    if draw(st.booleans()):
        steps.append(Close("P", portal))
    if name and draw(st.booleans()):
        steps.append(Close("S", name))
    return [*steps, Sync()] if draw(st.booleans()) else steps


SCRIPT = st.lists(st.one_of(STEP.map(lambda step: [step]), queries()), max_size=12).map(
    lambda parts: [step for part in parts for step in part]
)


def moved(world: World) -> None:
    """The nurse works in another department from now on."""
    world.directory.department = (
        "oncology" if world.directory.department[0] == "c" else "cardiology"
    )


def cut_off(world: World) -> None:
    world.directory.active = False


@given(script=SCRIPT, seed=st.integers(0, 9))
def test_the_client_hears_what_the_server_alone_would_say(
    point: DecisionPoint, script: list[Any], seed: int
) -> None:
    world = World(point, random.Random(seed), None)
    world.play([*script, Sync()])
    assert kinds(world.heard) == alone([*script, Sync()])


@given(
    script=SCRIPT, changes=st.lists(st.integers(0, 40), max_size=3), seed=st.integers(0, 9),
    fails_after=st.none() | st.integers(0, 25), leaves=st.booleans(), claims=st.integers(0, 40),
)  # fmt: skip
def test_nothing_leaves_or_is_written_before_it_is_recorded(
    point: DecisionPoint,
    script: list[Any],
    changes: list[int],
    seed: int,
    fails_after: int | None,
    leaves: bool,
    claims: int,
) -> None:
    steps = [*script, Sync()]
    for at in changes:
        steps.insert(at, moved)
    if claims < len(steps):
        steps.insert(claims, Query(PURPOSE))
    if leaves:
        steps.insert(len(steps) // 2, cut_off)
    world = World(point, random.Random(seed), fails_after)
    world.play(steps)
    if world.log.is_broken and world.reason is not None:
        assert world.reason in {"the audit log cannot be written", "access ended"}


@given(script=SCRIPT, seed=st.integers(0, 9))
def test_every_decision_is_completed_once_the_session_is_idle(
    point: DecisionPoint, script: list[Any], seed: int
) -> None:
    world = World(point, random.Random(seed), None)
    world.play([*script, Sync(), Query("ROLLBACK")])
    world.log.commit()
    decisions = [n for n, e in enumerate(world.log.durable) if isinstance(e, Decision)]
    completed = [e.decision for e in world.log.durable if isinstance(e, Completed)]
    assert sorted(completed) == decisions


# One by one.


def play(point: DecisionPoint, *script: Any, fails_after: int | None = None) -> World:
    world = World(point, random.Random(1), fails_after)
    world.play(list(script))
    world.log.commit()
    return world


def completions(world: World) -> list[str]:
    return [e.sqlstate for e in world.log.durable if isinstance(e, Completed)]


def test_what_was_skipped_after_an_error_is_completed_as_never_run(point: DecisionPoint) -> None:
    world = play(
        point,
        Parse("", READS["failing"]), Bind("", ""), Execute(""),
        Parse("a", WRITE), Bind("", "a"), Execute(""),
        Sync(),
        Bind("", "a"), Execute(""), Sync(),
    )  # fmt: skip
    assert kinds(world.heard) == "12EZEZ"
    assert completions(world) == ["22012", "25P02"]
    assert world.writes == 0


def test_a_close_that_the_server_skipped_does_not_make_a_statement_unknown(
    point: DecisionPoint,
) -> None:
    world = play(
        point,
        Parse("a", WRITE), Sync(),
        Parse("b", REFUSED[0]), Close("S", "a"), Sync(),
        Bind("", "a"), Execute(""), Sync(),
    )  # fmt: skip
    assert kinds(world.heard) == "1ZEZ2CZ"
    assert world.writes == 1


def test_a_renewal_that_the_server_skipped_is_made_again(point: DecisionPoint) -> None:
    world = play(
        point,
        Parse("a", READS["by column"]), Sync(),
        moved,
        Parse("b", REFUSED[0]), Bind("", "a"), Execute(""), Sync(),
        Bind("", "a"), Execute(""), Sync(),
    )  # fmt: skip
    assert kinds(world.heard) == "1ZEZ2DDDDDCZ"


def test_a_portal_that_was_open_when_access_changed_is_refused(point: DecisionPoint) -> None:
    world = play(
        point,
        Query("BEGIN"),
        Parse("", READS["by column"]), Bind("p", ""), Execute("p", 2), Sync(),
        moved,
        Execute("p", 2), Sync(),
    )  # fmt: skip
    assert kinds(world.heard) == "CZ12DDsZEZ"
    assert "42501" in completions(world)


def test_an_unnamed_statement_is_gone_after_a_refused_parse(point: DecisionPoint) -> None:
    world = play(
        point,
        Parse("", WRITE), Sync(), Parse("", REFUSED[1]), Sync(), Bind("", ""), Execute(""), Sync(),
    )  # fmt: skip
    assert kinds(world.heard) == "1ZEZEZ"
    assert world.writes == 0


def test_a_person_who_is_cut_off_hears_it_and_it_is_recorded(point: DecisionPoint) -> None:
    world = play(point, Query(READS["by column"]), cut_off, Query(READS["by column"]))
    assert world.reason == "access ended"
    *_, last = decoded(world.heard)
    assert (last.fields["V"], last.fields["C"]) == ("FATAL", "57P01")
    refused = [e for e in world.log.durable if isinstance(e, Decision) and not e.allowed]
    assert len(refused) == 1


def test_nothing_follows_when_the_log_fails_in_the_middle_of_a_result(
    point: DecisionPoint,
) -> None:
    for fails_after in range(4):
        world = play(point, Query(READS["by companion"]), Query(WRITE), fails_after=fails_after)
        if world.log.is_broken:
            assert world.reason == "the audit log cannot be written"
            *_, last = decoded(world.heard)
            assert (last.fields["V"], last.fields["C"]) == ("FATAL", "58030")


def test_a_purpose_counts_once_the_server_has_said_so(point: DecisionPoint) -> None:
    world = play(
        point,
        Parse("", PURPOSE), Bind("", ""), Execute(""),
        Parse("", READS["by column"]), Bind("", ""), Execute(""), Sync(),
        Query("BEGIN"), Query(READS["failing"]), Query("SET chartgate.purpose = 'TREAT'"),
        Query("ROLLBACK"),
    )  # fmt: skip
    assert kinds(world.heard).startswith("12C12DDDDDCZ")
    assert world.session.purpose == "ETREAT"
    purposes = [e.purpose for e in world.log.durable if isinstance(e, Decision)]
    assert purposes[:2] == ["TREAT", "ETREAT"]


def test_discard_all_goes_back_to_the_purpose_of_the_login(point: DecisionPoint) -> None:
    world = play(point, Query(PURPOSE), Query("DISCARD ALL"))
    assert world.session.purpose == "TREAT"


def test_a_long_pipeline_is_answered_before_its_sync_comes(point: DecisionPoint) -> None:
    one = [Parse("", WRITE), Bind("", ""), Execute("")]
    world = play(point, *(one * 200), Sync())
    assert kinds(world.heard) == "12C" * 200 + "Z"
    assert world.writes == 200


def test_whom_a_statement_looks_for_is_recorded_found_or_not(point: DecisionPoint) -> None:
    world = play(
        point,
        Parse("", READS["sought"]), Bind("", "", (1,), (b"\0\0\0\0\0\0\0\x09",)), Execute(""), Sync(),
        Query("SELECT patient_id, mrn FROM patient WHERE patient_id = 9"),
    )  # fmt: skip
    token = world.session.token("patient", "9")
    assert [e.sought for e in world.log.durable if isinstance(e, Decision)] == [(token,)] * 2


def test_a_refused_statement_is_recorded_without_its_values(point: DecisionPoint) -> None:
    world = play(point, Query("SELECT pg_sleep(1), mrn FROM patient WHERE mrn = 'MRN-7'"))
    (refused,) = (e for e in world.log.durable if isinstance(e, Decision))
    assert not refused.allowed
    assert "patient" in refused.statement
    assert "MRN-7" not in repr(refused)


def test_replacing_a_frozen_assignment_is_a_change_of_access(point: DecisionPoint) -> None:
    world = World(point, random.Random(1), None)
    before = world.session.entitlement()
    assert world.session.entitlement() is before
    person = world.directory.person("nadams")
    assert person is not None
    world.directory.person = lambda name: replace(person, assignments=person.assignments * 2)  # type: ignore[method-assign]
    assert world.session.entitlement() is not before

"""Extended protocol: the client's statements and portals, and what the server holds for them.

Rules kept:

- a name that the gate does not hold is never forwarded: it becomes one that no server holds, so
  that the server's own error answers and nothing undecided can run;
- named statements and portals have names of ours upstream, so that an old namesake is never meant;
- a statement is decided again, and prepared again, when what the person may see has changed; an
  open portal is refused then (gateway: re-checked at every Execute).

PostgreSQL documentation, 55.2.3 "Extended Query".
"""

import re
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, TypeVar

from chartgate.app.commands import Command, Talk
from chartgate.app.entitlement import Entitlement
from chartgate.app.exchange import Exchange, Expected
from chartgate.app.execution import Execution
from chartgate.app.planned import Looked, Planned
from chartgate.errors import Refused
from chartgate.pgwire.messages import Bind, Close, Describe, Execute, Flush, Parse, Sync
from chartgate.pgwire.values import text_of
from chartgate.sql.allow import PARAMETER_TYPES
from chartgate.sql.parse import ParsedStatement
from chartgate.sql.statement import Kind, Rewritten, SetPurpose, Setting

REFUSED_TEXT: Final = "chartgate_refused"
"""Not a statement of any SQL: the server answers 42601 and fails the transaction, as it should."""
NOWHERE: Final = "__cg_none"
"""The name of no statement and no portal, ever."""
_PARAMETER: Final = re.compile(r"\$([0-9]{1,5})")
MAX_PREPARED: Final = 10_000

_Held = TypeVar("_Held")


@dataclass(slots=True, eq=False)
class Prepared:
    """A prepared statement: its tree is kept, so that it can be decided again."""

    statement: ParsedStatement | None
    planned: Planned
    entitlement: object
    param_types: tuple[int, ...]
    upstream: str
    companion: str = ""
    """Name upstream of its key query; empty if it has none."""


@dataclass(slots=True, eq=False)
class Portal:
    """A bound statement; ``execution`` starts at its first Execute."""

    prepared: Prepared
    bind: Bind
    upstream: str
    companion: str = ""
    execution: Execution | None = None


class ExtendedProtocol:
    """The statements and portals of one session. Messages come in batches, up to a Sync or so."""

    def __init__(self, exchange: Exchange) -> None:
        self._x: Final = exchange
        self._session: Final = exchange.session
        self._statements: Final[dict[str, Prepared]] = {}
        self._portals: Final[dict[str, Portal]] = {}
        self._unused: list[str] = []
        """Companions upstream whose statements are gone."""
        self._names = 0
        exchange.on_idle = self._portals.clear

    def handle(self, message: object) -> Talk:
        """One message of a batch; it is on its way when the batch is exchanged."""
        if self._x.is_skipping and not isinstance(message, Sync):
            return  # as the server does
        statement: ParsedStatement | None = None
        try:
            match message:
                case Parse():
                    statement = self._only_statement(message.sql)
                    yield from self._parse(message, statement)
                case Bind():
                    yield from self._bind(message)
                case Describe():
                    self._describe(message)
                case Execute():
                    yield from self._execute(message)
                case Close():
                    self._close(message)
                case Sync() | Flush():
                    self._x.send(message)
        except Refused as exc:
            self._refuse(message, exc, statement)

    def _only_statement(self, text: str) -> ParsedStatement | None:
        statements = self._session.statements(text)
        if len(statements) > 1:
            raise Refused("a prepared statement holds one statement")
        return statements[0] if statements else None

    def simple_query_sent(self) -> None:
        """A simple Query ends the unnamed statement and the unnamed portal."""
        self._retire(self._statements.pop("", None))
        self._portals.pop("", None)

    def _refuse(self, message: object, reason: Refused, statement: ParsedStatement | None) -> None:
        text, length, undo = "", 0, None
        match message:
            case Parse(name, sql):
                text = self._session.redacted(statement)
                length = len(sql.encode())
                if not name and (before := self._statements.pop("", None)) is not None:
                    # A Parse without a name ends the one before it, well or not.
                    undo = self._back(self._statements, "", None, before)
            case Bind(_, name) if (held := self._statements.get(name)) is not None:
                text = held.planned.statement
            case Execute(name) if (portal := self._portals.get(name)) is not None:
                text = portal.prepared.planned.statement
        sought = self._session.sought_by(() if statement is None else (statement,))
        execution = self._x.refuse(reason, statement=text, length=length, sought=sought)
        self._x.send(Parse(NOWHERE, REFUSED_TEXT), Expected(execution=execution, undo=undo))

    # (1) Parse.

    def _parse(self, message: Parse, statement: ParsedStatement | None) -> Talk:
        if len(self._statements) >= MAX_PREPARED:
            raise Refused(f"a session holds at most {MAX_PREPARED} prepared statements")
        if not PARAMETER_TYPES.issuperset(message.param_types):
            # A value of such a type is read past every check of ours: a regclass tells a name.
            raise Refused("a parameter is declared with a type that is not on the allow-list")
        prepared = self._prepared(message.name, statement, message.param_types)
        while self._unused:
            self._x.swallow(Close("S", self._unused.pop()))
        yield from self._forward_parse(message.name, prepared, swallow=False)

    def _prepared(
        self, name: str, statement: ParsedStatement | None, types: tuple[int, ...]
    ) -> Prepared:
        planned = Planned(None, "", "empty", "")
        entitlement: Entitlement | None = None
        if statement is not None:
            # In this order: when time passes between the two, the plan counts as the older one's
            # and is made again before it runs.
            entitlement = self._session.entitlement()
            planned = self._session.plan(statement)
            if isinstance(planned.step, SetPurpose):
                self._session.check_claim(planned.step.value)
        upstream = self._fresh("s") if name else ""
        return Prepared(statement, planned, entitlement, types, upstream)

    def _forward_parse(self, name: str, prepared: Prepared, *, swallow: bool) -> Talk:
        before = self._statements.get(name)
        if name and before is not None and not swallow:
            # The name is taken: let the server say so.
            prepared.upstream = before.upstream
        self._statements[name] = prepared
        text = self.upstream_text(prepared.planned, prepared.statement)
        self._x.send(
            Parse(prepared.upstream, text, prepared.param_types),
            Expected(
                swallow=swallow,
                done=lambda: self._retire(before),
                undo=self._back(self._statements, name, prepared, before),
            ),
        )
        yield from self._prepare_companion(prepared)

    def _prepare_companion(self, prepared: Prepared) -> Talk:
        """Prepare the key query beside the statement, with the statement's parameter types."""
        rewritten = prepared.planned.rewritten
        if rewritten is None:
            return
        count = _parameters_needed(rewritten)
        if 0 in prepared.param_types[:count] or count > len(prepared.param_types):
            # Inferred types are the server's to say; asked once, before anything depends on them.
            self._x.send(
                Describe("S", prepared.upstream),
                Expected(swallow=True, on_types=lambda t: setattr(prepared, "param_types", t)),
            )
            yield from self._x.exchange(flush=True)
        if rewritten.companion is not None:
            prepared.companion = self._fresh("c")
            self._x.swallow(Parse(prepared.companion, rewritten.companion, prepared.param_types))

    def _current(self, name: str, prepared: Prepared) -> Generator[Command, Any, Prepared]:
        """The statement as it is now: decided again if what the person may see has changed."""
        entitlement = self._session.entitlement()
        if prepared.statement is None or prepared.entitlement is entitlement:
            return prepared
        fresh = self._prepared(name, prepared.statement, prepared.param_types)
        yield from self._forward_parse(name, fresh, swallow=True)
        if name:
            self._x.swallow(Close("S", prepared.upstream))
        return fresh

    # (2) Bind, Describe, Execute, Close.

    def _bind(self, message: Bind) -> Talk:
        prepared = self._statements.get(message.statement)
        if prepared is None:
            self._x.send(Bind("", NOWHERE))
            return
        prepared = yield from self._current(message.statement, prepared)
        rewritten = prepared.planned.rewritten
        before = self._portals.get(message.portal)
        portal = Portal(prepared, message, upstream=message.portal and self._fresh("p"))
        if message.portal and before is not None:
            # The name is taken: let the server say so.
            portal.upstream = before.upstream
        if prepared.companion:
            portal.companion = self._fresh("q")
            self._x.swallow(
                replace(
                    message,
                    portal=portal.companion,
                    statement=prepared.companion,
                    result_formats=(),
                )
            )
        self._portals[message.portal] = portal
        formats = message.result_formats
        if rewritten is not None and rewritten.returning_added:
            formats = ()
        elif rewritten is not None and len(formats) > 1:
            formats += (0,) * rewritten.hidden_columns
        self._x.send(
            replace(
                message,
                portal=portal.upstream,
                statement=prepared.upstream,
                result_formats=formats,
            ),
            Expected(
                done=lambda: _end(before),
                undo=self._back(self._portals, message.portal, portal, before),
            ),
        )

    def _describe(self, message: Describe) -> None:
        prepared: Prepared | None
        if message.kind == "S":
            prepared = self._statements.get(message.name)
            upstream = prepared.upstream if prepared is not None else NOWHERE
        else:
            portal = self._portals.get(message.name)
            prepared = portal.prepared if portal is not None else None
            upstream = portal.upstream if portal is not None else NOWHERE
        self._x.send(
            Describe(message.kind, upstream),
            Expected(planned=prepared.planned if prepared is not None else None),
        )

    def _execute(self, message: Execute) -> Talk:
        portal = self._portals.get(message.portal)
        if portal is None or portal.prepared.planned.step is None:
            # Unknown to the server too, or empty: nothing to decide.
            name = portal.upstream if portal is not None else NOWHERE
            self._x.send(Execute(name, message.max_rows))
            return
        prepared, planned = portal.prepared, portal.prepared.planned
        if prepared.entitlement is not self._session.entitlement():
            raise Refused("your access changed after this query was opened; run it again")
        before = portal.execution
        if before is not None and not before.is_over:
            self._x.again(before)
            self._x.send(
                Execute(portal.upstream, message.max_rows),
                Expected(execution=before, planned=planned),
            )
            return
        execution = self._decide(portal)

        def undo(skipped: bool) -> None:
            if skipped and portal.execution is execution:
                portal.execution = before

        if portal.companion and before is None:
            self._x.send(Execute(portal.companion), Expected(execution=execution, companion=True))
            self._x.swallow(Close("P", portal.companion))
        self._x.send(
            Execute(portal.upstream, message.max_rows),
            Expected(execution=execution, planned=planned, undo=undo),
        )
        if execution.on_complete is not None:
            # What comes after it is decided as the session is then.
            yield from self._x.exchange(flush=True)

    def _decide(self, portal: Portal) -> Execution:
        prepared, planned = portal.prepared, portal.prepared.planned
        if isinstance(planned.step, SetPurpose):
            self._session.check_claim(planned.step.value)
        sought = Looked(self._session.token)
        rewritten = planned.rewritten
        if rewritten is not None:
            sought.add(
                rewritten.sought, lambda n: _parameter(portal.bind, prepared.param_types, n - 1)
            )
        execution = self._x.decide(planned, sought)
        execution.on_complete = self.effect_of(planned, prepared.statement)
        portal.execution = execution
        return execution

    def _close(self, message: Close) -> None:
        if message.kind == "S":
            held = self._statements.pop(message.name, None)
            upstream, companion = (held.upstream, held.companion) if held else (NOWHERE, "")
            undo = self._back(self._statements, message.name, None, held)
            done: Callable[[], None] | None = None
        else:
            portal = self._portals.pop(message.name, None)
            upstream, companion = (portal.upstream, portal.companion) if portal else (NOWHERE, "")
            undo = self._back(self._portals, message.name, None, portal)
            done = partial(_end, portal)
        self._x.send(Close(message.kind, upstream), Expected(undo=undo, done=done))
        if companion:
            self._x.swallow(Close(message.kind, companion))

    # (3) What SQL says about prepared statements.

    def upstream_text(self, planned: Planned, statement: ParsedStatement | None) -> str:
        """The text that goes upstream: DEALLOCATE names what the server knows."""
        name = _deallocated(statement)
        if name is None:
            return planned.upstream
        held = self._statements.get(name)
        return f'DEALLOCATE "{held.upstream if held is not None else NOWHERE}"'

    def effect_of(
        self, planned: Planned, statement: ParsedStatement | None
    ) -> Callable[[], None] | None:
        """What follows for the session when the statement has completed."""
        step = planned.step
        if isinstance(step, SetPurpose):
            return partial(self._session.adopt, step.value)
        if isinstance(step, Setting) and step.name == "all":
            return self._discard if step.verb == "discard" else self._session.reset
        if planned.rewritten is not None and planned.rewritten.kind is Kind.PREPARED:
            if (name := _deallocated(statement)) is not None:
                return lambda: self._retire(self._statements.pop(name, None))
            if planned.upstream == "DEALLOCATE ALL":
                return self._statements.clear
            if planned.upstream == "CLOSE ALL":
                return self._portals.clear
        return None

    def _discard(self) -> None:
        self._statements.clear()
        self._portals.clear()
        self._session.reset()

    # (4) Names.

    def _fresh(self, letter: str) -> str:
        self._names += 1
        return f"__cg_{letter}{self._names}"

    def _retire(self, prepared: Prepared | None) -> None:
        if prepared is not None and prepared.companion:
            self._unused.append(prepared.companion)

    def _back(
        self, table: dict[str, _Held], name: str, mine: _Held | None, before: _Held | None
    ) -> Callable[[bool], None]:
        """Undo: what was there before is back, unless the server has dropped it.

        It drops the unnamed one when it looks at the message that would replace it.
        """

        def undo(skipped: bool) -> None:
            if table.get(name) is not mine:
                return
            if before is not None and (skipped or name):
                table[name] = before
                return
            table.pop(name, None)
            if isinstance(before, Prepared):
                self._retire(before)

        return undo


def _end(portal: Portal | None) -> None:
    if portal is not None and portal.execution is not None:
        portal.execution.end()


def _deallocated(statement: ParsedStatement | None) -> str | None:
    """The name in a DEALLOCATE; ``None`` when it is another statement, or is for all."""
    if statement is None or statement.node.WhichOneof("node") != "deallocate_stmt":
        return None
    return statement.node.deallocate_stmt.name or None


def _parameters_needed(rewritten: Rewritten) -> int:
    """How many parameters the gate itself needs the types of; too many does no harm."""
    if rewritten.companion is not None:
        return max((int(n) for n in _PARAMETER.findall(rewritten.sql)), default=0)
    return max((s.parameter or 0 for s in rewritten.sought), default=0)


def _parameter(bind: Bind, types: tuple[int, ...], at: int) -> tuple[bool, str | None]:
    """Whether parameter ``at`` was understood, and its value as text (``None`` for NULL)."""
    if at >= len(bind.params) or (value := bind.params[at]) is None:
        return True, None
    text = text_of(types[at] if at < len(types) else 0, bind.format_of(at), value)
    return text is not None, text

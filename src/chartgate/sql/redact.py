"""A statement as the audit log may hold it: its shape, without any value or private name.

Rule kept: what is not known to be harmless is replaced. Constants and parameters become ``$n``,
identifiers that are not of the catalog become ``id_n`` (a value in double quotes is an
identifier to the grammar), comments are gone because the tree has none.

A constant replaced where the grammar has no room for a parameter is a malformed tree, on which
libpg_query ends the process. So only trees of listed nodes are written out, in which every constant
is an expression; of any other statement the kind alone is told.
"""

from collections.abc import Container, Mapping
from typing import Final

import postgast
from google.protobuf.message import Message
from postgast import pg_query_pb2 as pb

from chartgate.sql import allow
from chartgate.sql.parse import ParsedStatement
from chartgate.sql.tree import walk

_WRITTEN_OUT: Final = frozenset(
    {
        "select_stmt", "insert_stmt", "update_stmt", "delete_stmt", "variable_show_stmt",
        "discard_stmt", "deallocate_stmt",
    }
)  # fmt: skip
_LONGEST: Final = 100_000
_TWO_PHASE: Final[Mapping[int, str]] = {
    pb.TRANS_STMT_PREPARE: "PREPARE TRANSACTION",
    pb.TRANS_STMT_COMMIT_PREPARED: "COMMIT PREPARED",
    pb.TRANS_STMT_ROLLBACK_PREPARED: "ROLLBACK PREPARED",
}
_GRAMMAR: Final = frozenset({"pg_catalog", "information_schema", "public", "default", "*"})
_KEPT: Final = frozenset({"TransactionStmt.kind", "RangeVar.relpersistence", "DefElem.defname"})
_WORDS: Final = frozenset({"BETWEEN", "NOT BETWEEN", "BETWEEN SYMMETRIC", "NOT BETWEEN SYMMETRIC"})


def statement_class(statement: ParsedStatement, known: Container[str] = frozenset()) -> str:
    """The audit text. ``known``: names of the tables and columns that policy knows."""
    tree = pb.ParseResult()
    node = tree.stmts.add().stmt
    node.CopyFrom(statement.node)
    which = node.WhichOneof("node")
    if which is None:
        return ""
    if which == "transaction_stmt":
        return _transaction(tree)
    kind = str(which).removesuffix("_stmt").replace("_", " ").upper()
    if which not in _WRITTEN_OUT or not _is_listed(node):
        return kind
    try:
        _Redaction(known).message(node)
        return str(postgast.deparse(tree))
    except Exception:  # noqa: BLE001 - whatever the grammar cannot write: its kind alone
        return kind


def _transaction(tree: pb.ParseResult) -> str:
    """Its options are words of the grammar; its names could be anything."""
    stmt = tree.stmts[0].stmt.transaction_stmt
    if stmt.kind in _TWO_PHASE:
        return _TWO_PHASE[stmt.kind]  # an empty name in one of these ends the process too
    if stmt.savepoint_name:
        stmt.savepoint_name = "id_1"
    return str(postgast.deparse(tree))


def _is_listed(message: Message) -> bool:
    """Whether it is made of nothing but what a statement may be made of."""
    for found in walk(message):
        if isinstance(found, pb.Node):
            continue
        if isinstance(found, pb.TypeName) and not all(map(_is_length, found.typmods)):
            return False
        fields = allow.NODES.get(found.DESCRIPTOR.name)
        if fields is None or any(field.name not in fields for field, _ in found.ListFields()):
            return False
    return True


def _is_length(node: pb.Node) -> bool:
    """A number that can be the length of a type, and hardly anything else; see (1)."""
    constant = node.a_const
    return bool(constant.WhichOneof("val") == "ival" and constant.ival.ival < _LONGEST)


class _Redaction:
    def __init__(self, known: Container[str]) -> None:
        self._known = known
        self._names: dict[str, str] = {}
        self._constants = 0

    def message(self, message: Message) -> None:
        if isinstance(message, pb.Node):
            which = message.WhichOneof("node")
            if which == "a_const":
                if not message.a_const.isnull:
                    self._constants += 1
                    message.param_ref.number = self._constants
                return
            if which == "param_ref":
                self._constants += 1
                message.param_ref.number = self._constants
                return
        if isinstance(message, pb.TypeName):
            # (1) a length is a part of the type; the grammar wants a number there
            parts = list(message.names)
            for part in parts:
                self.message(part)
            return
        if isinstance(message, pb.FuncCall):
            # (2) EXTRACT(year FROM …) and its like have words where a call has arguments
            message.funcformat = pb.COERCE_EXPLICIT_CALL
        name = message.DESCRIPTOR.name
        for field, value in message.ListFields():
            if field.message_type is not None:
                for item in value if field.is_repeated else (value,):
                    self.message(item)
            elif field.type == field.TYPE_STRING and f"{name}.{field.name}" not in _KEPT:
                setattr(message, field.name, self._name(value))

    def _name(self, name: str) -> str:
        if (
            name in self._known
            or name in _GRAMMAR
            or name in _WORDS
            or name in allow.FUNCTIONS
            or name in allow.AGGREGATES
            or name in allow.WINDOW_FUNCTIONS
            or name in allow.TYPES
            or name in allow.OPERATORS
            or name in allow.SETTINGS
            or name in allow.SETTING_FUNCTIONS
        ):
            return name
        return self._names.setdefault(name, f"id_{len(self._names) + 1}")

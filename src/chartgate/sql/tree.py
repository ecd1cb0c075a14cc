"""Small tools over the parser's protobuf tree: templates by parsing, positions, equality.

Rule kept: a node is never built by hand from optional fields (libpg_query crashes on malformed
trees); every new node is a copy of something that the grammar produced. Templates are cached by
their text, which is all they depend on.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, cast

import postgast
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message
from postgast import pg_query_pb2 as pb

from chartgate.errors import Misconfigured, Refused

POSITIONS = frozenset(
    {
        "location",
        "stmt_location",
        "stmt_len",
        "rexpr_list_start",
        "rexpr_list_end",
        "list_start",
        "list_end",
    }
)
"""Fields that say where a node stood in the text: they carry no meaning."""

HIDDEN = "__cg_"
"""Names that begin so are ours; a statement that uses one is refused."""


def _placeless() -> type[Message]:
    """``ParseResult`` of the same grammar without positions: equality in one native comparison."""
    file = descriptor_pb2.FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(file)
    file.name = "chartgate_placeless.proto"
    for message in file.message_type:
        kept = [
            field
            for field in message.field
            if not (field.name in POSITIONS and field.type == field.TYPE_INT32)
            and not (message.name == "ParseResult" and field.name == "version")
        ]
        del message.field[:]
        message.field.extend(kept)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    name = pb.ParseResult.DESCRIPTOR.full_name
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


_PLACELESS = _placeless()


def placeless(tree: pb.ParseResult) -> Message:
    """The tree without positions and grammar version, for comparison."""
    message = _PLACELESS()
    message.ParseFromString(tree.SerializeToString())
    # (1) what the reduced grammar does not know is exactly what carries no meaning
    message.DiscardUnknownFields()
    return message


class NotFaithful(Refused):
    """Our own text, read again, is not the tree we meant: nothing is sent."""

    code = "not_faithful"


@lru_cache(maxsize=512)
def _fields(descriptor: Any) -> dict[str, tuple[str, bool]]:
    """Per message type: which set fields are positions, messages or lists of messages."""
    kinds: dict[str, tuple[str, bool]] = {}
    for field in descriptor.fields:
        if field.name in POSITIONS and field.type == field.TYPE_INT32:
            kinds[field.name] = ("position", False)
        elif field.message_type is not None:
            kinds[field.name] = ("message", field.is_repeated)
    return kinds


def strip(message: Message) -> None:
    """Remove every position, in place."""
    kinds = _fields(message.DESCRIPTOR)
    for field, value in message.ListFields():
        kind = kinds.get(field.name)
        if kind is None:
            continue
        if kind[0] == "position":
            message.ClearField(field.name)
        elif kind[1]:
            for item in value:
                strip(item)
        else:
            strip(value)


def children(message: Message) -> Iterator[Message]:
    """The messages directly below, in field order."""
    kinds = _fields(message.DESCRIPTOR)
    for field, value in message.ListFields():
        kind = kinds.get(field.name)
        if kind is None or kind[0] == "position":
            continue
        if kind[1]:
            yield from value
        else:
            yield value


_LEAVES = frozenset({"column_ref", "a_const", "param_ref", "string", "a_star", "integer"})


def branches(message: Message) -> Iterator[Message]:
    """The messages directly below that can hold a query, a function call or a table."""
    kinds = _fields(message.DESCRIPTOR)
    for field, value in message.ListFields():
        kind = kinds.get(field.name)
        if kind is None or kind[0] == "position":
            continue
        for child in value if kind[1] else (value,):
            if not isinstance(child, pb.Node):
                yield child
                continue
            which = child.WhichOneof("node")
            if which is not None and which not in _LEAVES:
                yield getattr(child, which)


def walk(message: Message) -> Iterator[Message]:
    """The message and everything below it, parents first."""
    waiting = [message]
    while waiting:  # nested generators would cost the depth again at every node
        found = waiting.pop()
        yield found
        below = list(children(found))
        below.reverse()
        waiting += below


def inner(node: pb.Node) -> Message:
    """What a ``Node`` wraps."""
    name = node.WhichOneof("node")
    if name is None:
        raise Refused("an empty node in the statement")
    return cast(Message, getattr(node, name))


def quoted(name: str) -> str:
    """An identifier in double quotes."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    """A string constant, safe under ``standard_conforming_strings = on``."""
    if "\\" in value:
        raise Refused("a backslash in a setting")
    return "'" + value.replace("'", "''") + "'"


@lru_cache(maxsize=8192)
def _template(text: str) -> pb.SelectStmt:
    try:
        parsed = postgast.parse(text)
    except Exception as exc:  # the text is policy's or ours, never a client's
        raise Misconfigured("SQL text of a view cannot be parsed") from exc
    if len(parsed.stmts) != 1 or parsed.stmts[0].stmt.WhichOneof("node") != "select_stmt":
        raise Misconfigured("SQL text of a view is not one expression")
    strip(parsed)
    return parsed.stmts[0].stmt.select_stmt


def select(text: str) -> pb.SelectStmt:
    """A fresh copy of the tree of a SELECT written by us, without positions."""
    copy = pb.SelectStmt()
    copy.CopyFrom(_template(text))
    return copy


def target(expression: str, name: str) -> pb.Node:
    """``<expression> AS "<name>"`` of a target list. Shared: copy it, never change it."""
    template = _template(f"SELECT {expression} AS {quoted(name)}")
    if len(template.target_list) != 1 or template.from_clause or template.sort_clause:
        raise Misconfigured("an expression of a view is not one expression")
    return template.target_list[0]


def item(text: str) -> pb.Node:
    """A FROM item. Shared: copy it, never change it."""
    return _template(f"SELECT FROM {text}").from_clause[0]


def expression(text: str) -> pb.Node:
    """The tree of an expression. Shared: copy it, never change it."""
    return target(text, "x").res_target.val


def column(*parts: str) -> pb.Node:
    """``a.b`` as a node. Shared: copy it, never change it."""
    return expression(".".join(quoted(part) for part in parts))


def names(nodes: Any) -> tuple[str, ...]:
    """The strings of a list of ``String`` nodes."""
    return tuple(node.string.sval for node in nodes)


def set_names(nodes: Any, parts: tuple[str, ...]) -> None:
    """Replace a list of ``String`` nodes."""
    del nodes[:]
    for part in parts:
        nodes.add().string.sval = part


def conjuncts(node: pb.Node) -> Iterator[pb.Node]:
    """The parts of a top-level AND."""
    if node.WhichOneof("node") == "bool_expr" and node.bool_expr.boolop == pb.AND_EXPR:
        for part in node.bool_expr.args:
            yield from conjuncts(part)
    else:
        yield node


def conjoin(parts: list[pb.Node]) -> pb.Node:
    """``a AND b AND …``; flat, as the grammar builds it."""
    if len(parts) == 1:
        return parts[0]
    both = pb.Node()
    both.CopyFrom(expression("true AND true"))
    del both.bool_expr.args[:]
    for part in parts:
        if part.WhichOneof("node") == "bool_expr" and part.bool_expr.boolop == pb.AND_EXPR:
            both.bool_expr.args.extend(part.bool_expr.args)
        else:
            both.bool_expr.args.append(part)
    return both


def any_node(message: Message, test: Callable[[Message], bool]) -> bool:
    """Whether a node below (or the message itself) passes the test."""
    return any(test(found) for found in walk(message))

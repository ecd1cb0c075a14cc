"""Reading Cedar's schema syntax (Cedar "Human readable schema syntax") into names and shapes.

cedarpy has the last word on whether a schema is valid, and tells no place; this reader gives the
declarations and, where it stumbles itself, line and column.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

from chartgate.cedar.lex import MAX_NESTING, InvalidPolicies
from chartgate.cedar.schema_names import (
    Named,
    Path,
    Raw,
    RawAction,
    RawEntity,
    RawSchema,
    RecordOf,
    SetOf,
)
from chartgate.model.principal import EntityUid

_TOKEN: Final = re.compile(
    r'(?P<string>"(?:[^"\\]|\\.)*")|(?P<skip>//[^\n\r]*|\s+)'
    r"|(?P<name>[A-Za-z_][A-Za-z_0-9]*)|(?P<mark>::|[{}\[\]<>(),;:?=@])|(?P<other>.)",
    re.DOTALL,
)
_ESCAPE: Final = re.compile(r"\\(?:u\{([0-9A-Fa-f]{1,6})\}|x([0-9A-Fa-f]{2})|(.))", re.DOTALL)
_SHORT: Final = {"n": "\n", "r": "\r", "t": "\t", "0": "\0", "\\": "\\", '"': '"', "'": "'"}

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of schema text; ``text`` of a string is its value, ``place`` is line:column."""

    kind: str
    text: str
    place: str


def _unescape(found: re.Match[str]) -> str:
    code = found.group(1) or found.group(2)
    if code is None:
        return _SHORT.get(found.group(3), found.group(3))
    return chr(int(code, 16)) if int(code, 16) <= 0x10FFFF else found.group()


def tokens(text: str, file: str) -> list[Token]:
    """The text's tokens; brackets nested too deeply are refused before anything recurses."""
    read, line, begins, depth = [], 1, 0, 0
    for found in _TOKEN.finditer(text):
        kind, lexeme = found.lastgroup, found.group()
        place = f"{line}:{found.start() - begins + 1}"
        if kind == "string":
            read.append(Token("string", _ESCAPE.sub(_unescape, lexeme[1:-1]), place))
        elif kind in ("name", "mark"):
            depth += (lexeme in "{[<(") - (lexeme in "}]>)")
            read.append(Token(str(kind), lexeme, place))
        elif kind == "other":
            raise InvalidPolicies(f"{file}:{place}: a character that no schema has")
        if depth > MAX_NESTING:
            raise InvalidPolicies(f"{file}:{place}: brackets nested more than {MAX_NESTING} deep")
        if "\n" in lexeme:
            line += lexeme.count("\n")
            begins = found.start() + lexeme.rindex("\n") + 1
    return [*read, Token("end", "end of file", f"{line}:{len(text) - begins + 1}")]


def read_text(text: str, file: str) -> RawSchema:
    """What a schema text declares, names not yet resolved."""
    reader = _Reader(tokens(text, file), file)
    reader.declarations("end")
    return reader.schema


class _Reader:
    """Recursive descent over the grammar; one method per production."""

    def __init__(self, read: list[Token], file: str) -> None:
        self.read = read
        self.at = 0
        self.namespace: Path = ()
        self.schema = RawSchema(file)

    @property
    def next(self) -> Token:
        return self.read[self.at]

    def take(self, *kinds: str) -> Token:
        token = self.next
        if token.kind not in kinds:
            raise self.schema.stumble(token.place, f"unexpected {token.text!r}")
        self.at += 1
        return token

    def skip(self, text: str) -> bool:
        if self.next.kind == "string" or self.next.text != text:
            return False
        self.at += 1
        return True

    def need(self, text: str) -> None:
        if not self.skip(text):
            raise self.schema.stumble(self.next.place, f"expected {text!r}, not {self.next.text!r}")

    def annotations(self) -> None:
        while self.skip("@"):
            self.take("name")
            if self.skip("("):
                self.take("string")
                self.need(")")

    def listed(self, one: Callable[[], _T], close: str) -> Iterator[_T]:
        while not self.skip(close):
            yield one()
            if not self.skip(","):
                self.need(close)
                return

    def declarations(self, until: str) -> None:
        while not (self.next.kind == "end" if until == "end" else self.skip(until)):
            self.annotations()
            word = self.take("name")
            if word.text == "namespace" and until == "end":
                self.namespace = self.path()
                self.need("{")
                self.declarations("}")
                self.namespace = ()
            elif word.text == "entity":
                self.entity()
            elif word.text == "action":
                self.action()
            elif word.text == "type":
                self.common_type()
            else:
                raise self.schema.stumble(word.place, f"unexpected {word.text!r}")

    def path(self) -> Path:
        parts = [self.take("name").text]
        while self.skip("::"):
            parts.append(self.take("name").text)
        return tuple(parts)

    def named(self) -> Named:
        place = self.next.place
        return Named(self.path(), self.namespace, place)

    def one_or_listed(self, one: Callable[[], _T]) -> list[_T]:
        return list(self.listed(one, "]")) if self.skip("[") else [one()]

    def type(self) -> Raw:
        if self.skip("{"):
            return self.record()
        name = self.named()
        if name.path == ("Set",) and self.skip("<"):
            element = self.type()
            self.need(">")
            return SetOf(element)
        return name

    def record(self) -> RecordOf:
        attributes: dict[str, tuple[Raw, bool]] = {}
        for name, place, attribute in self.listed(self.attribute, "}"):
            if name in attributes:
                raise self.schema.stumble(place, f"attribute {name!r} is declared twice")
            attributes[name] = attribute
        return RecordOf(attributes)

    def attribute(self) -> tuple[str, str, tuple[Raw, bool]]:
        self.annotations()
        token = self.take("name", "string")
        optional = self.skip("?")
        self.need(":")
        return token.text, token.place, (self.type(), not optional)

    def common_type(self) -> None:
        name = self.take("name")
        self.need("=")
        self.schema.add_type((*self.namespace, name.text), self.type(), name.place)
        self.need(";")

    def entity(self) -> None:
        names = [self.take("name")]
        while self.skip(","):
            names.append(self.take("name"))
        made = RawEntity(names[0].place)
        if self.skip("enum"):
            self.need("[")
            made.enum = tuple(self.listed(lambda: self.take("string").text, "]"))
        else:
            if self.skip("in"):
                made.parents = self.one_or_listed(self.named)
            if self.skip("=") or self.next.text == "{":
                self.need("{")
                made.shape = self.record()
            if self.skip("tags"):
                made.tags = self.type()
        self.need(";")
        for name in names:
            declared = RawEntity(name.place, made.shape, made.parents, made.tags, made.enum)
            self.schema.add_entity((*self.namespace, name.text), declared)

    def action(self) -> None:
        names = [self.take("name", "string")]
        while self.skip(","):
            names.append(self.take("name", "string"))
        made = RawAction(names[0].place, self.namespace)
        if self.skip("in"):
            made.groups = self.one_or_listed(self.group)
        if self.skip("appliesTo"):
            self.need("{")
            for part, value in self.listed(self.part, "}"):
                setattr(made, part, value)
        self.need(";")
        kind = "::".join((*self.namespace, "Action"))
        for name in names:
            self.schema.add_action(EntityUid(kind, name.text), made)

    def part(self) -> tuple[str, object]:
        word = self.take("name")
        self.need(":")
        if word.text in ("principal", "resource"):
            return f"{word.text}s", self.one_or_listed(self.named)
        if word.text == "context":
            return "context", self.type()
        raise self.schema.stumble(word.place, f"unexpected {word.text!r}")

    def group(self) -> tuple[Path | None, str]:
        if self.next.kind == "string":
            return None, self.take("string").text
        parts = [self.take("name").text]
        while self.skip("::"):
            if self.next.kind == "string":
                return tuple(parts), self.take("string").text
            parts.append(self.take("name").text)
        return None, "::".join(parts)

"""Reading Cedar's schema syntax into values (Cedar "Human readable schema syntax").

cedarpy has the last word on whether a schema is valid, and gives neither JSON nor lines; this
reader gives the declarations and, where it stumbles itself, the line. Names resolve as Cedar
resolves them: common types before entity types before built-in ones, the own namespace first.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, TypeVar

from chartgate.cedar.lex import MAX_NESTING, InvalidPolicies
from chartgate.cedar.schema import (
    Action,
    Attribute,
    EntityRef,
    EntityType,
    ExtensionType,
    PrimitiveType,
    RecordType,
    SetType,
    Type,
)
from chartgate.model.principal import EntityUid

_TOKEN: Final = re.compile(
    r'(?P<string>"(?:[^"\\]|\\.)*")|(?P<skip>//[^\n\r]*|\s+)'
    r"|(?P<name>[A-Za-z_][A-Za-z_0-9]*)|(?P<mark>::|[{}\[\]<>(),;:?=@])|(?P<other>.)",
    re.DOTALL,
)
_ESCAPE: Final = re.compile(r"\\(?:u\{([0-9A-Fa-f]{1,6})\}|x([0-9A-Fa-f]{2})|(.))", re.DOTALL)
_SHORT: Final = {"n": "\n", "r": "\r", "t": "\t", "0": "\0", "\\": "\\", '"': '"', "'": "'"}

_BUILTIN: Final[dict[str, Type]] = {
    "Bool": PrimitiveType("Bool"),
    "Long": PrimitiveType("Long"),
    "String": PrimitiveType("String"),
    "decimal": ExtensionType("decimal"),
    "ipaddr": ExtensionType("ipaddr"),
    "datetime": ExtensionType("datetime"),
    "duration": ExtensionType("duration"),
}

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of schema text; ``text`` of a string is its value."""

    kind: str
    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Declarations:
    """Everything a schema declares, resolved."""

    entities: dict[str, EntityType]
    actions: dict[EntityUid, Action]


def _unescape(found: re.Match[str]) -> str:
    code = found.group(1) or found.group(2)
    if code is None:
        return _SHORT.get(found.group(3), found.group(3))
    return chr(int(code, 16)) if int(code, 16) <= 0x10FFFF else found.group()


def tokens(text: str, file: str) -> list[Token]:
    """The text's tokens; brackets nested too deeply are refused before anything recurses."""
    read, line, depth = [], 1, 0
    for found in _TOKEN.finditer(text):
        kind, lexeme = found.lastgroup, found.group()
        if kind == "string":
            read.append(Token("string", _ESCAPE.sub(_unescape, lexeme[1:-1]), line))
        elif kind in ("name", "mark"):
            depth += (lexeme in "{[<(") - (lexeme in "}]>)")
            read.append(Token(str(kind), lexeme, line))
        elif kind == "other":
            raise InvalidPolicies(f"{file}:{line}: a character that no schema has")
        if depth > MAX_NESTING:
            raise InvalidPolicies(f"{file}:{line}: brackets nested more than {MAX_NESTING} deep")
        line += lexeme.count("\n")
    return [*read, Token("end", "end of file", line)]


@dataclass
class _Named:
    """A type still by name, with the place it was named at."""

    path: tuple[str, ...]
    namespace: tuple[str, ...]
    line: int


@dataclass
class _Entity:
    attributes: dict[str, tuple["_Raw", bool]]
    parents: list[_Named]
    tags: "_Raw | None"
    enum: tuple[str, ...] | None


@dataclass
class _Action:
    groups: list[tuple[tuple[str, ...] | None, str]]
    namespace: tuple[str, ...]
    principals: list[_Named] = field(default_factory=list)
    resources: list[_Named] = field(default_factory=list)
    context: "_Raw | None" = None


@dataclass
class _SetOf:
    element: "_Raw"


@dataclass
class _RecordOf:
    attributes: dict[str, tuple["_Raw", bool]]


_Raw = _Named | _SetOf | _RecordOf


class _Reader:
    """Recursive descent over the grammar; one method per production."""

    def __init__(self, read: list[Token], file: str) -> None:
        self.read = read
        self.file = file
        self.at = 0
        self.namespace: tuple[str, ...] = ()
        self.entities: dict[tuple[str, ...], _Entity] = {}
        self.types: dict[tuple[str, ...], _Raw] = {}
        self.actions: dict[EntityUid, _Action] = {}

    def stumble(self, line: int, reason: str) -> InvalidPolicies:
        return InvalidPolicies(f"{self.file}:{line}: {reason}")

    @property
    def next(self) -> Token:
        return self.read[self.at]

    def take(self, *kinds: str) -> Token:
        token = self.next
        if token.kind not in kinds:
            raise self.stumble(token.line, f"unexpected {token.text!r}")
        self.at += 1
        return token

    def skip(self, text: str) -> bool:
        if self.next.kind == "string" or self.next.text != text:
            return False
        self.at += 1
        return True

    def need(self, text: str) -> None:
        if not self.skip(text):
            raise self.stumble(self.next.line, f"expected {text!r}, not {self.next.text!r}")

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
                name = self.take("name").text
                self.need("=")
                self.types[(*self.namespace, name)] = self.type()
                self.need(";")
            else:
                raise self.stumble(word.line, f"unexpected {word.text!r}")

    def path(self) -> tuple[str, ...]:
        parts = [self.take("name").text]
        while self.skip("::"):
            parts.append(self.take("name").text)
        return tuple(parts)

    def named(self) -> _Named:
        line = self.next.line
        return _Named(self.path(), self.namespace, line)

    def one_or_listed(self, one: Callable[[], _T]) -> list[_T]:
        return list(self.listed(one, "]")) if self.skip("[") else [one()]

    def type(self) -> _Raw:
        if self.skip("{"):
            return _RecordOf(self.attributes())
        name = self.named()
        if name.path == ("Set",) and self.skip("<"):
            element = self.type()
            self.need(">")
            return _SetOf(element)
        return name

    def attributes(self) -> dict[str, tuple[_Raw, bool]]:
        return dict(self.listed(self.attribute, "}"))

    def attribute(self) -> tuple[str, tuple[_Raw, bool]]:
        self.annotations()
        name = self.take("name", "string").text
        optional = self.skip("?")
        self.need(":")
        return name, (self.type(), not optional)

    def entity(self) -> None:
        names = [self.take("name").text]
        while self.skip(","):
            names.append(self.take("name").text)
        made = _Entity({}, [], None, None)
        if self.skip("enum"):
            self.need("[")
            made.enum = tuple(self.listed(lambda: self.take("string").text, "]"))
        else:
            if self.skip("in"):
                made.parents = self.one_or_listed(self.named)
            if self.skip("=") or self.next.text == "{":
                self.need("{")
                made.attributes = self.attributes()
            if self.skip("tags"):
                made.tags = self.type()
        self.need(";")
        self.entities.update(((*self.namespace, name), made) for name in names)

    def action(self) -> None:
        names = [self.take("name", "string").text]
        while self.skip(","):
            names.append(self.take("name", "string").text)
        made = _Action([], self.namespace)
        if self.skip("in"):
            made.groups = self.one_or_listed(self.group)
        if self.skip("appliesTo"):
            self.need("{")
            for part, value in self.listed(self.part, "}"):
                setattr(made, part, value)
        self.need(";")
        kind = "::".join((*self.namespace, "Action"))
        self.actions.update((EntityUid(kind, name), made) for name in names)

    def part(self) -> tuple[str, object]:
        word = self.take("name")
        self.need(":")
        if word.text in ("principal", "resource"):
            return f"{word.text}s", self.one_or_listed(self.named)
        if word.text == "context":
            return "context", self.type()
        raise self.stumble(word.line, f"unexpected {word.text!r}")

    def group(self) -> tuple[tuple[str, ...] | None, str]:
        if self.next.kind == "string":
            return None, self.take("string").text
        parts = [self.take("name").text]
        while self.skip("::"):
            if self.next.kind == "string":
                return tuple(parts), self.take("string").text
            parts.append(self.take("name").text)
        return None, "::".join(parts)


class _Resolver:
    """Names to declarations."""

    def __init__(self, reader: _Reader) -> None:
        self.reader = reader
        self.resolving: list[tuple[str, ...]] = []

    def _spellings(self, name: _Named) -> list[tuple[str, ...]]:
        own = (*name.namespace, *name.path)
        return [own, name.path] if len(name.path) == 1 and name.namespace else [name.path]

    def entity(self, name: _Named) -> str:
        for path in self._spellings(name):
            if path in self.reader.entities or path[-1] == "Action":
                return "::".join(path)
        raise self.reader.stumble(name.line, f"no entity type {'::'.join(name.path)}")

    def type(self, raw: _Raw) -> Type:
        if isinstance(raw, _SetOf):
            return SetType(self.type(raw.element))
        if isinstance(raw, _RecordOf):
            return RecordType(self.attributes(raw.attributes))
        for path in self._spellings(raw):
            if path in self.reader.types:
                return self._common(path, raw.line)
            if path in self.reader.entities:
                return EntityRef("::".join(path))
        builtin = raw.path[1:] if raw.path[0] == "__cedar" else raw.path
        if len(builtin) == 1 and builtin[0] in _BUILTIN:
            return _BUILTIN[builtin[0]]
        raise self.reader.stumble(raw.line, f"no type {'::'.join(raw.path)}")

    def _common(self, path: tuple[str, ...], line: int) -> Type:
        if path in self.resolving:
            raise self.reader.stumble(line, f"type {'::'.join(path)} is made of itself")
        self.resolving.append(path)
        made = self.type(self.reader.types[path])
        self.resolving.pop()
        return made

    def attributes(self, raw: dict[str, tuple[_Raw, bool]]) -> Mapping[str, Attribute]:
        return MappingProxyType(
            {name: Attribute(self.type(kind), need) for name, (kind, need) in raw.items()}
        )

    def group(self, action: _Action, form: tuple[tuple[str, ...] | None, str]) -> EntityUid:
        path, uid = form
        own = "::".join((*action.namespace, "Action"))
        if path is None or path == ("Action",):
            local = EntityUid(own, uid)
            return local if local in self.reader.actions else EntityUid("Action", uid)
        return EntityUid("::".join(path), uid)


def read_declarations(text: str, file: str) -> Declarations:
    """The declarations of a schema text."""
    reader = _Reader(tokens(text, file), file)
    reader.declarations("end")
    resolver = _Resolver(reader)
    entities = {
        "::".join(path): EntityType(
            name="::".join(path),
            attributes=resolver.attributes(raw.attributes),
            parents=frozenset(map(resolver.entity, raw.parents)),
            tags=None if raw.tags is None else resolver.type(raw.tags),
            enum=raw.enum,
        )
        for path, raw in reader.entities.items()
    }
    actions = {}
    for uid, declared in reader.actions.items():
        context = RecordType({}) if declared.context is None else resolver.type(declared.context)
        if not isinstance(context, RecordType):
            raise InvalidPolicies(f"{file}:1: the context of action {uid.id} is not a record")
        actions[uid] = Action(
            uid=uid,
            principals=tuple(map(resolver.entity, declared.principals)),
            resources=tuple(map(resolver.entity, declared.resources)),
            context=context,
            parents=frozenset(resolver.group(declared, group) for group in declared.groups),
        )
    return Declarations(entities, actions)

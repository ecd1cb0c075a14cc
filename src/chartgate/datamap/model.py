"""The data map: what every table and column of one source *means*, as values.

A person confirms it; policy never mentions a table. SQL in a map is trusted text, approved as
policy is, written over ``this`` (the row's table) and ``{patient}`` (its patient key).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

KEY = "key"
"""Label of surrogate keys: they follow their row, and turn into pseudonyms for some people."""

UNLABELLED = "none"
"""Label of a column that nobody may see through the gate."""


@dataclass(frozen=True, slots=True)
class ColumnLabel:
    """A column's category and what stands in its place below full.

    ``summary`` and ``masked`` are SQL over ``this``; ``None`` = no such form, the cell drops to
    the next lower level. ``domain``, of a key: what it is a key of; keys of one domain get equal
    pseudonyms. ``None`` = as the source's foreign keys say.
    """

    category: str
    summary: str | None = None
    masked: str | None = None
    domain: str | None = None


@dataclass(frozen=True, slots=True)
class RowLabel:
    """An extra label on the rows for which ``when`` is not false (NULL counts as true)."""

    category: str
    when: str


@dataclass(frozen=True, slots=True)
class Relation:
    """A set-valued row attribute that lives in other tables; an EXISTS in SQL."""

    attribute: str
    type: str
    source: str
    where: str
    value: str

    @property
    def element_type(self) -> str:
        """The entity type of the members: ``User`` for ``Set<User>``."""
        return self.type.removeprefix("Set<").removesuffix(">")


@dataclass(frozen=True, slots=True)
class MappedTable:
    """One table: its row category, patient key, row attributes, row labels and columns.

    ``read_only``: nobody writes it through the gate, whatever policy allows; for what says who
    treats whom, which a person could otherwise give to herself. ``attribute_types``: what an
    attribute's SQL is, where the map says so (``date``).
    """

    name: str
    row_category: str
    columns: Mapping[str, ColumnLabel]
    patient: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    row_labels: tuple[RowLabel, ...] = ()
    read_only: bool = False
    attribute_types: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PatientTable:
    """Where patients live: their key, and the identifier that people type (perhaps the key)."""

    table: str
    key: str
    identifier: str


@dataclass(frozen=True, slots=True)
class DataMap:
    """The whole map of one source; ``hash`` is SHA-256 over its canonical content."""

    source: str
    title: str
    schema: str
    patient: PatientTable
    tables: Mapping[str, MappedTable]
    relations: Mapping[str, Relation]
    patient_labels: tuple[RowLabel, ...]
    hash: str

"""What each field of an application's object is: declared once, beside the field.

The rule kept: what is not labelled is withheld, and so is everything that could not be read. A cell's
labels are its field's, its row's, and (counted by the decision itself) its patient's; the lowest level
counts.

    @disclosed(
        patient="patient_id",
        row="labs",
        id=KEY,
        test="labs",
        value=Label("labs", summary=lambda value: "abnormal" if value > 7 else "normal"),
    )
    @dataclass
    class LabResult: ...
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from chartgate.sdk.errors import Misused
from chartgate.sdk.questions import Record

Form = Callable[[Any], Any]
_T = TypeVar("_T")
_ATTRIBUTE: Final = "__chartgate_labels__"


@dataclass(frozen=True, slots=True)
class OfObject:
    """A form that is made of the whole object instead of the field's value."""

    make: Form


def of_object(make: Form) -> OfObject:
    """A form made of the whole object: of a result its flag, of a note its date and kind."""
    return OfObject(make)


@dataclass(frozen=True, slots=True, init=False)
class Label:
    """The categories of a field, and what of it is shown at the lower levels.

    ``summary`` and ``masked`` make the form out of the value (or, with ``of_object``, out of the whole
    object; ``keep`` shows the value itself); a form that is missing drops to the
    next lower one, and below ``masked`` there is nothing. ``column``: its name in the data map
    (``table.column``), for questions that name fields so.
    """

    categories: tuple[str, ...]
    summary: Form | OfObject | None
    masked: Form | OfObject | None
    column: str

    def __init__(
        self,
        *categories: str,
        summary: Form | OfObject | None = None,
        masked: Form | OfObject | None = None,
        column: str = "",
    ) -> None:
        if not categories and not column:
            raise Misused("a label names a category, or the column of the data map")
        _named(categories)
        for name, value in (
            ("categories", categories),
            ("summary", summary),
            ("masked", masked),
            ("column", column),
        ):
            object.__setattr__(self, name, value)


@dataclass(frozen=True, slots=True)
class Public:
    """A field that says nothing of a patient; ``why`` is for whoever reviews the labels."""

    why: str

    def __post_init__(self) -> None:
        if not self.why.strip():
            raise Misused("say why a field is public")


@dataclass(frozen=True, slots=True)
class Key:
    """A surrogate key: shown with its row to whoever sees identifiers of ``category`` in full.

    The gate gives others a pseudonym of their session; an application has none to give, so that the
    key is withheld. Where nothing else of the row is shown the key is not either.
    """

    category: str = "record_ids"


KEY: Final = Key()


@dataclass(frozen=True, slots=True, init=False)
class Nested:
    """A field that holds objects with labels of their own, or a list of them."""

    categories: tuple[str, ...]
    labels: "Labels | None"

    def __init__(self, *categories: str, labels: "Labels | None" = None) -> None:
        _named(categories)
        object.__setattr__(self, "categories", categories)
        object.__setattr__(self, "labels", labels)


def keep(value: Any) -> Any:
    """The form that is the value itself."""
    return value


def nested(*categories: str, labels: "Labels | None" = None) -> Nested:
    """The field holds one object, or a list, with labels of their own.

    ``categories``: nothing in it is shown better than these. ``labels``: those of its dicts.
    """
    return Nested(*categories, labels=labels)


FieldLabel = Label | Public | Key | Nested
LabelLike = str | FieldLabel
RowLabels = Callable[[Any], Iterable[str]]


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of one kind of object."""

    fields: Mapping[str, FieldLabel]
    patient: str | Callable[[Any], object] | None = None
    """Field that holds the patient's key; a decision about somebody else then shows nothing."""
    row: tuple[str, ...] = ()
    """Categories of the row itself: where they are withheld the row does not exist for her."""
    also: RowLabels | None = field(default=None)
    """Further categories of this very object: ``sud_part2`` for a code of that kind."""

    @staticmethod
    def of(
        fields: Mapping[str, LabelLike],
        *,
        patient: str | Callable[[Any], object] | None = None,
        row: str | Iterable[str] = (),
        also: RowLabels | None = None,
    ) -> "Labels":
        """From fields and their labels, as they are written: a word is a category."""
        rows = (row,) if isinstance(row, str) else tuple(row)
        _named(rows)
        made = {
            name: Label(label) if isinstance(label, str) else label
            for name, label in fields.items()
        }
        for name, label in made.items():
            if not isinstance(label, FieldLabel):
                raise Misused(f"the label of {name} is a category, Label, KEY, Public or nested")
        return Labels(made, patient, rows, also)

    def categories(self) -> tuple[str, ...]:
        """All categories that the fields and the row have, each once."""
        found: dict[str, None] = dict.fromkeys(self.row)
        for label in self.fields.values():
            if isinstance(label, Label | Nested):
                found.update(dict.fromkeys(label.categories))
            if isinstance(label, Key):
                found[label.category] = None
            if isinstance(label, Nested) and label.labels is not None:
                found.update(dict.fromkeys(label.labels.categories()))
        return tuple(found)

    def essential(self) -> tuple[str, ...]:
        """What must be shown for the object to be anything: the row, else one of its fields."""
        if self.row:
            return self.row
        found: dict[str, None] = {}
        for label in self.fields.values():
            if isinstance(label, Label | Nested):
                found.update(dict.fromkeys(label.categories))
            if isinstance(label, Label) and label.column:
                found[label.column] = None
        return tuple(found)

    def columns(self) -> tuple[str, ...]:
        """The columns of the data map that the fields name."""
        named = (lb.column for lb in self.fields.values() if isinstance(lb, Label) and lb.column)
        return tuple(dict.fromkeys(named))

    def record(self, patient: str | int, *, also: Iterable[str] = ()) -> Record:
        """The question that answers for all of it: of this patient, every category it may have.

        ``also``: categories that rows may carry beside, those that the function ``also`` can answer.
        """
        categories = tuple(dict.fromkeys((*self.categories(), *also)))
        return Record(
            patient=patient,
            categories=categories,
            fields=self.columns(),
            essential=self.essential(),
        )


def disclosed(
    fields: Mapping[str, LabelLike] | None = None,
    /,
    *,
    patient: str | Callable[[Any], object] | None = None,
    row: str | Iterable[str] = (),
    also: RowLabels | None = None,
    **labels: LabelLike,
) -> Callable[[type[_T]], type[_T]]:
    """Declare what the fields of a class are: a dataclass, a pydantic model, an ORM entity.

    Fields with the name of an argument (``patient``, ``row``, ``also``) go into the mapping.
    """
    made = Labels.of({**(fields or {}), **labels}, patient=patient, row=row, also=also)

    def labelled(cls: type[_T]) -> type[_T]:
        setattr(cls, _ATTRIBUTE, made)
        return cls

    return labelled


def labels_of(thing: object) -> Labels | None:
    """The labels of an object or class, if it has any."""
    cls = thing if isinstance(thing, type) else type(thing)
    found = getattr(cls, _ATTRIBUTE, None)
    return found if isinstance(found, Labels) else None


def _named(categories: Iterable[str]) -> None:
    for name in categories:
        if not isinstance(name, str) or not name:
            raise Misused("a category is a word")

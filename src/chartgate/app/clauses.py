"""Citations of the rules that a policy serves: ``@clause("164.506(c); 42 CFR 2.13")``.

The rule kept: one spelling per citation, so that everything that serves a clause can be found by
it. Sections are of 45 CFR (parts 160, 162, 164) where no title is named, or of 42 CFR part 2.
"""

import re
from dataclasses import dataclass
from typing import Final

_CITATION: Final = re.compile(
    r"(?:(?P<title>4[25]) CFR )?(?:§ ?)?(?P<part>[0-9]{1,3})\.(?P<section>[0-9]{1,4})"
    r"(?P<paragraphs>(?:\([0-9A-Za-z]{1,5}\))*)\Z"
)
_PARAGRAPH: Final = re.compile(r"\(([^)]*)\)")
_PARTS: Final = {"45": frozenset({"160", "162", "164"}), "42": frozenset({"2"})}


@dataclass(frozen=True, slots=True)
class Citation:
    """A section and the paragraphs within it: 45, 164.506, ("c",)."""

    title: str
    section: str
    paragraphs: tuple[str, ...] = ()

    def __str__(self) -> str:
        title = "" if self.title == "45" else f"{self.title} CFR "
        return f"{title}{self.section}{''.join(f'({p})' for p in self.paragraphs)}"

    def is_within(self, wider: "Citation") -> bool:
        """Whether this is the wider citation or a paragraph of it."""
        depth = len(wider.paragraphs)
        return (
            self.title == wider.title
            and self.section == wider.section
            and self.paragraphs[:depth] == wider.paragraphs
        )


def parse_citation(text: str) -> Citation | None:
    """One citation; None for what is no section of the rules we know."""
    found = _CITATION.match(text.strip())
    if found is None:
        return None
    part = found["part"]
    title = found["title"] or ("42" if part in _PARTS["42"] else "45")
    if part not in _PARTS[title]:
        return None
    paragraphs = tuple(_PARAGRAPH.findall(found["paragraphs"]))
    return Citation(title, f"{part}.{found['section']}", paragraphs)


def citations(clause: str) -> tuple[tuple[Citation, ...], tuple[str, ...]]:
    """The citations of a ``@clause``, and the parts of it that are none."""
    known, unknown = [], []
    for part in (piece.strip() for piece in clause.split(";")):
        if part:
            found = parse_citation(part)
            if found is None:
                unknown.append(part)
            else:
                known.append(found)
    return tuple(known), tuple(unknown)

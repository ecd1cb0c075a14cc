"""How much of a cell a person sees: full > summary > masked > withheld (45 CFR 164.502(b))."""

from enum import IntEnum


class Disclosure(IntEnum):
    """Disclosure levels, ordered: a higher level includes the lower ones."""

    WITHHELD = 0
    MASKED = 1
    SUMMARY = 2
    FULL = 3

    @property
    def label(self) -> str:
        """The level as a word: ``withheld``, ``masked``, ``summary`` or ``full``."""
        return self.name.lower()


VIEW_ACTIONS: dict[Disclosure, str] = {
    Disclosure.MASKED: "view_masked",
    Disclosure.SUMMARY: "view_summary",
    Disclosure.FULL: "view",
}
"""The Cedar action that is decided for each level above withheld."""

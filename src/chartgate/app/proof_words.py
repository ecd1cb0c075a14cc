"""What exactly a proof is of, in words: over whom, over what, under which conditions."""

from typing import Final

from chartgate.app.invariants import Invariant

_FEW: Final = 6


def claimed(invariant: Invariant) -> str:
    """The claim that was decided, with everything it ranges over."""
    i = invariant
    match i.claim:
        case "never":
            return f"{_who(i)}, {_asking(i)}, is ever allowed {_what(i)}{_bounds(i, 'she')}."
        case "at_most":
            level = i.level.label if i.level is not None else ""
            return f"{_who(i)}, {_asking(i)}, ever sees {_labels(i)} better than {level}{_bounds(i, 'she')}."
        case "always":
            return (
                f"Everyone with an assignment {_of_roles(i)}{_beside(i)} is allowed "
                f"{_what(i)}{' and nothing else' if i.categories else ''}{_bounds(i, 'that assignment alone')}."
            )
        case "never_errors":
            return f"{_policies(i)} can be evaluated for every person, record and circumstance."
        case "not_vacuous":
            return f"{_policies(i)} holds for some request."
        case "not_shadowed":
            return f"{_policies(i)} decides some request: without it, the answer would be another."
        case "equivalent":
            return f"{_sides(i)} hold for exactly the same requests{_actions(i)}."
        case "implies":
            return f"Whenever one of {_sides(i)} holds, so does the next one{_actions(i)}."
        case "disjoint":
            return f"No request is one for which two of {_sides(i)} hold{_actions(i)}."


def _who(i: Invariant) -> str:
    if not i.roles:
        return "Nobody, whatever roles she holds"
    if i.held == "with_others":
        return f"Nobody {_of_roles(i)}, by that assignment, whatever other roles she holds"
    return f"Nobody whose assignments are all {_of_roles(i)}"


def _of_roles(i: Invariant) -> str:
    return f"of role {' or '.join(i.roles)}" if i.roles else "of any role"


def _beside(i: Invariant) -> str:
    if not i.roles or i.held == "with_others":
        return ", whatever other assignments she holds,"
    return ", who holds no other role,"


def _asking(i: Invariant) -> str:
    return "for whatever purpose and at whatever time"


def _what(i: Invariant) -> str:
    actions = " or ".join(i.actions) if i.actions else "any action"
    return f"{actions} on {_labels(i)}" if i.categories else actions


def _labels(i: Invariant) -> str:
    return f"a record labelled {' or '.join(i.categories)}" if i.categories else "any record"


def _bounds(i: Invariant, of: str) -> str:
    said = ""
    if i.when is not None:
        said += f", where the condition is true of {'her' if of == 'she' else of}"
    if i.unless is not None:
        said += f", unless the exception is true of {'her' if of == 'she' else of}"
    return said


def _policies(i: Invariant) -> str:
    if len(i.policies) > _FEW:
        return f"Each of the {len(i.policies)} policies named"
    return f"Each of {', '.join(i.policies)}" if i.policies else "Every policy"


def _sides(i: Invariant) -> str:
    return ", ".join(i.policies or (f"«{text.strip()}»" for text, _ in i.expressions))


def _actions(i: Invariant) -> str:
    return f", for {' or '.join(i.actions)}" if i.actions else ""

"""What Cedar's own analyser decides about policies, restated for ours.

The verdicts are those that the tests of ``cedar-policy-symcc`` (github.com/cedar-policy/cedar,
Apache-2.0, Copyright Cedar Contributors) expect: which relation holds between which policies. The
schemas, names and values here are our own. A refuted relation has been replayed by the reference
evaluator, and is replayed here by cedarpy.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cedarpy
import pytest

from chartgate.cedar.ast import Policy
from chartgate.cedar.evaluate import Env
from chartgate.cedar.parse import parse_policies, parse_schema, validate
from chartgate.cedar.schema import Schema
from chartgate.cedar.values import CedarSet, DateTime, Decimal, Duration, IpAddr, Value
from chartgate.model.principal import EntityUid
from chartgate.targets.smt.analysis import Analysis, Proved, Refuted
from chartgate.targets.smt.requests import RequestKind

SCHEMAS = {
    "charts": """
        entity Ward;
        entity Person { ward: Ward };
        entity Chart in Ward { owner: Person, title: String, sealed: Bool };
        action view appliesTo { principal: [Person], resource: [Chart], context: { word: String } };
    """,
    "groups": """
        entity P, R;
        action Outer, Other;
        action Inner in Outer;
        action view in Inner appliesTo { principal: [P], resource: [R] };
    """,
    "units": """
        entity Person in Person;
        entity Unit in Unit;
        action view appliesTo { principal: [Person], resource: [Unit], context: {
            text: String, a: Long, b: Long, c: Long, numbers: Set<Long>,
            unit: Unit, unit1: Unit, unit2: Unit, unit3: Unit,
            units: Set<Unit>, units1: Set<Unit>, units2: Set<Unit>
        } };
    """,
    "self": """
        entity N { words: Set<String> };
        action go appliesTo { principal: [N], resource: [N] };
    """,
    "boxes": """
        entity Ward;
        entity Person { ward: Ward };
        entity Chart, Box in [Box, Ward] { owner: Person, title: String, sealed: Bool };
        action view appliesTo {
            principal: [Person], resource: [Chart, Box], context: { word: String }
        };
    """,
    "large": """
        entity Nurse in Team { unit: String, grade: Long };
        entity Team, Head;
        entity Scan in [Clinic, Folder] { sealed: Bool, clinic: Clinic, admins: Set<Nurse> };
        entity Folder in [Clinic, Folder] { sealed: Bool, clinic: Clinic, admins: Set<Nurse> };
        entity Clinic { sealed: Bool, owner: Nurse, admins: Set<Nurse> };
        action view, comment appliesTo {
            principal: [Nurse], resource: [Scan], context: { known: Bool }
        };
        action add appliesTo { principal: [Nurse], resource: [Folder], context: {
            known: Bool, scan: { megabytes: Long, form: String }
        } };
    """,
    "scores": """
        entity Person { score: Long };
        entity File { score: Long };
        action go appliesTo { principal: [Person], resource: [File], context: { score: Long } };
    """,
    "rated": """
        entity Person { rate: decimal };
        entity File;
        action go appliesTo { principal: [Person], resource: [File] };
    """,
    "kinds": """
        entity P1, P2 in P2;
        entity R1, R2 in R2;
        action view, edit appliesTo { principal: [P1, P2], resource: [R1, R2] };
    """,
    "optional": """
        entity P;
        entity R = { note?: String };
        action view, drop appliesTo { principal: [P], resource: [R], context: { tag?: String } };
    """,
    "tagged": """
        entity Person tags Long;
        action talk appliesTo { principal: [Person], resource: [Person] };
    """,
    "meals": """
        entity Team;
        entity Person in [Team] { need: Long } tags Bool;
        entity Meal { least: Long };
        action eat appliesTo { principal: [Person], resource: [Meal], context: { need: Long } };
    """,
    "enums": """
        entity Kind enum ["plain", "chief", "guest"];
        entity Person enum ["Ann", "Ben"];
        entity Paper { owner: Person };
        action view appliesTo { principal: [Person], resource: [Paper], context: {
            kind: Kind, some: Set<Person>, others: Set<Person>
        } };
    """,
    "times": """
        entity P; entity R;
        action view appliesTo { principal: [P], resource: [R], context: {
            t: datetime, u: datetime, d: duration, e: duration
        } };
    """,
    "rates": """
        entity P; entity R;
        action view appliesTo { principal: [P], resource: [R], context: {
            x: decimal, y: decimal, z: decimal, all: Set<decimal>
        } };
    """,
    "nets": """
        entity P; entity R;
        action view appliesTo { principal: [P], resource: [R], context: {
            x: ipaddr, y: ipaddr, z: ipaddr
        } };
    """,
}
KINDS = {
    "charts": ("Person", "view", "Chart"),
    "groups": ("P", "view", "R"),
    "units": ("Person", "view", "Unit"),
    "self": ("N", "go", "N"),
    "boxes": ("Person", "view", "Box"),
    "large": ("Nurse", "add", "Folder"),
    "scores": ("Person", "go", "File"),
    "rated": ("Person", "go", "File"),
    "optional": ("P", "view", "R"),
    "tagged": ("Person", "talk", "Person"),
    "meals": ("Person", "eat", "Meal"),
    "enums": ("Person", "view", "Paper"),
    "times": ("P", "view", "R"),
    "rates": ("P", "view", "R"),
    "nets": ("P", "view", "R"),
}


def when(condition: str) -> str:
    return f"permit (principal, action, resource) when {{ {condition} }};"


def barred(condition: str) -> str:
    return f"forbid (principal, action, resource) when {{ {condition} }};"


ALL = "permit (principal, action, resource);"
NONE = ""
FORBID_ALL = "forbid (principal, action, resource);"


@dataclass(frozen=True)
class Case:
    """A question about one or two policy sets, and Cedar's verdict."""

    schema: str
    question: str
    sets: tuple[str, ...]
    holds: bool
    kind: tuple[str, str, str] | None = None

    def __str__(self) -> str:
        return f"{self.schema}-{self.question}-{'yes' if self.holds else 'no'}"


def yes(schema: str, question: str, *sets: str) -> Case:
    return Case(schema, question, sets, True)


def no(schema: str, question: str, *sets: str) -> Case:
    return Case(schema, question, sets, False)


ALLOWS, DENIES, ERRS_NEVER = "always_allows", "always_denies", "never_errors"
SAME, IMPLIES, APART = "equivalent", "implies", "disjoint"

_VACUOUS = (
    when('context.word != "x" && context.word like "x"'),
    when("{ one: true } has two"),
    barred('resource in Ward::"north"'),
    when(
        "if resource.owner == principal then principal != resource.owner else !(context has word)"
    ),
    when("principal == resource"),
)
_ALIVE = (
    when('context.word != "x"'),
    when("context.word == resource.title"),
    'permit (principal, action == Action::"view", resource in Ward::"north");',
)
_NOT_X, _NOT_XY = when('context.word != "x"'), when('context.word != "x" && context.word != "y"')
_XY_LESS = (
    when('context.word like "x*"')
    + when('context.word like "y*"')
    + barred('context.word like "yz*"')
)
_XY_PARTS = when('context.word like "xy*"') + when('context.word like "yw*"')
_ANN = 'permit (principal == Person::"Ann", action, resource);'
_RED = 'permit (principal, action, resource == Chart::"red");'
_ANN_RED = 'permit (principal == Person::"Ann", action, resource == Chart::"red");'
_NORTH = 'permit (principal, action, resource in Ward::"north");'
_GLOBS = {
    "x*": when('context.word like "x*"'),
    "x**": when('context.word like "x**"'),
    "xx*": when('context.word like "xx*"'),
    "x?*": when('context.word != "x" && context.word like "x*"'),
    "*x": when('context.word like "*x"'),
    "*y": when('context.word like "*y"'),
}
_OVERRULED = when('context.word like "xx*"') + barred('context.word like "x*"')
_OVERRULED_IN = (
    'permit (principal == Person::"Ann", action, resource == Chart::"red")'
    ' when { !(resource in Person::"Ann".ward) };'
) + barred("!(resource in principal.ward)")
_X_NOT_XX = when('context.word like "x*"') + barred('context.word like "xx*"')
_Y_NOT_YY = when('context.word like "*y"') + barred('context.word like "*yy"')
_TWO = when('context.word like "x*"') + when('context.word like "y*"')
_ANN_MIX = (
    when('context.word like "x*"')
    + when('context.word like "y*"')
    + _ANN_RED
    + 'forbid (principal, action, resource == Chart::"red") when { context.word like "y*" };'
)
_ANN_MIX_TURNED = (
    _ANN_RED
    + 'forbid (principal, action, resource == Chart::"red") when { context.word like "y*" };'
    + when('context.word like "y*"')
    + when('context.word like "x*"')
)

CHARTS = [
    # one permit of everything
    yes("charts", ERRS_NEVER, ALL),
    yes("charts", ALLOWS, ALL),
    no("charts", DENIES, ALL),
    yes("charts", SAME, ALL, ALL),
    no("charts", APART, ALL, ALL),
    yes("charts", IMPLIES, ALL, ALL),
    # policies that hold for no request, and policies that hold for some
    yes("charts", DENIES, NONE),
    yes("charts", DENIES, FORBID_ALL),
    *(
        case
        for text in _VACUOUS
        for case in (
            no("charts", ALLOWS, text),
            yes("charts", DENIES, text),
            yes("charts", SAME, text, NONE),
            yes("charts", SAME, text, FORBID_ALL),
            yes("charts", IMPLIES, text, NONE),
            yes("charts", IMPLIES, text, FORBID_ALL),
        )
    ),
    *(
        case
        for text in _ALIVE
        for case in (
            no("charts", ALLOWS, text),
            no("charts", DENIES, text),
            no("charts", SAME, text, NONE),
        )
    ),
    # a permit, and one that asks for more
    no("charts", ALLOWS, _NOT_XY),
    yes("charts", SAME, _NOT_X, _NOT_X),
    no("charts", SAME, _NOT_X, _NOT_XY),
    no("charts", SAME, _NOT_X, ALL),
    no("charts", IMPLIES, _NOT_X, _NOT_XY),
    yes("charts", IMPLIES, _NOT_XY, _NOT_X),
    no("charts", IMPLIES, _NOT_X, NONE),
    yes("charts", IMPLIES, NONE, _NOT_X),
    yes("charts", IMPLIES, _NOT_X, ALL),
    no("charts", IMPLIES, ALL, _NOT_X),
    no("charts", APART, _NOT_X, _NOT_XY),
    yes("charts", APART, _NOT_X, NONE),
    # several policies
    no("charts", ALLOWS, _XY_LESS),
    no("charts", DENIES, _XY_LESS),
    yes("charts", SAME, _XY_LESS, _XY_LESS),
    no("charts", SAME, _XY_LESS, _XY_PARTS),
    no("charts", APART, _XY_LESS, _XY_PARTS),
    no("charts", IMPLIES, _XY_LESS, _XY_PARTS),
    yes("charts", IMPLIES, _XY_PARTS, _XY_LESS),
    no("charts", IMPLIES, ALL, _XY_LESS),
    # scopes
    yes("charts", IMPLIES, _ANN_RED, _ANN),
    yes("charts", IMPLIES, _ANN_RED, _RED),
    no("charts", IMPLIES, _ANN, _RED),
    no("charts", IMPLIES, _ANN, _ANN_RED),
    no("charts", IMPLIES, _ANN, _NORTH),
    no("charts", IMPLIES, _RED, _NORTH),
    no("charts", IMPLIES, _NORTH, _RED),
    # like
    yes("charts", SAME, _GLOBS["x*"], _GLOBS["x**"]),
    no("charts", SAME, _GLOBS["x*"], _GLOBS["xx*"]),
    no("charts", SAME, _GLOBS["x*"], _GLOBS["x?*"]),
    no("charts", SAME, _GLOBS["x*"], _GLOBS["*x"]),
    yes("charts", IMPLIES, _GLOBS["xx*"], _GLOBS["x*"]),
    yes("charts", IMPLIES, _GLOBS["x?*"], _GLOBS["x*"]),
    yes("charts", IMPLIES, _GLOBS["xx*"], _GLOBS["x?*"]),
    no("charts", IMPLIES, _GLOBS["x?*"], _GLOBS["xx*"]),
    no("charts", IMPLIES, _GLOBS["x*"], _GLOBS["*x"]),
    no("charts", IMPLIES, _GLOBS["*x"], _GLOBS["x*"]),
    no("charts", APART, _GLOBS["x*"], _GLOBS["xx*"]),
    yes("charts", APART, _GLOBS["*x"], _GLOBS["*y"]),
    yes("charts", DENIES, when('context.word like "*x" && context.word like "*y"')),
    yes("charts", DENIES, when('context.word != "x*Yz" && context.word like "x\\*Yz"')),
    # a forbid over a permit
    yes("charts", DENIES, _OVERRULED),
    yes("charts", SAME, _OVERRULED, NONE),
    yes("charts", DENIES, _OVERRULED_IN),
    yes("charts", SAME, _OVERRULED_IN, NONE),
    no("charts", DENIES, _X_NOT_XX),
    no("charts", DENIES, _Y_NOT_YY),
    no("charts", SAME, _X_NOT_XX, NONE),
    no("charts", SAME, _X_NOT_XX, _GLOBS["x*"]),
    yes("charts", IMPLIES, NONE, _X_NOT_XX),
    yes("charts", IMPLIES, _X_NOT_XX, _GLOBS["x*"]),
    no("charts", APART, _X_NOT_XX, _Y_NOT_YY),
    yes("charts", APART, _X_NOT_XX, when('context.word like "xxx*"')),
    no(
        "charts",
        SAME,
        _TWO + barred('context.word like "yy*"'),
        _TWO + barred('context.word like "yyy*"'),
    ),
    yes(
        "charts",
        IMPLIES,
        _TWO + barred('context.word like "yy*"'),
        _TWO + barred('context.word like "yyy*"'),
    ),
    # said otherwise
    yes(
        "charts",
        SAME,
        _GLOBS["x*"],
        'permit (principal, action == Action::"view", resource) when { context.word like "x*" };',
    ),
    yes("charts", SAME, _ANN_MIX, _ANN_MIX_TURNED),
    yes("charts", IMPLIES, _TWO, _TWO + when('context.word like "*end"')),
    yes("charts", IMPLIES, _TWO + barred('context.word like "*end"'), _TWO),
    no("charts", SAME, _TWO, _TWO + when('context.word like "*end"')),
    no("charts", SAME, _TWO, _TWO + barred('context.word like "*end"')),
    yes(
        "charts",
        SAME,
        when(
            'principal == resource.owner || ((context.word like "*.txt" || context.word like'
            ' "*.pdf") && !resource.sealed)'
        ),
        when("principal == resource.owner")
        + "permit (principal, action, resource) when { context.word like"
        ' "*.txt" || context.word like "*.pdf" } unless { resource.sealed };',
    ),
]

_CHAIN = "context.unit1 in context.unit2 && context.unit2 in context.unit3"
HIERARCHIES = [
    yes("groups", ALLOWS, when('Action::"view" in Action::"Outer"')),
    yes("groups", DENIES, when('Action::"view" in Action::"Other"')),
    no("self", ALLOWS, when('true && (N::"" in [resource, resource, principal])')),
    no("self", DENIES, when('true && (N::"" in [resource, resource, principal])')),
    no("self", ALLOWS, when('[N::"A".words].containsAll([N::"B".words])')),
    no("self", DENIES, when('[N::"A".words].containsAll([N::"B".words])')),
    no("self", ALLOWS, when('[N::"A".words].containsAny([N::"B".words])')),
    no("self", DENIES, when('[N::"A".words].containsAny([N::"B".words])')),
    no("boxes", IMPLIES, _ANN, _RED),
    no(
        "large",
        ALLOWS,
        'permit (principal, action == Action::"add", resource in Clinic::"east") when {'
        ' (["DICOM", "TIFF"].contains(context.scan.form) && context.scan.megabytes <= 1) ||'
        ' (context.scan.form == "RAW" && context.scan.megabytes <= 100 &&'
        ' principal in Team::"imaging") };',
    ),
    no(
        "large",
        DENIES,
        'permit (principal, action == Action::"add", resource in Clinic::"east") when {'
        ' (["DICOM", "TIFF"].contains(context.scan.form) && context.scan.megabytes <= 1) ||'
        ' (context.scan.form == "RAW" && context.scan.megabytes <= 100 &&'
        ' principal in Team::"imaging") };',
    ),
    yes(
        "units",
        DENIES,
        'permit (principal == Person::"Ben", action, resource in Unit::"one") when {'
        f" {_CHAIN} && !(context.unit1 in context.unit3) }};",
    ),
    yes("units", ALLOWS, when(f"if {_CHAIN} then context.unit1 in context.unit3 else 1 < 2")),
    yes(
        "units",
        DENIES,
        when(
            "context.unit1 in context.unit2 && context.unit2 in context.units &&"
            " !(context.unit1 in context.units)"
        ),
    ),
    yes(
        "units",
        ALLOWS,
        when("!context.units.contains(context.unit1) || context.unit1 in context.units"),
    ),
    yes(
        "units",
        IMPLIES,
        'permit (principal, action, resource == Unit::"one");',
        'permit (principal, action, resource in Unit::"one");',
    ),
    no(
        "units",
        IMPLIES,
        'permit (principal, action, resource in Unit::"one");',
        'permit (principal, action, resource == Unit::"one");',
    ),
    yes(
        "units",
        ALLOWS,
        when("context.unit in context.units2")
        + when("!(context.units2.containsAll(context.units1) && context.unit in context.units1)"),
    ),
    yes(
        "units",
        ALLOWS,
        when("context.units1.containsAny(context.units2)")
        + when("!(context.units1.contains(context.unit) && context.units2.contains(context.unit))"),
    ),
    yes(
        "units",
        ALLOWS,
        when(
            "!(context.a == 1 && context.b == 2 && context.c == 3 && context.numbers =="
            " [context.a, context.b, context.c, 3, 2, 1, context.b])"
        )
        + when("context.numbers == [1, 2, 3]"),
    ),
    no("units", ALLOWS, when('principal == Person::"\\""')),
]

_BOUNDED = barred(
    "principal.score < -10000 || resource.score < -10000 || principal.score > 10000 ||"
    " resource.score > 10000"
)
_MAX, _MIN = 'decimal("922337203685477.5807")', 'decimal("-922337203685477.5808")'
_EPOCH = 'datetime("1970-01-01")'
_LATEST, _EARLIEST = (
    'duration("9223372036854775807ms")',
    'duration("-9223372036854775808ms")',
)


def defined(expression: str) -> str:
    """Equal to itself: true where the expression has a value, an error elsewhere."""
    return f"{expression} == {expression}"


NUMBERS = [
    yes(
        "scores",
        SAME,
        when("principal.score > 4") + _BOUNDED,
        when("principal.score + 2 > 6") + _BOUNDED,
    ),
    yes(
        "scores",
        APART,
        when("principal.score > resource.score"),
        when("resource.score > principal.score"),
    ),
    yes(
        "scores",
        DENIES,
        when(f"{' + '.join(['principal.score'] * 4)} != principal.score * 4"),
    ),
    yes(
        "scores",
        SAME,
        when("principal.score + resource.score - (2 * resource.score) > context.score + 234")
        + _BOUNDED,
        when("principal.score - resource.score - 234 > context.score") + _BOUNDED,
    ),
    no("scores", IMPLIES, when("principal.score < 0"), when("principal.score - 2 < 0")),
    no("scores", IMPLIES, when("principal.score - 2 < 0"), when("principal.score < 0")),
    yes(
        "scores",
        SAME,
        when("principal.score == -resource.score"),
        when("resource.score == -principal.score"),
    ),
    yes("scores", DENIES, when("principal.score != 0 && principal.score == -principal.score")),
    yes(
        "rated",
        DENIES,
        when(
            'principal.rate.lessThan(decimal("2.5")) && principal.rate.greaterThan(decimal("2.5"))'
        ),
    ),
    yes(
        "rated",
        SAME,
        when(
            'principal.rate.lessThanOrEqual(decimal("2.5")) &&'
            ' principal.rate.greaterThanOrEqual(decimal("2.5"))'
        ),
        when('principal.rate == decimal("2.5000")'),
    ),
    no(
        "rated",
        SAME,
        when('principal.rate == decimal("2.5")'),
        when('principal.rate.lessThanOrEqual(decimal("2.5"))'),
    ),
    yes(
        "rated",
        IMPLIES,
        when('principal.rate == decimal("2.5")'),
        when('principal.rate.lessThanOrEqual(decimal("2.5"))'),
    ),
    no(
        "rated",
        APART,
        when('principal.rate.lessThanOrEqual(decimal("4.5"))'),
        when('principal.rate.greaterThanOrEqual(decimal("4.5"))'),
    ),
    yes(
        "rated",
        APART,
        when('principal.rate == decimal("2.5")'),
        when('principal.rate.greaterThanOrEqual(decimal("4.5"))'),
    ),
    yes("rates", SAME, ALL, when(f"context.x.lessThanOrEqual({_MAX})")),
    yes("rates", SAME, ALL, when(f"{_MAX}.greaterThanOrEqual(context.x)")),
    yes("rates", SAME, ALL, when(f"context.x.greaterThanOrEqual({_MIN})")),
    yes("rates", SAME, ALL, when(f"{_MIN}.lessThanOrEqual(context.x)")),
    yes("rates", IMPLIES, when(f"context.x != {_MAX}"), when(f"context.x.lessThan({_MAX})")),
    yes("rates", IMPLIES, when(f"context.x != {_MIN}"), when(f"context.x.greaterThan({_MIN})")),
    yes(
        "rates",
        IMPLIES,
        when("context.x.lessThan(context.y)"),
        when("context.y.greaterThan(context.x)"),
    ),
    yes(
        "rates",
        IMPLIES,
        when("context.x.lessThanOrEqual(context.y)"),
        when("context.y.greaterThanOrEqual(context.x)"),
    ),
    yes(
        "rates",
        IMPLIES,
        when("context.x.lessThanOrEqual(context.y) && context.y.lessThanOrEqual(context.x)"),
        when("context.x == context.y"),
    ),
    yes(
        "rates",
        IMPLIES,
        when("context.x.lessThan(context.y) && context.y.lessThan(context.z)"),
        when("context.z.greaterThan(context.x)"),
    ),
    no(
        "rates",
        IMPLIES,
        when("context.z.greaterThan(context.x)"),
        when("context.x.lessThan(context.y) && context.y.lessThan(context.z)"),
    ),
    no("rates", IMPLIES, when(f"context.x.lessThanOrEqual({_MIN})"), when(f"context.x != {_MIN}")),
    no(
        "rates",
        IMPLIES,
        when(f"context.x.greaterThanOrEqual({_MAX})"),
        when(f"context.x != {_MAX}"),
    ),
    no("rates", ALLOWS, when("!context.all.isEmpty()")),
    *(
        case
        for bound, end in ((">=", _LATEST), ("<=", _EARLIEST))
        for case in (
            yes(
                "times",
                IMPLIES,
                when(f"context.t {bound} {_EPOCH} && {defined(f'context.t.offset({end})')}"),
                when(f"context.t == {_EPOCH}"),
            ),
            no(
                "times",
                IMPLIES,
                when(f"context.t {bound} {_EPOCH} && {defined(f'context.t.offset({end})')}"),
                when(f"context.t != {_EPOCH}"),
            ),
        )
    ),
    no(
        "times",
        ALLOWS,
        when(
            "context.t.offset(context.d).offset(context.e) =="
            " context.t.offset(context.e).offset(context.d)"
        ),
    ),
    yes(
        "times",
        IMPLIES,
        when(
            f"{defined('context.t.offset(context.d).offset(context.e)')} &&"
            f" {defined('context.t.offset(context.e).offset(context.d)')}"
        ),
        when(
            "context.t.offset(context.d).offset(context.e) =="
            " context.t.offset(context.e).offset(context.d)"
        ),
    ),
    no(
        "times",
        IMPLIES,
        when("context.t >= context.u"),
        when('context.t.durationSince(context.u) >= duration("0ms")'),
    ),
    yes(
        "times",
        IMPLIES,
        when(f"context.t >= context.u && context.u >= {_EPOCH}"),
        when('context.t.durationSince(context.u) >= duration("0ms")'),
    ),
    yes(
        "times",
        IMPLIES,
        when(
            'context.t == datetime("2026-11-22") || context.t == datetime("1999-12-31") ||'
            f" context.t == {_EPOCH}"
        ),
        when("context.t.toDate() == context.t"),
    ),
    yes("times", ALLOWS, when('context.t.toTime() >= duration("0ms")')),
]

_WITHIN = "context.x.isInRange(context.y) && context.y.isInRange(context.x)"
NETS = [
    yes(
        "nets",
        ALLOWS,
        when(
            'ip("10.1.0.9").isInRange(ip("10.1.0.1/24")) && ip("10.1.0.9").isInRange(ip("10.1.0.1/28"))'
            ' && !ip("10.1.0.75").isInRange(ip("10.1.0.1/28"))'
            ' && !ip("10.1.1.1/16").isInRange(ip("10.1.1.1/24"))'
            ' && ip("10.1.1.1/25").isInRange(ip("10.1.1.1/24"))'
            ' && ip("1:2:3:4::").isInRange(ip("1:2:3:4::/48"))'
            ' && !ip("10.1.0.1").isInRange(ip("1:2:3:4::"))'
            ' && !ip("127.0.0.1").isMulticast() && ip("ff00::2").isMulticast()'
            ' && ip("127.0.0.2").isLoopback() && ip("::1").isLoopback() && !ip("::2").isLoopback()'
            ' && !ip("127.0.0.1/24").isIpv6() && ip("ffee::/64").isIpv6() && ip("::1").isIpv6()'
            ' && ip("127.0.0.1").isIpv4() && !ip("::1").isIpv4() && ip("127.0.0.1/24").isIpv4()'
        ),
    ),
    yes(
        "nets",
        IMPLIES,
        when("context.x.isInRange(context.y) && context.y.isInRange(context.z)"),
        when("context.x.isInRange(context.z)"),
    ),
    yes("nets", ALLOWS, when("context.x.isInRange(context.x)")),
    yes(
        "nets",
        IMPLIES,
        when(_WITHIN),
        when(
            "context.x.isMulticast() == context.y.isMulticast() &&"
            " context.x.isLoopback() == context.y.isLoopback() &&"
            " context.x.isIpv4() == context.y.isIpv4() && context.x.isIpv6() == context.y.isIpv6()"
        ),
    ),
    no("nets", IMPLIES, when(f"{_WITHIN} && context.x.isIpv4()"), when("context.x == context.y")),
    no("nets", IMPLIES, when(f"{_WITHIN} && context.x.isIpv6()"), when("context.x == context.y")),
    *(
        no("nets", IMPLIES, when(f"context.x.{what}() && context.x.{version}()"), when("false"))
        for what in ("isMulticast", "isLoopback")
        for version in ("isIpv4", "isIpv6")
    ),
    yes("nets", DENIES, when("context.x.isIpv4() && context.x.isIpv6()")),
    yes("nets", ALLOWS, when("context.x.isIpv4() || context.x.isIpv6()")),
]

_EATS = "context.need >= resource.least"
_NOT_ANN = 'forbid (principal == Person::"Ann", action == Action::"eat", resource);'
EXAMPLES = [
    yes(
        "optional",
        ERRS_NEVER,
        'permit (principal, action in [Action::"view"], resource) when { context has tag &&'
        ' ["aa"].contains(context.tag) && resource has note && ["bb"].contains(resource.note) };',
    ),
    yes(
        "optional",
        ALLOWS,
        ALL + 'permit (principal, action in [Action::"drop"], resource);',
    ),
    no(
        "tagged",
        ALLOWS,
        when(
            'principal.hasTag("a") && principal.hasTag("b") && principal.getTag("a") +'
            ' principal.getTag("b") == principal.getTag("b") + principal.getTag("a")'
        ),
    ),
    no("meals", DENIES, when(_EATS) + _NOT_ANN),
    no(
        "meals",
        DENIES,
        f'permit (principal in Team::"cooks", action, resource) when {{ {_EATS} }};' + _NOT_ANN,
    ),
    no(
        "meals",
        DENIES,
        when(
            'principal.need >= resource.least && principal.hasTag("eats") &&'
            ' principal.getTag("eats")'
        ),
    ),
    no(
        "meals",
        DENIES,
        f'permit (principal in Team::"cooks", action, resource) when {{ {_EATS} &&'
        ' principal != Person::"Ann" && !(Person::"Ann" in Team::"cooks") };' + _NOT_ANN,
    ),
    no("meals", DENIES, ALL),
    no("enums", DENIES, ALL),
    no("enums", DENIES, 'permit (principal == Person::"Ben", action, resource);'),
    no(
        "enums",
        DENIES,
        when('resource.owner == principal && context.kind == Kind::"chief"'),
    ),
    yes(
        "enums",
        ALLOWS,
        when(
            'Kind::"plain" != Kind::"chief" && Kind::"guest" != Kind::"plain" &&'
            ' Kind::"chief" != Kind::"guest"'
        ),
    ),
    yes(
        "enums",
        ALLOWS,
        when(
            'context.kind == Kind::"chief" || context.kind == Kind::"plain" ||'
            ' context.kind == Kind::"guest"'
        ),
    ),
    yes(
        "enums",
        IMPLIES,
        when(
            " && ".join(
                f'context.{name}.contains(Person::"{one}")'
                for name in ("some", "others")
                for one in ("Ann", "Ben")
            )
        ),
        when("context.some == context.others"),
    ),
]


def _by_kind(text: str, verdicts: Mapping[str, str]) -> list[Case]:
    """One policy set for every kind of request: a(llows all), d(enies all), s(ome)."""
    found = []
    for names, verdict in verdicts.items():
        for name in names.split():
            principal, action, resource = name.split("-")
            kind = (principal, action, resource)
            found += [
                Case("kinds", ALLOWS, (text,), verdict == "a", kind),
                Case("kinds", DENIES, (text,), verdict == "d", kind),
            ]
    return found


SHORT_CIRCUITS = [
    *_by_kind(
        'permit (principal == P1::"A", action, resource);',
        {
            "P1-view-R1 P1-edit-R1 P1-view-R2 P1-edit-R2": "s",
            "P2-view-R1 P2-edit-R1 P2-view-R2 P2-edit-R2": "d",
        },
    ),
    *_by_kind(
        'permit (principal, action == Action::"edit", resource is R2);',
        {
            "P1-view-R1 P1-edit-R1 P2-view-R1 P2-edit-R1 P1-view-R2 P2-view-R2": "d",
            "P1-edit-R2 P2-edit-R2": "a",
        },
    ),
    *_by_kind(
        when('principal is P2 || resource == R1::"A"'),
        {
            "P2-view-R1 P2-edit-R1 P2-view-R2 P2-edit-R2": "a",
            "P1-view-R1 P1-edit-R1": "s",
            "P1-view-R2 P1-edit-R2": "d",
        },
    ),
    *_by_kind(
        when('(principal is P1 && resource is R1) || (principal is P2 && resource in R2::"A")'),
        {
            "P1-view-R1 P1-edit-R1": "a",
            "P2-view-R2 P2-edit-R2": "s",
            "P1-view-R2 P1-edit-R2": "d",
        },
    ),
]

CASES = [*CHARTS, *HIERARCHIES, *NUMBERS, *NETS, *EXAMPLES, *SHORT_CIRCUITS]


@pytest.fixture(scope="module")
def schemas() -> dict[str, Schema]:
    return {name: parse_schema(text, name) for name, text in SCHEMAS.items()}


def _policies(text: str, schema: Schema) -> tuple[Policy, ...]:
    if not text:
        return ()
    found = parse_policies({"case": text}, ids="order")
    validate(found, schema)
    return found.policies


def test_there_are_as_many_verdicts_as_were_restated() -> None:
    assert len(CASES) == 254


@pytest.mark.parametrize("case", CASES, ids=[f"{n}-{case}" for n, case in enumerate(CASES)])
def test_our_verdict_is_cedars(case: Case, schemas: dict[str, Schema]) -> None:
    schema = schemas[case.schema]
    principal, action, resource = case.kind or KINDS[case.schema]
    analysis = Analysis(schema, RequestKind(principal, EntityUid("Action", action), resource))
    sets = [_policies(text, schema) for text in case.sets]
    if case.question == ERRS_NEVER:
        verdict = analysis.never_errors(sets[0][0])
    else:
        verdict = getattr(analysis, case.question)(*sets)
    assert isinstance(verdict, Proved if case.holds else Refuted), verdict
    if isinstance(verdict, Refuted):
        allowed = [_cedarpy(text, verdict.request, schema) for text in case.sets]
        assert _breaks(case.question, allowed)


def _breaks(question: str, allowed: Sequence[bool]) -> bool:
    """Whether answers of Cedar's own engine show that the relation does not hold."""
    match question:
        case "always_allows":
            return not allowed[0]
        case "always_denies":
            return allowed[0]
        case "equivalent":
            return allowed[0] is not allowed[1]
        case "implies":
            return allowed[0] and not allowed[1]
    return all(allowed)


def _cedarpy(text: str, env: Env, schema: Schema) -> bool:
    """The decision of cedarpy, which also holds the entities against the schema."""
    store = env.entities
    entities = [
        {
            "uid": {"type": uid.type, "id": uid.id},
            "attrs": {name: _json(value) for name, value in entity.attrs.items()},
            "tags": {name: _json(value) for name, value in entity.tags.items()},
            "parents": [{"type": p.type, "id": p.id} for p in sorted(entity.parents)],
        }
        for uid, entity in sorted(store._own.items())
        if uid.type != "Action"
    ]
    request = {
        "principal": str(env.principal),
        "action": str(env.action),
        "resource": str(env.resource),
        "context": {name: _json(value) for name, value in env.context.items()},
    }
    answer = cedarpy.is_authorized(request, text, json.dumps(entities), schema=schema.text)
    return answer.allowed


def _json(value: Value) -> object:
    match value:
        case EntityUid(kind, name):
            return {"__entity": {"type": kind, "id": name}}
        case CedarSet():
            return [_json(item) for item in value]
        case Decimal(units):
            sign, whole = "-" if units < 0 else "", abs(units)
            return _extension("decimal", f"{sign}{whole // 10_000}.{whole % 10_000:04}")
        case DateTime(ms):
            # As an offset: a calendar does not reach as far as 64 bits of milliseconds.
            return {
                "__extn": {
                    "fn": "offset",
                    "args": [
                        _extension("datetime", "1970-01-01"),
                        _extension("duration", f"{ms}ms"),
                    ],
                }
            }
        case Duration(ms):
            return _extension("duration", f"{ms}ms")
        case IpAddr(version, address, prefix):
            if version == 4:
                text = ".".join(str(byte) for byte in address.to_bytes(4, "big"))
            else:
                text = ":".join(f"{address >> shift & 0xFFFF:x}" for shift in range(112, -1, -16))
            return _extension("ip", f"{text}/{prefix}")
        case Mapping():
            return {name: _json(item) for name, item in value.items()}
    return value


def _extension(function: str, text: str) -> object:
    return {"__extn": {"fn": function, "arg": text}}

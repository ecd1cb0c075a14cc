"""What a replay found, gathered: counts that add up, one row for columns that change alike."""

from datetime import UTC, datetime, timedelta

from chartgate.app.replay import Apart, Change, Flip, Outcome, Recorded, Tally
from chartgate.app.replay_report import replay
from chartgate.model.principal import Assignment, Person

START = datetime(2026, 3, 2, 9, tzinfo=UTC)


def tally(uid: str, statements: int, *, role: str = "nurse", minute: int = 0) -> Tally:
    who = Person(uid, uid, uid, True, (Assignment(role, "north", START, None),))
    at = START + timedelta(minutes=minute)
    recorded = Recorded(
        who=who, uid=uid, held=(f"{role}@north",), purpose="TREAT", allowed=True, action="select"
    )
    return Tally(recorded, statements, at, at + timedelta(minutes=1), example=minute)


def lowered(column: str) -> Change:
    return Change(Flip.LOWERED, "public.lab", column, "full", "masked")


def test_every_decision_is_as_it_was_flipped_or_apart() -> None:
    outcomes: dict[str, Outcome] = {
        "u1": (),
        "u2": (lowered("value"),),
        "u3": Apart.FORM,
        "u4": (Change(Flip.SHOWN, "public.lab", before="no rows", after="rows"),),
    }
    report = replay(
        [tally("u1", 5), tally("u2", 3), tally("u3", 2), tally("u4", 1)],
        lambda recorded, _: outcomes[recorded.uid],
        "c",
    )
    assert (report.same, report.flipped, report.apart) == (5, 4, ((Apart.FORM, 2),))
    assert report.decisions == 11
    assert report.requests == 4
    assert (report.more, report.less) == (1, 3)
    assert report.persons == ("u2", "u4")


def test_columns_that_change_alike_are_one_row_in_which_a_statement_counts_once() -> None:
    report = replay(
        [tally("u1", 3, minute=5), tally("u2", 4, minute=2)],
        lambda recorded, _: (
            (lowered("value"), lowered("unit")) if recorded.uid == "u1" else (lowered("value"),)
        ),
        "c",
    )
    [row] = report.rows
    assert row.columns == ("unit", "value")
    assert row.statements == 7
    assert row.persons == ("u1", "u2")
    assert (row.first, row.last) == (START + timedelta(minutes=2), START + timedelta(minutes=6))
    assert row.example == 2


def test_roles_are_told_apart_and_the_gravest_comes_first() -> None:
    report = replay(
        [tally("u1", 9), tally("u2", 1, role="clerk")],
        lambda recorded, _: (
            (lowered("value"),)
            if recorded.uid == "u1"
            else (Change(Flip.ALLOWED, before="refused", after="allowed"),)
        ),
        "c",
    )
    assert [(row.flip, row.roles) for row in report.rows] == [
        (Flip.ALLOWED, ("clerk",)),
        (Flip.LOWERED, ("nurse",)),
    ]

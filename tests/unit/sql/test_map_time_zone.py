"""A map's SQL means the same in whatever time zone the asking person sets for her session."""

import re
from pathlib import Path

import pytest

from chartgate.sql.qualify import (
    InvalidExpression,
    follows_time_zone,
    qualified,
    qualified_source,
)

TODAY = "(pg_catalog.now() AT TIME ZONE 'UTC')::pg_catalog.date"


def test_the_day_is_the_day_in_utc() -> None:
    assert qualified("t.until >= current_date", "public") == f"t.until >= {TODAY}"
    source = qualified_source("(SELECT 1 FROM visit WHERE at > CURRENT_DATE - 30) q", "public")
    assert source == f"(SELECT 1 FROM public.visit WHERE at > ({TODAY} - 30)) q"


@pytest.mark.parametrize(
    "clock", ["localtimestamp", "localtimestamp(3)", "localtime", "current_time", "current_time(0)"]
)
def test_a_clock_of_the_sessions_zone_is_refused(clock: str) -> None:
    with pytest.raises(InvalidExpression, match="time zone"):
        qualified(f"t.until >= {clock}", "public")


def test_an_instant_by_itself_has_no_zone() -> None:
    assert qualified("this.at < now()", "public") == "this.at < now()"
    assert qualified("this.at < current_timestamp", "public") == "this.at < current_timestamp"


@pytest.mark.parametrize(
    ("form", "follows"),
    [
        ("date_trunc('day', this.at)", True),
        ("CASE WHEN true THEN date_trunc('month', this.at)::date END", True),
        ("this.at::date", True),
        ("CAST(this.at AS timestamp without time zone)", True),
        ("left(this.at::text, 7)", True),
        ("extract(year FROM this.at)", True),
        ("to_char(this.at, 'YYYY')", True),
        ("date_trunc('day', this.at, 'UTC')", False),
        ("(this.at AT TIME ZONE 'UTC')::date", False),
        ("this.at", False),
        ("date_trunc('month', this.born)::date", False),
    ],
)
def test_an_instant_cut_in_the_sessions_zone_is_seen(form: str, follows: bool) -> None:
    assert follows_time_zone(form, {"at"}) is follows


@pytest.mark.parametrize("name", ["synthea", "smart-r4"])
def test_what_the_shipped_maps_show_of_an_instant_is_cut_in_utc(
    project_root: Path, name: str
) -> None:
    text = (project_root / "maps" / f"{name}.toml").read_text()
    cut = re.findall(r"date_trunc\('\w+', this\.\w+(?:, 'UTC'\)|\)::date)", text)
    assert len(cut) == text.count("date_trunc(")

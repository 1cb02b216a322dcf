"""Spans of days: half-open, whole UTC days, the fewest that hold the changed days."""

import itertools
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earmark.warehouse.days import Days, DaysError, merge_days


def test_neighbouring_days_become_one_span() -> None:
    days = [date(2026, 1, 3), date(2026, 1, 1), date(2026, 1, 2), date(2026, 1, 9), date(2026, 1, 2)]
    assert [span.as_vars() for span in merge_days(days)] == [
        ["2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"],
        ["2026-01-09T00:00:00Z", "2026-01-10T00:00:00Z"],
    ]


@given(st.sets(st.dates(date(2020, 1, 1), date(2020, 3, 31))))
def test_spans_hold_exactly_the_days(days: set[date]) -> None:
    given = merge_days(days)
    held = [(span.start + timedelta(days=n)).date() for span in given for n in range((span.end - span.start).days)]
    assert held == sorted(days)
    assert all(before.end < after.start for before, after in itertools.pairwise(given))


@pytest.mark.parametrize(
    ("start", "end", "told"),
    [
        ("2026-01-02", "2026-01-02", "must come after the start"),
        ("2026-01-02", "2026-01-01", "must come after the start"),
        ("2026-01-02T00:00:00", "2026-01-03", "has no time zone"),
        ("yesterday", "2026-01-03", "is no time"),
    ],
)
def test_a_span_that_means_nothing_is_refused(start: str, end: str, told: str) -> None:
    with pytest.raises(DaysError, match=told):
        Days.parse(start, end)


def test_other_zones_are_turned_into_utc() -> None:
    span = Days.parse("2026-01-01T01:00:00+01:00", "2026-01-02")
    assert span.start == datetime(2026, 1, 1, tzinfo=UTC)
    assert str(span) == "2026-01-01"

"""timeseries.time_bucket(): known answers on every server, and the same answers as TimescaleDB's own function."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from earmark.warehouse.database import Database

ANSWERS = [
    # A fixed width is laid from Monday 2000-01-03, before it as after it.
    ("'5 minutes', timestamptz '1970-01-01 01:04:59.999999Z'", "1970-01-01 01:00:00+00"),
    ("'5 minutes', timestamptz '1970-01-01 01:05:00Z'", "1970-01-01 01:05:00+00"),
    ("'1 hour', timestamptz '2011-01-02 01:01:01+01'", "2011-01-02 00:00:00+00"),
    ("'2 days', timestamp '2011-01-02 01:01:01'", "2011-01-01 00:00:00"),
    ("'2 milliseconds', timestamp '2011-01-02 01:01:01.111'", "2011-01-02 01:01:01.11"),
    ("'1 week', timestamptz '2018-01-07 23:59:59Z'", "2018-01-01 00:00:00+00"),
    ("'1 week', timestamp '2018-01-08'", "2018-01-08 00:00:00"),
    ("'1 week', date '2000-01-02'", "1999-12-27"),
    ("'48 hours', date '2000-01-06'", "2000-01-05"),
    ("'1 day 24 hours', timestamp '2000-01-06 12:00'", "2000-01-05 00:00:00"),
    # A width of months counts calendar months, in UTC where no zone is given.
    ("'1 month', timestamptz '2024-03-01 00:30+02'", "2024-02-01 00:00:00+00"),
    ("'3 months', timestamp '1990-06-03'", "1990-04-01 00:00:00"),
    ("'5 months', timestamp '1999-12-31 23:59:59'", "1999-08-01 00:00:00"),
    ("'1 year', date '2024-12-31'", "2024-01-01"),
    ("'1 century', timestamp '1999-06-01'", "1900-01-01 00:00:00"),
    ("'1 year -11 months', date '2024-12-31'", "2024-12-01"),
    ("'1 month', timestamp '0044-03-15 BC'", "0044-03-01 00:00:00 BC"),
    # Infinity is its own bucket, whatever the width.
    ("'1 day', timestamptz 'infinity'", "infinity"),
    ("'1 hour', date 'infinity'", "infinity"),
    # A null gives a null, before anything is looked at.
    ("null, timestamptz '2024-01-01Z'", None),
    ("'1 day', null::timestamp", None),
    ("'0 days', null::timestamptz", None),
    ("'1 hour', null::date", None),
]

REFUSALS = [
    (
        "'1 year 1 day', {}",
        psycopg.errors.FeatureNotSupported,
        "month intervals cannot have day or time component",
    ),
    ("'1 month -30 days', {}", psycopg.errors.FeatureNotSupported, "month intervals cannot have day or time"),
    (
        "'1 month 1 day -24 hours', {}",
        psycopg.errors.FeatureNotSupported,
        "month intervals cannot have day or time",
    ),
    ("'-1 month', {}", psycopg.errors.InvalidParameterValue, "period must be greater than 0"),
]
REFUSALS_OF_TIMES = [
    ("'0 days', {}", psycopg.errors.InvalidParameterValue, "period must be greater than 0"),
    ("'-1 hour', {}", psycopg.errors.InvalidParameterValue, "period must be greater than 0"),
    ("'1 day -24 hours', {}", psycopg.errors.InvalidParameterValue, "period must be greater than 0"),
    ("'1 year -12 months', {}", psycopg.errors.InvalidParameterValue, "period must be greater than 0"),
]
REFUSALS_OF_DATES = [
    ("'0 days', {}", psycopg.errors.FeatureNotSupported, "must not have sub-day precision"),
    ("'1 hour', {}", psycopg.errors.FeatureNotSupported, "must not have sub-day precision"),
    ("'36 hours', {}", psycopg.errors.FeatureNotSupported, "must be a multiple of a day"),
]
TIMES = ("timestamptz '2024-01-05Z'", "timestamp '2024-01-05'")
CALLS_REFUSED = [
    *(
        (call.format(time), error, text)
        for call, error, text in REFUSALS
        for time in (*TIMES, "date '2024-01-05'")
    ),
    *((call.format(time), error, text) for call, error, text in REFUSALS_OF_TIMES for time in TIMES),
    *((call.format("date '2024-01-05'"), error, text) for call, error, text in REFUSALS_OF_DATES),
]


def answer(connection: psycopg.Connection, function: str, arguments: str) -> str | None:
    row = connection.execute(f"select {function}({arguments})::text".encode()).fetchone()
    assert row is not None
    text: str | None = row[0]
    return text


def test_known_answers(connection: psycopg.Connection) -> None:
    connection.execute("set timezone = 'UTC'")
    found = [(arguments, answer(connection, "timeseries.time_bucket", arguments)) for arguments, _ in ANSWERS]
    assert found == ANSWERS


@pytest.mark.parametrize("zone", ["America/New_York", "Pacific/Apia"])
def test_the_time_zone_of_the_session_changes_nothing(connection: psycopg.Connection, zone: str) -> None:
    connection.execute("select set_config('timezone', %s, false)", (zone,))
    for arguments, expected in ANSWERS:
        if expected is not None:
            found = connection.execute(
                f"select timeseries.time_bucket({arguments}) = '{expected}'".encode()
            ).fetchone()
            assert found == (True,), arguments


def test_months_need_not_be_constant(connection: psycopg.Connection) -> None:
    rows = connection.execute(
        "select timeseries.time_bucket(width, date '2024-08-15')::text"
        " from unnest(array['1 month', '1 week', '3 months', '1 day', '1 year', null]::interval[]) as width"
    ).fetchall()
    assert [day for (day,) in rows] == [
        "2024-08-01",
        "2024-08-12",
        "2024-07-01",
        "2024-08-15",
        "2024-01-01",
        None,
    ]


def test_what_is_refused(connection: psycopg.Connection) -> None:
    for arguments, error, text in CALLS_REFUSED:
        with pytest.raises(error, match=text), connection.transaction():
            answer(connection, "timeseries.time_bucket", arguments)


def test_a_constant_fixed_width_leaves_date_bin_in_the_plan(connection: psycopg.Connection) -> None:
    plan = connection.execute(
        "explain (verbose) select timeseries.time_bucket('1 hour', at), timeseries.time_bucket('1 day', day)"
        " from (select clock_timestamp() as at, clock_timestamp()::date as day offset 0) as clock"
    ).fetchall()
    text = "\n".join(line for (line,) in plan)
    assert text.count("date_bin(") == 2
    assert "timeseries." not in text
    assert "CASE" not in text


class Example(NamedTuple):
    """Arguments for every overload; ``day_width`` is what dates accept."""

    width: str
    day_width: str
    ts: datetime


CLOCK_CHANGES = (
    datetime(2024, 3, 31, 1, tzinfo=UTC),
    datetime(2024, 10, 27, 1, tzinfo=UTC),
    datetime(2024, 11, 3, 6, tzinfo=UTC),
    datetime(2024, 4, 6, 15, tzinfo=UTC),
    datetime(2018, 2, 18, 2, tzinfo=UTC),
    datetime(2021, 10, 28, 22, tzinfo=UTC),
    datetime(2011, 12, 30, 10, tzinfo=UTC),
)
DAY = 86_400_000_000
microseconds = st.one_of(
    st.sampled_from([60, 300, 900, 3600, 21600, 43200]).map(lambda seconds: seconds * 1_000_000),
    # Not shorter: TimescaleDB's own function goes back over an hour that comes twice step by step.
    st.integers(1_000_000, 40 * DAY),
).map(lambda width: f"{width} microseconds")
days = st.integers(1, 60).map(lambda width: f"{width} days")
months = st.integers(1, 130).map(lambda width: f"{width} months")
times = st.one_of(
    st.integers(-60 * 365 * DAY, 60 * 365 * DAY).map(
        lambda at: datetime(2000, 1, 3, tzinfo=UTC) + timedelta(microseconds=at)
    ),
    st.integers(-900, 900).map(
        lambda half_days: datetime(2000, 1, 3, tzinfo=UTC) + timedelta(hours=12 * half_days)
    ),
    st.tuples(st.sampled_from(CLOCK_CHANGES), st.integers(-180, 180)).map(
        lambda change: change[0] + timedelta(minutes=change[1])
    ),
    st.datetimes(datetime(100, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)
examples = st.builds(
    Example, width=st.one_of(microseconds, days, months), day_width=st.one_of(days, months), ts=times
)

DIFFERENCES = """
    with examples as (
        select *
        from unnest(%s::interval[], %s::interval[], %s::timestamptz[]) as example (width, day_width, ts)
    )
    select examples.*, answers.*
    from examples
    cross join lateral (
        values {}
    ) as answers (call, theirs, ours)
    where answers.theirs is distinct from answers.ours
"""
CALLS = ("width, ts", "width, ts::timestamp", "day_width, ts::date")
QUERY = DIFFERENCES.format(
    ", ".join(
        f"('{call}', public.time_bucket({call})::text, timeseries.time_bucket({call})::text)" for call in CALLS
    )
)


@pytest.fixture
def native(timescaledb: Database) -> Iterator[psycopg.Connection]:
    with timescaledb.connect(autocommit=True) as opened:
        opened.execute("set timezone = 'Europe/Berlin'")
        yield opened


@pytest.mark.timescaledb
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(batch=st.lists(examples, min_size=20, max_size=60))
def test_answers_are_those_of_timescaledb(native: psycopg.Connection, batch: list[Example]) -> None:
    arguments = [list(column) for column in zip(*batch, strict=True)]
    assert native.execute(QUERY.encode(), arguments).fetchall() == []


@pytest.mark.timescaledb
def test_known_answers_and_refusals_are_those_of_timescaledb(timescaledb: Database) -> None:
    with timescaledb.connect(autocommit=True) as connection:
        connection.execute("set timezone = 'UTC'")
        assert [(arguments, answer(connection, "time_bucket", arguments)) for arguments, _ in ANSWERS] == ANSWERS
        for arguments, error, text in CALLS_REFUSED:
            with pytest.raises(error, match=text):
                answer(connection, "time_bucket", arguments)

"""Counting over time: rolling windows across refreshes, settings of a tenant, and the waterfall.

What each rule does to a single request has its unit tests beside the models.
"""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from earmark.warehouse.database import Database

pytestmark = pytest.mark.built
Dbt = Any  # the class of conftest.py, which tests cannot import
APP = "Overcast/3.0 (+http://overcast.fm/; iOS podcast app)"
FIRST = datetime(2026, 1, 1, 22, tzinfo=UTC)
COUNTED, DUPLICATE = "counted", "duplicate"


@pytest.fixture
def dbt(dbt_on_any_engine: Dbt) -> Dbt:
    return dbt_on_any_engine


@pytest.fixture
def warehouse(any_engine: Database) -> Iterator[psycopg.Connection]:
    with any_engine.connect(autocommit=True) as opened:
        opened.execute(
            "insert into tenancy.tenants (tenant_id, name, download_window) values"
            " ('acme', 'Acme', 'rolling_first'), ('beta', 'Beta', 'rolling_last'),"
            " ('gamma', 'Gamma', 'calendar_day')"
        )
        opened.execute("select timeseries.ensure_chunks('raw.listener_events', '2026-01-01Z', '2026-03-01Z')")
        yield opened


def add_request(
    warehouse: psycopg.Connection, at: datetime, *, tenant: str = "acme", listener: int = 1, **fields: object
) -> uuid.UUID:
    row = {
        "tenant_id": tenant, "event_id": uuid.uuid4(), "occurred_at": at, "event_type": "request", "source": "cdn",
        "enclosure_key": "cdn.example.com/e.mp3", "method": "GET", "status": 200, "user_agent": APP, "load_id": 1,
        "household_key": bytes([listener]) * 16, "listener_key": bytes([listener]) * 16, **fields,
    }  # fmt: skip
    warehouse.execute(
        f"insert into raw.listener_events ({', '.join(row)}) values ({', '.join(f'%({name})s' for name in row)})",
        row,
    )
    return row["event_id"]


def outcomes(warehouse: psycopg.Connection, tenant: str = "acme") -> list[str]:
    """Return what became of the tenant's requests, in time order."""
    return [
        outcome
        for (outcome,) in warehouse.execute(
            "select outcome from intermediate.int_requests__outcomes where tenant_id = %s"
            " order by occurred_at, event_id",
            (tenant,),
        )
    ]


def versions(warehouse: psycopg.Connection, since: datetime) -> set[tuple[str, ...]]:
    return set(
        warehouse.execute(
            "select tableoid::text, ctid::text, xmin::text from intermediate.int_requests__outcomes"
            " where occurred_at >= %s",
            (since,),
        ).fetchall()
    )


def contents(warehouse: psycopg.Connection) -> list[str]:
    tables = (
        "intermediate.int_requests__outcomes", "marts.fct_downloads", "marts.rpt_download_windows_daily",
        "marts.fct_request_outcomes_daily", "rollups.cagg_downloads_daily",
    )  # fmt: skip
    return [
        row[0]
        for table in tables
        for row in warehouse.execute(f"select t::text from {table} as t order by t::text")
    ]


def pending(warehouse: psycopg.Connection) -> int:
    (found,) = warehouse.execute("select count(*) from ingest.pending_refresh").fetchone() or (None,)
    assert isinstance(found, int)
    return found


def test_a_late_request_moves_the_windows_of_the_days_after_it(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    # Every 23 hours: one counts, the next is a duplicate. After the twelfth the listener pauses.
    for number in range(12):
        add_request(warehouse, FIRST + number * timedelta(hours=23))
    after_pause = FIRST + timedelta(days=20)
    add_request(warehouse, after_pause)
    dbt.build()
    assert outcomes(warehouse) == [COUNTED, DUPLICATE] * 6 + [COUNTED]
    untouched = versions(warehouse, after_pause)

    late = add_request(warehouse, FIRST - timedelta(hours=2))
    dbt.build(data_tests=True)
    assert outcomes(warehouse) == [COUNTED, DUPLICATE] * 6 + [COUNTED, COUNTED]
    assert warehouse.execute(
        "select array_agg(to_char(occurred_at, 'DD') order by occurred_at) from marts.fct_downloads"
    ).fetchone() == (["01", "02", "04", "06", "08", "10", "12", "21"],)
    assert versions(warehouse, after_pause) == untouched
    assert pending(warehouse) == 0
    refreshed = contents(warehouse)
    dbt.build("--full-refresh")
    assert contents(warehouse) == refreshed

    warehouse.execute("delete from raw.listener_events where event_id = %s", (late,))
    dbt.build()
    assert outcomes(warehouse) == [COUNTED, DUPLICATE] * 6 + [COUNTED]
    refreshed = contents(warehouse)
    dbt.build("--full-refresh")
    assert contents(warehouse) == refreshed


def test_models_that_were_not_built_get_the_moved_days_later(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    for number in range(6):
        add_request(warehouse, FIRST + number * timedelta(hours=23))
    dbt.build()
    add_request(warehouse, FIRST - timedelta(hours=2))
    dbt.build("--select", "int_requests__outcomes")
    assert pending(warehouse) > 0
    dbt.build("--select", "fct_downloads")
    assert pending(warehouse) > 0
    dbt.build()
    assert pending(warehouse) == 0
    refreshed = contents(warehouse)
    dbt.build("--full-refresh")
    assert contents(warehouse) == refreshed


def test_a_long_window_from_the_last_request(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    for number in range(10):
        add_request(warehouse, FIRST + number * timedelta(hours=23), tenant="beta")
    dbt.build()
    assert outcomes(warehouse, "beta") == [COUNTED] + [DUPLICATE] * 9
    # Without the fifth there is a pause of 46 hours.
    warehouse.execute("delete from raw.listener_events where occurred_at = %s", (FIRST + 4 * timedelta(hours=23),))
    dbt.build()
    assert outcomes(warehouse, "beta") == [COUNTED] + [DUPLICATE] * 3 + [COUNTED] + [DUPLICATE] * 4
    refreshed = contents(warehouse)
    dbt.build("--full-refresh")
    assert contents(warehouse) == refreshed


def test_bytes_are_collected_over_days_that_are_refreshed_apart(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    warehouse.execute("update tenancy.tenants set assumed_bitrate_bps = 64000")
    evening, night = datetime(2026, 1, 1, 23, tzinfo=UTC), datetime(2026, 1, 2, 1, tzinfo=UTC)
    pieces = {"status": 206, "bytes_sent": 240_000}
    add_request(warehouse, evening, byte_range="bytes=0-239999", **pieces)
    dbt.build()
    add_request(warehouse, night, byte_range="bytes=240000-", **pieces)
    dbt.build()
    assert outcomes(warehouse) == ["below_threshold", COUNTED]
    # The first piece turns out to be another one: the second is not enough any more.
    warehouse.execute(
        "update raw.listener_events set byte_range = 'bytes=240000-' where occurred_at = %s", (evening,)
    )
    dbt.build()
    assert outcomes(warehouse) == ["below_threshold", "below_threshold"]
    refreshed = contents(warehouse)
    dbt.build("--full-refresh")
    assert contents(warehouse) == refreshed


def test_a_setting_recounts_its_tenant_and_no_other(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    for tenant in ("acme", "gamma"):
        for hours in (0, 3, 24.25, 49.25):
            add_request(warehouse, FIRST + timedelta(hours=hours), tenant=tenant)
    dbt.build()
    assert outcomes(warehouse, "acme") == [COUNTED, DUPLICATE, COUNTED, COUNTED]
    assert outcomes(warehouse, "gamma") == [COUNTED, COUNTED, DUPLICATE, COUNTED]
    warehouse.execute("update tenancy.tenants set name = 'Gamma Ltd' where tenant_id = 'gamma'")
    assert pending(warehouse) == 0
    warehouse.execute("update tenancy.tenants set download_window = 'rolling_last' where tenant_id = 'gamma'")
    waiting = warehouse.execute("select producer, tenant_id, day::text from ingest.pending_refresh").fetchall()
    assert waiting == [("tenancy.tenants", "gamma", "-infinity")]
    dbt.build()
    assert outcomes(warehouse, "acme") == [COUNTED, DUPLICATE, COUNTED, COUNTED]
    assert outcomes(warehouse, "gamma") == [COUNTED, DUPLICATE, DUPLICATE, COUNTED]
    rows = warehouse.execute(
        "select sum(downloads)::int, sum(calendar_day)::int, sum(rolling_first)::int, sum(rolling_last)::int"
        " from marts.rpt_download_windows_daily where tenant_id = 'gamma'"
    ).fetchall()
    assert rows == [(2, 3, 3, 2)]


def test_an_address_is_safe_until_it_is_not(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    add_request(warehouse, FIRST, network="data_center")
    add_request(warehouse, FIRST + timedelta(days=2), network="data_center")
    dbt.build()
    assert outcomes(warehouse) == ["data_center", "data_center"]
    warehouse.execute(
        "insert into tenancy.safe_addresses (tenant_id, household_key, reason, expires_on)"
        " values ('acme', %s, 'the office', '2026-01-03')",
        (bytes([1]) * 16,),
    )
    dbt.build()
    assert outcomes(warehouse) == [COUNTED, "data_center"]


def test_the_waterfall_holds_every_request_of_every_show(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    warehouse.execute(
        "insert into raw.episodes (tenant_id, episode_id, podcast_id, enclosure_key, load_id)"
        " values ('acme', 'e', 'p', 'cdn.example.com/e.mp3', 1)"
    )
    for number, fields in enumerate(
        [
            {}, {}, {"status": 404}, {"method": "HEAD"}, {"user_agent": "Googlebot/2.1"}, {"user_agent": None},
            {"enclosure_key": "cdn.example.com/feed.xml"}, {"byte_range": "bytes=0-1", "status": 206},
            {"enclosure_key": "cdn.example.com/other.mp3"}, {"network": "vpn"}, {"bytes_sent": 0},
            {"household_key": None, "listener_key": None, "properties": '{"no_address":"masked"}'},
        ]
    ):  # fmt: skip
        add_request(warehouse, FIRST + timedelta(minutes=number), listener=1 if number < 2 else number, **fields)
    dbt.build(data_tests=True)
    waterfall = dict(
        warehouse.execute(
            "select outcome || coalesce(' of ' || podcast_id, ''), sum(requests)::int"
            " from marts.fct_request_outcomes_daily group by 1"
        ).fetchall()
    )
    assert waterfall == {
        "counted of p": 1, "duplicate of p": 1, "bad_status of p": 1, "not_get of p": 1, "bot of p": 1,
        "no_user_agent of p": 1, "not_media": 1, "two_byte_probe of p": 1, "counted": 1, "vpn of p": 1,
        "below_threshold of p": 1, "no_address of p": 1,
    }  # fmt: skip

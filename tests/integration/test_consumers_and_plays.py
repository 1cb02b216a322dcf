"""Consumers by day, week and month, client-confirmed ad plays and unmatched URLs: exact after any refresh.

What each figure is has its unit tests beside the models; here they are compared with raw rows and with a rebuild.
"""

import random
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql

from earmark.warehouse.database import Database

pytestmark = pytest.mark.built
Dbt = Any  # the class of conftest.py, which tests cannot import

APP = "Overcast/3.0 (+http://overcast.fm/; iOS podcast app)"
EPISODES = {"e1": "p1", "e2": "p1", "e3": "p2"}
FIRST_DAY = datetime(2026, 2, 20, tzinfo=UTC)
# Without the tests that need other models too.
MODELS = (
    *(
        "+rpt_consumers",
        "+rpt_ad_plays_daily",
        "+rpt_unmatched_urls",
        "+config.materialized:continuous_aggregate",
        "+rpt_campaigns",
    ),
    *("--indirect-selection", "buildable"),
)
TABLES = {
    "marts.rpt_consumers": "tenant_id, scope, period, period_start, podcast_id",
    "marts.fct_ad_plays": "tenant_id, occurred_at, ad_play_id",
    "marts.rpt_ad_plays_daily": "tenant_id, ad_unit_id, day",
    "marts.rpt_unmatched_urls_daily": "tenant_id, day, episode_key, source",
}
# Straight from raw rows: one listener, episode and UTC day is one download.
DISTINCT = """
with downloads as (
    select distinct on (tenant_id, listener_key, enclosure_key, (occurred_at at time zone 'UTC')::date) *,
        (array['p1', 'p1', 'p2'])[substr(enclosure_key, 18, 1)::int] as podcast_id
    from raw.listener_events where event_type = 'request'
    order by tenant_id, listener_key, enclosure_key, (occurred_at at time zone 'UTC')::date, occurred_at
),
periods as (
    select d.*, p.period, date_trunc(p.period, d.occurred_at at time zone 'UTC')::date as period_start
    from downloads as d cross join (values ('day'), ('week'), ('month')) as p (period)
)
select tenant_id, case when grouping(podcast_id) = 0 then 'show' else 'tenant' end as scope, podcast_id, period,
    period_start, count(*), count(distinct listener_key), count(distinct household_key)
from periods
group by grouping sets (
    (tenant_id, period, period_start, podcast_id), (tenant_id, period, period_start)
)
order by 1, 2, 4, 5, 3
"""


@pytest.fixture
def warehouse(any_engine: Database) -> Iterator[psycopg.Connection]:
    """Return a connection to a database whose sessions are in a zone with summer time, as dbt's are then."""
    with any_engine.connect(autocommit=True) as opened:
        opened.execute(
            sql.SQL("alter database {} set timezone = 'America/New_York'").format(sql.Identifier(any_engine.name))
        )
        for tenant in ("acme", "beta"):
            opened.execute("insert into tenancy.tenants values (%s, %s)", (tenant, tenant))
            for podcast in ("p1", "p2"):
                opened.execute(
                    "insert into raw.podcasts (tenant_id, podcast_id, title, load_id) values (%s, %s, %s, 0)",
                    (tenant, podcast, podcast.upper()),
                )
            for episode, podcast in EPISODES.items():
                add_episode(opened, tenant, episode, podcast)
        opened.execute(
            "insert into raw.ad_units (tenant_id, ad_unit_id, campaign_id, position, delivery, load_id)"
            " values ('acme', 'a1', 'c1', 'mid', 'dai', 0)"
        )
        yield opened


@pytest.fixture
def dbt(warehouse: psycopg.Connection, dbt_on_any_engine: Dbt) -> Dbt:
    """Everything here holds on each engine."""
    return dbt_on_any_engine


def add_episode(warehouse: psycopg.Connection, tenant: str, episode: str, podcast: str) -> None:
    warehouse.execute(
        "insert into raw.episodes (tenant_id, episode_id, podcast_id, enclosure_key, load_id)"
        " values (%s, %s, %s, %s, 0)",
        (tenant, episode, podcast, f"cdn.example.com/{episode}.mp3"),
    )


def add_event(
    warehouse: psycopg.Connection,
    occurred_at: datetime,
    *,
    tenant: str = "acme",
    event_type: str = "request",
    asked_for: str = "e1.mp3",
    listener: int | None = 0,
    **columns: Any,
) -> None:
    """Write an event as another program would; two listeners share a household."""
    values = {
        "tenant_id": tenant,
        "event_id": uuid.uuid4(),
        "occurred_at": occurred_at,
        "event_type": event_type,
        "source": "test",
        "enclosure_key": f"cdn.example.com/{asked_for}",
        "listener_key": None if listener is None else listener.to_bytes(2, "big"),
        "household_key": None if listener is None else (listener // 2).to_bytes(2, "big"),
        "user_agent": APP,
        "load_id": 0,
        **columns,
    }
    warehouse.execute(
        "select timeseries.ensure_chunks('raw.listener_events', %s, %s)",
        (occurred_at, occurred_at + timedelta(hours=1)),
    )
    warehouse.execute(
        sql.SQL("insert into raw.listener_events ({}) values ({})").format(
            sql.SQL(", ").join(map(sql.Identifier, values)), sql.SQL(", ").join(sql.Placeholder() * len(values))
        ),
        list(values.values()),
    )


def contents(warehouse: psycopg.Connection) -> dict[str, list[str]]:
    return {
        table: [row[0] for row in warehouse.execute(f"select to_jsonb(t)::text from {table} as t order by {key}")]  # type: ignore[arg-type]
        for table, key in TABLES.items()
    }


def consumers(warehouse: psycopg.Connection) -> list[tuple[Any, ...]]:
    return warehouse.execute(
        "select tenant_id, scope, podcast_id, period, period_start, downloads, listeners, households"
        " from marts.rpt_consumers order by 1, 2, 4, 5, 3"
    ).fetchall()


def test_consumers_of_every_period_are_exact(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    random_ = random.Random(7)  # noqa: S311
    for _ in range(150):
        at = FIRST_DAY + timedelta(days=random_.randrange(75), seconds=random_.randrange(86_400))
        add_event(
            warehouse,
            at,
            tenant=random_.choice(["acme", "beta"]),
            asked_for=f"e{random_.randrange(1, 4)}.mp3",
            listener=random_.randrange(8),
        )
    dbt.build("--select", *MODELS, data_tests=True)
    assert consumers(warehouse) == warehouse.execute(DISTINCT).fetchall()

    # Late: a listener never seen before, on the first and the last instant of a month and of a week.
    for number, at in enumerate(("2026-03-31T23:59:59.999999Z", "2026-03-01T00:00:00Z", "2026-03-08T23:59:59Z")):
        add_event(warehouse, datetime.fromisoformat(at), listener=100 + 2 * number)
    dbt.build("--select", *MODELS, data_tests=True)
    assert consumers(warehouse) == warehouse.execute(DISTINCT).fetchall()
    # Gone: a listener, from everywhere; then a month as a whole.
    for gone in ("listener_key = '\\x0001'", "occurred_at >= '2026-04-01Z' and occurred_at < '2026-05-01Z'"):
        warehouse.execute(f"delete from raw.listener_events where {gone}")  # type: ignore[arg-type]
        dbt.build("--select", *MODELS, data_tests=True)
        assert consumers(warehouse) == warehouse.execute(DISTINCT).fetchall(), gone
    refreshed = contents(warehouse)
    assert refreshed["marts.rpt_consumers"]
    dbt.build("--select", *MODELS, "--full-refresh")
    assert contents(warehouse) == refreshed


def test_a_period_that_was_not_refreshed_fails_the_test(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    add_event(warehouse, datetime(2026, 3, 2, 12, tzinfo=UTC))
    dbt.build("--select", *MODELS)
    add_event(warehouse, datetime(2026, 3, 31, 12, tzinfo=UTC))
    dbt.build("--select", *MODELS, "--exclude", "cagg_consumers_monthly")
    days = [["2026-03-31T00:00:00Z", "2026-04-01T00:00:00Z"]]
    assert not dbt("test", "--select", "consumers_equal_their_days", days=days).success
    dbt.build("--select", *MODELS)
    assert dbt("test", "--select", "consumers_equal_their_days", days=days).success


def test_downloads_of_no_known_show_are_not_those_of_the_tenant(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    at = datetime(2026, 3, 2, 12, tzinfo=UTC)
    add_event(warehouse, at)
    add_event(warehouse, at, asked_for="other.mp3", listener=0)
    add_event(warehouse, at, asked_for="other.mp3", listener=None)
    dbt.build("--select", *MODELS, data_tests=True)
    months = [row[1:] for row in consumers(warehouse) if row[3] == "month"]
    start = at.date().replace(day=1)
    assert months == [
        ("show", "p1", "month", start, 1, 1, 1),
        ("show", None, "month", start, 2, 1, 1),
        ("tenant", None, "month", start, 3, 1, 1),
    ]


def test_plays_are_the_same_after_any_refresh(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    random_ = random.Random(11)  # noqa: S311

    def add_beacon() -> None:
        at = FIRST_DAY + timedelta(days=random_.randrange(10), seconds=random_.randrange(86_400))
        add_event(
            warehouse,
            at,
            event_type="play",
            ad_unit_id=random_.choice(["a1", "unknown"]),
            play_id=random_.choice(["x", "y", "z", None]),
            quartile=random_.choice([None, 0, 25, 50, 75, 100]),
            listener=random_.choice([0, 1, None]),
        )

    for _ in range(40):
        add_beacon()
    dbt.build("--select", *MODELS, data_tests=True)
    for step in range(4):
        if step < 3:
            add_beacon()
        else:
            day = FIRST_DAY + timedelta(days=5)
            warehouse.execute(
                "delete from raw.listener_events where occurred_at >= %s and occurred_at < %s",
                (day, day + timedelta(days=1)),
            )
        dbt.build("--select", *MODELS, data_tests=True)
    refreshed = contents(warehouse)
    dbt.build("--select", *MODELS, "--full-refresh")
    assert contents(warehouse) == refreshed
    in_a_row = warehouse.execute(
        "select count(*) from marts.fct_ad_plays as p inner join marts.fct_ad_plays as q"
        " using (tenant_id, ad_unit_id, play_id)"
        " where (q.occurred_at at time zone 'UTC')::date - (p.occurred_at at time zone 'UTC')::date = 1"
    ).fetchone()
    assert in_a_row == (0,)
    assert len(refreshed["marts.fct_ad_plays"]) > 10


def test_a_url_is_unmatched_until_its_episode_is_known(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    first, last = datetime(2026, 3, 2, 23, 30, tzinfo=UTC), datetime(2026, 3, 4, 12, tzinfo=UTC)
    add_event(warehouse, first)
    add_event(warehouse, first, asked_for="e9.mp3", listener=1)
    add_event(warehouse, first + timedelta(minutes=5), asked_for="e9.mp3", listener=1)
    add_event(warehouse, first + timedelta(minutes=6), asked_for="e9.mp3", listener=2, user_agent="Googlebot/2.1")
    add_event(warehouse, last, asked_for="e9.mp3", listener=3)
    add_event(warehouse, last, asked_for="feed.xml", listener=3)
    dbt.build("--select", *MODELS, data_tests=True)
    unmatched = "select {} from marts.rpt_unmatched_urls{} order by episode_key, {}"
    daily = "episode_key, day::text, requests, media_requests, downloads, listeners"
    assert warehouse.execute(unmatched.format(daily, "_daily", "day")).fetchall() == [  # type: ignore[arg-type]
        ("url:cdn.example.com/e9.mp3", "2026-03-02", 3, 3, 1, 2),
        ("url:cdn.example.com/e9.mp3", "2026-03-04", 1, 1, 1, 1),
        ("url:cdn.example.com/feed.xml", "2026-03-04", 1, 0, 0, 1),
    ]
    to_date = "episode_key, days, requests, media_requests, downloads, first_seen, last_seen"
    assert warehouse.execute(unmatched.format(to_date, "", "source")).fetchall() == [  # type: ignore[arg-type]
        ("url:cdn.example.com/e9.mp3", 2, 4, 4, 2, first, last),
        ("url:cdn.example.com/feed.xml", 1, 1, 0, 0, last, last),
    ]
    add_episode(warehouse, "acme", "e9", "p2")
    dbt.build("--select", *MODELS, data_tests=True)
    assert warehouse.execute(unmatched.format("episode_key, requests", "", "source")).fetchall() == [  # type: ignore[arg-type]
        ("url:cdn.example.com/feed.xml", 1)
    ]

"""Plans: joins that once compared each row with every other, made again and looked at."""

import json
import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from earmark.warehouse.database import Database

pytestmark = pytest.mark.built
Dbt = Any  # the class of conftest.py, which tests cannot import
REFERENCE = """
insert into tenancy.tenants (tenant_id, name) values ('acme', 'Acme');
insert into raw.podcasts (tenant_id, podcast_id, title, load_id) values ('acme', 'p', 'P', 1);
insert into raw.episodes (tenant_id, episode_id, podcast_id, enclosure_key, load_id)
select 'acme', 'e' || n, 'p', 'cdn.example.com/' || n || '.mp3', 1 from generate_series(1, 500) as n;
analyze raw.episodes, raw.podcasts;
select timeseries.ensure_chunks('raw.listener_events', '2026-01-01+00', '2026-01-03+00');
"""
REQUESTS = """
insert into raw.listener_events (tenant_id, event_id, occurred_at, event_type, source, enclosure_key, method,
    status, household_key, listener_key, user_agent, load_id)
select 'acme', gen_random_uuid(), '2026-01-01+00'::timestamptz + n * interval '2 seconds', 'request', 'cdn',
    'cdn.example.com/' || 1 + n % 600 || '.mp3', 'GET', 200, int4send(n % 5000), int4send(n % 5000),
    'Overcast/3.0', 1
from generate_series(1, 40000) as n;
analyze raw.listener_events;
"""
CONVERSIONS = """
select timeseries.ensure_chunks('marts.fct_conversions', '2026-01-01+00', '2026-01-03+00');
insert into marts.fct_conversions (tenant_id, conversion_id, occurred_at, action, signal, signals, source,
    sponsor_id, claims, claims_differ, values_differ, household_key, gross_value, refunded_value, value,
    currency)
select 'acme', md5(n::text)::uuid, '2026-01-01+00'::timestamptz + n * interval '10 seconds', 'purchase', 'pixel',
    '{pixel}', 'x', 's', '', false, false, int4send(n), 10, 0, 10, 'USD'
from generate_series(1, 4000) as n;
analyze marts.fct_conversions;
select timeseries.ensure_chunks('marts.fct_attribution_paths', '2026-01-01+00', '2026-01-03+00');
insert into marts.fct_attribution_paths (tenant_id, conversion_id, occurred_at, touch_id, touch_type, signal,
    touch_at, age_seconds, position, touches, channel, is_direct, campaign_id, match_type, evidence,
    window_seconds)
select 'acme', md5(n::text)::uuid, '2026-01-01+00'::timestamptz + n * interval '10 seconds', gen_random_uuid(),
    'dai', 'pixel', '2026-01-01+00', 10, p, 5, 'c', false, 'c', 'household', 'ad_server', 86400
from generate_series(1, 4000) as n, generate_series(1, 5) as p;
analyze marts.fct_attribution_paths;
"""


@pytest.fixture
def warehouse(dbt: Dbt, address: Database) -> Iterator[psycopg.Connection]:
    """Return a database with every model built, empty."""
    with address.connect(autocommit=True) as opened:
        dbt.build()
        yield opened


def test_requests_find_their_episode_by_its_url(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    """With workers and memory to sort in, PostgreSQL merged them by tenant, and threw 100 million pairs away."""
    warehouse.execute(REFERENCE)
    warehouse.execute(REQUESTS)
    warehouse.execute(
        "set work_mem = '64MB'; set max_parallel_workers_per_gather = 2; set parallel_setup_cost = 0"
    )
    assert discarded(dbt, warehouse, "int_requests__outcomes") < 1_000_000


def test_new_chunks_are_analysed_before_a_run(warehouse: psycopg.Connection) -> None:
    """Of 40,000 new requests the planner expected 36, and counted the busy addresses anew for each."""
    warehouse.execute(REFERENCE)
    warehouse.execute(REQUESTS.replace("analyze raw.listener_events;", "").replace("40000", "10"))
    unknown = "select count(*) from pg_class where relname ~ '^raw__listener_events__20260101' and reltuples < 0"
    assert warehouse.execute(unknown).fetchone() == (1,)
    warehouse.execute("select ingest.begin_run()")
    assert warehouse.execute(unknown).fetchone() == (0,)


def test_credits_find_their_conversion_by_its_id(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    """They were compared with every conversion: 115 million pairs."""
    warehouse.execute(CONVERSIONS)
    assert discarded(dbt, warehouse, "fct_attribution_credits") < 1_000_000


def test_small_tables_are_analysed(warehouse: psycopg.Connection) -> None:
    """Unanalysed, a table of seven rows is thought to have hundreds."""
    unknown = warehouse.execute(
        "select c.oid::regclass::text from pg_class as c"
        " where c.relnamespace = 'seeds'::regnamespace and c.relkind = 'r' and c.reltuples < 0"
    ).fetchall()
    assert unknown == []


def discarded(dbt: Dbt, warehouse: psycopg.Connection, model: str) -> int:
    """Return the most pairs that a join of a model's SQL, built whole, looks at in vain."""
    counts = re.findall(r'"Rows Removed by Join Filter": (\d+)', plan_of(dbt, warehouse, model))
    return max(map(int, counts), default=0)


def plan_of(dbt: Dbt, warehouse: psycopg.Connection, model: str = "int_requests__outcomes") -> str:
    """Return the plan of a model's SQL, built whole, and what it did, as JSON."""
    compiled = dbt("compile", "--select", model, "--full-refresh").result.results[0].node.compiled_code
    row = warehouse.execute("explain (analyze, timing off, format json) " + compiled).fetchone()
    assert row is not None
    return json.dumps(row[0])

"""The models refreshed by slices: always the same tables as a rebuild from nothing.

What is counted and credited has its unit tests beside the models; here stands how tables are replaced.
"""

import re
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from typing import Any

import psycopg
import pytest

from earmark.warehouse.database import Database
from earmark.warehouse.engine import Engine, recorded

pytestmark = pytest.mark.built
Dbt = Any  # the class of conftest.py, which tests cannot import
TABLES = {
    "intermediate.int_user_agents__classified": None,
    "intermediate.int_requests__outcomes": "occurred_at",
    "intermediate.int_downloads__compared": "day",
    "intermediate.int_downloads__rule_effects": "day",
    "intermediate.int_responses__claimed": "occurred_at",
    "marts.fct_downloads": "occurred_at",
    "marts.fct_ad_impressions": "occurred_at",
    "marts.fct_conversions": "occurred_at",
    "marts.fct_attribution_paths": "occurred_at",
    "marts.fct_attribution_credits": "occurred_at",
    "marts.rpt_campaign_daily": "day",
    "marts.rpt_attribution_daily": "day",
    "marts.rpt_attribution_windows_daily": "day",
    "marts.rpt_signal_overlap_daily": "day",
    "marts.rpt_response_outcomes_daily": "day",
    "rollups.cagg_downloads_hourly": "bucket",
    "rollups.cagg_downloads_daily": "bucket",
    "rollups.cagg_request_outcomes_daily": "bucket",
    "rollups.cagg_listener_events_hourly": "bucket",
    "rollups.cagg_listener_events_daily": "bucket",
}
APP = "Overcast/3.0 (+http://overcast.fm/; iOS podcast app)"


@pytest.fixture
def dbt(dbt_on_any_engine: Dbt) -> Dbt:
    """Everything here holds on each engine."""
    return dbt_on_any_engine


@pytest.fixture
def warehouse(any_engine: Database) -> Iterator[psycopg.Connection]:
    with any_engine.connect(autocommit=True) as opened:
        add_reference(opened)
        yield opened


def at(day: int, hour: int = 12, minute: int = 0) -> datetime:
    return datetime(2026, 1, day, hour, minute, tzinfo=UTC)


def key(text: str) -> bytes:
    return text.encode().ljust(16, b"\0")


def add_reference(warehouse: psycopg.Connection) -> None:
    for tenant in ("acme", "beta"):
        warehouse.execute("insert into tenancy.tenants values (%s, %s)", (tenant, tenant.title()))
        warehouse.execute(
            """
            insert into raw.podcasts (tenant_id, podcast_id, title, load_id) values (%(t)s, 'p', 'Show', 1);
            """,
            {"t": tenant},
        )
        for episode in ("e1", "e2"):
            warehouse.execute(
                "insert into raw.episodes (tenant_id, episode_id, podcast_id, enclosure_key, load_id)"
                " values (%s, %s, 'p', %s, 1)",
                (tenant, episode, f"cdn.example.com/{episode}.mp3"),
            )
            warehouse.execute(
                "insert into raw.ad_units"
                " (tenant_id, ad_unit_id, campaign_id, episode_id, position, delivery, load_id)"
                " values (%s, %s, %s, %s, 'pre', 'baked_in', 1)",
                (tenant, f"a-{episode}", f"c-{episode}", episode),
            )
            warehouse.execute(
                "insert into raw.campaigns (tenant_id, campaign_id, sponsor_id, name, starts_at, ends_at, load_id)"
                " values (%s, %s, 's', 'Campaign', '2026-01-01Z', '2026-02-01Z', 1)",
                (tenant, f"c-{episode}"),
            )
        warehouse.execute(
            "insert into raw.sponsors (tenant_id, sponsor_id, name, load_id) values (%s, 's', 'S', 1)", (tenant,)
        )
        warehouse.execute(
            "insert into raw.insertion_orders (tenant_id, insertion_order_id, campaign_id, promo_code, load_id)"
            " values (%s, 'io', 'c-e1', 'SAVE', 1)",
            (tenant,),
        )
        warehouse.execute(
            "insert into raw.spend (tenant_id, campaign_id, spend_date, amount, load_id)"
            " values (%s, 'c-e1', '2026-01-03', 10, 1)",
            (tenant,),
        )


def add_request(
    warehouse: psycopg.Connection,
    occurred_at: datetime,
    *,
    tenant: str = "acme",
    episode: str = "e1",
    household: str = "h1",
    agent: str | None = APP,
    status: int = 200,
) -> None:
    warehouse.execute("select timeseries.ensure_chunks('raw.listener_events', %s, %s)", (occurred_at, at(31, 23)))
    warehouse.execute(
        """
        insert into raw.listener_events (tenant_id, event_id, occurred_at, event_type, source, enclosure_key,
            method, status, household_key, listener_key, user_agent, load_id)
        values (%s, %s, %s, 'request', 'test', %s, 'GET', %s, %s, %s, %s, 1)
        """,
        (
            tenant, uuid.uuid4(), occurred_at, f"cdn.example.com/{episode}.mp3", status,
            key(household), key(household + str(agent)), agent,
        ),
    )  # fmt: skip


def add_response(
    warehouse: psycopg.Connection,
    occurred_at: datetime,
    *,
    tenant: str = "acme",
    household: str = "h1",
    signal: str = "pixel",
    order: str | None = None,
    value: int | None = 20,
    code: str | None = None,
) -> None:
    warehouse.execute(
        "select timeseries.ensure_chunks('raw.attribution_events', %s, %s)", (occurred_at, at(31, 23))
    )
    warehouse.execute(
        """
        insert into raw.attribution_events (tenant_id, event_id, occurred_at, action, type, source, sponsor_id,
            household_key, order_number, value, currency, discount_code, load_id)
        values (%s, %s, %s, 'purchase', %s, 'test', 's', %s, %s, %s, 'USD', %s, 1)
        """,
        (tenant, uuid.uuid4(), occurred_at, signal, key(household), order, value, code),
    )


def add_figure(warehouse: psycopg.Connection, day: int, downloads: int, *, tenant: str = "acme") -> None:
    """Write what a host reports of episode e1."""
    warehouse.execute("select timeseries.ensure_chunks('raw.listener_metrics', %s, %s)", (at(day, 0), at(31, 23)))
    warehouse.execute(
        """
        insert into raw.listener_metrics (tenant_id, episode_id, metric_date, metric_name, value, source, load_id)
        values (%s, 'e1', %s, 'downloads', %s, 'host', 1)
        """,
        (tenant, date(2026, 1, day), downloads),
    )


def add_history(warehouse: psycopg.Connection) -> None:
    for day in range(1, 13):
        for tenant in ("acme", "beta"):
            for household in ("h1", "h2", f"h{day}"):
                add_request(warehouse, at(day, 8, day), tenant=tenant, household=household)
                add_request(warehouse, at(day, 9, day), tenant=tenant, household=household, episode="e2")
            add_request(warehouse, at(day, 10), tenant=tenant, agent="Googlebot/2.1")
            add_request(warehouse, at(day, 11), tenant=tenant, status=404, household="h404")
            add_figure(warehouse, day, 4, tenant=tenant)
            add_response(warehouse, at(day, 20), tenant=tenant, household=f"h{day - 1}")
            add_response(warehouse, at(day, 21), tenant=tenant, order=f"o{day // 2}", value=day)
            add_response(warehouse, at(day, 22), tenant=tenant, household="nobody")


def span(first: int, last: int) -> list[str]:
    """Return the span of whole days of January 2026, both included."""
    return [f"2026-01-{first:02}T00:00:00Z", f"2026-01-{last + 1:02}T00:00:00Z"]


def contents(warehouse: psycopg.Connection) -> dict[str, list[str]]:
    """Return all rows of every sliced table as text."""
    return {
        table: [row[0] for row in warehouse.execute(f"select t::text from {table} as t order by t::text")]
        for table in TABLES
    }


def versions(warehouse: psycopg.Connection, table: str, days: Sequence[int]) -> set[tuple[str, str, str]]:
    """Return the row versions of those days: they change when a row is replaced."""
    column = TABLES[table]
    rows = warehouse.execute(
        f"select tableoid::text, ctid::text, xmin::text from {table} where {column}::date = any(%s)",
        ([date(2026, 1, day) for day in days],),
    )
    return set(rows.fetchall())


def test_a_refresh_of_the_changed_days_equals_a_rebuild(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    add_history(warehouse)
    dbt.build(data_tests=True)
    before = contents(warehouse)
    assert all(before.values())

    # Late: an exposure that re-credits a conversion six days on, an earlier request that turns another into a
    # duplicate, an agent never seen, a stronger signal for an order. Gone: a day, and one request.
    add_request(warehouse, at(2, 7), household="nobody")
    add_request(warehouse, at(3, 1), household="h1")
    add_request(warehouse, at(3, 2), household="h9", agent="NeverSeen/1.0")
    add_response(warehouse, at(8, 23), order="o2", signal="promo_code", value=None, code="save")
    warehouse.execute("delete from raw.listener_events where occurred_at::date = '2026-01-06'")
    warehouse.execute("delete from raw.attribution_events where occurred_at::date = '2026-01-06'")
    warehouse.execute(
        "delete from raw.listener_events where occurred_at = %s and tenant_id = 'beta'", (at(10, 8, 10),)
    )

    dbt.build(data_tests=True)
    refreshed = contents(warehouse)
    assert {table for table in TABLES if refreshed[table] == before[table]} == set()

    dbt.build("--full-refresh")
    assert contents(warehouse) == refreshed


@pytest.mark.built(False)
def test_a_first_build_of_given_days_builds_the_whole(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    add_history(warehouse)
    dbt.build(
        "--select",
        "+rpt_campaigns",
        "+rpt_episode_daily",
        "+rpt_reconciliation",
        "+rpt_attribution_daily",
        "+rpt_attribution_windows_daily",
        "+rpt_signal_overlap_daily",
        "+rpt_response_outcomes_daily",
        "+config.materialized:continuous_aggregate",
        days=[span(2, 2)],
    )
    first = contents(warehouse)
    dbt.build()
    assert contents(warehouse) == first


def test_disjoint_days_replace_exactly_themselves(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    add_history(warehouse)
    dbt.build()
    by_day = [
        table
        for table, column in TABLES.items()
        if column
        # TimescaleDB leaves buckets alone whose rows have not changed, and shows aggregates as views.
        and not (table.startswith("rollups.") and engine_of(warehouse) is Engine.TIMESCALEDB)
    ]
    inside, outside = [3, 4, 9], [1, 2, 5, 6, 7, 8, 10, 11, 12]
    before = contents(warehouse)
    kept = {table: versions(warehouse, table, outside) for table in by_day}
    for table in by_day:
        warehouse.execute(
            f"delete from {table} where {TABLES[table]}::date = any(%s)",
            ([date(2026, 1, day) for day in inside],),
        )

    # A span that is no whole day is widened to whole UTC days.
    dbt.build(days=[["2026-01-09T10:00:00+02:00", "2026-01-09T11:00:00Z"], span(3, 3), span(4, 4)])

    for table in by_day:
        assert versions(warehouse, table, outside) == kept[table], table
    assert contents(warehouse) == before


def test_event_time_flags_are_one_span(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    add_history(warehouse)
    dbt.build()
    table = "marts.fct_downloads"
    kept, held = versions(warehouse, table, [4, 6]), len(versions(warehouse, table, [5]))
    warehouse.execute(f"delete from {table} where occurred_at::date = '2026-01-05'")
    dbt.build("--select", "fct_downloads", "--event-time-start", "2026-01-05", "--event-time-end", "2026-01-06")
    assert versions(warehouse, table, [4, 6]) == kept
    assert len(versions(warehouse, table, [5])) == held > 0


def test_a_model_named_in_rebuild_is_built_whole_beside_given_days(
    dbt: Dbt, warehouse: psycopg.Connection
) -> None:
    add_history(warehouse)
    dbt.build()
    downloads = versions(warehouse, "marts.fct_downloads", [1])
    rollup = relation_id(warehouse, "rollups.cagg_downloads_daily")
    warehouse.execute("update intermediate.int_user_agents__classified set agent_name = 'stale'")
    dbt.build(days=[span(5, 5)], rebuild=["cagg_downloads_daily", "int_user_agents__classified"])
    assert versions(warehouse, "marts.fct_downloads", [1]) == downloads
    assert relation_id(warehouse, "rollups.cagg_downloads_daily") != rollup
    assert warehouse.execute(
        "select count(*) from intermediate.int_user_agents__classified where agent_name = 'stale'"
    ).fetchone() == (0,)


def test_a_rebuild_keeps_the_views_that_stand_on_a_table(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    add_history(warehouse)
    dbt.build()
    role = f"reader_{uuid.uuid4().hex[:8]}"
    warehouse.execute(f"create role {role}")
    try:
        warehouse.execute(
            f"""
            create schema safe;
            create view safe.downloads with (security_barrier = true) as
            select * from marts.fct_downloads where tenant_id = 'acme';
            create view safe.totals as select count(*) as downloads from safe.downloads;
            comment on view safe.downloads is 'Of one tenant.';
            comment on column safe.downloads.source is 'Where from.';
            grant select on safe.downloads to {role} with grant option;
            grant select on marts.rpt_campaigns to public;
            """
        )
        described = """
            select c.reloptions, c.relacl::text, obj_description(c.oid), col_description(c.oid, 4),
                pg_get_viewdef(c.oid)
            from pg_class as c where c.oid = any(array['safe.downloads', 'marts.rpt_campaigns']::regclass[])
            order by c.relname
        """
        before = warehouse.execute(described).fetchall()
        dbt.build("--select", "config.materialized:hypertable", "--full-refresh")
        assert warehouse.execute(described).fetchall() == before
        assert warehouse.execute("select downloads > 0 from safe.totals").fetchone() == (True,)
    finally:
        warehouse.execute(f"drop owned by {role}")
        warehouse.execute(f"drop role {role}")


def test_data_tests_look_at_the_slices_of_the_run(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    add_history(warehouse)
    dbt.build()
    warehouse.execute(
        "update intermediate.int_requests__outcomes set outcome = 'nonsense'"
        " where occurred_at::date = '2026-01-03'"
    )
    warehouse.execute("delete from marts.fct_attribution_credits where occurred_at::date = '2026-01-03'")
    assert not dbt("test", "--select", "int_requests__outcomes").success
    assert not dbt("test", "--select", "int_requests__outcomes", days=[span(3, 3)]).success
    assert not dbt("test", "--select", "credits_conserve_conversions", days=[span(2, 2)]).success
    later = dbt("test", "--select", "int_requests__outcomes", "credits_conserve_conversions", days=[span(4, 5)])
    assert later.success, dbt.messages(later)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            "alter table marts.fct_downloads add column more text",
            "Gone: more. Run it once with --full-refresh",
        ),
        (
            "alter table marts.fct_downloads drop column source cascade",
            "New: source. Run it once with --full-refresh",
        ),
        (
            "update timeseries.hypertables set chunk_interval = '3 days' where table_name = 'fct_downloads'",
            "its chunk_interval has changed to 7 days. Run it once with --full-refresh",
        ),
        (
            (
                "drop view marts.rpt_episode_daily, marts.rpt_consumers, marts.rpt_ad_delivery_daily;"
                " drop table marts.fct_downloads cascade;"
                " delete from timeseries.hypertables where table_name = 'fct_downloads';"
                " create table marts.fct_downloads (occurred_at timestamptz)"
            ),
            "is no hypertable, so no slice of it can be replaced. Run it once with --full-refresh",
        ),
    ],
)
def test_a_slice_needs_the_table_that_the_model_describes(
    dbt: Dbt, warehouse: psycopg.Connection, change: str, said: str
) -> None:
    add_request(warehouse, at(1))
    dbt.build()
    warehouse.execute(change)
    result = dbt("run", "--select", "fct_downloads", days=[span(1, 1)])
    assert not result.success
    assert "Model fct_downloads: " in dbt.messages(result)
    assert said in dbt.messages(result)
    dbt.build("--select", "fct_downloads", "--full-refresh")
    dbt.build("--select", "fct_downloads", days=[span(1, 1)])
    assert contents_count(warehouse, "marts.fct_downloads") == 1


def contents_count(warehouse: psycopg.Connection, table: str) -> int:
    return warehouse.execute(f"select count(*) from {table}").fetchone()[0]


def test_every_rule_has_its_unit_test_pass(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    dbt.build("--empty")
    result = dbt("test", "--select", "test_type:unit")
    assert result.success, dbt.messages(result)
    # Days are nothing to a unit test: its rows are all there is.
    result = dbt("test", "--select", "test_type:unit", days=[span(30, 30)])
    assert result.success, dbt.messages(result)


def test_a_url_of_any_length_is_no_obstacle(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    noise = "".join(uuid.uuid4().hex for _ in range(300))
    add_request(warehouse, at(1), episode=f"{noise}1")
    add_request(warehouse, at(1), episode=f"{noise}2")
    dbt.build()
    rows = warehouse.execute("select episode_key from marts.fct_downloads").fetchall()
    assert len(set(rows)) == 2
    assert all(len(episode_key) < 600 for (episode_key,) in rows)


def test_a_refresh_reads_only_the_chunks_of_its_span(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    add_history(warehouse)
    dbt.build()
    result = dbt("compile", "--select", "int_requests__outcomes", days=[span(3, 3), span(9, 9)])
    query = "explain " + result.result.results[0].node.compiled_code
    plan = "\n".join(row[0] for row in warehouse.execute(query))
    read = set(re.findall(r"Scan.* on (raw__\w+|_hyper_\w+)", plan))
    if engine_of(warehouse) is Engine.TIMESCALEDB:
        # The model's own chunks of the day before are read too: windows of 24 hours go on from there.
        chunks = dict(
            warehouse.execute(
                "select c.chunk_name, c.range_start::date::text from timescaledb_information.chunks as c"
                " where c.hypertable_name = 'listener_events'"
            ).fetchall()
        )
        read &= chunks.keys()
        assert {chunks[name] for name in read} == {"2026-01-03", "2026-01-09"}
    else:
        assert read == {"raw__listener_events__20260103", "raw__listener_events__20260109"}
    assert len(read) == 2


def engine_of(warehouse: psycopg.Connection) -> Engine:
    return recorded(warehouse).engine


def relation_id(warehouse: psycopg.Connection, relation: str) -> int:
    row = warehouse.execute("select %s::regclass::oid", (relation,)).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize(
    ("mode", "columns", "old", "new"),
    [
        ("append_new_columns", {"region_code", "more"}, None, 1),
        ("sync_all_columns", {"more"}, None, 1),
    ],
)
def test_columns_follow_the_sql_where_the_model_says_so(
    dbt: Dbt,
    warehouse: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    columns: set[str],
    old: int | None,
    new: int,
) -> None:
    add_request(warehouse, at(1))
    add_request(warehouse, at(3))
    dbt.build()
    change_outcomes(dbt, monkeypatch, mode, "1 as more")
    dbt.build("--select", "int_requests__outcomes", days=[span(3, 3)])
    rows = warehouse.execute(
        "select to_jsonb(t) from intermediate.int_requests__outcomes as t order by occurred_at"
    )
    first, second = (row[0] for row in rows)
    assert {"region_code", "more"} & set(first) == columns
    assert (first["more"], second["more"]) == (old, new)


def test_new_columns_are_ignored_or_refused_as_the_model_says(
    dbt: Dbt, warehouse: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_request(warehouse, at(1))
    dbt.build()
    add_request(warehouse, at(1, 13), household="h2")
    change_outcomes(dbt, monkeypatch, "ignore", "thresholds.region_code,\n        1 as more")
    dbt.build("--select", "int_requests__outcomes", days=[span(1, 1)])
    assert contents_count(warehouse, "intermediate.int_requests__outcomes") == 2
    change_outcomes(dbt, monkeypatch, "ignore", "1 as bytes")
    refused = dbt("run", "--select", "int_requests__outcomes", days=[span(1, 1)])
    assert "New: more." not in dbt.messages(refused)
    assert "Gone: region_code." in dbt.messages(refused)


def change_outcomes(dbt: Dbt, patch: pytest.MonkeyPatch, mode: str, last_column: str) -> None:
    """Put another column in the place of the last one, region_code, and say what becomes of the table."""
    node = dbt.manifest.nodes["model.earmark.int_requests__outcomes"]
    last = re.compile(
        r"(thresholds\.country_code,\n).*?(\n    from thresholds\n    left join standings\n)", re.DOTALL
    )
    patch.setattr(node, "raw_code", last.sub(rf"\g<1>        {last_column}\g<2>", node.raw_code))
    patch.setattr(node.config, "on_schema_change", mode)
    patch.setitem(node.unrendered_config, "on_schema_change", mode)

"""The functions of schema timeseries and the macros on them: what each engine does, and what it refuses."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from earmark.warehouse import embedded
from earmark.warehouse.changes import models_to_refresh, pending_slices
from earmark.warehouse.database import Database
from earmark.warehouse.engine import Engine, EngineError, find_engine, prepare, recorded

Dbt = Any  # the class of conftest.py, which tests cannot import

APP = "Overcast/3.0 (+http://overcast.fm/; iOS podcast app)"
INSERT = (
    "insert into raw.listener_events (tenant_id, event_id, occurred_at, event_type, source, enclosure_key, method,"
    " status, household_key, listener_key, user_agent, load_id)"
    " select 'acme', gen_random_uuid(), t, 'request', 'test', 'cdn.example.com/e.mp3', 'GET', 200, 'h',"
    " convert_to('l' || n, 'UTF8'), %s, 0 from unnest(%s::timestamptz[]) with ordinality as u (t, n)"
)
REFERENCE = "insert into raw.podcasts (tenant_id, podcast_id, title, load_id) values ('acme', 'p', 'P', 0)"


@pytest.fixture
def dbt(dbt_on_any_engine: Dbt) -> Dbt:
    """Everything here that builds models holds on each engine."""
    return dbt_on_any_engine


@pytest.fixture
def warehouse(any_engine: Database) -> Iterator[psycopg.Connection]:
    with any_engine.connect(autocommit=True) as opened:
        opened.execute("insert into tenancy.tenants values ('acme', 'Acme')")
        yield opened


def day(number: int, hour: int = 12) -> datetime:
    return datetime(2026, 1, number, hour, tzinfo=UTC)


def insert(warehouse: psycopg.Connection, *times: datetime) -> None:
    """Write requests as another program would: with no word to the ledger."""
    for at in times:
        warehouse.execute(
            "select timeseries.ensure_chunks('raw.listener_events', %s, %s)", (at, at + timedelta(hours=1))
        )
    warehouse.execute(INSERT, (APP, list(times)))


def one(warehouse: psycopg.Connection, query: str, *parameters: object) -> Any:
    row = warehouse.execute(query, parameters).fetchone()  # type: ignore[arg-type]
    return row[0] if row and len(row) == 1 else row


def pending(warehouse: psycopg.Connection) -> list[str]:
    return [f"{item.producer} {item.day}" for item in pending_slices(warehouse)]


def downloads(warehouse: psycopg.Connection) -> list[tuple[str, int, int]]:
    """Return days, downloads and distinct listeners of the daily aggregate."""
    return warehouse.execute(
        "select bucket::date::text, sum(downloads)::int, sum(listeners)::int from rollups.cagg_downloads_daily"
        " group by 1 order by 1"
    ).fetchall()


# --- Changes ---


def test_days_are_found_whoever_wrote_them(warehouse: psycopg.Connection) -> None:
    insert(warehouse, day(3), day(5), day(3, 13))
    assert pending(warehouse) == ["raw.listener_events 2026-01-03", "raw.listener_events 2026-01-05"]
    warehouse.execute("delete from ingest.changes")
    warehouse.execute("update raw.listener_events set status = 404 where occurred_at = %s", (day(5),))
    assert pending(warehouse) == ["raw.listener_events 2026-01-05"]
    warehouse.execute("delete from raw.listener_events where occurred_at < %s", (day(4),))
    assert pending(warehouse) == ["raw.listener_events 2026-01-03", "raw.listener_events 2026-01-05"]
    warehouse.execute("delete from ingest.changes")
    warehouse.execute("truncate raw.listener_events")
    assert warehouse.execute("select producer, tenant_id, day::text from ingest.changes").fetchall() == [
        ("raw.listener_events", "", "-infinity")
    ]


def test_a_copy_of_another_program_is_seen(warehouse: psycopg.Connection) -> None:
    warehouse.execute("select timeseries.ensure_chunks('raw.listener_metrics', %s, %s)", (day(1), day(3)))
    columns = "tenant_id, episode_id, metric_date, metric_name, value, source, load_id"
    with warehouse.cursor().copy(f"copy raw.listener_metrics ({columns}) from stdin") as copy:
        for number in (1, 2):
            copy.write_row(("acme", "e", day(number).date(), "starts", 1.0, "x", 0))
    assert pending(warehouse) == ["raw.listener_metrics 2026-01-01", "raw.listener_metrics 2026-01-02"]


def test_reference_rows_are_news_to_every_day_of_their_tenant(warehouse: psycopg.Connection) -> None:
    warehouse.execute(REFERENCE)
    assert warehouse.execute("select producer, tenant_id, day::text from ingest.changes").fetchall() == [
        ("raw.podcasts", "acme", "-infinity")
    ]
    (found,) = pending_slices(warehouse)
    assert (found.producer, found.tenant_id, found.day) == ("raw.podcasts", "acme", None)


def test_only_slices_of_what_is_there_are_marked(warehouse: psycopg.Connection) -> None:
    mark = "select ingest.mark_changed(%s, %s, array['2026-01-01'::date])"
    with pytest.raises(psycopg.errors.RaiseException, match="there is no dataset listener_event: raw has no such"):
        warehouse.execute(mark, ("acme", "listener_event"))
    with pytest.raises(psycopg.errors.RaiseException, match="there is no tenant beta"):
        warehouse.execute(mark, ("beta", "listener_events"))
    assert pending(warehouse) == []


@pytest.mark.parametrize(
    ("slices", "groups"),
    [
        ([], []),
        (
            [
                ("b", "2026-01-01"),
                ("a", "2026-01-02"),
                ("a", "2026-01-01"),
                ("b", "2026-01-02"),
                ("c", "2026-01-09"),
            ],
            [
                {"tenants": ["a", "b"], "days": [["2026-01-01", "2026-01-03"]]},
                {"tenants": ["c"], "days": [["2026-01-09", "2026-01-10"]]},
            ],
        ),
        (
            [("a", "-infinity"), ("a", "2026-01-01"), ("", "2026-01-05")],
            [
                {"tenants": None, "days": [["2026-01-05", "2026-01-06"]]},
                {"tenants": ["a"], "days": [[None, None]]},
            ],
        ),
        # Too many tenants: the days of all. Too many days of their own: the span.
        (
            [(f"t{n}", "2026-01-01") for n in range(1001)],
            [{"tenants": None, "days": [["2026-01-01", "2026-01-02"]]}],
        ),
        (
            [("a", str(date(2026, 1, 1) + timedelta(days=2 * n))) for n in range(101)],
            [{"tenants": None, "days": [["2026-01-01", "2026-07-21"]]}],
        ),
    ],
)
def test_slices_become_the_fewest_groups(
    warehouse: psycopg.Connection, slices: list[tuple[str, str]], groups: list[dict[str, Any]]
) -> None:
    tenants, days = [tenant for tenant, _ in slices], [day for _, day in slices]
    assert one(warehouse, "select ingest.grouped(%s::text[], %s::date[])", tenants, days) == groups


def test_a_transaction_that_ends_late_is_not_missed(
    dbt: Dbt, warehouse: psycopg.Connection, any_engine: Database
) -> None:
    insert(warehouse, day(1), day(2))
    dbt.build()
    with any_engine.connect() as slow:
        slow.execute(INSERT, (APP, [day(1, 20)]))  # its number is given out here ...
        insert(warehouse, day(2, 21))
        dbt.build()
        assert downloads(warehouse) == [("2026-01-01", 1, 1), ("2026-01-02", 2, 2)]
        assert pending(warehouse) == []
        slow.commit()  # ... and it shows here, behind younger ones
    assert pending(warehouse) == ["raw.listener_events 2026-01-01"]


# --- Days that nobody gave ---


def test_each_model_refreshes_what_is_news_to_it(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    insert(warehouse, day(1), day(2))
    dbt.build()
    assert pending(warehouse) == []
    insert(warehouse, day(2, 13), day(4))
    dbt.build("--select", "int_requests__outcomes")
    assert pending(warehouse) != []
    assert downloads(warehouse) == [("2026-01-01", 1, 1), ("2026-01-02", 1, 1)]
    dbt.build()
    assert pending(warehouse) == []
    assert one(warehouse, "select sum(requests)::int from rollups.cagg_request_outcomes_daily") == 4
    # A model that is built while its parent has not seen a change sees it when the parent has.
    insert(warehouse, day(5))
    dbt.build("--select", "cagg_request_outcomes_daily")
    dbt.build("--select", "int_requests__outcomes")
    dbt.build()
    assert one(warehouse, "select sum(requests)::int from rollups.cagg_request_outcomes_daily") == 5


def test_a_day_that_was_given_settles_only_its_days(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    insert(warehouse, day(1))
    dbt.build()
    insert(warehouse, day(2), day(8))
    dbt.build("--event-time-start", "2026-01-02", "--event-time-end", "2026-01-03")
    assert {"raw.listener_events 2026-01-02", "raw.listener_events 2026-01-08"} <= set(pending(warehouse))
    assert [row[0] for row in downloads(warehouse)] == ["2026-01-01", "2026-01-02"]
    dbt.build("--event-time-start", "2026-01-01", "--event-time-end", "2026-01-09")
    assert pending(warehouse) == []


def test_a_replaced_table_is_news_to_what_stands_on_it(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    insert(warehouse, day(1))
    dbt.build()
    warehouse.execute(
        "delete from rollups.cagg_downloads_daily" if engine(warehouse) is Engine.POSTGRES else "select 1"
    )
    dbt.build("--select", "fct_downloads", "--full-refresh")
    assert "cagg_downloads_daily" in models_to_refresh(warehouse)
    dbt.build()
    assert downloads(warehouse) == [("2026-01-01", 1, 1)]
    assert one(warehouse, "select count(*) from timeseries.hypertables where is_parked") == 0
    assert models_to_refresh(warehouse) == set()


def test_a_database_from_a_dump_trusts_no_snapshot(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    insert(warehouse, day(1))
    dbt.build()
    assert pending(warehouse) == []
    warehouse.execute("update ingest.model_builds set cluster = cluster + 1")
    assert "raw.listener_events 2026-01-01" in pending(warehouse)
    dbt.build()
    assert pending(warehouse) == []


def engine(warehouse: psycopg.Connection) -> Engine:
    return recorded(warehouse).engine


# --- Aggregates ---


def test_metrics_are_refreshed_without_dbt(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    with pytest.raises(psycopg.errors.RaiseException, match="has never been built here"):
        warehouse.execute("call timeseries.refresh_metrics_daily()")
    insert(warehouse, day(1), day(2))
    dbt.build()
    insert(warehouse, day(2, 13), day(9))
    warehouse.execute("delete from raw.listener_events where occurred_at = %s", (day(1),))
    warehouse.execute("call timeseries.refresh_metrics_daily()")
    query = "select bucket::date::text, sum(events)::int from {} group by 1 order by 1"
    for table in ("rollups.cagg_listener_events_hourly", "rollups.cagg_listener_events_daily"):
        assert warehouse.execute(query.format(table)).fetchall() == [("2026-01-02", 2), ("2026-01-09", 1)]  # type: ignore[arg-type]
    assert len(pending(warehouse)) == 3, "the other models have not seen the days"
    dbt.build()
    assert pending(warehouse) == []


def test_a_changed_query_rebuilds_an_aggregate_and_what_hangs_on_it(
    dbt: Dbt, warehouse: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert(warehouse, day(1), day(2))
    dbt.build()
    node = dbt.manifest.nodes["model.earmark.cagg_listener_events_hourly"]
    monkeypatch.setattr(node, "raw_code", node.raw_code.replace("count(*) as events", "10 * count(*) as events"))
    dbt.build()
    assert one(warehouse, "select sum(events)::int from rollups.cagg_listener_events_hourly") == 20
    assert one(warehouse, "select sum(events)::int from rollups.cagg_listener_events_daily") == 20


def test_an_aggregate_cannot_be_refreshed_backwards(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    insert(warehouse, day(1))
    dbt.build("--select", "+cagg_listener_events_hourly")
    refresh = "call timeseries.refresh_continuous_aggregate(%s, %s::timestamptz, %s::timestamptz)"
    with pytest.raises(psycopg.errors.RaiseException, match="the end must come after the start"):
        warehouse.execute(refresh, ("rollups.cagg_listener_events_hourly", day(2), day(1)))
    with pytest.raises(psycopg.errors.RaiseException, match=r"raw.podcasts is no continuous aggregate"):
        warehouse.execute(refresh, ("raw.podcasts", day(1), day(2)))


@pytest.mark.timescaledb
def test_aggregates_of_timescaledb_are_its_own(
    timescaledb: Database, parsed: Dbt, monkeypatch: pytest.MonkeyPatch
) -> None:
    with timescaledb.connect(autocommit=True) as warehouse:
        warehouse.execute("insert into tenancy.tenants values ('acme', 'Acme')")
        insert(warehouse, day(1), day(2))
        parsed.use(timescaledb, monkeypatch).build()
        native = warehouse.execute(
            "select view_name, materialized_only from timescaledb_information.continuous_aggregates order by 1"
        ).fetchall()
        assert native == [
            ("cagg_ad_impressions_daily", True),
            ("cagg_consumers_daily", True),
            ("cagg_consumers_monthly", True),
            ("cagg_consumers_weekly", True),
            ("cagg_download_windows_daily", True),
            ("cagg_downloads_daily", True),
            ("cagg_downloads_hourly", True),
            ("cagg_listener_events_daily", True),
            ("cagg_listener_events_hourly", True),
            ("cagg_request_outcomes_daily", True),
            ("cagg_tenant_consumers_daily", True),
            ("cagg_tenant_consumers_monthly", True),
            ("cagg_tenant_consumers_weekly", True),
            ("cagg_unmatched_urls_daily", True),
        ]
        policies = warehouse.execute(
            "select hypertable_name from timescaledb_information.jobs"
            " where proc_name = 'policy_refresh_continuous_aggregate' order by 1"
        ).fetchall()
        assert policies == [("cagg_listener_events_daily",), ("cagg_listener_events_hourly",)]
        # The engine refreshes by itself what nobody else did.
        insert(warehouse, day(2, 18))
        for (job,) in warehouse.execute(
            "select job_id from timescaledb_information.jobs"
            " where proc_name = 'policy_refresh_continuous_aggregate' order by hypertable_name desc"
        ).fetchall():
            warehouse.execute("call run_job(%s)", (job,))
        assert one(warehouse, "select sum(events)::int from rollups.cagg_listener_events_daily") == 3


def test_a_refresh_sets_the_comments_that_differ_and_no_others(warehouse: psycopg.Connection, dbt: Dbt) -> None:
    comments = """
        select d.objoid::regclass::text, d.objsubid, d.description, d.xmin::text from pg_description as d
        where d.objoid in ('marts.fct_downloads'::regclass, 'marts.fct_conversions'::regclass) order by 1, 2
    """
    insert(warehouse, day(3))
    dbt.build()
    before = warehouse.execute(comments).fetchall()
    warehouse.execute("comment on table marts.fct_downloads is 'Another.'")
    warehouse.execute("comment on column marts.fct_downloads.source is null")
    insert(warehouse, day(4))
    dbt.build()
    after = warehouse.execute(comments).fetchall()
    assert [row[:3] for row in after] == [row[:3] for row in before]
    same = {row[0] for row in after if row in before}
    assert same == {"marts.fct_conversions"}


# --- Chunks, retention, columnstore ---


def test_chunks_stand_ready_for_the_days_to_come(warehouse: psycopg.Connection) -> None:
    warehouse.execute(INSERT, (APP, [datetime.now(UTC) + timedelta(days=5)]))
    assert len(pending(warehouse)) == 1


def test_retention_drops_whole_days_and_keeps_what_was_made_of_them(
    dbt: Dbt, warehouse: psycopg.Connection
) -> None:
    today = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
    kept = today - timedelta(days=700)
    insert(warehouse, today - timedelta(days=900), today - timedelta(days=800), kept, today)
    dbt.build()
    assert len(downloads(warehouse)) == 4
    assert one(warehouse, "select timeseries.maintain()") == 2
    assert one(warehouse, "select count(*)::int from raw.listener_events") == 2
    assert one(warehouse, "select timeseries.maintain()") == 0
    horizon = one(
        warehouse, "select dropped_before from timeseries.hypertables where table_name = 'listener_events'"
    )
    assert today - timedelta(days=732) < horizon < today - timedelta(days=729)

    # Neither a refresh of the old days, asked for or by a changed reference row, nor a rebuild takes them away.
    warehouse.execute(
        "insert into raw.episodes (tenant_id, episode_id, podcast_id, title, load_id)"
        " values ('acme', 'e', 'p', 'E', 0)"
    )
    assert pending(warehouse) == ["raw.episodes None"]
    dbt.build(
        "--event-time-start", f"{today - timedelta(days=950):%Y-%m-%d}", "--event-time-end", f"{kept:%Y-%m-%d}"
    )
    dbt.build()
    assert len(downloads(warehouse)) == 4
    dbt.build("--select", "fct_downloads", "int_requests__outcomes", "cagg_downloads_daily", "--full-refresh")
    assert len(downloads(warehouse)) == 4


@pytest.mark.timescaledb
def test_late_rows_into_the_columnstore(
    timescaledb: Database, parsed: Dbt, monkeypatch: pytest.MonkeyPatch
) -> None:
    with timescaledb.connect(autocommit=True) as warehouse:
        warehouse.execute("insert into tenancy.tenants values ('acme', 'Acme')")
        insert(warehouse, *(day(1, hour) for hour in range(24)), day(2))
        dbt = parsed.use(timescaledb, monkeypatch)
        dbt.build()
        settings = one(
            warehouse,
            "select segmentby || ' ' || orderby from timescaledb_information.hypertable_columnstore_settings"
            " where hypertable = 'raw.listener_events'::regclass",
        )
        assert settings == "tenant_id occurred_at DESC"
        for (chunk,) in warehouse.execute(
            "select c::text from show_chunks('raw.listener_events') as c"
        ).fetchall():
            warehouse.execute("call convert_to_columnstore(%s::regclass)", (chunk,))
        insert(warehouse, day(1, 5), day(2, 6))
        assert pending(warehouse) == ["raw.listener_events 2026-01-01", "raw.listener_events 2026-01-02"]
        dbt.build()
        assert one(warehouse, "select sum(requests)::int from rollups.cagg_request_outcomes_daily") == 27
        # CREATE TABLE AS of columns out of the table's order, from the columnstore: a release crashed on it.
        columns = [
            "user_agent",
            "listener_key",
            "event_id",
            "url",
            "household_key",
            "tenant_id",
            "properties",
            "source",
        ]
        for turn in range(len(columns)):
            picked = ", ".join(columns[turn:] + columns[:turn])
            with warehouse.transaction():
                warehouse.execute("select timeseries.read_columnstore_safely()")
                warehouse.execute(
                    f"create temporary table staged on commit drop as select {picked} from raw.listener_events"  # type: ignore[arg-type]
                    " where occurred_at >= '2026-01-01Z' and occurred_at < '2026-01-02Z'"
                )
                assert one(warehouse, "select count(*)::int from staged") == 25


# --- The engine ---


@pytest.fixture
def empty(server: Database) -> Iterator[Database]:
    """Return a database with nothing in it."""
    database = replace(server, name=f"earmark_test_{uuid.uuid4().hex[:16]}")
    with server.connect(autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(database.name)))
    yield database
    with server.connect(autocommit=True) as connection:
        connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(database.name)))


def test_an_engine_is_forced_and_recorded(empty: Database) -> None:
    ran, found = prepare(empty, "postgres")
    assert len(ran) >= 10
    assert found.engine is Engine.POSTGRES
    with empty.connect() as connection:
        assert recorded(connection) == found


@pytest.mark.timescaledb
def test_timescaledb_is_found_and_taken(timescaledb: Database, empty: Database) -> None:
    _, found = prepare(empty, "auto")
    assert (found.engine, found.note) == (Engine.TIMESCALEDB, "")
    with empty.connect() as connection:
        assert recorded(connection) == found
        hypertables = connection.execute(
            "select hypertable_name from timescaledb_information.hypertables order by 1"
        ).fetchall()
    assert hypertables == [("attribution_events",), ("listener_events",), ("listener_metrics",)]


@pytest.mark.timescaledb
def test_an_empty_database_changes_its_engine(
    timescaledb: Database, parsed: Dbt, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed.use(timescaledb, monkeypatch).build()
    described = """
        select c.relname, obj_description(c.oid), a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
            col_description(c.oid, a.attnum),
            (select count(*) from pg_index as i where i.indrelid = c.oid),
            (select count(*) from pg_trigger as t where t.tgrelid = c.oid and t.tgname like 'note_%'),
            (select count(*) from pg_constraint as k where k.conrelid = c.oid and k.contype = 'c')
        from pg_class as c inner join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0
        where c.relnamespace = 'raw'::regnamespace and c.relkind in ('r', 'p') order by 1, a.attnum
    """
    seen = []
    for wanted in ("timescaledb", "postgres", "timescaledb"):
        _, found = prepare(timescaledb, wanted)
        assert found.engine == wanted
        with timescaledb.connect(autocommit=True) as connection:
            seen.append(connection.execute(described).fetchall())
            left = "select count(*)::int from timeseries.hypertables where schema_name <> 'raw'"
            assert one(connection, left) == (16 + 14 if not seen[1:] else 0)
    assert seen[0] == seen[1] == seen[2]
    with timescaledb.connect(autocommit=True) as connection:
        connection.execute("insert into tenancy.tenants values ('acme', 'Acme')")
        insert(connection, day(1))
        assert pending(connection) == ["raw.listener_events 2026-01-01"]
    parsed.build()


@pytest.mark.timescaledb
def test_an_engine_is_not_changed_under_rows(timescaledb: Database) -> None:
    with timescaledb.connect(autocommit=True) as connection:
        connection.execute("insert into tenancy.tenants values ('acme', 'Acme')")
        insert(connection, day(1))
    with pytest.raises(
        EngineError, match=r"raw.listener_events holds rows .* Set EARMARK_ENGINE=timescaledb to go on"
    ):
        prepare(timescaledb, "postgres")
    assert prepare(timescaledb, "auto")[1].engine is Engine.TIMESCALEDB


def test_rows_keep_their_engine_when_timescaledb_comes_later(address: Database) -> None:
    with address.connect(autocommit=True) as connection:
        connection.execute("insert into tenancy.tenants values ('acme', 'Acme')")
        insert(connection, day(1))
    assert prepare(address, "auto")[1].engine is Engine.POSTGRES


@contextmanager
def server_with(configuration: str, home: Path) -> Iterator[Database]:
    """Start a server of its own that has TimescaleDB, with this configuration of it."""
    if not any((embedded.psql().parent.parent / "lib").rglob("timescaledb.so")):
        pytest.skip("the embedded server has no TimescaleDB: one that is set up wrongly cannot be made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded, "_TIMESCALEDB", configuration)
        database = embedded.start(home)
    try:
        yield database
    finally:
        embedded.stop(home)


@pytest.mark.timescaledb
def test_the_apache_edition_is_not_enough(tmp_path: Path) -> None:
    apache = "shared_preload_libraries = 'timescaledb'\ntimescaledb.license = 'apache'\n"
    with server_with(apache, tmp_path) as database:
        with pytest.raises(EngineError, match=r"is the Apache edition: .* or set EARMARK_ENGINE=postgres"):
            find_engine(database, "timescaledb")
        _, found = prepare(database, "auto")
        assert found.engine is Engine.POSTGRES
        assert "plain PostgreSQL is used: this TimescaleDB" in found.note
        with database.connect() as connection:
            assert one(connection, "select count(*)::int from pg_extension where extname = 'timescaledb'") == 0


@pytest.mark.timescaledb
def test_an_extension_that_is_not_preloaded_is_told(tmp_path: Path) -> None:
    with server_with("", tmp_path) as database:
        for wanted in ("auto", "timescaledb"):
            with pytest.raises(EngineError, match=r"not preloaded: add shared_preload_libraries = 'timescaledb'"):
                find_engine(database, wanted)
        assert find_engine(database, "postgres").engine is Engine.POSTGRES


def test_timescaledb_that_is_missing_is_told(address: Database) -> None:
    with address.connect() as connection:
        if one(connection, "select count(*)::int from pg_available_extensions where name = 'timescaledb'"):
            pytest.skip("this server has TimescaleDB")
    with pytest.raises(EngineError, match="has no TimescaleDB: install the extension"):
        find_engine(address, "timescaledb")

"""The change log: who is told of what, for which tenant and day, and how far a change travels."""

import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest

from earmark.warehouse.changes import forget_removed, models_to_refresh, pending_slices
from earmark.warehouse.database import Database

pytestmark = pytest.mark.built
Dbt = Any  # the class of conftest.py, which tests cannot import
TENANTS = ("acme", "beta")
DAYS = (1, 2, 3)


@pytest.fixture
def dbt(dbt_on_any_engine: Dbt) -> Dbt:
    """Everything here holds on each engine."""
    return dbt_on_any_engine


@pytest.fixture
def warehouse(dbt: Dbt, any_engine: Database) -> Iterator[psycopg.Connection]:
    """Return a database with two tenants alike, built."""
    with any_engine.connect(autocommit=True) as opened:
        for table in ("listener_events", "attribution_events", "spend"):
            if table != "spend":
                opened.execute("select timeseries.ensure_chunks(%s, %s, %s)", (f"raw.{table}", at(1), at(28)))
        for tenant in TENANTS:
            add_reference(opened, tenant)
            for day in DAYS:
                add_request(opened, tenant, at(day))
                add_order(opened, tenant, at(day, 18), f"o{day}")
                add_spend(opened, tenant, day)
        dbt.build()
        assert pending_slices(opened) == []
        yield opened


def at(day: int, hour: int = 12) -> datetime:
    return datetime(2026, 1, day, hour, tzinfo=UTC)


def add_reference(warehouse: psycopg.Connection, tenant: str) -> None:
    warehouse.execute(
        f"""
        insert into tenancy.tenants (tenant_id, name) values ('{tenant}', 'T');
        insert into raw.sponsors (tenant_id, sponsor_id, name, load_id) values ('{tenant}', 's', 'S', 1);
        insert into raw.podcasts (tenant_id, podcast_id, title, load_id) values ('{tenant}', 'p', 'P', 1);
        insert into raw.episodes (tenant_id, episode_id, podcast_id, enclosure_key, load_id)
        values ('{tenant}', 'e', 'p', 'cdn.example.com/e.mp3', 1);
        insert into raw.campaigns (tenant_id, campaign_id, sponsor_id, name, starts_at, ends_at, load_id)
        values ('{tenant}', 'c', 's', 'C', '2026-01-01Z', '2026-02-01Z', 1);
        insert into raw.ad_units (tenant_id, ad_unit_id, campaign_id, episode_id, position, delivery, load_id)
        values ('{tenant}', 'a', 'c', 'e', 'pre', 'baked_in', 1);
        """.encode()
    )


def add_request(
    warehouse: psycopg.Connection,
    tenant: str,
    occurred_at: datetime,
    household: str = "h",
    *,
    url: str = "cdn.example.com/e.mp3",
) -> None:
    warehouse.execute(
        "insert into raw.listener_events (tenant_id, event_id, occurred_at, event_type, source, enclosure_key,"
        " method, status, household_key, listener_key, user_agent, load_id)"
        " values (%s, %s, %s, 'request', 'cdn', %s, 'GET', 200, %s, %s, 'Overcast/3.0', 1)",
        (tenant, uuid.uuid4(), occurred_at, url, household.encode(), household.encode()),
    )


def add_order(
    warehouse: psycopg.Connection,
    tenant: str,
    occurred_at: datetime,
    order: str | None,
    value: int = 10,
    *,
    household: str = "h",
    cookie: str | None = None,
    action: str = "purchase",
) -> None:
    warehouse.execute(
        "insert into raw.attribution_events (tenant_id, event_id, occurred_at, action, type, source,"
        " household_key, cookie_id, order_number, value, currency, load_id)"
        " values (%s, %s, %s, %s, 'pixel', 'x', %s, %s, %s, %s, 'USD', 1)",
        (tenant, uuid.uuid4(), occurred_at, action, household.encode(), cookie, order, value),
    )


def add_spend(warehouse: psycopg.Connection, tenant: str, day: int, amount: int = 5) -> None:
    warehouse.execute(
        "insert into raw.spend (tenant_id, campaign_id, spend_date, amount, load_id) values (%s, 'c', %s, %s, 1)"
        " on conflict do nothing",
        (tenant, date(2026, 1, day), amount),
    )


def looked_at(warehouse: psycopg.Connection) -> dict[str, Any]:
    """Return what each model looked at in the last invocation, of those that looked at anything."""
    return dict(
        warehouse.execute(
            "select model, slices from ingest.builds"
            " where invocation_id = (select invocation_id from ingest.builds order by begun_at desc limit 1)"
            " and slices is distinct from '[]'"
        ).fetchall()
    )


def changed(warehouse: psycopg.Connection) -> dict[str, Any]:
    """Return the slices of each hypertable that came out otherwise in the last invocation."""
    return dict(
        warehouse.execute(
            "select b.model, b.changed from ingest.builds as b"
            " inner join timeseries.hypertables as h on h.table_name = b.model"
            " left join timeseries.continuous_aggregates as a on a.table_name = b.model"
            " where b.invocation_id = (select invocation_id from ingest.builds order by begun_at desc limit 1)"
            " and b.changed <> '[]' and a.table_name is null"
        ).fetchall()
    )


def credit_models(warehouse: psycopg.Connection) -> int:
    """Return the number of models in SQL that credit each conversion."""
    (models,) = warehouse.execute(
        "select count(*) from seeds.attribution_models where method <> 'markov'"
    ).fetchone() or (0,)
    return int(models)


def equals_a_rebuild(dbt: Dbt, warehouse: psycopg.Connection) -> bool:
    """Whether attribution stands as it does when it is built whole."""
    tables = ("fct_conversions", "fct_attribution_paths", "fct_attribution_credits", "rpt_attribution_daily")
    contents = [f"select t::text from marts.{table} as t order by 1".encode() for table in tables]
    refreshed = [warehouse.execute(content).fetchall() for content in contents]
    dbt.build("--full-refresh")
    return refreshed == [warehouse.execute(content).fetchall() for content in contents]


def group(tenant: str, *days: int) -> list[dict[str, Any]]:
    return [{"tenants": [tenant], "days": [[f"2026-01-{day:02}", f"2026-01-{day + 1:02}"] for day in days]}]


def any_day(tenant: str) -> list[dict[str, Any]]:
    return [{"tenants": [tenant], "days": [[None, None]]}]


def rows_of(warehouse: psycopg.Connection, tenant: str) -> dict[str, set[Any]]:
    """Return where the rows of a tenant lie, and by whom they were written, for every hypertable of the models."""
    tables = warehouse.execute(
        "select h.schema_name || '.' || h.table_name from timeseries.hypertables as h"
        " left join timeseries.continuous_aggregates as a using (schema_name, table_name)"
        " where h.schema_name in ('intermediate', 'marts') and a.table_name is null"
    ).fetchall()
    return {
        table: set(
            warehouse.execute(
                f"select tableoid::text, ctid::text, xmin::text from {table} where tenant_id = %s".encode(),
                (tenant,),
            ).fetchall()
        )
        for (table,) in tables
    }


# --- Who is told ---


def test_a_row_of_spend_is_news_to_the_one_model_that_reads_spend(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    other = rows_of(warehouse, "beta")
    own = rows_of(warehouse, "acme")
    warehouse.execute("update raw.spend set amount = 7 where tenant_id = 'acme' and spend_date = '2026-01-02'")
    assert models_to_refresh(warehouse) == {"rpt_campaign_daily"}
    dbt.build()
    assert looked_at(warehouse) == {"rpt_campaign_daily": group("acme", 2)}
    assert changed(warehouse) == {"rpt_campaign_daily": group("acme", 2)}
    assert rows_of(warehouse, "beta") == other
    now = rows_of(warehouse, "acme")
    assert {table for table in own if own[table] != now[table]} == {"marts.rpt_campaign_daily"}
    assert len(own["marts.rpt_campaign_daily"] & now["marts.rpt_campaign_daily"]) == 2, "the other days stay"
    assert warehouse.execute(
        "select spend::int from marts.rpt_campaign_daily where tenant_id = 'acme' order by day"
    ).fetchall() == [(5,), (7,), (5,)]


def test_what_no_refreshed_model_reads_refreshes_nothing(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    warehouse.execute("update raw.sponsors set name = 'Another' where tenant_id = 'acme'")
    assert pending_slices(warehouse) == []
    assert models_to_refresh(warehouse) == set()
    assert warehouse.execute("select distinct sponsor_name from marts.rpt_campaigns order by 1").fetchall() == [
        ("Another",),
        ("S",),
    ]


def test_a_setting_recounts_its_tenant_and_no_other(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    other = rows_of(warehouse, "beta")
    warehouse.execute("update tenancy.tenants set counted_sources = '{elsewhere}' where tenant_id = 'acme'")
    assert models_to_refresh(warehouse) == {"int_requests__outcomes"}
    dbt.build()
    assert looked_at(warehouse)["int_requests__outcomes"] == any_day("acme")
    days = [{"tenants": ["acme"], "days": [["2026-01-01", "2026-01-04"]]}]
    assert changed(warehouse)["int_requests__outcomes"] == days
    assert changed(warehouse)["fct_downloads"] == days
    assert warehouse.execute("select distinct tenant_id from marts.fct_downloads").fetchall() == [("beta",)]
    assert rows_of(warehouse, "beta") == other


def test_a_name_of_a_tenant_is_no_setting(warehouse: psycopg.Connection) -> None:
    warehouse.execute("update tenancy.tenants set name = 'Another' where tenant_id = 'acme'")
    assert pending_slices(warehouse) == []


def test_an_episode_is_news_to_the_days_that_its_url_was_asked_for(
    dbt: Dbt, warehouse: psycopg.Connection
) -> None:
    add_request(warehouse, "acme", at(2), url="cdn.example.com/f.mp3")
    add_request(warehouse, "acme", at(5), url="/f.mp3")  # a log that does not say its host
    dbt.build()
    other = rows_of(warehouse, "beta")
    warehouse.execute(
        "insert into raw.episodes (tenant_id, episode_id, podcast_id, enclosure_key, load_id)"
        " values ('acme', 'f', 'p', 'cdn.example.com/f.mp3', 2)"
    )
    assert pending_slices(warehouse)[0].day is None  # where it was asked for is found by who reads
    dbt.build()
    assert looked_at(warehouse)["int_requests__outcomes"] == group("acme", 2, 5)
    named = (
        "select (occurred_at at time zone 'UTC')::date from marts.fct_downloads where episode_id = 'f' order by 1"
    )
    assert warehouse.execute(named).fetchall() == [(date(2026, 1, 2),), (date(2026, 1, 5),)]

    # Under another URL it keeps the requests for the old one, and no other day is looked at.
    add_request(warehouse, "acme", at(8), url="cdn.example.com/g.mp3")
    dbt.build()
    warehouse.execute("update raw.episodes set enclosure_key = 'cdn.example.com/g.mp3' where episode_id = 'f'")
    dbt.build()
    assert looked_at(warehouse)["int_requests__outcomes"] == group("acme", 2, 5, 8)
    assert warehouse.execute(named).fetchall() == [(date(2026, 1, day),) for day in (2, 5, 8)]
    warehouse.execute("delete from raw.episodes where episode_id = 'f'")
    dbt.build()
    assert looked_at(warehouse)["int_requests__outcomes"] == group("acme", 2, 5, 8)
    assert warehouse.execute(named).fetchall() == []
    assert rows_of(warehouse, "beta") == other
    assert pending_slices(warehouse) == []


def test_a_late_touch_credits_the_conversions_of_its_household_alone(
    dbt: Dbt, warehouse: psycopg.Connection
) -> None:
    add_order(warehouse, "acme", at(3, 20), "o8", household="k")
    # Found by its cookie: k's browser bought with the account of a household that no ad reached.
    add_order(warehouse, "acme", at(4), "o9", household="n", cookie="c1")
    add_order(warehouse, "acme", at(1, 6), None, household="k", cookie="c1", action="view")
    dbt.build()
    before = rows_of(warehouse, "acme")
    add_request(warehouse, "acme", at(2, 13), "k")
    dbt.build()
    assert looked_at(warehouse)["fct_attribution_paths"] == [
        {"tenants": ["acme"], "days": [["2026-01-03", "2026-01-05"]]}
    ]
    for model in ("fct_attribution_paths", "fct_attribution_credits"):
        table = f"marts.{model}"
        replaced = before[table] - rows_of(warehouse, "acme")[table]
        # Each of the two conversions had no path, and a credit to nobody under every model.
        models = 0 if model == "fct_attribution_paths" else credit_models(warehouse)
        assert len(replaced) == 2 * models, table
    touched = warehouse.execute(
        "select c.order_number, p.match_type from marts.fct_attribution_paths as p"
        " inner join marts.fct_conversions as c using (tenant_id, conversion_id)"
        " where c.order_number in ('o8', 'o9') order by 1"
    ).fetchall()
    assert touched == [("o8", "household"), ("o9", "cookie")]
    assert equals_a_rebuild(dbt, warehouse)

    # And when it goes again, all is as before.
    warehouse.execute(
        "delete from raw.listener_events where tenant_id = 'acme' and occurred_at = %s", (at(2, 13),)
    )
    dbt.build()
    assert warehouse.execute(
        "select count(*) from marts.fct_attribution_credits as t"
        " inner join marts.fct_conversions as c using (tenant_id, conversion_id)"
        " where c.order_number in ('o8', 'o9') and t.match_type <> 'unattributed'"
    ).fetchone() == (0,)
    assert equals_a_rebuild(dbt, warehouse)


# --- How far it travels ---


def test_a_change_that_changes_nothing_ends_where_it_is_found(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    before = rows_of(warehouse, "acme")
    warehouse.execute("update raw.ad_units set load_id = 2 where tenant_id = 'acme'")
    dbt.build()
    assert looked_at(warehouse)["fct_ad_impressions"] == any_day("acme")
    assert "fct_attribution_paths" not in looked_at(warehouse)
    assert changed(warehouse) == {}
    assert rows_of(warehouse, "acme") == before
    assert pending_slices(warehouse) == []


def test_a_model_that_was_not_built_publishes_nothing(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    add_request(warehouse, "acme", at(2, 13), "other")
    dbt.build("--select", "fct_downloads")
    assert looked_at(warehouse) == {}
    assert "int_requests__outcomes" in models_to_refresh(warehouse)
    dbt.build("--select", "int_requests__outcomes")
    assert "fct_downloads" in models_to_refresh(warehouse)
    dbt.build()
    assert pending_slices(warehouse) == []
    assert warehouse.execute(
        "select count(*) from marts.fct_downloads where tenant_id = 'acme' and occurred_at >= %s", (at(2, 0),)
    ).fetchone() == (3,)


def test_an_event_of_an_order_is_news_to_the_days_of_its_others(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    before = rows_of(warehouse, "acme")["marts.fct_conversions"]
    add_order(warehouse, "acme", at(20), "o1", value=-4)  # a part of what was bought on the first is paid back
    dbt.build()
    assert changed(warehouse)["int_responses__claimed"] == group("acme", 20)
    assert looked_at(warehouse)["fct_conversions"] == group("acme", 1, 20)
    assert changed(warehouse)["fct_conversions"] == group("acme", 1)
    assert len(before & rows_of(warehouse, "acme")["marts.fct_conversions"]) == 2
    refreshed = warehouse.execute("select * from marts.fct_conversions order by 1, 2").fetchall()
    dbt.build("--full-refresh")
    assert warehouse.execute("select * from marts.fct_conversions order by 1, 2").fetchall() == refreshed

    warehouse.execute("delete from raw.attribution_events where occurred_at = %s", (at(20),))
    dbt.build()
    assert changed(warehouse)["fct_conversions"] == group("acme", 1)


def test_a_night_of_many_tenants_and_days(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    """Three hundred tenants with a day each, then so many slices that no condition could name them."""
    names = [f"t{n:03}" for n in range(300)]
    for name in names:
        add_reference(warehouse, name)
        add_request(warehouse, name, at(5))
    dbt.build()
    counted = "select count(distinct tenant_id), count(*) from marts.fct_downloads where tenant_id like 't0%'"
    assert warehouse.execute(counted).fetchone() == (100, 100)
    (slices,) = looked_at(warehouse)["fct_downloads"]
    assert slices == {"tenants": names, "days": [["2026-01-05", "2026-01-06"]]}

    for n, name in enumerate(names[:150]):
        add_request(warehouse, name, at(1 + n % 25, 9), "other")
    warehouse.execute(
        "select ingest.mark_changed(t.tenant_id, 'listener_events', d.days)"
        " from tenancy.tenants as t,"
        " (select array_agg('2026-01-01'::date + 2 * n) as days from generate_series(0, 330) as n) as d"
    )
    assert len(pending_slices(warehouse)) >= 100_000
    dbt.build()
    assert looked_at(warehouse)["int_requests__outcomes"] == [
        {"tenants": None, "days": [["2026-01-01", "2027-10-24"]]}
    ]
    assert warehouse.execute(counted).fetchone() == (100, 200)
    assert pending_slices(warehouse) == []


def test_a_tenant_that_goes_leaves_nothing_behind(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    tables = warehouse.execute(
        "select c.oid::regclass::text from pg_class as c where c.relnamespace = 'raw'::regnamespace"
        " and c.relkind in ('r', 'p') and not c.relispartition order by 1"
    ).fetchall()
    with warehouse.transaction():
        for (table,) in tables:
            warehouse.execute(f"delete from {table} where tenant_id = 'beta'".encode())
        warehouse.execute("delete from tenancy.tenants where tenant_id = 'beta'")
    dbt.build()
    assert pending_slices(warehouse) == []
    assert {table for table, rows in rows_of(warehouse, "beta").items() if rows} == set()
    assert all(rows_of(warehouse, "acme")[f"marts.{table}"] for table in ("fct_downloads", "fct_conversions"))


# --- The log itself ---


def test_what_every_reader_has_seen_is_forgotten(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    for day in range(5, 9):
        add_request(warehouse, "acme", at(day))
        dbt.build()
    add_request(warehouse, "acme", at(9))
    warehouse.execute("select ingest.begin_run()")  # as the next run begins
    held = warehouse.execute("select producer, day from ingest.changes where isfinite(day)").fetchall()
    assert held == [("raw.listener_events", date(2026, 1, 9))]


def test_a_clock_that_jumps_loses_nothing(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    warehouse.execute("update ingest.changes set changed_at = now() + interval '10 years'")
    warehouse.execute("update ingest.builds set begun_at = begun_at + interval '10 years'")
    warehouse.execute("update ingest.model_builds set built_at = built_at - interval '10 years'")
    add_request(warehouse, "acme", at(2, 13), "other")
    warehouse.execute("update ingest.changes set changed_at = now() - interval '10 years'")
    dbt.build()
    assert pending_slices(warehouse) == []
    assert warehouse.execute("select count(*) from marts.fct_downloads where tenant_id = 'acme'").fetchone() == (
        4,
    )


def test_a_build_that_dies_before_its_note_is_taken_back_whole(
    dbt: Dbt, warehouse: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = rows_of(warehouse, "acme")["marts.fct_downloads"]
    add_request(warehouse, "acme", at(2, 13), "other")
    warehouse.execute(
        "create function fails() returns trigger language plpgsql as $$ begin raise 'died'; end $$;"
        " create trigger fails before insert or update on ingest.model_builds for each row"
        " when (new.model = 'fct_downloads') execute function fails()"
    )
    assert not dbt("run", "--select", "int_requests__outcomes", "fct_downloads").success
    assert rows_of(warehouse, "acme")["marts.fct_downloads"] == before
    warehouse.execute("drop function fails() cascade")
    assert "fct_downloads" in models_to_refresh(warehouse)
    dbt.build()
    assert len(rows_of(warehouse, "acme")["marts.fct_downloads"]) == len(before) + 1


def test_a_removed_model_reads_no_more_and_its_table_is_named(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    manifest = dbt.manifest.writable_manifest().to_dict(omit_none=False)
    assert forget_removed(warehouse, manifest) == []
    del manifest["nodes"]["model.earmark.rpt_campaign_daily"]
    add_spend(warehouse, "acme", 9)
    assert models_to_refresh(warehouse) == {"rpt_campaign_daily"}
    assert forget_removed(warehouse, manifest) == ["marts.rpt_campaign_daily"]
    assert models_to_refresh(warehouse) == set()
    assert pending_slices(warehouse) == []
    warehouse.execute("drop table marts.rpt_campaign_daily cascade")
    assert forget_removed(warehouse, manifest) == []
    assert warehouse.execute(
        "select count(*) from ingest.model_builds where model = 'rpt_campaign_daily'"
    ).fetchone() == (0,)


def test_slices_of_an_unknown_model_are_no_build(warehouse: psycopg.Connection) -> None:
    with pytest.raises(psycopg.errors.RaiseException, match="the build of nothing by nobody has not begun"):
        warehouse.execute("select ingest.end_build('nothing', 'nobody', '{}')")


def test_two_writers_of_the_same_slices_wait_for_each_other_and_do_not_die(
    warehouse: psycopg.Connection, any_engine: Database
) -> None:
    days = [date(2026, 1, 1) + timedelta(days=n) for n in range(20)]
    mark = "select ingest.mark_changed('acme', 'spend', %s::date[])"
    with any_engine.connect() as one, any_engine.connect() as two:
        one.execute(mark, (days,))
        two.execute("set lock_timeout to '200ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            two.execute(mark, (days[::-1],))
        two.rollback()
        one.commit()
        two.execute(mark, (days[::-1],))
        two.commit()
    assert len(pending_slices(warehouse)) == 20


def test_values_that_two_rows_swap_are_a_change(dbt: Dbt, warehouse: psycopg.Connection):
    warehouse.execute(
        """
        insert into raw.campaigns (tenant_id, campaign_id, sponsor_id, name, starts_at, ends_at, load_id)
        values ('acme', 'd', 's', 'D', '2026-01-01Z', '2026-02-01Z', 1);
        insert into raw.spend (tenant_id, campaign_id, spend_date, amount, load_id)
        values ('acme', 'c', '2026-01-20', 100, 1), ('acme', 'd', '2026-01-20', 200, 1);
        """
    )
    dbt.build()
    warehouse.execute("update raw.spend set amount = 300 - amount where spend_date = '2026-01-20'")
    dbt.build()
    spent = warehouse.execute(
        "select campaign_id, spend from marts.rpt_campaign_daily where day = '2026-01-20' order by 1"
    )
    assert spent.fetchall() == [("c", 200), ("d", 100)]

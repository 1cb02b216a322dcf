"""What a change of one tenant costs among others, as history grows: seconds, models at work and rows replaced.

    python benchmarks/changes.py [--url postgresql://...] [--engines postgres,timescaledb] [--tenants 20]
        [--days 10,100] [--per-day 500] [--night 300] [--keep]

Makes a database an engine with --tenants alike, --per-day requests a tenant and day, orders and spend, made on the
server. Every history is the one before with earlier days in front of it. Then one thing of one tenant is changed
and refreshed, again and again: a late request, a row of spend, a setting, an episode, a sponsor's name. At last
a night's load of --night new tenants with a day each, against one new tenant with as many rows on that day.

Seconds are medians of whole refreshes, the project parsed; models are those that dbt ran; rows are those that the
refresh wrote into the tables of the models. Only ratios of one run mean something.
"""

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from datetime import date, timedelta

import psycopg
from psycopg import sql

from earmark.settings import load_settings
from earmark.warehouse import dbt
from earmark.warehouse.database import Database
from earmark.warehouse.engine import prepare
from earmark.warehouse.refresh import Refresh
from earmark.warehouse.server import resolve

LAST = date(2026, 9, 30)
ONE_DAY = timedelta(days=1)
REPEAT = 5
REFERENCE = """
insert into tenancy.tenants (tenant_id, name) values ({tenant}, 'T');
insert into raw.sponsors (tenant_id, sponsor_id, name, load_id) values ({tenant}, 's', 'S', 1);
insert into raw.podcasts (tenant_id, podcast_id, title, load_id) values ({tenant}, 'p', 'P', 1);
insert into raw.episodes (tenant_id, episode_id, podcast_id, enclosure_key, duration_seconds, load_id)
select {tenant}, 'e' || n, 'p', 'cdn.example.com/' || n || '.mp3', 1800, 1 from generate_series(0, 19) as n;
insert into raw.campaigns (tenant_id, campaign_id, sponsor_id, name, starts_at, ends_at, load_id)
select {tenant}, 'c' || n, 's', 'C' || n, '2026-01-01+00', '2026-12-31+00', 1 from generate_series(0, 4) as n;
insert into raw.ad_units (tenant_id, ad_unit_id, campaign_id, episode_id, position, delivery, load_id)
select {tenant}, 'a' || n, 'c' || n % 5, 'e' || n, 'mid', 'baked_in', 1 from generate_series(0, 9) as n;
"""
EVENTS = """
insert into raw.listener_events (tenant_id, event_id, occurred_at, event_type, source, enclosure_key, method,
    status, household_key, listener_key, user_agent, load_id)
select {tenant}, gen_random_uuid(), {day}::timestamp at time zone 'UTC' + random() * interval '86399 seconds',
    'request', 'cdn', 'cdn.example.com/' || (random() * 19)::integer || '.mp3', 'GET', 200, k.key, k.key,
    'Overcast/3.0', 1
from generate_series(1, {count}) as n
cross join lateral (select uuid_send(md5({tenant} || (n * 7919) % 2000)::uuid) as key) as k;
"""
ORDERS = """
insert into raw.attribution_events (tenant_id, event_id, occurred_at, action, type, source, household_key,
    order_number, value, currency, load_id)
select {tenant}, gen_random_uuid(), {day}::timestamp at time zone 'UTC' + n * interval '1 hour', 'purchase',
    'pixel', 'x', uuid_send(md5({tenant} || (n * 131 + {day}::date - '2026-01-01') % 2000)::uuid),
    {day} || '-' || n, 10, 'USD', 1
from generate_series(1, 5) as n;
insert into raw.spend (tenant_id, campaign_id, spend_date, amount, load_id)
select {tenant}, 'c' || n, {day}::date, 50, 1 from generate_series(0, 4) as n;
"""
CHANGES = {
    "a late request": EVENTS,
    "a row of spend": "update raw.spend set amount = amount + 1 where (tenant_id, campaign_id, spend_date)"
    " = ({tenant}, 'c1', {day}::date)",
    "a setting": "update tenancy.tenants set max_daily_downloads_per_address = max_daily_downloads_per_address + 1"
    " where tenant_id = {tenant}",
    "an episode": "update raw.episodes set duration_seconds = duration_seconds + 1"
    " where tenant_id = {tenant} and episode_id = 'e1'",
    "a sponsor's name": "update raw.sponsors set name = name || 'x' where tenant_id = {tenant}",
}


@dataclass
class Bench:
    """A database of an engine, and its refresh."""

    database: Database
    connection: psycopg.Connection

    def change(self, text: str, tenant: str, day: date, count: int = 1) -> None:
        """Run a statement of above, for a tenant and day."""
        values = {"tenant": tenant, "day": day.isoformat(), "count": count}
        query = sql.SQL(text).format(**{name: sql.Literal(value) for name, value in values.items()})
        self.connection.execute(query)

    def fill(self, tenant: str, first: date, last: date, per_day: int) -> None:
        """Make the days of a tenant."""
        for table in ("raw.listener_events", "raw.attribution_events"):
            self.connection.execute("select timeseries.ensure_chunks(%s, %s, %s)", (table, first, last + ONE_DAY))
        for number in range((last - first).days + 1):
            day = first + number * ONE_DAY
            with self.connection.transaction():
                self.change(EVENTS, tenant, day, per_day)
                self.change(ORDERS, tenant, day)

    def refresh(self) -> tuple[float, int, int]:
        """Refresh; return the seconds, the models that ran, and the rows that were written."""
        refresh = Refresh(self.database)
        (before,) = self.connection.execute("select pg_current_xact_id()::text::bigint").fetchone() or (0,)
        began = time.perf_counter()
        events = [event for event in refresh.run() if dbt.is_result(event)]
        seconds = time.perf_counter() - began
        models = sum(event["data"]["node_info"]["resource_type"] == "model" for event in events)
        return seconds, models, self.written(before)

    def written(self, since: int) -> int:
        """Count the rows of the models that transactions after this one have written."""
        tables = self.connection.execute(
            "select schema_name, table_name from timeseries.hypertables where schema_name <> 'raw' and"
            " (select relkind from pg_class where oid = to_regclass(format('%I.%I', schema_name, table_name)))"
            " in ('r', 'p')"
        ).fetchall()  # a continuous aggregate is a view: its rows have no xmin
        query = "select count(*) from {} where xmin::text::bigint > %s"
        counts = [
            self.connection.execute(sql.SQL(query).format(sql.Identifier(*table)), (since,)).fetchone() or (0,)
            for table in tables
        ]
        return sum(count for (count,) in counts)


def on_engine(server: Database, engine: str, options: argparse.Namespace) -> None:
    """Take all figures on an engine."""
    database = replace(server, name=f"bench_changes_{engine}")
    drop = sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(database.name))
    with server.connect(autocommit=True) as connection:
        connection.execute(drop)
    database.ensure_exists()
    prepare(database, engine)
    with database.connect(autocommit=True) as connection:
        bench = Bench(database, connection)
        tenants = [f"t{number:03}" for number in range(options.tenants)]
        for tenant in tenants:
            bench.change(REFERENCE, tenant, LAST)
        done = 0
        first: dict[str, float] = {}
        histories = [int(days) for days in options.days.split(",")]
        for days in histories:
            for tenant in tenants:
                bench.fill(tenant, LAST - (days - 1) * ONE_DAY, LAST - done * ONE_DAY, options.per_day)
            done = days
            bench.refresh()
            connection.execute("vacuum analyze")
            print(f"\n{engine}, {options.tenants} tenants, {days} days", flush=True)
            for name, text in CHANGES.items():
                seconds, models, rows = repeated(bench, text, tenants[-1], LAST - histories[0] // 2 * ONE_DAY)
                ratio = f"{seconds / first.setdefault(name, seconds):5.2f}"
                print(f"  {name:24}{seconds:7.2f} s {ratio} {models:4} models {rows:9,} rows", flush=True)
        night(bench, options)
    if not options.keep:
        with server.connect(autocommit=True) as connection:
            connection.execute(drop)


def repeated(bench: Bench, text: str, tenant: str, day: date) -> tuple[float, int, int]:
    """Change and refresh again and again; return the median of the seconds, and the last counts."""
    taken = []
    for _ in range(REPEAT):
        bench.change(text, tenant, day)
        taken.append(bench.refresh())
    return statistics.median(seconds for seconds, *_ in taken), *taken[-1][1:]


def night(bench: Bench, options: argparse.Namespace) -> None:
    """Load a day of many new tenants, and of one with as many rows."""
    per_tenant = 30
    many = [f"n{number:03}" for number in range(options.night)]
    for tenant in [*many, "one"]:
        bench.change(REFERENCE, tenant, LAST)
    bench.refresh()
    print(f"\na day of {options.night} tenants, {per_tenant} requests each, against one tenant with as many")
    for name, tenants, count in (("one tenant", ["one"], per_tenant * options.night), ("many", many, per_tenant)):
        taken = []
        for turn in range(3):
            day = LAST + (1 + turn) * ONE_DAY
            for tenant in tenants:
                bench.fill(tenant, day, day, count)
            taken.append(bench.refresh())
        seconds = statistics.median(seconds for seconds, *_ in taken)
        print(f"  {name:24}{seconds:7.2f} s {taken[-1][2]:9,} rows", flush=True)


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="any database of the server; default: the settings' one")
    parser.add_argument("--engines", default="postgres,timescaledb")
    parser.add_argument("--tenants", type=int, default=20)
    parser.add_argument("--days", default="10,100", help="the histories, each with the one before in it")
    parser.add_argument("--per-day", type=int, default=500, help="requests of a tenant and day")
    parser.add_argument("--night", type=int, default=300, help="the tenants of a night's load")
    parser.add_argument("--keep", action="store_true", help="leave the databases there")
    options = parser.parse_args()
    server = Database.from_url(options.url) if options.url else resolve(load_settings())
    os.environ["PGOPTIONS"] = "-c synchronous_commit=off"
    with tempfile.TemporaryDirectory(prefix="earmark-bench-") as target:
        os.environ["DBT_TARGET_PATH"] = target
        for engine in options.engines.split(","):
            on_engine(server, engine, options)


if __name__ == "__main__":
    main()

"""What attribution costs: paths and credits built whole, after late touches, for a day more; and by what it grows.

    python benchmarks/attribution.py [--url postgresql://...] [--engine postgres|timescaledb] [--touches 5000000]
        [--conversions 50000] [--days 60] [--sizes 15,30,60] [--window 7] [--work-mem 64MB] [--keep]

Makes a database with an advertiser of 20 campaigns, its ad impressions and conversions in the tables that
attribution reads, made on the server and the same each time. About nine touches lie in the 30 days before a
conversion, which its household connects with them. dbt builds only what stands on these tables.

First the paths alone, whole: as the history grows (--sizes, in days) while the touches in the --window days before
a conversion stay as many; then with windows twice and four times as long. Then all models from the paths on:
whole, after late touches in a day of the middle, and for a day more at the end. Seconds are the models' own,
medians of three where a thing is done again; only ratios of one run mean something. Memory is that of dbt's
backend: VmHWM (shared buffers that it touched included) and the most that was its own (RssAnon), from /proc.
"""

import argparse
import contextlib
import itertools
import json
import os
import statistics
import tempfile
import threading
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import LiteralString

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
LOOKBACK = 30
TOUCHES_OF_A_CONVERSION = 9.2  # in the lookback, where it is cut by the start of the history too
PATHS, CREDITS = "fct_attribution_paths", "fct_attribution_credits"
REFERENCE = """
insert into tenancy.tenants (tenant_id, name) values ('bench', 'Benchmark');
insert into raw.sponsors (tenant_id, sponsor_id, name, load_id) values ('bench', 's-0', 'Advertiser', 1);
insert into raw.podcasts (tenant_id, podcast_id, title, load_id)
select 'bench', 'p-' || i, 'Show ' || i, 1 from generate_series(0, 19) as i;
insert into raw.episodes (tenant_id, episode_id, podcast_id, title, load_id)
select 'bench', 'e-' || i, 'p-' || i / 10, 'Episode ' || i, 1 from generate_series(0, 199) as i;
insert into raw.campaigns
    (tenant_id, campaign_id, sponsor_id, name, starts_at, ends_at, conversion_actions, lookback_days, load_id)
select 'bench', 'c-' || i, 's-0', 'Campaign ' || i, '2024-01-01+00', '2028-01-01+00', '{purchase}', 30, 1
from generate_series(0, 19) as i;
insert into raw.ad_units
    (tenant_id, ad_unit_id, campaign_id, episode_id, position, delivery, load_id)
select 'bench', 'a-' || i, 'c-' || i % 20, 'e-' || i, 'mid', 'dai', 1
from generate_series(0, 199) as i;
"""
NUMBERED = """
from generate_series({first}::bigint, {first}::bigint + {count} - 1) as n
cross join lateral (select {kind} || {day} || ' ' || n as key) as k
cross join lateral (
    select
        {day}::timestamp at time zone 'UTC' + (hashtextextended(key, 1) & 2147483647) % 86400000
            * interval '1 millisecond' as at,
        (hashtextextended(key, 2) & 2147483647) % {households} as household,
        (hashtextextended(key, 3) & 2147483647) % 200 as unit
) as v
"""
TOUCHES = f"""
insert into marts.fct_ad_impressions
    (tenant_id, impression_id, occurred_at, campaign_id, ad_unit_id, podcast_id, episode_key, position, delivery,
     evidence, household_key, listener_key, in_flight)
select 'bench', md5(key)::uuid, at, 'c-' || unit % 20, 'a-' || unit, 'p-' || unit / 10, 'e-' || unit, 'mid', 'dai',
    'ad_server', uuid_send(md5('h' || household)::uuid), uuid_send(md5('l' || household)::uuid), true
{NUMBERED}
"""
CONVERSIONS = f"""
insert into marts.fct_conversions
    (tenant_id, conversion_id, occurred_at, action, signal, signals, source, sponsor_id, claims, claims_differ,
     household_key, listener_key, is_new_customer, gross_value, refunded_value, value, currency)
select 'bench', md5(key)::uuid, at, 'purchase', 'pixel', '{{{{pixel}}}}'::text[], 'bench', 's-0', '', false,
    uuid_send(md5('h' || household)::uuid), uuid_send(md5('w' || household)::uuid), unit % 2 = 0,
    10 + unit, 0, 10 + unit, 'USD'
{NUMBERED}
"""
FILLED = {"touch": ("marts.fct_ad_impressions", TOUCHES), "conversion": ("marts.fct_conversions", CONVERSIONS)}
# As the materialization hypertable notes what it has replaced: by household, up to 10,000 of them.
NOTED = """
with written as ({insert} returning 'household_key=' || household_key::text as key)
select ingest.note({producer}, array_agg('bench'::text), array_agg({day}::date), array_agg(key))
from (
    select key from written where (select count(distinct key) from written) <= 10000
    union
    select '' where (select count(distinct key) from written) > 10000
) as noted
"""
IN_PATHS: LiteralString = "marts.fct_attribution_paths where left_out_as is null"
PARTS = {"paths": PATHS, "credits": CREDITS, "readers": CREDITS + "+"}  # what stands on credits


class Peak(threading.Thread):
    """The most memory that a backend of dbt takes, in MB; 0 where /proc does not show it."""

    def __init__(self, database: Database) -> None:
        super().__init__(daemon=True)
        self.database, self.done, self.most = database, threading.Event(), {"VmHWM": 0, "RssAnon": 0}

    def run(self) -> None:
        """Look again and again, until it is done."""
        backends = "select '/proc/' || pid from pg_stat_activity where datname = %s and application_name = 'dbt'"
        with self.database.connect(autocommit=True) as connection:
            while not self.done.wait(0.05):
                for (process,) in connection.execute(backends, (self.database.name,)).fetchall():
                    with contextlib.suppress(OSError, IndexError):  # it has gone, or the server is not here
                        if self.database.name in Path(process, "cmdline").read_text():
                            status = Path(process, "status").read_text()
                            for name, most in self.most.items():
                                found = int(status.split(name + ":")[1].split()[0]) // 1024
                                self.most[name] = max(most, found)

    def __str__(self) -> str:
        return "{VmHWM:,} MB, {RssAnon:,} MB its own".format(**self.most)


@dataclass
class Bench:
    """The database, and how many rows of each kind its days hold."""

    database: Database
    connection: psycopg.Connection
    per_day: dict[str, int]
    households: int

    def fill(self, kind: str, day: date, first: int = 1, count: int | None = None) -> None:
        """Make the touches or conversions of a day, or only ``count`` from number ``first`` on, and note them."""
        table, insert = FILLED[kind]
        self.connection.execute("select timeseries.ensure_chunks(%s, %s, %s)", (table, day, day + ONE_DAY))
        given = (kind, day.isoformat(), first, count or self.per_day[kind], self.households)
        names = ("kind", "day", "first", "count", "households")
        noted = sql.SQL(NOTED).format(
            insert=sql.SQL(insert).format(**dict(zip(names, map(sql.Literal, given), strict=True))),
            producer=table.removeprefix("marts."),
            day=day,
        )
        self.connection.execute(noted)

    def count(self, rows: LiteralString) -> int:
        """Return how many there are."""
        (number,) = self.connection.execute(f"select count(*) from {rows}").fetchone() or (0,)
        return int(number)

    def run(self, select: str, *arguments: str) -> tuple[float, Peak]:
        """Run a model, or with a + all that stand on it; return their seconds, and the memory."""
        without = ["tag:fit", *[select[:-1]] * select.endswith("+")]
        given = ["run", *dbt.common_arguments(), "--threads", "1", "--select", select, "--exclude", *without]
        seconds, peak = 0.0, Peak(self.database)
        peak.start()
        for event in dbt.Invocation([*given, *arguments], None, self.database.environment()).events():
            if event["info"]["name"] == "LogModelResult":
                seconds += event["data"]["execution_time"]
        peak.done.set()
        peak.join()
        return seconds, peak

    def paths(self, name: str, window: int) -> None:
        """Build the paths whole with a window of so many days, and print what a conversion costs."""
        variables = {"attribution_max_lookback_days": window, "attribution_windows_days": [window]}
        taken = [self.run(PATHS, "--full-refresh", "--vars", json.dumps(variables)) for _ in range(3)]
        seconds = statistics.median(once for once, _ in taken)
        touches, conversions = self.count("marts.fct_ad_impressions"), self.count("marts.fct_conversions")
        rows = f"{touches:11,} touches {conversions:8,} conversions {self.count(IN_PATHS) / conversions:6.2f} each"
        each = f"{seconds:8.2f} s {1000 * seconds / conversions:8.3f} ms each"
        print(f"  {name:18}{rows} {each}   {taken[-1][1]}", flush=True)

    def models(self, name: str, *arguments: str) -> list[float]:
        """Build paths, credits and all that reads them, one after the other, and return the seconds of each."""
        taken = [self.run(select, *arguments) for select in PARTS.values()]
        print(f"  {name:18}" + "".join(f"{seconds:8.2f} s {peak!s:32}" for seconds, peak in taken), flush=True)
        return [seconds for seconds, _ in taken]


def grow(bench: Bench, options: argparse.Namespace) -> None:
    """Fill the days, from the last one back, and build the paths at each size; then with longer windows."""
    done = 0
    print(f"\nPaths whole, with a window of {options.window} days", flush=True)
    for days in sorted({*map(int, options.sizes.split(",")), options.days}):
        for number in range(done, days):
            bench.fill("touch", LAST - number * ONE_DAY)
        for number in range(max(0, done - options.window), days - options.window):  # with a whole window before it
            bench.fill("conversion", LAST - number * ONE_DAY)
        done = days
        bench.connection.execute("vacuum analyze marts.fct_ad_impressions, marts.fct_conversions")
        bench.paths(f"{days} days", options.window)
    for factor in (2, 4):
        bench.paths(f"{days} days, window {factor * options.window}", factor * options.window)
    for number in range(done - options.window, done):
        bench.fill("conversion", LAST - number * ONE_DAY)
    bench.connection.execute("vacuum analyze marts.fct_conversions")


def refreshes(bench: Bench, options: argparse.Namespace) -> None:
    """Build all models whole, then after late touches and for a day more; print the seconds and the ratios."""
    print("\n" + " " * 20 + "".join(f"{part:42}" for part in PARTS))
    whole = bench.models("whole", "--full-refresh")
    rows = f"{bench.count(IN_PATHS):,} touches in paths, {bench.count('marts.' + CREDITS):,} credits"
    middle, few = LAST - options.days // 2 * ONE_DAY, max(1, bench.per_day["touch"] // 100)
    taken: dict[str, list[list[float]]] = {f"{few:,} late touches": [], "a day more": []}
    for turn, (name, turns) in itertools.product(range(3), taken.items()):
        day = middle if name != "a day more" else LAST + (1 + turn) * ONE_DAY
        if day == middle:
            bench.fill("touch", day, first=1 + bench.per_day["touch"] + turn * few, count=few)
        else:
            bench.fill("touch", day)
            bench.fill("conversion", day)
        turns.append(bench.models(name))
    print(f"\n{rows}; medians, and how many times faster than the whole")
    for name, turns in taken.items():
        medians = [statistics.median(part) for part in zip(*turns, strict=True)]
        cells = (f"{part}{m:8.2f} s {w / m:7.1f}   " for part, m, w in zip(PARTS, medians, whole, strict=True))
        print(f"  {name:22}" + "".join(cells), flush=True)


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="any database of the server; default: the settings' one")
    parser.add_argument("--engine", default="postgres", choices=["postgres", "timescaledb"])
    parser.add_argument("--touches", type=int, default=5_000_000)
    parser.add_argument("--conversions", type=int, default=50_000)
    parser.add_argument("--days", type=int, default=60)
    parser.add_argument("--sizes", default="15,30,60", help="the histories in days; --days is one of them")
    parser.add_argument("--window", type=int, default=7, help="days; shorter than the smallest history")
    parser.add_argument("--work-mem", default="64MB")
    parser.add_argument("--keep", action="store_true", help="leave the database there")
    options = parser.parse_args()
    server = Database.from_url(options.url) if options.url else resolve(load_settings())
    database = replace(server, name="bench_attribution")
    drop = sql.SQL("drop database if exists bench_attribution with (force)")
    with server.connect(autocommit=True) as connection:
        connection.execute(drop)
    database.ensure_exists()
    prepare(database, options.engine)
    os.environ["PGOPTIONS"] = f"-c synchronous_commit=off -c work_mem={options.work_mem}"
    per_day = {"touch": options.touches // options.days, "conversion": options.conversions // options.days}
    reach = min(LOOKBACK, options.days)
    seen = reach - reach * reach / (2 * options.days)  # the days of history in a lookback, on average
    households = max(1, round(per_day["touch"] * seen / TOUCHES_OF_A_CONVERSION))
    print(f"{households:,} households; work_mem {options.work_mem}; {options.engine}")
    with tempfile.TemporaryDirectory(prefix="earmark-bench-") as target, database.connect(autocommit=True) as link:
        os.environ["DBT_TARGET_PATH"] = target
        link.execute(REFERENCE)
        list(Refresh(database).run())  # every model, empty
        bench = Bench(database, link, per_day, households)
        grow(bench, options)
        refreshes(bench, options)
    if not options.keep:
        with server.connect(autocommit=True) as connection:
            connection.execute(drop)


if __name__ == "__main__":
    main()

"""What counting costs: classifying requests against scanning them, the three windows, and one day more.

    python benchmarks/counting.py [--url postgresql://...] [--engine postgres|timescaledb] [--requests 10000000]
        [--days 6,60] [--keep]

Makes a database with --requests requests over the last of --days, made on the server: 2,000 episodes, downloads
in one piece and in several, listeners who come back after hours. The outcomes are built whole with each number of
days, and the last day is refreshed after a late row in it. Times are medians of three where a thing is done again;
only ratios of one run mean something.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
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
MODELS = ("int_user_agents__classified", "int_referrers__classified", "int_requests__outcomes")
REFERENCE = """
insert into tenancy.tenants (tenant_id, name, download_window) values ('bench', 'Benchmark', 'rolling_first');
insert into raw.episodes
    (tenant_id, episode_id, podcast_id, enclosure_key, enclosure_bytes, duration_seconds, load_id)
select 'bench', 'e-' || i, 'p-' || i / 100, 'media.example.com/' || i || '.mp3', 16000 * (600 + i), 600 + i, 1
from generate_series(0, 1999) as i;
analyze raw.episodes;
create schema bench;
create table bench.agents as
select i as agent, format((array[
    'Mozilla/5.0 (compatible; Googlebot/2.%s; +http://www.google.com/bot.html)',
    'Overcast/3.%s (+http://overcast.fm/; iOS podcast app; build 2024)',
    'AppleCoreMedia/1.0.0.21E%s (iPhone; U; CPU OS 17_4_1 like Mac OS X)',
    'Spotify/8.9.%s.575 Android/33 (SM-G991B; WiFi; ExoPlayer 2.19.1)'
])[case when i % 12 = 0 then 1 else 2 + i % 3 end], i) as user_agent
from generate_series(0, 999) as i;
"""
# Of ten visits six are one request, four are three pieces; of five one comes back in the next 30 hours.
REQUESTS_OF_A_DAY = """
insert into raw.listener_events
    (tenant_id, event_id, occurred_at, event_type, source, enclosure_key, method, status, bytes_sent, byte_range,
     household_key, listener_key, key_id, user_agent, load_id)
select 'bench', md5(n || ' ' || piece || ' ' || {number})::uuid,
    {day}::timestamp at time zone 'UTC' + (v.b * 86000 + piece * 9) * interval '1 second', 'request', 'bench',
    'media.example.com/' || floor(2000 * power(v.a, 2))::int || '.mp3', 'GET',
    case when pieces = 1 then 200 else 206 end, case when n % 9 = 0 then 200000 else 4000000 end,
    case when pieces > 1 then format('bytes=%s-', piece * 4000000) end,
    uuid_send(md5('h' || v.listener)::uuid), uuid_send(md5('l' || v.listener)::uuid), 'k1', g.user_agent, 1
from generate_series(1, {per_day}::int * 10 / 18) as n
cross join lateral (select case when n % 10 < 6 then 1 else 3 end as pieces) as p
cross join lateral (
    -- Every fifth visit is the same listener and episode as one of the day before, at another hour.
    select
        (hashint8extended(w.visit, 1) & 2147483647) / 2147483648.0 as a,
        (hashint8extended(n + {number}::bigint * 7, 2) & 2147483647) / 2147483648.0 as b,
        (hashint8extended(w.visit, 3) & 2147483647) % ({per_day}::int) as listener
    from (
        select
            case when n % 5 = 0 then (n + 1) * 10000 + {number} - 1 else n * 10000 + {number} end::bigint as visit
    ) as w
) as v
cross join generate_series(0, p.pieces - 1) as piece
inner join bench.agents as g on g.agent = v.listener % 1000
"""
LATE_ROW = """
insert into raw.listener_events
    (tenant_id, event_id, occurred_at, event_type, source, enclosure_key, method, status, bytes_sent,
     household_key, listener_key, user_agent, load_id)
select tenant_id, gen_random_uuid(), {day}::timestamp at time zone 'UTC', event_type, source, enclosure_key,
    method, status, bytes_sent, household_key, listener_key, user_agent, load_id
from raw.listener_events
where occurred_at >= {day}::timestamp at time zone 'UTC' limit 1
"""
SCAN = """
select count(*), max(occurred_at), sum(bytes_sent), max(user_agent), max(enclosure_key) from raw.listener_events
"""
OVER = "over (partition by tenant_id, listener_key, episode_key order by occurred_at, event_id)"
STANDING = (
    "(counting.standing('{}', occurred_at, bytes_sent >= needed_bytes, placed_bytes, 0, needed_bytes, {}) "
    + OVER
    + ").outcome"
)
NEW = "null::counting.standing"
KNOWN = (
    f"case when occurred_at < timestamptz '{LAST}+00' then row(rolling_first, rolling_first_until, null, null)"
    "::counting.standing end"
)
PASSED = "from intermediate.int_requests__outcomes where calendar_day is not null"
ONE_DAY = f"{PASSED} and occurred_at >= timestamptz '{LAST - timedelta(days=1)}+00'"


def timed(run: Callable[[], object]) -> float:
    """Return how many seconds something takes."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def fill(connection: psycopg.Connection, day: date, per_day: int) -> None:
    """Make the requests of a day and mark it as changed."""
    connection.execute(
        "select timeseries.ensure_chunks('raw.listener_events', %s, %s)", (day, day + timedelta(days=1))
    )
    values = {"number": (day - date(2000, 1, 1)).days, "day": day, "per_day": per_day}
    connection.execute(
        sql.SQL(REQUESTS_OF_A_DAY).format(**{name: sql.Literal(value) for name, value in values.items()})
    )
    connection.execute("select ingest.mark_changed('bench', 'listener_events', array[%s])", (day,))


def build(database: Database, *arguments: str) -> float:
    """Run the outcomes and what they need; return their own seconds."""
    invocation = dbt.Invocation(
        ["run", *dbt.common_arguments(), "--select", *MODELS, *arguments], None, database.environment()
    )
    seconds = 0.0
    for event in invocation.events():
        if event["info"]["name"] == "LogModelResult" and event["data"]["node_info"]["node_name"] == MODELS[-1]:
            seconds = event["data"]["execution_time"]
    return seconds


def windows(connection: psycopg.Connection) -> dict[str, float]:
    """Return the seconds of a sort and of windows over the requests that passed the filter."""

    def run(rows: str, *expressions: str) -> float:
        columns = ", ".join(f"{expression} as c{n}" for n, expression in enumerate(expressions))
        counts = ", ".join(f"count(c{n})" for n in range(len(expressions)))
        query = f"select {counts} from (select {columns} {rows} offset 0) as x"
        return statistics.median(timed(lambda: connection.execute(query)) for _ in range(3))

    kinds = ("calendar_day", "rolling_first", "rolling_last")
    return {
        "row_number()": run(PASSED, f"row_number() {OVER}"),
        "rolling_first": run(PASSED, STANDING.format("rolling_first", NEW)),
        "- one day more": run(ONE_DAY, STANDING.format("rolling_first", KNOWN)),
        "the three windows": run(PASSED, *(STANDING.format(kind, NEW) for kind in kinds)),
    }


def show(name: str, seconds: float, rows: int, more: str = "") -> None:
    """Print a line of figures."""
    print(f"  {name:24} {seconds:8.2f} s {rows / seconds:12,.0f} rows/s   {more}", flush=True)


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="any database of the server; default: the settings' one")
    parser.add_argument("--engine", default="postgres", choices=["postgres", "timescaledb"])
    parser.add_argument("--requests", type=int, default=10_000_000)
    parser.add_argument("--days", default="6,60", help="the histories, the smallest first")
    parser.add_argument("--keep", action="store_true", help="leave the database there")
    options = parser.parse_args()
    histories = [int(days) for days in options.days.split(",")]
    per_day = options.requests // histories[-1]
    server = Database.from_url(options.url) if options.url else resolve(load_settings())
    database = replace(server, name="bench_counting")
    drop = sql.SQL("drop database if exists bench_counting with (force)")
    with server.connect(autocommit=True) as connection:
        connection.execute(drop)
    database.ensure_exists()
    prepare(database, options.engine)
    os.environ["PGOPTIONS"] = "-c synchronous_commit=off -c work_mem=512MB -c jit=off"
    with tempfile.TemporaryDirectory(prefix="earmark-bench-") as target:
        os.environ["DBT_TARGET_PATH"] = target
        last_day = ("--event-time-start", str(LAST), "--event-time-end", str(LAST + timedelta(days=1)))
        made = 0
        with database.connect(autocommit=True) as connection:
            connection.execute(
                "set earmark.marks_days = 'yes'; set synchronous_commit = off; set work_mem = '512MB'"
            )
            connection.execute("set jit = off")
            connection.execute(REFERENCE)
            list(Refresh(database).run())  # views and seeds
            for days in histories:
                for number in range(made, days):
                    fill(connection, LAST - timedelta(days=number), per_day)
                made = days
                connection.execute("vacuum analyze raw.listener_events")
                scan = statistics.median(timed(lambda: connection.execute(SCAN)) for _ in range(3))
                (rows,) = connection.execute("select count(*) from raw.listener_events").fetchone() or (0,)
                whole = build(database, "--full-refresh")
                refreshes = []
                for _ in range(3):
                    connection.execute(sql.SQL(LATE_ROW).format(day=sql.Literal(LAST)))
                    refreshes.append(build(database, *last_day))
                day = statistics.median(refreshes)
                print(f"\n{days} days, {rows:,} requests, {per_day:,} a day", flush=True)
                show("scan of the rows", scan, rows)
                show("outcomes, whole", whole, rows, f"{whole / scan:.1f} scans")
                show("outcomes, the last day", day, per_day, f"{whole / day:.1f} times faster than the whole")
                (passed,) = connection.execute(f"select count(*) {PASSED}").fetchone() or (0,)
                print(f"  of {passed:,} that passed the filter:")
                for name, seconds in windows(connection).items():
                    show(name, seconds, per_day if "day more" in name else passed)
    if not options.keep:
        with server.connect(autocommit=True) as connection:
            connection.execute(drop)


if __name__ == "__main__":
    main()

"""What a refresh costs as history grows, on plain PostgreSQL and on TimescaleDB, and what the columnstore gives.

    python benchmarks/timeseries.py [--url postgresql://...] [--engines postgres,timescaledb]
        [--days 6,60] [--per-day 166667] [--columnstore] [--minutes 60] [--keep]

Makes a database an engine on one server, fills it with --per-day raw events a day, made on the server, and builds
the models. Every history is the one before with earlier days in front of it: the last day stays as it is. Then one
late row goes into the last day, and the refresh of that day is timed, again and again.

--columnstore puts raw chunks older than 30 days into the columnstore as soon as the models hold them, as the
lifecycle of the table does, so that a hundred million events (--days 6,60,600) fit a small disk; then only the
figures of the refresh, the rollup, the sensor and the marts are taken. --minutes: no more history after so long.

Times are medians, in seconds. The engine's own background jobs are off meanwhile. Only ratios of one run mean
something. It stops where less than 15 GB of disk are left.
"""

import argparse
import csv
import os
import re
import shutil
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from earmark.addresses.privacy import HashKey
from earmark.ingestion.load import LoadRequest, load_file
from earmark.settings import PROJECT_ROOT, load_settings
from earmark.warehouse import changes, dbt
from earmark.warehouse.database import Database
from earmark.warehouse.engine import EngineError, prepare
from earmark.warehouse.refresh import Refresh
from earmark.warehouse.server import resolve

LAST = date(2026, 9, 30)  # a Wednesday: chunks of 7 days end with it, so 6 days fill the last one almost
BATCH = 30  # days that are made and built at a time
KEPT_OUT = 30  # the last days that --columnstore leaves alone
LEAST_DISK = 15 * 2**30
REPEAT = 7
KEY = HashKey("benchmark", b"a secret of thirty-two bytes....")
FILE_ROWS = 50_000
MODELS = (
    "int_requests__outcomes", "fct_downloads", "fct_ad_impressions", "fct_conversions", "fct_attribution_credits",
    "cagg_listener_events_hourly", "cagg_listener_events_daily", "cagg_request_outcomes_daily",
    "cagg_downloads_hourly", "cagg_downloads_daily", "rpt_campaign_daily",
)  # fmt: skip
REFRESH_LINES = ("whole refresh", "- its models, added up", *MODELS, "- its tests, added up")
REBUILT = ("int_requests__outcomes", "fct_downloads", "cagg_downloads_daily")

# 200 episodes, 40 campaigns, 60 ads baked into episodes and 20 inserted ones, 100 user agents (9 of them bots);
# and a day to be dated and shuffled: 65 % requests, mostly three a download, 10 % ad impressions, 25 % plays.
REFERENCE = """
insert into tenancy.tenants (tenant_id, name) values ('bench', 'Benchmark');
insert into raw.episodes (tenant_id, episode_id, podcast_id, title, enclosure_url, enclosure_key, load_id)
select 'bench', 'e-' || i, 'p-' || i / 10, 'Episode ' || i, 'https://' || k.key, k.key, 1
from generate_series(0, 199) as i
cross join lateral (select format('media.example.com/show-%s/episode-%s.mp3', i / 10, 1000 + i) as key) as k;
insert into raw.campaigns
    (tenant_id, campaign_id, sponsor_id, name, starts_at, ends_at, conversion_actions, lookback_days, load_id)
select 'bench', 'c-' || i, 's-' || i % 20, 'Campaign ' || i, '2024-01-01+00', '2027-01-01+00',
    '{{purchase,signup}}', case when i % 4 = 0 then 90 else 30 end, 1
from generate_series(0, 39) as i;
insert into raw.insertion_orders (tenant_id, insertion_order_id, campaign_id, promo_code, load_id)
select 'bench', 'io-' || i, 'c-' || i, 'CODE' || i, 1 from generate_series(0, 39) as i;
insert into raw.ad_units
    (tenant_id, ad_unit_id, campaign_id, insertion_order_id, episode_id, position, delivery, load_id)
select 'bench', 'a-' || i, 'c-' || i % 40, 'io-' || i % 40, case when i < 60 then 'e-' || i * 3 end, 'pre',
    case when i < 60 then 'baked_in' else 'dai' end, 1
from generate_series(0, 79) as i;

create schema bench;
create table bench.agents as
select i as agent, format((array[
    'Mozilla/5.0 (compatible; Googlebot/2.%s; +http://www.google.com/bot.html)',
    'Overcast/3.%s (+http://overcast.fm/; iOS podcast app; build 2024)',
    'AppleCoreMedia/1.0.0.21E%s (iPhone; U; CPU OS 17_4_1 like Mac OS X)',
    'Spotify/8.9.%s.575 Android/33 (SM-G991B; WiFi; ExoPlayer 2.19.1)',
    'Podcasts/1650.%s CFNetwork/1568.300.101 Darwin/24.2.0 (iPhone16,1)'
])[case when i % 12 = 0 then 1 else 2 + i % 4 end], i) as user_agent
from generate_series(0, 99) as i;
create table bench.template as
with events as (
    select n,
        case when n % 20 < 13 then 'request' when n % 20 < 15 then 'ad_impression' else 'play' end as event_type,
        case when n % 20 < 13 then (n / 20 * 13 + n % 20) / 3 else n + 1000000000 end as visit
    from generate_series(0, {per_day} - 1) as n
),
drawn as (
    select events.*, (hashint8extended(visit, 1) & 2147483647) / 2147483648.0 as a,
        (hashint8extended(visit, 2) & 2147483647) / 2147483648.0 as b,
        (hashint8extended(visit, 3) & 2147483647) / 2147483648.0 as c, (hashint8extended(visit, 4) & 1) as device
    from events
)
select n, event_type, device, floor(power(a, 2) * greatest(50, {per_day} / 8))::int as household,
    floor(208 * power(b, 1.5))::int as slot,  -- of 200 episodes; beyond: the feed
    (floor(86000 * c) + n % 3 * 7) * interval '1 second' + n % 1000 * interval '1 microsecond' as time_of_day,
    case when n % 37 = 0 then 'HEAD' else 'GET' end as method,
    (array[200, 206, 206, 404])[case when n % 50 = 0 then 4 else 1 + n % 3 end] as status,
    1000000 + n % 9973 * 3000 as bytes_sent
from drawn order by time_of_day;
analyze bench.template;
"""
ROWS_OF_A_DAY = """
insert into raw.listener_events
    (tenant_id, event_id, occurred_at, event_type, source, url, enclosure_key, ad_unit_id, method, status,
     bytes_sent, household_key, listener_key, key_id, user_agent, country_code, load_id)
select 'bench', md5(t.n || ' ' || {number})::uuid, {start} + t.time_of_day, t.event_type, 'bench',
    'https://' || f.key || '?source=feed', f.key,
    case when t.event_type = 'ad_impression' then 'a-' || 60 + t.n % 20 end, t.method, t.status, t.bytes_sent,
    uuid_send(md5('household' || h.household)::uuid),
    uuid_send(md5('listener' || h.household || ' ' || t.device)::uuid), 'benchmark', a.user_agent,
    (array['US', 'GB', 'DE', 'CA'])[1 + h.household % 4], 1
from bench.template as t
cross join lateral (select (t.household + {number} * 17) % greatest(50, {per_day} / 8) as household) as h
cross join lateral (
    select case when t.slot >= 200 then 'media.example.com/show-0/feed.xml' else
        format('media.example.com/show-%s/episode-%s.mp3', e / 10, 1000 + e) end as key
    from (values ((t.slot + {number}) % 200)) as v (e)
) as f
inner join bench.agents as a on a.agent = (h.household * 2 + t.device) % 100;
insert into raw.attribution_events
    (tenant_id, event_id, occurred_at, action, type, source, sponsor_id, household_key, key_id, order_number,
     value, currency, discount_code, is_new_customer, load_id)
select 'bench', md5('conversion ' || n || ' ' || {number})::uuid, {start} + n % 86400 * interval '1 second',
    case when n % 10 < 7 then 'purchase' when n % 10 < 8 then 'signup' else 'view' end,
    case when n % 5 = 0 then 'promo_code' else 'pixel' end, 'bench', 's-' || n % 20,
    uuid_send(md5('household' || (n * 7919 + {number} * 17) % greatest(50, {per_day} / 8))::uuid), 'benchmark',
    case when n % 10 < 7 then {number} || '-' || n end, 20 + n % 80, 'USD',
    case when n % 5 = 0 then 'CODE' || n % 40 end, n % 3 = 0, 1
from generate_series(1, {per_day} / 200) as n;
insert into raw.spend (tenant_id, campaign_id, spend_date, amount, load_id)
select 'bench', 'c-' || i, {first}, 100 + i, 1 from generate_series(0, 39) as i
"""
LATE_ROW = """
insert into raw.listener_events
    (tenant_id, event_id, occurred_at, event_type, source, url, enclosure_key, method, status, listener_key,
     user_agent, load_id)
select tenant_id, gen_random_uuid(), occurred_at, event_type, source, url, enclosure_key, method, status,
    uuid_send(gen_random_uuid()), user_agent, load_id
from raw.listener_events
where occurred_at >= {start} + interval '12 hours' and occurred_at < {stop} and event_type = 'request'
limit 1
"""
LATE_DOWNLOAD = """
insert into marts.fct_downloads
select * from marts.fct_downloads where occurred_at >= {start} and occurred_at < {stop} limit 1
"""
REFRESH_ROLLUP = "call timeseries.refresh_continuous_aggregate('rollups.cagg_downloads_daily', {start}, {stop})"
COUNTED = """
with ranked as (
    select e.*, (occurred_at at time zone 'UTC')::date as day, row_number() over (
        partition by listener_key, episode_key, (occurred_at at time zone 'UTC')::date
        order by occurred_at, event_id
    ) as nth
    from intermediate.int_listener_events__identified as e
    where tenant_id = 'bench' and occurred_at >= {start} and occurred_at < {stop}
        and event_type in ('request', 'download') and (episode_id is not null or requested ~* '\\.mp3$')
        and method = 'GET' and status in (200, 206) and agent_category not in ('none', 'bot') and agent_counts
),
counted as (select * from ranked where nth = 1)
"""
# Each from the mart, and from the raw events: agents and episodes looked up, duplicates found as the models do it.
QUESTIONS = {
    "rpt_episode_daily": (
        """
select episode_key, sum(downloads)::bigint, sum(listeners)::bigint, sum(households)::bigint
from marts.rpt_episode_daily
where tenant_id = 'bench' and day between {first} and {last} group by episode_key order by 1
""",
        COUNTED
        + """,
daily as (
    select episode_key, count(*) as downloads, count(distinct listener_key) as listeners,
        count(distinct household_key) as households
    from counted group by episode_key, day
)
select episode_key, sum(downloads)::bigint, sum(listeners)::bigint, sum(households)::bigint
from daily group by episode_key order by 1
""",
    ),
    "rpt_campaign_daily": (
        """
select campaign_id, sum(impressions)::bigint, sum(reach)::bigint from marts.rpt_campaign_daily
where tenant_id = 'bench' and day between {first} and {last} group by campaign_id
having sum(impressions) > 0 order by 1
""",
        COUNTED
        + """,
exposed as (
    select u.campaign_id, c.day, c.household_key
    from counted as c
    inner join raw.ad_units as u on u.episode_id = c.episode_id and u.delivery = 'baked_in'
    union all
    select u.campaign_id, (e.occurred_at at time zone 'UTC')::date, e.household_key
    from intermediate.int_listener_events__identified as e
    inner join raw.ad_units as u on u.ad_unit_id = e.ad_unit_id and u.delivery = 'dai'
    where e.tenant_id = 'bench' and e.occurred_at >= {start} and e.occurred_at < {stop}
        and e.event_type = 'ad_impression' and e.agent_counts
),
daily as (
    select campaign_id, count(*) as impressions, count(distinct household_key) as reach
    from exposed group by campaign_id, day
)
select campaign_id, sum(impressions)::bigint, sum(reach)::bigint from daily group by campaign_id order by 1
""",
    ),
}


def window(first: date, last: date) -> dict[str, date]:
    """Return what the SQL calls the window of these days."""
    start = datetime.combine(first, datetime.min.time(), UTC)
    return {"first": first, "last": last, "start": start, "stop": start + (last - first) + timedelta(days=1)}


LAST_DAY = window(LAST, LAST)


@dataclass(slots=True)
class Bench:
    """A database of one engine, and the figures that were taken of it: by history (days), then by name."""

    engine: str
    database: Database
    options: argparse.Namespace
    refresh: Refresh
    days: int = 0
    figures: dict[int, dict[str, float]] = field(default_factory=dict)

    def connect(self) -> psycopg.Connection:
        """Open a connection that loads in bulk: its days are marked at the end."""
        connection = self.database.connect("earmark benchmark", autocommit=True)
        connection.execute("set earmark.marks_days = 'yes'; set synchronous_commit = off; set work_mem = '128MB'")
        return connection

    def ask(self, query: LiteralString) -> tuple[Any, ...]:
        """Return the first row of an answer."""
        with self.database.connect(autocommit=True) as connection:
            return connection.execute(query).fetchone() or ()


def make_bench(server: Database, engine: str, options: argparse.Namespace) -> Bench:
    """Make the engine's database anew, with reference data and no events.

    Raises:
        EngineError: the server cannot have this engine.

    """
    database = replace(server, name=f"bench_timeseries_{engine}")
    drop(server, database)
    database.ensure_exists()
    _, found = prepare(database, engine)
    bench = Bench(engine, database, options, Refresh(database))
    with bench.connect() as connection:
        connection.execute(bind(REFERENCE, per_day=options.per_day))
    print(f"{engine}: {found.version}; {bench.ask('select version()')[0]}", flush=True)
    return bench


def bind(text: LiteralString, **values: Any) -> sql.Composed:  # noqa: ANN401
    """Return SQL with its values written in: so it may be several statements, and chunks are pruned."""
    return sql.SQL(text).format(**{name: sql.Literal(value) for name, value in values.items()})


def drop(server: Database, database: Database) -> None:
    with server.connect(autocommit=True) as connection:
        name = sql.Identifier(database.name)
        connection.execute(sql.SQL("drop database if exists {} with (force)").format(name))


# --- Making history -----------------------------------------------------------------------------------


def extend(bench: Bench, days: int) -> None:
    """Put earlier days in front until there are so many, and build the models for them, batch by batch."""
    wanted = [LAST - timedelta(days=n) for n in range(bench.days, days)]
    batches = [wanted[n : n + BATCH] for n in range(0, len(wanted), BATCH)]
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(fill, bench, batches[0])
        for number, batch in enumerate(batches, start=1):
            ahead.result()
            is_last = number == len(batches) or time.monotonic() > bench.options.deadline
            if not is_last:
                ahead = pool.submit(fill, bench, batches[number])
            build(bench)
            bench.days += len(batch)
            if bench.options.columnstore:
                convert(bench, [day for day in batch if day <= LAST - timedelta(days=KEPT_OUT)])
            size = bench.ask("select pg_size_pretty(pg_database_size(current_database()))")[0]
            print(f"  {datetime.now(UTC):%H:%M:%S} {bench.engine}: {bench.days} days, {size}", flush=True)
            if is_last:
                break
    settle(bench)


def fill(bench: Bench, days: Sequence[date]) -> None:
    """Make the rows of some days; then say that they have changed."""
    with bench.connect() as connection:
        for table in ("raw.listener_events", "raw.attribution_events"):
            connection.execute(
                "select timeseries.ensure_chunks(%s, %s, %s)", (table, min(days), max(days) + timedelta(days=1))
            )
        for day in days:
            numbers = {"number": (day - date(2000, 1, 1)).days, "per_day": bench.options.per_day}
            connection.execute(bind(ROWS_OF_A_DAY, **window(day, day), **numbers))
            folder = Path(bench.ask("select current_setting('data_directory')")[0])
            if folder.exists() and shutil.disk_usage(folder).free < LEAST_DISK:
                raise SystemExit(f"less than {LEAST_DISK // 2**30} GB of disk are left at {folder}: stopped")
        with connection.transaction():
            for dataset in ("listener_events", "attribution_events", "spend"):
                connection.execute("select ingest.mark_changed('bench', %s, %s)", (dataset, list(days)))


def build(bench: Bench) -> None:
    """Build the models for the days that have changed: first whole and with their tests, then without."""
    os.environ["PGOPTIONS"] = "-c synchronous_commit=off -c work_mem=512MB"
    try:
        if not bench.days:
            list(bench.refresh.run())
            return
        models = {node["name"] for node in bench.refresh.manifest["nodes"].values() if changes.is_sliced(node)}
        arguments = ["run", *dbt.common_arguments(), "--threads", "2", "--select", *sorted(models)]
        environment = bench.database.environment()
        list(dbt.Invocation(arguments, dbt.parse(environment), environment).events())
    finally:
        del os.environ["PGOPTIONS"]


def convert(bench: Bench, days: Sequence[date] | None = None) -> float:
    """Put the raw events of some days, or of all, into the columnstore; returns the seconds."""
    began = time.perf_counter()
    with bench.connect() as connection:
        chunks = connection.execute(
            "select format('%%I.%%I', chunk_schema, chunk_name) from timescaledb_information.chunks"
            " where hypertable_name = 'listener_events' and not is_compressed"
            " and (%(days)s::date[] is null or (range_start at time zone 'UTC')::date = any(%(days)s))",
            {"days": None if days is None else list(days)},
        ).fetchall()
        for (chunk,) in chunks:
            connection.execute("call convert_to_columnstore(%s::regclass)", (chunk,))
    return time.perf_counter() - began


def settle(bench: Bench) -> None:
    """Switch the engine's own jobs off, and wait until autovacuum is done, five minutes at most."""
    with bench.database.connect(autocommit=True) as connection:
        if bench.engine == "timescaledb":
            jobs = "select job_id from timescaledb_information.jobs where job_id >= 1000"
            connection.execute(f"select alter_job(j.job_id, scheduled => false) from ({jobs}) as j")
        busy = "select from pg_stat_activity where backend_type = 'autovacuum worker' and datname = %s"
        for _ in range(60):
            if not connection.execute(busy, (bench.database.name,)).rowcount:
                break
            time.sleep(5)
        connection.execute("checkpoint")


# --- A, E: one changed day ----------------------------------------------------------------------------


def timed(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def median_of(times: int, run: Callable[[], object], before: Callable[[], object] = lambda: None) -> float:
    """Return the median time of a run, after one that does not count; ``before`` is not timed."""
    seconds = []
    for _ in range(times + 1):
        before()
        seconds.append(timed(run))
    return statistics.median(seconds[1:])


def late_row(bench: Bench) -> None:
    """Insert one row into the last day as anybody would: triggers note its day."""
    with bench.database.connect() as connection:
        assert connection.execute(bind(LATE_ROW, **LAST_DAY)).rowcount == 1


def take_figures(bench: Bench) -> None:
    """Take the figures of a history: sensor, rollup, refresh."""
    figures = bench.figures.setdefault(bench.days, {})
    late_row(bench)
    with bench.database.connect(autocommit=True) as connection:
        assert len(changes.pending_slices(connection)) == 1
        figures["sensor's tick, one day pending"] = median_of(50, lambda: changes.pending_slices(connection))
        figures["rollup of the day, database only"] = median_of(
            REPEAT,
            lambda: connection.execute(bind(REFRESH_ROLLUP, **LAST_DAY)),
            lambda: connection.execute(bind(LATE_DOWNLOAD, **LAST_DAY)),
        )
    figures |= refresh_of_a_day(bench)


def refresh_of_a_day(bench: Bench) -> dict[str, float]:
    """Refresh the last day after one late row, again and again; medians of the whole and of each model."""
    seen: list[dict[str, float]] = []
    for _ in range(REPEAT + 1):
        late_row(bench)
        began = time.perf_counter()
        once = results(bench.refresh.run())
        once["whole refresh"] = time.perf_counter() - began
        once["- its models, added up"] = sum(once[name] for name in MODELS)
        seen.append(once)
    walls = [once["whole refresh"] for once in seen[1:]]
    print(
        f"  {bench.engine}, {bench.days} days: refreshes took {min(walls):.2f} to {max(walls):.2f} s", flush=True
    )
    with bench.database.connect() as connection:
        assert not changes.pending_slices(connection)
    return {name: statistics.median(once[name] for once in seen[1:]) for name in seen[-1]}


def results(events: Iterator[dbt.Event]) -> dict[str, float]:
    """Return the execution time of each model, and of all tests together, of a dbt invocation."""
    seconds = {"- its tests, added up": 0.0}
    for event in events:
        if event["info"]["name"] == "LogModelResult":
            seconds[event["data"]["node_info"]["node_name"]] = event["data"]["execution_time"]
        elif event["info"]["name"] == "LogTestResult":
            seconds["- its tests, added up"] += event["data"]["execution_time"]
    return seconds


def show_history(bench: Bench) -> None:
    """Print every history's figures, and their ratio to the smaller history."""
    names = [*REFRESH_LINES, "rollup of the day, database only", "sensor's tick, one day pending"]
    print(f"\nA, E. One changed day, on {bench.engine}; seconds, and the ratio to the history before")
    print(f"{'':<34}" + "".join(f"{days:>10} days {'ratio':>7}" for days in bench.figures))
    for name in names:
        cells, smaller = "", None
        for figures in bench.figures.values():
            ratio = f"{figures[name] / smaller:.2f}" if smaller else ""
            cells += f"{figures[name]:15.4f} {ratio:>7}"
            smaller = figures[name]
        print(f"{name:<34}{cells}", flush=True)


# --- B: against whole tables; C: against raw events -----------------------------------------------------


def whole_tables(bench: Bench) -> None:
    """Print what dbt's own table materialization takes for the models, against the refresh of a day."""
    with tempfile.TemporaryDirectory() as name:
        copy_project(Path(name))
        where = {"project-dir": "", "profiles-dir": "dbt_project", "target-path": "target", "log-path": "logs"}
        places = [text for key, part in where.items() for text in (f"--{key}", str(Path(name, part)))]
        arguments = ["run", *places, "--log-level", "none", "--threads", "4", "--select", *REBUILT]
        whole = results(dbt.Invocation(arguments, None, bench.database.environment()).events())
    print(f"\nB. dbt's table materialization over {bench.days} days against one day, on {bench.engine}")
    print(f"{'':<34}{'table, s':>12}{'one day, s':>12}{'ratio':>8}")
    day = bench.figures[bench.days]
    lines = {name: (whole[name], day[name]) for name in REBUILT}
    lines["the three"] = (sum(whole[name] for name in REBUILT), sum(day[name] for name in REBUILT))
    for name, (table, one) in lines.items():
        print(f"{name:<34}{table:12.2f}{one:12.3f}{table / one:8.1f}", flush=True)
    with bench.database.connect(autocommit=True) as connection:
        connection.execute("drop schema bench_table cascade")


def copy_project(folder: Path) -> None:
    """Copy the project; the models to rebuild become plain tables, indexes and all, that know no window."""
    for part in ("models", "seeds", "dbt_project"):
        shutil.copytree(PROJECT_ROOT / part, folder / part)
    shutil.copy(PROJECT_ROOT / "dbt_project.yml", folder)
    for path in folder.rglob("*.sql"):
        text = path.read_text()
        if path.stem in REBUILT:
            text = re.sub(r"materialized='\w+'", "materialized='table', schema='bench_table'", text, count=1)
            text = re.sub(r"^ +(time_column|bucket|chunk_interval)=.*\n", "", text, flags=re.MULTILINE)
        path.write_text(re.sub(r"(\{% macro in_slices\(.*%\})", r"\1{{ return('true') }}", text))


def marts_against_raw(benches: Sequence[Bench]) -> None:
    """Print what a question costs of the marts and of the raw events, on each engine."""
    print("\nC. The same answer from the mart and from raw events")
    print(f"{'':<44}{'mart, s':>10}{'raw, s':>10}{'raw / mart':>12}  answers")
    for days in sorted({1, min(90, *(bench.days for bench in benches))}):
        for name, (mart, raw) in QUESTIONS.items():
            for bench in benches:
                values = window(LAST - timedelta(days=days - 1), LAST)
                one, answer = answered(bench, bind(mart, **values), 11)
                other, same = answered(bench, bind(raw, **values), 3 if days == 1 else 1)
                cells = f"{one:10.4f}{other:10.3f}{other / one:12.0f}  {'agree' if same == answer else 'DIFFER'}"
                print(f"{f'{name}, {days} days, {bench.engine}':<44}{cells}", flush=True)


def answered(bench: Bench, query: sql.Composed, times: int) -> tuple[float, list[tuple[Any, ...]]]:
    """Return the median time of a query, and its answer."""
    with bench.connect() as connection:
        answers: list[list[tuple[Any, ...]]] = []
        run = [timed(lambda: answers.append(connection.execute(query).fetchall())) for _ in range(times)]
        return statistics.median(run), answers[-1]


# --- D: the columnstore ---------------------------------------------------------------------------------


def columnstore(bench: Bench) -> None:
    """Print what changes when all raw chunks go into the columnstore."""
    before = touch_raw(bench, seed=0)
    settle(bench)
    before |= refresh_of_a_day(bench)
    rows = bench.ask("select count(*) from raw.listener_events")[0]
    total, indexes = raw_sizes(bench)
    seconds = convert(bench)
    new_total, new_indexes = raw_sizes(bench)
    before |= {"MB with indexes": total / 2**20, "MB without indexes": (total - indexes) / 2**20}
    after = {"MB with indexes": new_total / 2**20, "MB without indexes": (new_total - new_indexes) / 2**20}
    settle(bench)
    after |= touch_raw(bench, seed=1)
    settle(bench)
    after |= (refreshed := refresh_of_a_day(bench))
    print(
        f"\nD. {rows:,} raw events of {bench.days} days, put into the columnstore at {rows / seconds:,.0f} rows/s"
    )
    print(f"{'':<34}{'rowstore':>14}{'columnstore':>14}{'ratio':>8}")
    for name in (*(name for name in after if name not in refreshed), *REFRESH_LINES):
        print(f"{name:<34}{before[name]:14.4f}{after[name]:14.4f}{after[name] / before[name]:8.2f}", flush=True)


def touch_raw(bench: Bench, seed: int) -> dict[str, float]:
    """Insert late rows and load files into days that hold rows already; then bring the models up to date."""
    figures = {}
    with bench.database.connect(autocommit=True) as connection:
        figures["a late row"] = median_of(REPEAT, lambda: connection.execute(bind(LATE_ROW, **LAST_DAY)))
    with tempfile.TemporaryDirectory() as folder:
        paths = [write_file(Path(folder), bench, REPEAT * seed + n) for n in range(REPEAT)]
        figures[f"a file of {FILE_ROWS:,} new rows"] = statistics.median(load(bench, path) for path in paths)
        for path in paths:
            path.write_bytes(path.read_bytes() + b"\n")  # other bytes, the same rows
        figures["the same rows again"] = statistics.median(load(bench, path) for path in paths)
    list(bench.refresh.run())
    return figures


def write_file(folder: Path, bench: Bench, seed: int) -> Path:
    """Write a file of new rows in three days of the middle."""
    path = folder / f"{seed}.csv"
    start = datetime.combine(LAST - timedelta(days=bench.days // 2), datetime.min.time(), UTC)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("event_id", "occurred_at", "event_type", "url", "ip", "user_agent", "method", "status"))
        for n in range(FILE_ROWS):
            at = start + n * timedelta(days=3) / FILE_ROWS + timedelta(microseconds=seed)
            url = f"https://media.example.com/show-{n % 200 // 10}/episode-{1000 + n % 200}.mp3?source=feed"
            agent = f"Overcast/3.{n % 100} (+http://overcast.fm/; iOS podcast app; build 2024)"
            key = uuid.uuid5(uuid.NAMESPACE_URL, f"{seed}/{n}")
            address = f"198.18.{n // 250 % 250}.{n % 250}"
            writer.writerow((key, at.isoformat(), "request", url, address, agent, "GET", 200))
    return path


def load(bench: Bench, path: Path) -> float:
    request = LoadRequest(str(path), "bench", "listener_events")
    with bench.database.connect() as connection:
        return timed(lambda: load_file(connection, request, key=KEY))


def raw_sizes(bench: Bench) -> tuple[int, int]:
    """Return the bytes of raw.listener_events with its indexes, and of its indexes alone."""
    total, indexes = bench.ask(
        "select sum(total_bytes), sum(index_bytes) from hypertable_detailed_size('raw.listener_events')"
    )
    return int(total), int(indexes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="any database of the server; default: the settings' one")
    parser.add_argument("--engines", default="postgres,timescaledb")
    parser.add_argument("--days", default="6,60", help="the histories, the smallest first")
    parser.add_argument("--per-day", type=int, default=166_667)
    parser.add_argument("--columnstore", action="store_true")
    parser.add_argument("--minutes", type=float, default=1e6, help="make no more history after so long")
    parser.add_argument("--keep", action="store_true", help="leave the databases there")
    options = parser.parse_args()
    options.deadline = time.monotonic() + 60 * options.minutes
    server = Database.from_url(options.url) if options.url else resolve(load_settings())
    benches = []
    with tempfile.TemporaryDirectory(prefix="earmark-bench-") as target:
        os.environ["DBT_TARGET_PATH"] = target
        for engine in options.engines.split(","):
            try:
                bench = make_bench(server, engine, options)
            except EngineError as error:
                print(f"{engine}: skipped. {error}")
                continue
            benches.append(bench)
            for days in map(int, options.days.split(",")):
                extend(bench, days)
                take_figures(bench)
            show_history(bench)
            if not options.columnstore:
                whole_tables(bench)
        if benches:
            marts_against_raw(benches)
        for bench in benches:
            if bench.engine == "timescaledb" and not options.columnstore:
                columnstore(bench)
    for bench in benches:
        if not options.keep:
            drop(server, bench.database)


if __name__ == "__main__":
    main()

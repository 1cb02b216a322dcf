"""The promise of the time-series layer: the same rows, whatever the engine, the order and the way there.

A history is some landed files, rows that another program wrote, and listeners who are deleted in the end. It is
told to each database in an order of its own, with replays, with refreshes in between that are whole, partial or of
some models only, and on TimescaleDB with chunks that go into the columnstore. In the end one refresh of what has
changed must leave the same tables everywhere, and a rebuild from nothing must leave them as they are.

``EARMARK_TEST_HISTORIES`` says how many random histories are tried (3 by default).
"""

import os
import random
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from earmark.addresses.privacy import HashKey
from earmark.ingestion.load import LoadRequest, load_file
from earmark.warehouse.database import Database
from earmark.warehouse.engine import Engine, recorded

Dbt = Any  # the class of conftest.py, which tests cannot import

HISTORIES = int(os.environ.get("EARMARK_TEST_HISTORIES", "3"))
WINDOWED = [
    "config.materialized:hypertable",
    "config.materialized:continuous_aggregate",
    "config.materialized:incremental",
]
FIRST_DAY = datetime(2026, 1, 1, tzinfo=UTC)
TENANTS = ("acme", "beta")
AGENTS = ("Overcast/3.0 (+http://overcast.fm/; iOS podcast app)", "Googlebot/2.1", "", "NeverSeen/1.0 (Linux)")
REFERENCE = {
    "podcasts": "podcast_id,title\np,Show\n",
    "sponsors": "sponsor_id,name\ns,Sponsor\n",
    "episodes": "episode_id,podcast_id,guid,enclosure_url\n"
    + "".join(f"e{i},p,g{i},https://cdn.example.com/e{i}.mp3\n" for i in range(3)),
    "campaigns": "campaign_id,sponsor_id,name,starts_at,ends_at,lookback_days\n"
    "c0,s,A,2026-01-01,2026-02-01,3\nc1,s,B,2026-01-01,2026-02-01,30\n",
    "ad_units": "ad_unit_id,campaign_id,episode_id,position,delivery\n"
    "a0,c0,e0,pre,baked_in\na1,c1,e1,mid,baked_in\na2,c1,,post,dai\n",
    "insertion_orders": "insertion_order_id,campaign_id,promo_code,vanity_url\nio,c0,SAVE,shop.example/show\n",
}
# Rolling windows reach over days, and a threshold puts requests together.
SETTINGS = {
    "acme": "update tenancy.tenants set download_window = 'rolling_first', assumed_bitrate_bps = 64000"
    " where tenant_id = {tenant}",
    "beta": "update tenancy.tenants set download_window = 'rolling_last', assumed_bitrate_bps = 64000"
    " where tenant_id = {tenant}",
}
LOAD = re.compile(r'"load_id": \d+, ')
LATER_REFERENCE = {"episodes": "episode_id,podcast_id,enclosure_url\ne9,p,https://cdn.example.com/e9.mp3\n"}


@dataclass(frozen=True)
class Step:
    """One thing that happens: a file is loaded (``dataset``, ``text``), or somebody else runs ``statement``."""

    tenant: str
    dataset: str = ""
    text: str = ""
    statement: str = ""


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Step], list[Step], int]:
    """Draw what is loaded and written, in any order, then what is deleted, and a seed for the ways there."""
    random_ = random.Random(draw(st.integers(0, 2**32)))  # noqa: S311  (one draw: rows are many, and need no shrinking)
    steps: list[Step] = []
    for tenant in TENANTS:
        requests = [_request(random_) for _ in range(draw(st.integers(60, 240)))]
        responses = [_response(random_) for _ in range(draw(st.integers(5, 40)))]
        steps += _files(random_, tenant, "listener_events", requests)
        steps += _files(random_, tenant, "attribution_events", responses)
        steps += _files(random_, tenant, "listener_metrics", _figures(random_))
        steps += [Step(tenant, name, text) for name, text in LATER_REFERENCE.items()]
        steps += [Step(tenant, statement=_insert(random_)) for _ in range(draw(st.integers(1, 4)))]
    deletions = [
        Step(tenant, statement=statement)
        for tenant in TENANTS
        for statement in draw(
            st.lists(
                st.sampled_from(
                    [
                        "delete from raw.listener_events where tenant_id = {tenant} and country_code = 'DE'",
                        "delete from raw.listener_events where tenant_id = {tenant} and bytes_sent < 200000",
                        "delete from raw.attribution_events where tenant_id = {tenant} and value > 80",
                        "delete from raw.listener_metrics where tenant_id = {tenant} and value > 3",
                        "update raw.campaigns set lookback_days = 1.5 where tenant_id = {tenant}",
                        "update raw.listener_events set status = 404 where tenant_id = {tenant} and status = 206",
                        "update tenancy.tenants set counts_unknown_threshold = false where tenant_id = {tenant}",
                        "update tenancy.tenants set discards_vpns = false, max_daily_downloads_per_address = 3",
                    ]
                ),
                unique=True,
                max_size=3,
            )
        )
    ]
    return steps, deletions, draw(st.integers(0, 2**32))


def _time(random_: random.Random) -> str:
    at = FIRST_DAY + timedelta(days=random_.randrange(12), seconds=random_.randrange(86_400))
    return random_.choice([at, at.replace(hour=0, minute=0, second=0)]).isoformat()


def _request(random_: random.Random) -> str:
    episode = f"e{random_.choice([0, 0, 1, 2, 9])}"
    kind = random_.choices(["request", "ad_impression", "play", "download"], [70, 15, 10, 15])[0]
    is_play = kind == "play"
    agent = random_.choice([*AGENTS, *AGENTS[:1] * 4])
    first_byte = random_.randrange(0, 600_000)
    return ",".join(
        [
            str(uuid.UUID(int=random_.getrandbits(128))),
            _time(random_),
            kind,
            random_.choice(["op3", "host"]) if kind == "download" else "",
            f"https://cdn.example.com/{episode}.mp3",
            "a2" if is_play or kind == "ad_impression" else "",
            f"play{random_.randrange(20)}" if is_play else "",
            random_.choice(["0", "25", "50", "75", "100"]) if is_play else "",
            random_.choice(["GET", "GET", "GET", "HEAD"]),
            random_.choice(["200", "206", "404"]),
            random_.choice(["", str(random_.randrange(1, 10**6))]),
            random_.choice(["", f"bytes={first_byte}-", f"bytes={first_byte}-{first_byte + 300_000}"]),
            f"198.51.100.{random_.randrange(4)}",
            f'"{agent}"',
            random_.choice(["DE", "US", ""]),
        ]
    )


def _response(random_: random.Random) -> str:
    return ",".join(
        [
            str(uuid.UUID(int=random_.getrandbits(128))),
            _time(random_),
            random_.choice(["purchase", "purchase", "lead", "view"]),
            random_.choice(["pixel", "promo_code", "survey", "vanity_url"]),
            random_.choice(["", f"198.51.100.{random_.randrange(8)}"]),
            random_.choice(["", f"cookie{random_.randrange(6)}"]),
            random_.choice(["", "0123456789abcdef" * 3 + f"{random_.randrange(4):016}"]),
            random_.choice(["", "", f"o{random_.randrange(6)}"]),
            str(random_.choice([0, *range(-20, 100)])),
            random_.choice(["USD", "USD", "EUR"]),
            random_.choice(["", "", "save"]),
            random_.choice(["", "", "https://shop.example/show?a=1"]),
            random_.choice(["", "", "", "c1"]),
        ]
    )


def _figures(random_: random.Random) -> list[str]:
    """Return what a host reports: by id and by guid, of some episodes and days; one figure for each."""
    return [
        f"{name},{FIRST_DAY + timedelta(days=day):%Y-%m-%d},downloads,{random_.randrange(6)},host"
        for name in ("e0", "e1", "g1", "g2", "nowhere")
        for day in range(12)
        if random_.random() < 0.5
    ]


_HEADS = {
    "listener_events": "event_id,occurred_at,event_type,source,url,ad_unit_id,play_id,quartile,method,status,"
    "bytes_sent,byte_range,ip,user_agent,country_code",
    "attribution_events": "event_id,occurred_at,action,type,ip,cookie_id,hashed_email,order_number,value,currency,"
    "discount_code,url,campaign_id",
    "listener_metrics": "episode_id,metric_date,metric_name,value,source",
}


def _files(random_: random.Random, tenant: str, dataset: str, lines: list[str]) -> Iterator[Step]:
    """Put rows into files; some rows into two of them."""
    count = random_.randrange(1, 4)
    files: list[list[str]] = [[] for _ in range(count)]
    for line in lines:
        for file in random_.sample(files, 2 if count > 1 and random_.random() < 0.1 else 1):
            file.append(line)
    for file in filter(None, files):
        yield Step(tenant, dataset, "\n".join([_HEADS[dataset], *file]) + "\n")


def _insert(random_: random.Random) -> str:
    """Return an INSERT of another program: rows of several days at once, in no order."""
    rows = ", ".join(
        f"({{tenant}}, '{uuid.UUID(int=random_.getrandbits(128))}', '{_time(random_)}', 'request', 'other',"
        f" 'cdn.example.com/e{random_.randrange(3)}.mp3', 'GET', 200, '\\x0{random_.randrange(4)}',"
        f" '\\x0{day % 4}', '{AGENTS[0]}', 0)"
        for day in range(random_.randrange(1, 5))
    )
    return (
        "insert into raw.listener_events (tenant_id, event_id, occurred_at, event_type, source, enclosure_key,"
        f" method, status, household_key, listener_key, user_agent, load_id) values {rows}"
    )


@pytest.fixture(scope="module")
def built(
    server: Database, request: pytest.FixtureRequest, parsed: Dbt, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Engine, Database]]:
    """Return, for each engine that is here, a database with tenants, reference rows and empty models, to clone."""
    templates = {Engine.POSTGRES: request.getfixturevalue("template")}
    with server.connect(autocommit=True) as connection:
        if connection.execute("select 1 from pg_settings where name = 'timescaledb.disable_load'").fetchone():
            templates[Engine.TIMESCALEDB] = request.getfixturevalue("timescaledb_template")
    folder = tmp_path_factory.mktemp("reference")
    made: dict[Engine, Database] = {}
    with pytest.MonkeyPatch.context() as patch:
        for engine, template in templates.items():
            made[engine] = replace(server, name=f"earmark_test_{uuid.uuid4().hex[:16]}")
            _clone(server, template, made[engine])
            with made[engine].connect() as connection:
                for tenant in TENANTS:
                    connection.execute("insert into tenancy.tenants values (%s, %s)", (tenant, tenant))
                    connection.commit()
                    _run(connection, Step(tenant, statement=SETTINGS[tenant]))
                    for dataset, text in REFERENCE.items():
                        _load(connection, folder, Step(tenant, dataset, text))
            parsed.use(made[engine], patch).build()
            _disconnect(server, made[engine])
        yield made
    for database in made.values():
        _drop(server, database)


@pytest.mark.timescaledb
def test_every_way_leads_to_the_same_rows_on_both_engines(
    server: Database, built: dict[Engine, Database], parsed: Dbt, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if Engine.TIMESCALEDB not in built:
        pytest.skip(f"no TimescaleDB on {server}: the engines are not compared")
    _try_histories([Engine.POSTGRES, Engine.TIMESCALEDB], server, built, parsed, tmp_path_factory)


def test_every_way_leads_to_the_same_rows(
    server: Database, built: dict[Engine, Database], parsed: Dbt, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if Engine.TIMESCALEDB in built:
        pytest.skip("both engines are compared with each other instead")
    _try_histories([Engine.POSTGRES, Engine.POSTGRES], server, built, parsed, tmp_path_factory)


def _try_histories(
    engines: list[Engine],
    server: Database,
    built: dict[Engine, Database],
    parsed: Dbt,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    @settings(
        max_examples=HISTORIES, deadline=None, database=None, print_blob=True,
        suppress_health_check=list(HealthCheck), phases=[*settings().phases][:3],
    )  # fmt: skip
    @given(histories())
    def try_one(history: tuple[list[Step], list[Step], int]) -> None:
        steps, deletions, seed = history
        folder = tmp_path_factory.mktemp("files")
        results = []
        for number, engine in enumerate(engines):
            random_ = random.Random(seed + number)  # noqa: S311
            with _copy_of(server, built[engine]) as database, pytest.MonkeyPatch.context() as patch:
                dbt = parsed.use(database, patch)
                _live_through(database, dbt, folder, random_, steps, deletions)
                dbt.build("--select", *WINDOWED, data_tests=True)
                results.append(_contents(database))
                dbt.build("--select", *WINDOWED, "--full-refresh")
                rebuilt = _contents(database)
                for table, rows in rebuilt.items():
                    assert rows == results[-1][table], f"{engine}: {table} differs after a rebuild from nothing"
        # Files come in another order to each: the number of a load is the only thing that may differ.
        alike = [
            {name: sorted(LOAD.sub("", row) for row in rows) for name, rows in one.items()} for one in results
        ]
        for table, rows in alike[0].items():
            assert alike[1][table] == rows, f"{engines}: {table} differs"
        assert results[0]["marts.fct_downloads"], "a history without a download shows nothing"
        assert results[0]["intermediate.int_downloads__rule_effects"], "nor one that agrees with everybody"

    try_one()


def _live_through(
    database: Database, dbt: Dbt, folder: Path, random_: random.Random, steps: list[Step], deletions: list[Step]
) -> None:
    """Let a history happen to a database, in an order of its own."""
    shuffled = random_.sample(steps, len(steps))
    shuffled += random_.sample(steps, 2)  # replays; an INSERT that comes again is refused by its key
    for step in [*shuffled, *random_.sample(deletions, len(deletions))]:
        with database.connect("somebody else") as connection:
            if step.dataset:
                _load(connection, folder, step)
            else:
                _run(connection, step)
        chance = random_.random()
        if chance < 0.12:
            dbt.build("--select", *WINDOWED)  # what has changed
        elif chance < 0.2:
            first = random_.randrange(12)
            starts, ends = (FIRST_DAY + timedelta(days=n) for n in (first, first + random_.randrange(1, 4)))
            dbt.build(
                "--select", *WINDOWED,
                "--event-time-start", f"{starts:%Y-%m-%d}", "--event-time-end", f"{ends:%Y-%m-%d}",
            )  # fmt: skip
        elif chance < 0.26:
            dbt.build("--select", random_.choice(["fct_downloads", "+fct_downloads", "fct_conversions+"]))
        elif chance < 0.4:
            _use_columnstore(database, random_)


def _run(connection: psycopg.Connection, step: Step) -> None:
    connection.execute("select timeseries.ensure_chunks('raw.listener_events', '2026-01-01Z', '2026-01-13Z')")
    tenant = sql.Literal(step.tenant)
    try:
        connection.execute(sql.SQL(step.statement).format(tenant=tenant))  # type: ignore[arg-type]
        connection.commit()
    except psycopg.errors.UniqueViolation:
        connection.rollback()


def _use_columnstore(database: Database, random_: random.Random) -> None:
    """Put some chunks into the columnstore: rows that come later meet compressed ones."""
    with database.connect(autocommit=True) as connection:
        if recorded(connection).engine is not Engine.TIMESCALEDB:
            return
        chunks = connection.execute("select c::text from show_chunks('raw.listener_events') as c").fetchall()
        for (chunk,) in random_.sample(chunks, len(chunks) // 2):
            connection.execute("call convert_to_columnstore(%s::regclass, if_not_columnstore => true)", (chunk,))


def _load(connection: psycopg.Connection, folder: Path, step: Step) -> None:
    path = folder / f"{step.dataset}-{uuid.uuid4().hex}.csv"
    path.write_text(step.text, encoding="utf-8")
    load_file(
        connection,
        LoadRequest(str(path), step.tenant, dataset=step.dataset),
        key=HashKey("k1", b"0123456789abcdef"),
    )
    connection.commit()


def _contents(database: Database) -> dict[str, list[str]]:
    """Return all rows of every table of the models, as text."""
    with database.connect() as connection:
        relations = connection.execute(
            "select format('%I.%I', h.schema_name, h.table_name) from timeseries.hypertables as h"
            " where h.schema_name <> 'raw' order by 1"
        ).fetchall()
        return {
            name: [
                row[0]
                for row in connection.execute(
                    sql.SQL("select to_jsonb(t)::text from {} as t order by 1").format(
                        sql.Identifier(*name.split("."))
                    )
                )
            ]
            for (name,) in relations
        }


@contextmanager
def _copy_of(server: Database, template: Database) -> Iterator[Database]:
    database = replace(server, name=f"earmark_test_{uuid.uuid4().hex[:16]}")
    _clone(server, template, database)
    try:
        yield database
    finally:
        _drop(server, database)


def _clone(server: Database, template: Database, database: Database) -> None:
    with server.connect(autocommit=True) as connection:
        connection.execute(
            sql.SQL("create database {} template {}").format(
                sql.Identifier(database.name), sql.Identifier(template.name)
            )
        )


def _disconnect(server: Database, database: Database) -> None:
    """Let nobody in any more: a database is cloned only while nobody is connected."""
    with server.connect(autocommit=True) as connection:
        connection.execute(
            sql.SQL("alter database {} allow_connections false").format(sql.Identifier(database.name))
        )
        connection.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = %s", (database.name,)
        )


def _drop(server: Database, database: Database) -> None:
    with server.connect(autocommit=True) as connection:
        connection.execute(
            sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(database.name))
        )

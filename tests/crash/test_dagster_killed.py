"""Dagster is killed whole, as a power failure or the end of a container kills it, and started again.

The processes are those of ``make ui``, on a database and a home of their own. While a run is under way all of
them get SIGKILL at a random moment; files have landed before, and may land while nothing runs. Started again,
Dagster must load every file once, bring it to the marts and end every run; and once its daemon is up it must not
stand idle for two minutes meanwhile. How long its start and the work take is the machine's affair: printed only.

``EARMARK_CRASH_POINTS`` says how often it is killed (1 by default), ``EARMARK_CRASH_SEED`` repeats the moments.
"""

import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from earmark.warehouse.database import Database
from earmark.warehouse.refresh import Refresh

POINTS = int(os.environ.get("EARMARK_CRASH_POINTS", "1"))
SEED = int(os.environ.get("EARMARK_CRASH_SEED", random.randrange(2**32)))
PROMISED = 120  # seconds in which no run is at work, once the daemon is up
FIRST_DAY = datetime(2026, 1, 1, 8, tzinfo=UTC)

AGENT = "AntennaPod/3.4.0 (Linux; Android 14)"
REFERENCE = {
    "tenants.csv": "tenant_id,name\nacme,Acme\n",
    "acme/rss/show.xml": """<?xml version="1.0"?><rss version="2.0"><channel><title>Test Show</title>
<item><title>One</title><guid>one</guid><pubDate>Mon, 05 Jan 2026 06:00:00 GMT</pubDate>
<enclosure url="https://cdn.example.com/one.mp3" length="5000000" type="audio/mpeg"/></item>
</channel></rss>""",
    "acme/sponsors/sponsors.csv": "sponsor_id,name\ns,Sponsor\n",
    "acme/campaigns/campaigns.csv": "campaign_id,sponsor_id,name,starts_at,ends_at,lookback_days\n"
    "c,s,Spring,2026-01-01,2027-01-01,30\n",
    "acme/ad_units/ad_units.csv": "ad_unit_id,campaign_id,position,delivery\na,c,pre,dai\n",
}


@dataclass
class Ui:
    """The processes of ``earmark ui`` in a session of their own, on a home and a database."""

    home: Path
    database: Database
    leader: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.home / "ui.log"

    def start(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        environment = {**os.environ, "EARMARK_HOME": str(self.home), "DATABASE_URL": self.database.url()}
        with self.log.open("ab") as log:
            self.leader = subprocess.Popen(
                [str(Path(sys.executable).with_name("earmark")), "ui", "--port", str(port)],
                env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def kill(self) -> None:
        """Kill every process of the session at once, and see that none is left."""
        if self.leader is None:
            return
        while alive := _session(self.leader.pid):
            for pid in alive:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.leader.poll()
        self.leader.wait()
        self.leader = None


def _session(leader: int) -> list[int]:
    """Return the living processes of a session; one that has ended and waits for its parent is none."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                state, _, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
                if int(session) == leader and state != "Z":
                    found.append(int(folder.name))
    return found


@dataclass
class Landing:
    """The landing folder, and what its files must come to."""

    root: Path
    downloads: dict[str, int] = field(default_factory=dict)
    files: int = 0

    def prepare(self) -> None:
        for name, text in REFERENCE.items():
            self._write(name, text)

    def drop(self, random_: random.Random) -> None:
        """Drop a log and its conversions, for a day of their own."""
        number, listeners = len(self.downloads), random_.randrange(1, 40)
        day = FIRST_DAY + timedelta(days=number)
        self.downloads[f"{day:%Y-%m-%d}"] = listeners
        self._write(
            f"acme/nginx/{number}.log",
            "".join(
                f'198.18.0.{n} - - [{day + timedelta(minutes=n):%d/%b/%Y:%H:%M:%S} +0000] "GET /one.mp3 HTTP/1.1"'
                f' 200 5000000 "-" "{AGENT}"\n'
                for n in range(listeners)
            ),
        )
        self._write(
            f"acme/attribution_events/{number}.csv",
            "event_id,occurred_at,action,type,ip,value,currency,campaign_id\n"
            + "".join(
                f"o{number}-{n},{day + timedelta(hours=5, minutes=n):%Y-%m-%dT%H:%M:%SZ},purchase,pixel,"
                f"198.18.0.{n},10,USD,c\n"
                for n in range(listeners)
            ),
        )

    def _write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.part")
        draft.write_text(text, encoding="utf-8")
        draft.rename(path)
        self.files += name != "tenants.csv"


@dataclass
class Seen:
    """What the database says, as it stands."""

    connection: psycopg.Connection

    def rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        try:
            return self.connection.execute(query, parameters).fetchall()  # type: ignore[call-overload]
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            return []  # Dagster's tables and the marts come with the first start and the first run

    def unfinished(self) -> list[tuple[str, str, str]]:
        """Return the runs that have not ended, the first one first: id, job, state."""
        return self.rows(
            "select run_id, pipeline_name, status from dagster.runs"
            " where status not in ('SUCCESS', 'FAILURE', 'CANCELED') order by id"
        )

    def state(self, run_id: str) -> str:
        return self.rows("select status from dagster.runs where run_id = %s", run_id)[0][0]

    def events(self, run_id: str) -> int:
        return self.rows("select count(*) from dagster.event_logs where run_id = %s", run_id)[0][0]

    def has_daemon(self, since: float) -> bool:
        """Whether a daemon that started since then has given a sign of life."""
        return bool(self.rows("select from dagster.daemon_heartbeats where timestamp > to_timestamp(%s)", since))

    def at_work(self, since: float) -> float:
        """Return the seconds in which at least one of the runs that started since then was at work."""
        seconds, until = 0.0, since
        for start, end in self.rows(
            "select start_time, end_time from dagster.runs where start_time >= %s order by 1", since
        ):
            seconds += max(0.0, end - max(start, until))
            until = max(until, end)
        return seconds

    def is_done(self, landing: Landing) -> bool:
        """Whether every file is loaded and its day is in the marts, nothing waits, and no run is under way."""
        loaded = self.rows("select count(*) from ingest.files where status = 'loaded'")
        days = self.rows("select day::text, sum(downloads)::int from marts.rpt_episode_daily group by 1")
        return (
            loaded == [(landing.files,)]
            and dict(days) == landing.downloads
            and self.rows("select count(*) from ingest.pending_refresh") == [(0,)]
            and not self.unfinished()
        )


@pytest.fixture
def ui(address: Database, tmp_path: Path) -> Iterator[Ui]:
    home = tmp_path / "home"
    home.mkdir()
    started = Ui(home, address)
    yield started
    started.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="the processes of a session are found in /proc")
def test_dagster_killed_whole_takes_up_its_work_again(ui: Ui, address: Database) -> None:
    print(f"EARMARK_CRASH_POINTS={POINTS} EARMARK_CRASH_SEED={SEED}")
    random_ = random.Random(SEED)
    landing = Landing(ui.home / "landing")
    landing.prepare()
    ui.start()
    idle: list[float] = []
    done: list[float] = []
    with address.connect("earmark tests", autocommit=True) as connection:
        seen = Seen(connection)
        while len(idle) < POINTS:
            killed = _kill_in_a_run(ui, seen, landing, random_)
            for _ in range(random_.randrange(3)):
                landing.drop(random_)
            started = time.time()
            ui.start()
            _wait(lambda started=started: seen.has_daemon(started), 5 * PROMISED, ui, "the daemon is up")
            up = time.time()
            _wait(
                lambda: seen.is_done(landing), 5 * PROMISED, ui, f"Dagster, killed in {killed}, takes up its work"
            )
            done.append(time.time() - started)
            idle.append(time.time() - up - seen.at_work(up))
            print(
                f"{len(idle)}: killed in {killed}: up after {up - started:.0f} s, then {idle[-1]:.0f} s idle,"
                f" done after {done[-1]:.0f} s; load {os.getloadavg()[0]:.0f}",
                flush=True,
            )
            _expect_nothing_left(ui, seen)
        ui.kill()
        _wait(lambda: not seen.rows(_SESSIONS), 30, ui, "no session is left")
        _expect_every_row_once(seen, landing)
    for name, seconds in (("idle", idle), ("until done", done)):
        print(f"{POINTS} kills, {name}: median {statistics.median(seconds):.0f} s, worst {max(seconds):.0f} s")
    _expect_a_rebuild_to_change_nothing(address)
    assert max(idle) <= PROMISED, f"seed {SEED}: {idle}"


# A moment of a run's life: once it is in this state or a later one, at most so many events or seconds after.
_STATES = ("NOT_STARTED", "QUEUED", "STARTING", "STARTED")
_MOMENTS = (("NOT_STARTED", 250, 20), ("STARTING", 10, 10), ("STARTED", 50, 10), ("STARTED", 600, 120))


def _kill_in_a_run(ui: Ui, seen: Seen, landing: Landing, random_: random.Random) -> str:
    """Drop files, wait for their run, and kill everything at a random moment of its life; answers which."""
    while True:
        known = seen.rows("select run_id from dagster.runs")
        for _ in range(random_.randrange(1, 4)):
            landing.drop(random_)
        new = _wait(
            lambda known=known: [run for run, _, _ in seen.unfinished() if (run,) not in known],
            3 * PROMISED, ui, "a sensor asks for a run",
        )[0]  # fmt: skip
        state, most_events, most_seconds = random_.choice(_MOMENTS)
        states = _STATES[_STATES.index(state) :]
        _wait(
            lambda new=new, states=states: seen.state(new) not in set(_STATES) - set(states),
            5 * PROMISED,
            ui,
            state,
        )
        count = seen.events(new) + random_.randrange(1, most_events + 1)
        end = time.monotonic() + random_.uniform(0, most_seconds)
        _wait(
            lambda new=new, count=count, end=end: seen.events(new) >= count or time.monotonic() >= end,
            2 * PROMISED, ui, "the moment comes",
        )  # fmt: skip
        if seen.state(new) in _STATES:
            ui.kill()
            if (found := seen.state(new)) in _STATES:
                return f"{found} after {seen.events(new)} events"
            ui.start()
        # The run was over first; the next files get another.
        _wait(lambda: seen.is_done(landing), 5 * PROMISED, ui, "Dagster does its work")


def _wait(condition: Callable[[], Any], seconds: float, ui: Ui, what: str) -> Any:
    until = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > until:
            tail = ui.log.read_text(errors="replace")[-6000:]
            pytest.fail(f"seed {SEED}: not within {seconds} s: {what}\n{tail}")
        time.sleep(0.1)
    return found


_SESSIONS = (
    "select pid, application_name, state, query from pg_stat_activity"
    " where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"
)
_LOCKS = (
    "select l.* from pg_locks as l inner join pg_database as d on l.database = d.oid"
    " where l.locktype = 'advisory' and d.datname = current_database()"
)


def _expect_nothing_left(ui: Ui, seen: Seen) -> None:
    assert seen.rows("select * from dagster.pending_steps") == [], SEED
    assert seen.rows("select * from dagster.concurrency_slots where run_id is not null") == [], SEED
    assert (
        seen.rows(
            "select * from dagster.job_ticks where status = 'STARTED' and timestamp < now() - '1 min'::interval"
        )
        == []
    )
    _wait(lambda: not seen.rows(_LOCKS), 60, ui, "every lock is given back")


def _expect_every_row_once(seen: Seen, landing: Landing) -> None:
    """Expect each file to have one load, and every row of it to be there once."""
    rows = sum(landing.downloads.values())
    assert seen.rows(
        "select dataset, sum(rows_loaded)::int, sum(rows_duplicate)::int, sum(rows_rejected)::int, count(*)::int"
        " from ingest.loads where dataset in ('attribution_events', 'listener_events') group by 1 order by 1"
    ) == [(name, rows, 0, 0, len(landing.downloads)) for name in ("attribution_events", "listener_events")], SEED
    for table in ("raw.attribution_events", "raw.listener_events"):
        assert seen.rows(f"select count(*)::int from {table}") == [(rows,)], SEED


def _expect_a_rebuild_to_change_nothing(database: Database) -> None:
    before = _contents(database)
    for _ in Refresh(database).run(full=True):
        pass
    after = _contents(database)
    assert before.keys() == after.keys()
    for table, rows in after.items():
        assert before[table] == rows, f"seed {SEED}: {table} differs from a rebuild"
    assert before["marts.fct_attribution_credits"], "without a credit little is shown"


def _contents(database: Database) -> dict[str, list[str]]:
    """Return all rows of every table of the models, as text."""
    with database.connect() as connection:
        relations = connection.execute(
            "select n.nspname, c.relname from pg_class as c inner join pg_namespace as n on n.oid = c.relnamespace"
            " where n.nspname in ('intermediate', 'rollups', 'marts') and c.relkind in ('r', 'p')"
            " and not c.relispartition order by 1, 2"
        ).fetchall()
        return {
            f"{schema}.{table}": [
                row[0]
                for row in connection.execute(
                    sql.SQL("select to_jsonb(t)::text from {} as t order by 1").format(
                        sql.Identifier(schema, table)
                    )
                )
            ]
            for schema, table in relations
        }

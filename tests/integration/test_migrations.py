"""Migrations on a real server: once, in order, refused when rewritten, and not only for superusers."""

import shutil
import subprocess
import uuid
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from earmark.warehouse.database import Database
from earmark.warehouse.engine import prepare
from earmark.warehouse.migrations import (
    MIGRATIONS,
    MigrationError,
    State,
    migrate,
    read_migrations,
    status,
)


@pytest.fixture
def own_migrations(tmp_path: Path) -> Path:
    folder = tmp_path / "migrations"
    shutil.copytree(MIGRATIONS, folder)
    return folder


def test_a_second_run_does_nothing(address: Database) -> None:
    with address.connect(autocommit=True) as connection:
        assert migrate(connection) == []
        assert {item.state for item in status(connection)} == {State.APPLIED}


def test_a_new_file_runs_once(address: Database, own_migrations: Path) -> None:
    (own_migrations / "9000_more.sql").write_text("create table raw.more (id int);")
    with address.connect(autocommit=True) as connection:
        assert {item.file_name for item in status(connection, own_migrations) if item.state is State.PENDING} == {
            "9000_more.sql"
        }
        assert migrate(connection, own_migrations) == ["9000_more.sql"]
        assert migrate(connection, own_migrations) == []


def test_a_changed_file_is_refused_by_name(address: Database, own_migrations: Path) -> None:
    first = read_migrations(own_migrations)[0].file_name
    with (own_migrations / first).open("a") as file:
        file.write("-- one more thought\n")
    with address.connect(autocommit=True) as connection, pytest.raises(MigrationError, match=first):
        migrate(connection, own_migrations)


def test_a_missing_file_is_refused_by_name(address: Database, own_migrations: Path) -> None:
    first = read_migrations(own_migrations)[0].file_name
    (own_migrations / first).unlink()
    with address.connect(autocommit=True) as connection, pytest.raises(MigrationError, match=first):
        migrate(connection, own_migrations)


def test_functions_that_changed_run_again(address: Database, own_migrations: Path) -> None:
    file = own_migrations / "functions" / "hypertables.sql"
    file.write_text(file.read_text() + "create or replace function raw.answer() returns int return 42;\n")
    with address.connect(autocommit=True) as connection:
        assert migrate(connection, own_migrations) == ["functions/hypertables.sql"]
        assert connection.execute("select raw.answer()").fetchone() == (42,)
        assert migrate(connection, own_migrations) == []


def test_a_failing_file_leaves_nothing_and_names_its_line(address: Database, own_migrations: Path) -> None:
    (own_migrations / "9000_bad.sql").write_text("create table raw.half (id int);\nselect nonsense;\n")
    with address.connect(autocommit=True) as connection:
        with pytest.raises(MigrationError, match=r"9000_bad.sql, line 2: .*nonsense"):
            migrate(connection, own_migrations)
        row = connection.execute("select to_regclass('raw.half')").fetchone()
    assert row == (None,)


def test_a_role_that_is_no_superuser_can_migrate(server: Database) -> None:
    role = f"earmark_owner_{uuid.uuid4().hex[:8]}"
    database = replace(server, name=role, user=role, password="owner")
    with server.connect(autocommit=True) as admin:
        admin.execute(sql.SQL("create role {} login password 'owner'").format(sql.Identifier(role)))
        admin.execute(sql.SQL("create database {} owner {}").format(sql.Identifier(role), sql.Identifier(role)))
        try:
            ran, _ = prepare(database, "postgres")
            assert len(ran) == len(read_migrations())
            with database.connect(autocommit=True) as connection:
                connection.execute(
                    "select timeseries.ensure_chunks('raw.listener_events', now(), now() + interval '3 days')"
                )
                connection.execute("insert into tenancy.tenants values ('acme', 'Acme')")
                connection.execute("select ingest.mark_changed('acme', 'listener_events', array[current_date])")
                connection.execute("select ingest.begin_run()")
                connection.execute("select ingest.begin_build('a_model', 'a-run', '{raw.listener_events}', false)")
                connection.execute("select ingest.end_build('a_model', 'a-run', '{raw.listener_events}')")
                assert connection.execute("select * from ingest.pending_refresh").fetchall() == []
        finally:
            admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(role)))
            admin.execute(sql.SQL("drop role {}").format(sql.Identifier(role)))


def test_psql_can_apply_the_files(server: Database) -> None:
    from earmark.warehouse import embedded

    database = replace(server, name=f"earmark_test_{uuid.uuid4().hex[:16]}")
    database.ensure_exists()
    try:
        for migration in read_migrations() * 2:  # the second time by somebody who does not know of the first
            done = subprocess.run(
                [embedded.psql(), "-v", "ON_ERROR_STOP=1", "-q", "-d", database.conninfo()],
                input=migration.text,
                text=True,
                capture_output=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
    finally:
        with server.connect(autocommit=True) as admin:
            admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(database.name)))


def test_chunks_are_made_once_and_hold_their_days(connection: psycopg.Connection) -> None:
    make = "select timeseries.ensure_chunks(%s::regclass, %s::timestamptz, %s::timestamptz)"
    window = ("2025-02-27T12:00:00Z", "2025-03-02T00:00:00Z")
    assert connection.execute(make, ("raw.listener_events", *window)).fetchone() == (3,)
    assert connection.execute(make, ("raw.listener_events", *window)).fetchone() == (0,)
    assert connection.execute(make, ("raw.listener_metrics", *window)).fetchone() == (3,)
    names = connection.execute(
        "select relname from pg_class where relname ~ '^raw__listener_events__2025' and relkind = 'r' order by 1"
    ).fetchall()
    assert [name for (name,) in names] == [
        "raw__listener_events__20250227",
        "raw__listener_events__20250228",
        "raw__listener_events__20250301",
    ]


def test_a_table_that_is_no_hypertable_has_no_chunks(connection: psycopg.Connection) -> None:
    with pytest.raises(psycopg.errors.RaiseException, match="is not a hypertable"):
        connection.execute("select timeseries.ensure_chunks('raw.podcasts', now(), now())")

"""Fixtures for every test: a PostgreSQL server for the session and a fresh, migrated database for each test.

The server is the one that ``EARMARK_TEST_DATABASE_URL`` names, or an embedded one under ``.earmark/test``.
All workers share it; each database is cloned from a template, made once for each state of the migrations.
"""

import hashlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from orchestration.lib.warehouse import embedded
from orchestration.lib.warehouse.database import Database, advisory_lock
from orchestration.lib.warehouse.migrations import migrate, read_migrations
from orchestration.settings import PROJECT_ROOT, Settings

SHARED_DATA = PROJECT_ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the developer's own settings and servers out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("EARMARK_", "POSTGRES_", "DATABASE_")) and "TEST" not in name:
                patch.delenv(name)
        patch.setenv("EARMARK_HOME", str(tmp_path_factory.mktemp("home")))
        # Each worker parses for databases of its own: they would tread on each other's manifest.
        patch.setenv("DBT_TARGET_PATH", str(tmp_path_factory.mktemp("target")))
        patch.setenv("DBT_LOG_PATH", str(tmp_path_factory.mktemp("logs")))
        patch.setitem(Settings.model_config, "env_file", None)
        yield


@pytest.fixture(scope="session")
def server() -> Database:
    """Return the maintenance database of the test server."""
    url = os.environ.get("EARMARK_TEST_DATABASE_URL")
    if url:
        return Database.from_url(url)
    return replace(embedded.start(PROJECT_ROOT / ".earmark" / "test"), name="postgres")


@pytest.fixture(scope="session")
def template(server: Database) -> Database:
    """Return a migrated database to clone; no test connects to it."""
    texts = "".join(migration.checksum for migration in read_migrations())
    name = f"earmark_template_{hashlib.sha256(texts.encode()).hexdigest()[:12]}"
    database = replace(server, name=name)
    with server.connect(autocommit=True) as connection, advisory_lock(connection, "test template"):
        row = connection.execute("select datistemplate from pg_database where datname = %s", (name,)).fetchone()
        if row is None or not row[0]:
            identifier = sql.Identifier(name)
            connection.execute(sql.SQL("drop database if exists {}").format(identifier))
            connection.execute(sql.SQL("create database {} encoding 'UTF8' template template0").format(identifier))
            with database.connect(autocommit=True) as fresh:
                migrate(fresh)
            connection.execute(sql.SQL("alter database {} is_template true").format(identifier))
    return database


@pytest.fixture
def address(server: Database, template: Database) -> Iterator[Database]:
    """Return a fresh migrated database; it is dropped after the test."""
    database = replace(server, name=f"earmark_test_{uuid.uuid4().hex[:16]}")
    clone = sql.SQL("create database {} template {}").format(
        sql.Identifier(database.name), sql.Identifier(template.name)
    )
    with server.connect(autocommit=True) as connection:
        connection.execute(clone)
    yield database
    with server.connect(autocommit=True) as connection:
        connection.execute(
            sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(database.name))
        )


@pytest.fixture
def database(address: Database) -> str:
    """Return the libpq URL of a fresh migrated database."""
    return address.url()


@pytest.fixture
def connection(address: Database) -> Iterator[psycopg.Connection]:
    """Return a connection to the fresh database; what the test does not commit is lost."""
    with address.connect("earmark tests") as opened:
        yield opened


@pytest.fixture
def shared_data() -> Path:
    """Return the folder of real data beside the project; skips where it is missing."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data: {SHARED_DATA} is missing")
    return SHARED_DATA

"""Fixtures for every test: a PostgreSQL server for the session and a fresh, migrated database for each test.

The server is the one that ``EARMARK_TEST_DATABASE_URL`` names, or an embedded one under ``.earmark/test``.
All workers share it; each database is cloned from a template, made once for each state of the migrations. Tests
that are marked ``built`` get one in which every model was built, while it was empty: their builds only refresh.
"""

import hashlib
import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from earmark.settings import PROJECT_ROOT, Settings
from earmark.warehouse import embedded
from earmark.warehouse.database import Database, advisory_lock
from earmark.warehouse.engine import Engine, prepare
from earmark.warehouse.migrations import read_migrations
from earmark.warehouse.refresh import Refresh

SHARED_DATA = PROJECT_ROOT.parent / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the test that takes minutes: at the end one worker would do it while the others wait."""
    items.sort(key=lambda item: item.path.name != "test_equality.py")


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
    """Return a migrated database on plain PostgreSQL to clone; no test connects to it."""
    return _make_template(server, Engine.POSTGRES)


@pytest.fixture(scope="session")
def timescaledb_template(server: Database) -> Database:
    """Return a migrated database on TimescaleDB to clone; skips where the server has none."""
    with server.connect(autocommit=True) as connection:
        found = connection.execute(
            "select from pg_available_extensions inner join pg_settings on true"
            " where pg_available_extensions.name = 'timescaledb' and pg_settings.name = 'timescaledb.disable_load'"
        ).fetchone()
    if found is None:
        pytest.skip(f"no TimescaleDB on {server}: what is special to that engine is not tested")
    return _make_template(server, Engine.TIMESCALEDB)


@pytest.fixture(scope="session")
def built_templates(server: Database) -> Callable[[Engine], Database]:
    """Return what gives a template with all models built, by engine."""
    return cache(lambda engine: _make_template(server, engine, built=True))


def _make_template(server: Database, engine: Engine, *, built: bool = False) -> Database:
    texts = "".join(migration.checksum for migration in read_migrations())
    if built:
        texts += "".join(path.read_text() for path in _models())
    digest = hashlib.sha256(texts.encode()).hexdigest()[:12]
    name = f"earmark_template_{engine}_{'built_' if built else ''}{digest}"
    database = replace(server, name=name)
    with server.connect(autocommit=True) as connection, advisory_lock(connection, "test template"):
        row = connection.execute("select datistemplate from pg_database where datname = %s", (name,)).fetchone()
        if row is None or not row[0]:
            identifier = sql.Identifier(name)
            connection.execute(sql.SQL("drop database if exists {}").format(identifier))
            connection.execute(sql.SQL("create database {} encoding 'UTF8' template template0").format(identifier))
            prepare(database, engine)
            if built:
                for _ in Refresh(database).run():
                    pass
            connection.execute(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = %s", (name,)
            )  # TimescaleDB's scheduler keeps a connection
            connection.execute(sql.SQL("alter database {} allow_connections false").format(identifier))
            connection.execute(sql.SQL("alter database {} is_template true").format(identifier))
    return database


def _wants_built(request: pytest.FixtureRequest) -> bool:
    marker = request.node.get_closest_marker("built")
    return marker is not None and marker.args != (False,)


def _models() -> list[Path]:
    folders = [PROJECT_ROOT / name for name in ("models", "seeds", "dbt_project")]
    found = (path for folder in folders for path in folder.rglob("*") if path.suffix in (".sql", ".yml", ".csv"))
    return [PROJECT_ROOT / "dbt_project.yml", *sorted(found)]


@pytest.fixture
def address(
    request: pytest.FixtureRequest,
    server: Database,
    template: Database,
    built_templates: Callable[[Engine], Database],
) -> Iterator[Database]:
    """Return a fresh migrated database on plain PostgreSQL; it is dropped after the test."""
    yield from _clone(server, built_templates(Engine.POSTGRES) if _wants_built(request) else template)


@pytest.fixture
def timescaledb(
    request: pytest.FixtureRequest,
    server: Database,
    timescaledb_template: Database,
    built_templates: Callable[[Engine], Database],
) -> Iterator[Database]:
    """Return a fresh migrated database on TimescaleDB; it is dropped after the test."""
    yield from _clone(
        server, built_templates(Engine.TIMESCALEDB) if _wants_built(request) else timescaledb_template
    )


@pytest.fixture(params=[Engine.POSTGRES, pytest.param(Engine.TIMESCALEDB, marks=pytest.mark.timescaledb)])
def any_engine(request: pytest.FixtureRequest) -> Database:
    """Return a fresh migrated database, on each engine in turn."""
    database: Database = request.getfixturevalue("address" if request.param is Engine.POSTGRES else "timescaledb")
    return database


def _clone(server: Database, template: Database) -> Iterator[Database]:
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

"""The engine: TimescaleDB's hypertables or plain range partitions. Found once, when the migrations run.

What lives here: finding out what the server can do and telling the database to use it. What the engines do
differently is in the functions of schema ``timeseries`` (``migrations/functions/``).
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, LiteralString

import psycopg
from psycopg import sql

from earmark.errors import EarmarkError
from earmark.warehouse.database import Database, advisory_lock
from earmark.warehouse.migrations import migrate

_EXTENSION: Final = "timescaledb"


class Engine(StrEnum):
    """What hypertables and continuous aggregates are made of."""

    POSTGRES = "postgres"
    TIMESCALEDB = "timescaledb"


class EngineError(EarmarkError):
    """The engine that is asked for cannot be had here. The text says why, and the fix."""


@dataclass(frozen=True, slots=True)
class Found:
    """An engine as it was found. ``function_schema`` holds its functions; ``note`` says what is worth knowing."""

    engine: Engine
    function_schema: str
    version: str
    note: str = ""


def find_engine(database: Database, wanted: str) -> Found:
    """Find out which engine this database can have; ``wanted`` is ``auto``, ``postgres`` or ``timescaledb``.

    With ``auto``: the engine that the database's rows were loaded with; without rows TimescaleDB where it is
    there with its full licence, else plain PostgreSQL. The extension is created in the database where TimescaleDB
    is taken; else nothing is changed.

    Raises:
        EngineError: TimescaleDB is wanted but missing, or there but not usable, or of the Apache edition.

    """
    with database.connect("earmark engine", autocommit=True) as connection:
        plain = Found(Engine.POSTGRES, "timeseries", connection.info.parameter_status("server_version") or "")
        if wanted == "auto":
            wanted = _settled(connection) or wanted
        if wanted == Engine.POSTGRES:
            return plain
        if not _holds(connection, "select from pg_available_extensions where name = %s", _EXTENSION):
            if wanted == "auto":
                return plain
            raise EngineError(
                f"EARMARK_ENGINE is timescaledb, but {database} has no TimescaleDB: install the extension on its "
                "server, or set EARMARK_ENGINE=postgres"
            )
        if not _holds(connection, "select from pg_settings where name = %s", "timescaledb.disable_load"):
            raise EngineError(
                f"TimescaleDB is installed on the server of {database} but not preloaded: add "
                "shared_preload_libraries = 'timescaledb' to its postgresql.conf and restart it, or set "
                "EARMARK_ENGINE=postgres"
            )
    # A session of its own: the extension wants to be the first thing that a session meets.
    with database.connect("earmark engine") as connection:
        found = _create_extension(connection, database)
        if isinstance(found, Found):
            connection.commit()
            return found
        connection.rollback()
    reason = (
        f"{found}: continuous aggregates and the columnstore are missing. Use the community edition, or set "
        "EARMARK_ENGINE=postgres"
    )
    if wanted == "auto":
        return Found(
            plain.engine, plain.function_schema, plain.version, note=f"plain PostgreSQL is used: {reason}"
        )
    raise EngineError(f"EARMARK_ENGINE is timescaledb, but {reason}")


def _settled(connection: psycopg.Connection) -> Engine | None:
    """Return the engine that the database cannot leave any more, if it is so far."""
    if not _holds(connection, "select where to_regclass(%s) is not null", "timeseries.engine"):
        return None
    engine = recorded(connection).engine
    if engine is Engine.TIMESCALEDB:
        return engine
    has_rows = "select from raw.listener_events union all select from raw.attribution_events where %s <> ''"
    return engine if _holds(connection, has_rows, "any") else None


def _create_extension(connection: psycopg.Connection, database: Database) -> Found | str:
    """Create the extension; answers what was found, or why it will not do."""
    try:
        connection.execute("set local client_min_messages = error")
        connection.execute("create extension if not exists timescaledb")
    except psycopg.errors.InsufficientPrivilege:
        raise EngineError(
            f"TimescaleDB is there, but the role {database.user} may not create it in this database: have it "
            "created with: create extension timescaledb; or set EARMARK_ENGINE=postgres"
        ) from None
    row = connection.execute(
        "select e.extversion, n.nspname, current_setting('timescaledb.license', true)"
        " from pg_extension as e inner join pg_namespace as n on e.extnamespace = n.oid where e.extname = %s",
        (_EXTENSION,),
    ).fetchone()
    assert row is not None  # noqa: S101  (it was created above)
    version, schema, licence = row
    if licence != "timescale":
        return f"this TimescaleDB {version} is the Apache edition"
    return Found(Engine.TIMESCALEDB, schema, version)


def prepare(
    database: Database, wanted: str, on_applied: Callable[[str], None] = lambda _name: None
) -> tuple[list[str], Found]:
    """Migrate the database and make its hypertables with the engine; returns the files that ran, and the engine.

    Of several processes that do so at once one works, the others wait and find it done.

    Raises:
        EngineError: the engine cannot be had, or the database holds rows of the other one.
        MigrationError: a migration cannot run.

    """
    with (
        database.connect("earmark migrate", autocommit=True) as waiting,
        advisory_lock(waiting, "prepare"),
    ):
        found = find_engine(database, wanted)
        # A session of its own: one that met the database without the extension does not know it.
        with database.connect("earmark migrate", autocommit=True) as connection:
            ran = migrate(connection, on_applied=on_applied)
            use_engine(connection, found)
            connection.execute("select timeseries.maintain(drop_old => false)")
        return ran, found


def use_engine(connection: psycopg.Connection, found: Found) -> None:
    """Make the database's hypertables with this engine; does nothing where they are. Needs the migrations.

    Raises:
        EngineError: there are rows that were loaded with the other engine.

    """
    try:
        connection.execute(
            "select timeseries.use_engine(%s, %s, %s)", (found.engine, found.function_schema, found.version)
        )
    except psycopg.errors.ObjectNotInPrerequisiteState as error:
        now = recorded(connection)
        raise EngineError(
            f"{error.diag.message_primary}; rows are not moved from one engine to another. Set "
            f"EARMARK_ENGINE={now.engine} to go on as before, or load the files into a new database"
        ) from None


def recorded(connection: psycopg.Connection) -> Found:
    """Return the engine that the database's hypertables are made with."""
    row = connection.execute("select name, function_schema, version from timeseries.engine").fetchone()
    assert row is not None  # noqa: S101  (the migration puts it there)
    return Found(Engine(row[0]), row[1], row[2])


def _holds(connection: psycopg.Connection, query: LiteralString, value: str) -> bool:
    found = connection.execute(sql.SQL("select exists ({})").format(sql.SQL(query)), (value,)).fetchone()
    return bool(found and found[0])

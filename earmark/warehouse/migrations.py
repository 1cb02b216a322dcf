"""Migrations: the SQL files of ``migrations/`` and the ledger of those that ran.

Numbered files hold the schema and run once, in order. The files of ``functions/`` come after them and run again
when their text has changed. Each file runs in one transaction, under an advisory lock. psql can apply the files
too: they are idempotent, so that ``migrate`` may meet a database where somebody did.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Final

import psycopg
from psycopg.rows import class_row

from earmark.errors import EarmarkError
from earmark.settings import PROJECT_ROOT
from earmark.warehouse.database import advisory_lock

MIGRATIONS: Final = PROJECT_ROOT / "migrations"
_FILE_NAME: Final = re.compile(r"^(\d{4})_[a-z0-9_]+\.sql$")
_FUNCTIONS: Final = "functions"
# The files that these have taken the place of, 0001 to 0022, made what the numbered ones up to 0009 make.
_FIRST_BEFORE: Final = "0001_schemas.sql"
_LAST_BEFORE: Final = "0022_change_log.sql"
_MADE_BEFORE: Final = range(1, 10)
_LEDGER: Final = """
create schema if not exists ingest;
create table if not exists ingest.migrations (
    file_name text primary key,
    checksum text not null,
    applied_at timestamptz not null default now(),
    applied_by text not null default current_user
);
comment on table ingest.migrations is 'One row a migration file that ran, with the sha256 of its text.';
"""


class MigrationError(EarmarkError):
    """A migration cannot run, or one that ran was changed since. The text names the file and the fix."""


class State(StrEnum):
    """What is known of a migration file."""

    APPLIED = "applied"
    PENDING = "pending"
    CHANGED = "changed"  # its text is another than the one that ran
    MISSING = "missing"  # it ran, but there is no such file any more


@dataclass(frozen=True, slots=True)
class Migration:
    """One migration file as it stands on disk."""

    file_name: str
    text: str

    @property
    def number(self) -> int | None:
        """Its place in the order; None for functions, which run again when they have changed."""
        return None if self.file_name.startswith(f"{_FUNCTIONS}/") else int(self.file_name[:4])

    @property
    def checksum(self) -> str:
        """The sha256 of the text, in hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Applied:
    """One row of the ledger."""

    file_name: str
    checksum: str
    applied_at: datetime
    applied_by: str


@dataclass(frozen=True, slots=True)
class Status:
    """A migration and its state; ``applied_at`` is None unless it ran."""

    file_name: str
    state: State
    applied_at: datetime | None


def read_migrations(folder: Path = MIGRATIONS) -> list[Migration]:
    """Read the files: the numbered in their order, then the functions.

    Raises:
        MigrationError: a name is not of the form 0001_what_it_does.sql, or a number is there twice.

    """
    migrations: list[Migration] = []
    for path in sorted(folder.glob("*.sql")):
        if not _FILE_NAME.match(path.name):
            raise MigrationError(f"{path.name}: name migrations like 0007_what_it_does.sql")
        if migrations and migrations[-1].file_name[:4] == path.name[:4]:
            raise MigrationError(
                f"{migrations[-1].file_name} and {path.name} have the same number: give one the next number"
            )
        migrations.append(Migration(path.name, path.read_text(encoding="utf-8")))
    return migrations + [
        Migration(f"{_FUNCTIONS}/{path.name}", path.read_text(encoding="utf-8"))
        for path in sorted((folder / _FUNCTIONS).glob("*.sql"))
    ]


def compare(migrations: Sequence[Migration], ledger: Sequence[Applied]) -> list[Status]:
    """Say of each migration, on disk or in the ledger, what its state is; in number order."""
    applied = {row.file_name: row for row in ledger}
    on_disk = {migration.file_name: migration for migration in migrations}
    statuses = []
    for name in sorted({*applied, *on_disk}):
        row, migration = applied.get(name), on_disk.get(name)
        if row is None:
            state = State.PENDING
        elif migration is None:
            state = State.MISSING
        elif row.checksum == migration.checksum:
            state = State.APPLIED
        else:
            state = State.PENDING if migration.number is None else State.CHANGED
        statuses.append(Status(name, state, row.applied_at if row else None))
    return statuses


def carry_over(ledger: Sequence[Applied], migrations: Sequence[Migration]) -> list[Applied]:
    """Return the ledger as it is for these files, also where those before them ran.

    Raises:
        MigrationError: not all of those before them ran.

    """
    before = {row.file_name: row for row in ledger}
    if _FIRST_BEFORE in before and _LAST_BEFORE not in before:
        raise MigrationError(
            f"this database was made by an earlier version and left at {max(before)}: bring it to {_LAST_BEFORE} "
            "with the last version that has this file (earmark migrate), then come back"
        )
    if (last := before.get(_LAST_BEFORE)) is None:
        return list(ledger)
    return [
        Applied(migration.file_name, migration.checksum, last.applied_at, last.applied_by)
        for migration in migrations
        if migration.number in _MADE_BEFORE
    ]


def status(connection: psycopg.Connection, folder: Path = MIGRATIONS) -> list[Status]:
    """Return the state of every migration; changes nothing, not even where there is no ledger yet."""
    migrations = read_migrations(folder)
    row = connection.execute("select to_regclass('ingest.migrations') is not null").fetchone()
    return compare(migrations, carry_over(_ledger(connection), migrations) if row and row[0] else [])


def require_current(connection: psycopg.Connection) -> None:
    """Refuse a database that this version of the code does not fit yet.

    Raises:
        MigrationError: a migration waits.

    """
    waiting = [item.file_name for item in status(connection) if item.state is State.PENDING]
    if waiting:
        raise MigrationError(f"the database is behind: {', '.join(waiting)} not applied. Run: earmark migrate")


def migrate(
    connection: psycopg.Connection,
    folder: Path = MIGRATIONS,
    on_applied: Callable[[str], None] = lambda _name: None,
) -> list[str]:
    """Run what has not run yet; returns the names of the files that ran. ``connection`` is in autocommit.

    Raises:
        MigrationError: a file that ran was changed or is gone, or a file fails; those before it stay applied.

    """
    migrations = read_migrations(folder)
    ran: list[str] = []
    with advisory_lock(connection, "migrate"):
        with connection.transaction():
            connection.execute(_LEDGER)
            ledger = _ledger(connection)
            carried = carry_over(ledger, migrations)
            if carried != ledger:
                connection.execute("delete from ingest.migrations")
                for row in carried:
                    connection.execute("insert into ingest.migrations values (%s, %s, %s, %s)", astuple(row))
        statuses = compare(migrations, carried)
        _refuse_rewritten_history(statuses)
        pending = {item.file_name for item in statuses if item.state is State.PENDING}
        for migration in migrations:
            if migration.file_name not in pending:
                continue
            _apply(connection, migration)
            ran.append(migration.file_name)
            on_applied(migration.file_name)
    return ran


def _apply(connection: psycopg.Connection, migration: Migration) -> None:
    try:
        with connection.transaction():
            connection.execute(migration.text.encode())
            connection.execute(
                "insert into ingest.migrations (file_name, checksum) values (%s, %s) on conflict (file_name) "
                "do update set checksum = excluded.checksum, applied_at = now(), applied_by = current_user",
                (migration.file_name, migration.checksum),
            )
    except psycopg.Error as error:
        diagnostics = error.diag
        line = ""
        if diagnostics.statement_position:
            before = migration.text[: int(diagnostics.statement_position)]
            line = f", line {before.count(chr(10)) + 1}"
        hint = (
            " The role lacks a right: let the database's owner run earmark migrate."
            if isinstance(error, psycopg.errors.InsufficientPrivilege)
            else ""
        )
        raise MigrationError(
            f"{migration.file_name}{line}: {diagnostics.message_primary or error}. "
            f"Nothing of it was applied.{hint}"
        ) from error


def _refuse_rewritten_history(statuses: Sequence[Status]) -> None:
    for item in statuses:
        if item.state is State.CHANGED:
            raise MigrationError(
                f"{item.file_name} was changed after it ran: put its text back and write a new migration instead"
            )
        if item.state is State.MISSING:
            raise MigrationError(
                f"{item.file_name} ran here but is not in migrations/: this code is older than the database; "
                "use the newer code"
            )


def _ledger(connection: psycopg.Connection) -> list[Applied]:
    with connection.cursor(row_factory=class_row(Applied)) as cursor:
        cursor.execute(
            "select file_name, checksum, applied_at, applied_by from ingest.migrations order by file_name"
        )
        return cursor.fetchall()

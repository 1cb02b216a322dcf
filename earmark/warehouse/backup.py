"""Backup and restore of a whole database: one file of pg_dump's custom format, whole or not at all.

What lives here: running pg_dump and pg_restore, what TimescaleDB needs around them, and putting a restored
database in the place of the old one. A restore goes into a database of another name, which takes over the old
one's name in one transaction at the end; so what fails or is killed on the way leaves the old one as it was.

Dagster's schema is in the backup: its history, and which sensors are on, belong to the same moment as the ledger.
The secret that addresses are hashed under is not: whoever has both can try addresses until the hashes are known.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql

from earmark.errors import EarmarkError
from earmark.warehouse.database import Database, DatabaseUnavailableError

Say = Callable[[str], None]

_MAGIC: Final = b"PGDMP"
_EXTENSION: Final = "timescaledb"
_FIRST_WITH_TIMEOUT: Final = 17  # pg_restore sets transaction_timeout, which older servers do not know
_TRIES: Final = 20  # to have a database for oneself: others connect again and again
_ENTRY: Final = re.compile(r"^\d+; \d+ \d+ (?P<what>.+)$", re.MULTILINE)
_ENGINE_ROW: Final = re.compile(r"\ttimescaledb\t(?P<schema>[^\t]+)\t(?P<version>\d[^\t\n]*)")

# The tables that somebody may have put rows into; those of the migrations themselves apart.
_FULL: Final = """
select n.nspname, c.relname
from pg_class as c
inner join pg_namespace as n on n.oid = c.relnamespace
where
    c.relkind in ('r', 'p')
    and n.nspname not in ('pg_catalog', 'information_schema', 'timeseries')
    and n.nspname !~ '^(pg_|_timescaledb|timescaledb_)'
    and (n.nspname, c.relname) <> ('ingest', 'migrations')
    and not exists (select from pg_inherits as i where i.inhrelid = c.oid)
    and not exists (select from pg_depend as d where d.objid = c.oid and d.deptype = 'e')
order by 1, 2
"""
_FOREIGN_SNAPSHOTS: Final = """
update ingest.model_builds set cluster = 0 where cluster is not null;
delete from ingest.builds;
update ingest.changes set changed_by = '3';
"""


class BackupError(EarmarkError):
    """A backup or restore is not done. The text says why and what is as it was."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in a backup. ``version`` is TimescaleDB's where it is used and known, ``schema`` its room."""

    entries: str
    has_timescaledb: bool = False
    version: str | None = None
    schema: str = "public"

    @property
    def owners(self) -> set[str]:
        """The roles that own something."""
        names = {found["what"].rsplit(" ", 1)[-1] for found in _ENTRY.finditer(self.entries)}
        return names - {"", "-"}

    @property
    def grants(self) -> str:
        """The entries that grant rights to roles, as pg_restore takes a list."""
        is_grant = re.compile(r"\d+; \d+ \d+ (DEFAULT )?ACL ")
        lines = [line for line in self.entries.splitlines() if is_grant.match(line)]
        return "".join(f"{line}\n" for line in lines)


def back_up(database: Database, target: Path, *, force: bool = False) -> int:
    """Write the database to a file that only its owner may read; returns its size in bytes.

    It is of one moment, whatever is loaded meanwhile, and takes its name only when it is whole and on the disk.

    Raises:
        BackupError: the file is there and not ``force``, or it cannot be made; nothing is left of it.
        DatabaseUnavailableError: the database cannot be reached.

    """
    if target.is_dir() or (target.exists() and not force):
        raise BackupError(f"{target} is there: name another file, or replace it with --force")
    with database.connect("earmark backup") as connection:
        if not _is_ours(connection):
            raise BackupError(f"Database {database} holds nothing of earmark: there is nothing to back up")
        major = connection.info.server_version // 10000
        _note_extension(connection)
    pg_dump, pg_restore = _program("pg_dump", major), _program("pg_restore", major)
    with _draft_of(target) as draft:
        options = ["--format=custom", "--compress=6", "--no-password", f"--file={draft}"]
        _run(database, [str(pg_dump), *options], f"{target} was not written")
        _list(pg_restore, draft)
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        size = draft.stat().st_size
        if target.exists() and not force:
            raise BackupError(f"{target} was made meanwhile: it is as it was, and this backup is discarded")
        draft.replace(target)
        _sync_folder(target.parent)
    return size


def restore(database: Database, source: Path, *, force: bool = False, say: Say = lambda _text: None) -> None:
    """Put a backup back, under the name of ``database``.

    Raises:
        BackupError: the file is no whole backup, the server cannot take it, or the database holds rows and not
            ``force``. The database is as it was.
        DatabaseUnavailableError: the server cannot be reached.

    """
    if not source.is_file():
        raise BackupError(f"{source}: there is no such file")
    with source.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise BackupError(f"{source} is no backup: earmark db backup makes one")
    with _in_words(database), _beside(database).connect("earmark restore", autocommit=True) as server:
        major = server.info.server_version // 10000
        contents = read_contents(source, major)
        _refuse_another_extension(server, contents)
        exists, may_create = _rights(server, database)
        if exists and not force:
            _refuse_rows(database)
        options = _owner_options(server, contents, database, say)
        if not may_create:
            _restore_in_place(database, source, contents, options, major)
        else:
            _restore_beside(server, database, source, contents, options, major)
        _restore_grants(database, source, contents, major, say)


def read_contents(source: Path, major: int) -> Contents:
    """Read what is in a backup, for a server of this major version.

    Raises:
        BackupError: the file is damaged, or no backup of earmark's.

    """
    pg_restore = _program("pg_restore", major)
    entries = _list(pg_restore, source)
    if not re.search(r" TABLE DATA ingest migrations ", entries):
        raise BackupError(f"{source} is a dump of another database: it holds no schema of earmark's")
    if not re.search(r" EXTENSION - timescaledb ", entries):
        return Contents(entries)
    arguments = ["--data-only", "--schema=timeseries", "--table=engine", "--file=-", str(source)]
    found = _ENGINE_ROW.search(_output([str(pg_restore), *arguments], source))
    if found is None:  # the extension is there, and the engine is plain PostgreSQL
        return Contents(entries, has_timescaledb=True)
    return Contents(entries, has_timescaledb=True, version=found["version"], schema=found["schema"])


@contextmanager
def _in_words(database: Database) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        reason = error.diag.message_primary or database.scrub(error)
        raise BackupError(f"The server refused ({reason}); database {database} is as it was") from None


# --- The programs ---


def _program(name: str, major: int) -> Path:
    """Return pg_dump or pg_restore of the server's version, else of the next newer one.

    Raises:
        BackupError: there is none that this server can be read or written with.

    """
    from earmark.warehouse import embedded

    candidates = [Path(f"/usr/lib/postgresql/{major}/bin/{name}")]
    if found := shutil.which(name):
        candidates.append(Path(found))
    with suppress(DatabaseUnavailableError):
        candidates.append(embedded.program(name))
    versions: dict[int, Path] = {}
    for candidate in candidates:
        with suppress(OSError, subprocess.SubprocessError, ValueError):
            done = subprocess.run([candidate, "--version"], capture_output=True, text=True, check=True)  # noqa: S603
            match = re.search(r"\) (\d+)", done.stdout)
            versions.setdefault(int(match[1]) if match else 0, candidate)
    return versions[fitting_version(name, major, versions)]


def fitting_version(name: str, major: int, versions: Iterable[int]) -> int:
    """Return which version of pg_dump or pg_restore goes with a server of version ``major``.

    Raises:
        BackupError: none does.

    """
    fitting = [version for version in sorted(versions) if version >= major]
    if name == "pg_restore" and major < _FIRST_WITH_TIMEOUT:
        fitting = [version for version in fitting if version < _FIRST_WITH_TIMEOUT]
    if not fitting:
        here = ", ".join(map(str, sorted(versions))) or "none"
        raise BackupError(
            f"The server is PostgreSQL {major} and needs {name} of that version; here are: {here}. Install "
            f"PostgreSQL's client programs of version {major} (Debian: postgresql-client-{major})"
        )
    return fitting[0]


def _address(database: Database) -> tuple[list[str], dict[str, str]]:
    """Return the argument and the environment with which libpq's programs reach a database."""
    names = [
        name
        for name in os.environ
        if name in ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "PGPASSFILE") or name.startswith("LC_")
    ]
    environment = {name: os.environ[name] for name in names}
    if database.password:
        environment["PGPASSWORD"] = database.password
    address = replace(database, password=None).conninfo(application_name="earmark backup", connect_timeout=10)
    return [f"--dbname={address}"], environment


def _run(database: Database, command: Sequence[str], undone: str) -> None:
    address, environment = _address(database)
    done = subprocess.run(  # noqa: S603  (a program of PostgreSQL's)
        [*command, *address],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        raise BackupError(f"{Path(command[0]).name} failed ({_reason(database.scrub(done.stderr))}); {undone}")


def _reason(text: str) -> str:
    found = re.search(r"(?:error|FATAL|ERROR): +(.*)", text)
    return (found[1] if found else text or "no reason given")[:300]


def _output(command: Sequence[str], source: Path) -> str:
    done = subprocess.run(  # noqa: S603  (a program of PostgreSQL's)
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode != 0:
        reason = _reason(" ".join(done.stderr.split()))
        raise BackupError(
            f"{source} is damaged, or was made by a newer PostgreSQL ({reason}); nothing was restored"
        )
    return done.stdout


def _list(pg_restore: Path, source: Path) -> str:
    return _output([str(pg_restore), "--list", str(source)], source)


# --- The file ---


@contextmanager
def _draft_of(target: Path) -> Iterator[Path]:
    """Lend a file beside the target that nobody else may read; it is gone afterwards unless it was renamed."""
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)  # mode 0600
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# --- The database ---


def _beside(database: Database) -> Database:
    return replace(database, name="postgres" if database.name != "postgres" else "template1")


def _is_ours(connection: psycopg.Connection) -> bool:
    row = connection.execute("select to_regclass('ingest.migrations') is not null").fetchone()
    return bool(row and row[0])


def _note_extension(connection: psycopg.Connection) -> None:
    """Keep TimescaleDB's version where a restore looks for it: a dump does not say it."""
    with suppress(psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction):
        connection.execute(
            "update timeseries.engine as e set version = x.extversion from pg_extension as x"
            " where x.extname = 'timescaledb' and e.name = 'timescaledb' and e.version <> x.extversion"
        )


def _rights(server: psycopg.Connection, database: Database) -> tuple[bool, bool]:
    """Return whether the database exists, and whether one may be made in its place."""
    row = server.execute(
        """
        select
            exists (select from pg_database where datname = %(name)s),
            r.rolsuper or (r.rolcreatedb and not exists (
                select from pg_database as d where d.datname = %(name)s and not pg_has_role(d.datdba, 'member')
            ))
        from pg_roles as r
        where r.rolname = current_user
        """,
        {"name": database.name},
    ).fetchone()
    return (bool(row[0]), bool(row[1])) if row else (False, False)


def _refuse_rows(database: Database) -> None:
    with database.connect("earmark restore", read_only=True) as connection:
        for schema, table in connection.execute(_FULL).fetchall():
            name = sql.Identifier(schema, table)
            row = connection.execute(sql.SQL("select exists (select from {})").format(name)).fetchone()
            if row and row[0]:
                raise BackupError(
                    f"Database {database} holds rows ({schema}.{table}): with --force the backup takes their "
                    "place once it is restored whole"
                )


def _refuse_another_extension(server: psycopg.Connection, contents: Contents) -> None:
    if not contents.has_timescaledb:
        return
    available = [
        row[0]
        for row in server.execute(
            "select version from pg_available_extension_versions where name = %s order by 1", (_EXTENSION,)
        )
    ]
    if not available or (contents.version and contents.version not in available):
        here = f"has {', '.join(available)}" if available else "has none"
        raise BackupError(
            f"The backup is of TimescaleDB {contents.version or ''} and is restored with that version only; the "
            f"server {here}: install it there, restore, and update it then"
        )


def _owner_options(server: psycopg.Connection, contents: Contents, database: Database, say: Say) -> list[str]:
    known = {row[0] for row in server.execute("select rolname from pg_roles")}
    row = server.execute("select rolsuper from pg_roles where rolname = current_user").fetchone()
    missing = sorted(contents.owners - known)
    if missing:
        say(f"there are no roles {', '.join(missing)} here: what they owned is {database.user}'s now")
    is_superuser = bool(row and row[0])
    keeps = not missing and (is_superuser or contents.owners <= {database.user})
    return [] if keeps else ["--no-owner"]


def _restore_beside(
    server: psycopg.Connection,
    database: Database,
    source: Path,
    contents: Contents,
    options: Sequence[str],
    major: int,
) -> None:
    draft = replace(database, name=f"{database.name[:40]}__restoring")
    if not _lock(server, database):
        raise BackupError(f"Another restore of {database} is under way: wait until it has ended")
    _drop(server, draft)  # of a restore that was killed
    server.execute(
        sql.SQL("create database {} encoding 'UTF8' template template0").format(sql.Identifier(draft.name))
    )
    try:
        _fill(draft, source, contents, ["--exit-on-error", *options], major, database)
        _take_over_settings(server, database, draft)
        _swap(server, database, draft)
    finally:
        _drop(server, draft)


def _restore_in_place(
    database: Database, source: Path, contents: Contents, options: Sequence[str], major: int
) -> None:
    with database.connect("earmark restore", read_only=True) as connection:
        if connection.execute(_FULL).fetchone() or _is_ours(connection):
            raise BackupError(
                f"The role {database.user} may not make a database in the place of {database}, and that one is "
                "not empty: have an empty one made, or restore as a role that may create databases"
            )
    _fill(database, source, contents, ["--single-transaction", *options], major, database)


def _fill(
    draft: Database, source: Path, contents: Contents, options: Sequence[str], major: int, database: Database
) -> None:
    if contents.has_timescaledb:
        with draft.connect("earmark restore", autocommit=True) as connection:
            schema = sql.Identifier(contents.schema)
            version = (
                sql.SQL(" version {}").format(sql.Literal(contents.version)) if contents.version else sql.SQL("")
            )
            connection.execute(sql.SQL("create schema if not exists {}").format(schema))
            connection.execute(
                sql.SQL("create extension if not exists timescaledb schema {}{}").format(schema, version)
            )
        _call(draft, contents, "timescaledb_pre_restore")
    # Never --jobs: TimescaleDB's catalogue is restored in one order only (timescale/timescaledb#698).
    command = [str(_program("pg_restore", major)), "--no-password", "--no-privileges", *options, str(source)]
    try:
        _run(draft, command, f"database {database} is as it was")
    except BackupError:
        if contents.has_timescaledb:
            with suppress(psycopg.Error, DatabaseUnavailableError):
                _call(draft, contents, "timescaledb_post_restore")
        raise
    if contents.has_timescaledb:
        _call(draft, contents, "timescaledb_post_restore")
    with draft.connect("earmark restore", autocommit=True) as connection:
        # Here too where it is the same cluster: the snapshots are of a database that may go on elsewhere.
        connection.execute(_FOREIGN_SNAPSHOTS)
        connection.execute("analyze")


def _call(database: Database, contents: Contents, function: str) -> None:
    with database.connect("earmark restore", autocommit=True) as connection:
        name = sql.Identifier(contents.schema, function)
        connection.execute(sql.SQL("select {}()").format(name))


def _restore_grants(database: Database, source: Path, contents: Contents, major: int, say: Say) -> None:
    """Grant what the backup grants; a role that is missing here is told, and no reason to give up."""
    if not contents.grants:
        return
    with tempfile.NamedTemporaryFile("w", prefix="earmark-", suffix=".list") as file:
        file.write(contents.grants)
        file.flush()
        command = [str(_program("pg_restore", major)), "--no-password", f"--use-list={file.name}", str(source)]
        address, environment = _address(database)
        done = subprocess.run(  # noqa: S603  (a program of PostgreSQL's)
            [*command, *address], env=environment, capture_output=True, text=True, errors="replace", check=False
        )
    missing = sorted(set(re.findall(r'role "([^"]+)" does not exist', done.stderr)))
    if missing:
        say(f"there are no roles {', '.join(missing)} here: what was granted to them is not")
    elif done.returncode != 0:
        say(f"not every right was granted as it was ({_reason(database.scrub(done.stderr))})")


def _lock(server: psycopg.Connection, database: Database) -> bool:
    row = server.execute(
        "select pg_try_advisory_lock(hashtextextended(%s, 0))", (f"earmark restore {database.name}",)
    ).fetchone()
    return bool(row and row[0])


def _take_over_settings(server: psycopg.Connection, database: Database, draft: Database) -> None:
    """Give the draft what is set on the database itself and in no dump of it: owner, rights, settings."""
    new = sql.Identifier(draft.name)
    row = server.execute(
        "select d.oid, pg_get_userbyid(d.datdba), d.datacl from pg_database as d where d.datname = %s",
        (database.name,),
    ).fetchone()
    if row is None:
        return
    oid, owner, acl = row
    server.execute(sql.SQL("alter database {} owner to {}").format(new, sql.Identifier(owner)))
    if acl is not None:
        server.execute(sql.SQL("revoke all on database {} from public").format(new))
        grants = server.execute(
            "select case when a.grantee = 0 then null else pg_get_userbyid(a.grantee) end, a.privilege_type,"
            " a.is_grantable from pg_database as d cross join aclexplode(d.datacl) as a where d.oid = %s",
            (oid,),
        ).fetchall()
        for grantee, privilege, grantable in grants:
            to = sql.SQL("public") if grantee is None else sql.Identifier(grantee)
            statement = sql.SQL("grant {} on database {} to {}").format(sql.SQL(privilege), new, to)
            server.execute(statement + sql.SQL(" with grant option" if grantable else ""))
    settings = server.execute(
        "select unnest(s.setconfig) from pg_db_role_setting as s where s.setdatabase = %s and s.setrole = 0",
        (oid,),
    ).fetchall()
    for (setting,) in settings:
        name, _, value = setting.partition("=")
        if name != "timescaledb.restoring":
            named = sql.Identifier(*name.split("."))
            server.execute(sql.SQL("alter database {} set {} = {}").format(new, named, sql.Literal(value)))


def _swap(server: psycopg.Connection, database: Database, draft: Database) -> None:
    """Give the draft the database's name, in one transaction; the old one is dropped afterwards.

    Raises:
        BackupError: others do not let go of the database.

    """
    old = replace(database, name=f"{database.name[:40]}__before")
    _drop(server, old)
    rename = sql.SQL("alter database {} rename to {}")
    names = [
        rename.format(sql.Identifier(database.name), sql.Identifier(old.name)),
        rename.format(sql.Identifier(draft.name), sql.Identifier(database.name)),
    ]
    row = server.execute("select from pg_database where datname = %s", (database.name,)).fetchone()
    statements = names if row is not None else names[1:]
    for attempt in range(_TRIES):
        try:
            with server.transaction():
                for name in (draft.name, database.name):
                    server.execute(
                        "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = %s", (name,)
                    )
                for statement in statements:
                    server.execute(statement)
            break
        except psycopg.errors.ObjectInUse:
            if attempt == _TRIES - 1:
                raise BackupError(
                    f"Others connect to {database} again and again: stop them (earmark ui, BI tools) and restore "
                    "again; the database is as it was"
                ) from None
        except psycopg.errors.InsufficientPrivilege as error:
            raise BackupError(
                f"The role {database.user} may not put another database in the place of {database} "
                f"({error.diag.message_primary}); the database is as it was"
            ) from None
    _drop(server, old)


def _drop(server: psycopg.Connection, database: Database) -> None:
    server.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(database.name)))

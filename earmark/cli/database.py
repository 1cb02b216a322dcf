"""``earmark migrate`` and ``earmark db``: the schema, the embedded server, backups."""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from earmark.cli.console import Json, err, fail, moment, note, open_database, out, print_json
from earmark.cli.programs import become
from earmark.settings import Settings, load_settings
from earmark.warehouse.engine import prepare
from earmark.warehouse.migrations import State, read_migrations, status

app = typer.Typer()
db = typer.Typer(
    help="The database: start and stop the embedded server, look inside, back up, restore.", no_args_is_help=True
)


@app.command(name="migrate")
def migrate_(
    show_status: Annotated[bool, typer.Option("--status", help="Show each migration; change nothing.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the SQL that would run; change nothing.")
    ] = False,
    json_: Json = False,
) -> None:
    """Bring the database's schema up to date. Safe to run again, and by several at once."""
    settings = load_settings()
    database = open_database(settings)
    if not show_status and not dry_run:
        database.ensure_exists()
        ran, engine = prepare(database, settings.engine, lambda name: None if json_ else out.print(f"ran {name}"))
        if json_:
            print_json({"ran": ran, "engine": engine.engine, "version": engine.version})
            return
        if not ran:
            out.print("nothing to do: the database is up to date")
        out.print(f"engine: {engine.engine} {engine.version}", highlight=False)
        if engine.note:
            note(engine.note)
        return
    with database.connect(read_only=True) as connection:
        statuses = status(connection)
    if json_:
        print_json([asdict(item) for item in statuses])
    elif dry_run:
        pending = {item.file_name for item in statuses if item.state is State.PENDING}
        for migration in read_migrations():
            if migration.file_name in pending:
                out.print(f"-- {migration.file_name}\n{migration.text}", markup=False, highlight=False)
        if not pending:
            out.print("-- nothing to do: the database is up to date")
    else:
        table = Table("migration", "state", "ran at")
        for item in statuses:
            table.add_row(item.file_name, item.state, moment(item.applied_at))
        out.print(table)


@db.command(name="start")
def db_start() -> None:
    """Start the embedded server; it goes on running until it is stopped."""
    settings = _embedded_settings()
    out.print(f"running: {open_database(settings)}", highlight=False, soft_wrap=True)


@db.command(name="stop")
def db_stop() -> None:
    """Stop the embedded server. Nothing is lost."""
    from earmark.warehouse import embedded

    settings = load_settings()
    stopped = embedded.stop(settings.home, note)  # also one from before the settings named another
    if not stopped and not settings.uses_embedded_server:
        _embedded_settings()
    out.print("stopped" if stopped else "it does not run")


@db.command(name="backup")
def db_backup(
    file: Annotated[Path, typer.Argument(help="The file to write; only you may read it.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Back up the whole database into one file, while others go on working. Any server, not only the embedded one.

    The secret that addresses are hashed under is not in it.
    """
    from earmark.warehouse import backup

    settings = load_settings()
    database = open_database(settings)
    with err.status(f"backing up {escape(str(database))}"):
        size = backup.back_up(database, file, force=force)
    out.print(f"wrote {file} ({size / 1e6:,.1f} MB)", highlight=False, soft_wrap=True, markup=False)
    key = settings.home / "hash_key"
    where = f"the file {key}" if settings.hash_key is None else "EARMARK_HASH_KEY"
    note(f"the key that addresses are hashed under is not in it: keep {where} as well, in another place")


@db.command(name="restore")
def db_restore(
    file: Annotated[Path, typer.Argument(help="A file that earmark db backup wrote.")],
    force: Annotated[
        bool, typer.Option("--force", help="Also where the database holds rows: they are lost.")
    ] = False,
) -> None:
    """Put a backup back. Until it is whole, the database stays as it is.

    Models are built whole once afterwards, by the next [bold]earmark build[/bold].
    """
    from earmark.warehouse import backup

    settings = load_settings()
    database = open_database(settings)
    with err.status(f"restoring {escape(str(file))}"):
        backup.restore(database, file, force=force, say=note)
    out.print(f"restored {file} into {database}", highlight=False, soft_wrap=True, markup=False)
    out.print("next: earmark migrate, then earmark build, which builds every model once", soft_wrap=True)


@db.command(name="psql", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def db_psql(context: typer.Context) -> None:
    """Open psql on the database; further arguments are psql's own: earmark db psql -c 'select 1'."""
    settings = load_settings()
    database = open_database(settings)
    program = shutil.which("psql")
    if settings.uses_embedded_server:
        from earmark.warehouse import embedded

        program = str(embedded.psql())
    if program is None:
        fail("there is no psql on this machine: install PostgreSQL's client")
    password = {"PGPASSWORD": database.password} if database.password else {}
    address = replace(database, password=None).conninfo()
    become([program, "-d", address, *context.args], password)


def _embedded_settings() -> Settings:
    settings = load_settings()
    if not settings.uses_embedded_server:
        fail("the settings name a server (DATABASE_URL or POSTGRES_HOST): there is no embedded one to handle")
    return settings

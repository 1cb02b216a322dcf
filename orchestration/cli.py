"""The command line ``earmark``.

What lives here: commands, options and what they print. The work is in ``lib``; slow imports (dbt, Dagster, polars)
are made by the commands that need them, so that help is quick.
"""

from __future__ import annotations

import io
import itertools
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import psycopg
import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from orchestration.lib.warehouse import dbt, results
from orchestration.lib.warehouse.address import AddressError
from orchestration.lib.warehouse.database import Database, DatabaseUnavailableError, advisory_lock, resolve
from orchestration.lib.warehouse.engine import EngineError, prepare, recorded
from orchestration.lib.warehouse.migrations import MigrationError, State, read_migrations, status
from orchestration.lib.warehouse.windows import Window, WindowError
from orchestration.runtime import hash_key, lookups, networks_folder
from orchestration.settings import PROJECT_ROOT, Settings, SettingsError, load_settings

if TYPE_CHECKING:
    import polars as pl

    from orchestration.defs.report import Report
    from orchestration.lib.ingestion.summary import LoadSummary
    from orchestration.lib.warehouse.fit import Fit
    from orchestration.lib.warehouse.refresh import Refresh

app = typer.Typer(
    name="earmark",
    help="Podcast campaign attribution you can audit, from the raw request to the return on ad spend.\n\n"
    "Start with [bold]earmark run[/bold]: it starts PostgreSQL, migrates, loads what is in the landing folder "
    "(made-up data where there is none), builds the models and shows the campaigns.",
    epilog="Exit codes: 0 done, 1 something failed or a file was refused, 2 the command line is wrong.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
db = typer.Typer(
    help="The database: start and stop the embedded server, look inside, back up, restore.", no_args_is_help=True
)
app.add_typer(db, name="db")
tenant = typer.Typer(help="Tenants: who the rows belong to.", no_args_is_help=True)
app.add_typer(tenant, name="tenant")
agents = typer.Typer(help="Public lists of user agents: fetch one, show and drop versions.", no_args_is_help=True)
app.add_typer(agents, name="agents")
networks = typer.Typer(
    help="Lists of networks (data centres, VPNs): what addresses are looked up in.", no_args_is_help=True
)
app.add_typer(networks, name="networks")

out = Console(width=None if sys.stdout.isatty() else 120)
err = Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for a machine to read, and nothing else.")]


def main() -> None:
    """Run the command line; a user's mistake ends in one clear line, never in a traceback."""
    from orchestration.lib.attribution.settings import AttributionSettingsError
    from orchestration.lib.ingestion.errors import LoadError
    from orchestration.lib.warehouse.backup import BackupError

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name may hold bytes that are no text
    try:
        app()
    except (
        AddressError,
        BackupError,
        SettingsError,
        DatabaseUnavailableError,
        EngineError,
        MigrationError,
        WindowError,
        LoadError,
        AttributionSettingsError,
        dbt.DbtError,
    ) as error:
        fail(str(error))
    except psycopg.errors.UndefinedTable as error:
        fail(f"{error.diag.message_primary}: the database is not migrated; run: earmark migrate")
    except psycopg.errors.InsufficientPrivilege as error:
        fail(f"the database refused ({error.diag.message_primary}): let its owner run this, or grant the right")
    except psycopg.errors.UndefinedFile as error:
        fail(
            f"the server misses a library ({error.diag.message_primary}): install it again and restart the server"
        )
    except psycopg.errors.DiskFull as error:
        fail(
            f"the disk of the database is full ({error.diag.message_primary}): make room and run the command "
            "again; what was not finished is rolled back, nothing is lost"
        )
    except psycopg.OperationalError as error:
        fail(f"the database went away: {' '.join(str(error).split())}")
    except OSError as error:
        if error.errno is None:
            raise
        fail(f"{error.filename or 'a file'} cannot be used ({error.strerror})")
    except KeyboardInterrupt:
        err.print("stopped")
        sys.exit(130)


def fail(message: str) -> NoReturn:
    """Print an error and exit with 1."""
    err.print(f"[bold red]error[/bold red] {escape(message)}", highlight=False, soft_wrap=True)
    sys.exit(1)


def _database(settings: Settings, *, read_only: bool = False) -> Database:
    if settings.uses_embedded_server:
        with err.status("starting PostgreSQL"):
            return resolve(settings, read_only=read_only, say=_note)
    return resolve(settings, read_only=read_only)


def _note(text: str) -> None:
    err.print(f"[bold yellow]note[/bold yellow] {escape(text)}", highlight=False, soft_wrap=True)


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, default=str, indent=2) + "\n")


@app.command()
def run(json_: Json = False) -> None:
    """Do all of it: start, migrate, load, build, check, and show the campaigns.

    A second run loads what is new, refreshes what has changed, and is quick where nothing has.
    """
    settings = load_settings()
    database = _database(settings)
    database.ensure_exists()
    say = _sayer(quiet=json_)
    ran, engine = prepare(database, settings.engine)
    say("database", f"{database}; {len(ran)} migrations ran" if ran else f"{database}; up to date")
    say("engine", f"{engine.engine} {engine.version}{'; ' if engine.note else ''}{engine.note}")
    if settings.landing is None:
        _ensure_demo_data(Path(settings.landing_root), say)
    report = _load_landing(settings, database, quiet=json_)
    say("loaded", str(report))
    if report.files or not has_dagster(database):
        _tell_dagster(settings, database, lambda told: told.loads(report))
    say("built", _refresh(settings, database, quiet=json_).plan.summary())
    stage = _fit(settings, database, quiet=json_)
    say("fitted", stage.describe())
    with database.connect(read_only=True) as connection:
        campaigns = results.campaigns(connection)
        waterfall = results.waterfall(connection)
    if json_:
        _print_json(
            {
                "load": report.as_dict(),
                "fit": _fit_as_dict(stage),
                "campaigns": [asdict(row) for row in campaigns],
            }
        )
        return
    _show_notes(stage)
    out.print(_campaign_table(campaigns))
    out.print(_waterfall_table(waterfall))
    _show_next_steps(settings)


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
    database = _database(settings)
    if not show_status and not dry_run:
        database.ensure_exists()
        ran, engine = prepare(database, settings.engine, lambda name: None if json_ else out.print(f"ran {name}"))
        if json_:
            _print_json({"ran": ran, "engine": engine.engine, "version": engine.version})
            return
        if not ran:
            out.print("nothing to do: the database is up to date")
        out.print(f"engine: {engine.engine} {engine.version}", highlight=False)
        if engine.note:
            err.print(f"[bold yellow]note[/bold yellow] {escape(engine.note)}", highlight=False, soft_wrap=True)
        return
    with database.connect(read_only=True) as connection:
        statuses = status(connection)
    if json_:
        _print_json([asdict(item) for item in statuses])
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
            table.add_row(item.file_name, item.state, _time(item.applied_at))
        out.print(table)


@app.command()
def load(
    path: Annotated[
        str | None,
        typer.Argument(
            help="A file, a folder or a URL such as s3://bucket/logs/. Without it: the landing folder."
        ),
    ] = None,
    tenant_id: Annotated[
        str | None, typer.Option("--tenant", "-t", help="Whose rows these are. Needed with PATH.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", "-d", help="What the rows are, such as listener_events.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--source", "-s", help="Who wrote the file, such as nginx, s3, cloudfront, op3, rss."),
    ] = None,
    json_: Json = False,
) -> None:
    """Load files into the raw tables. The same file twice adds nothing.

    Source and format are found out from the content where they are not given. Rows that cannot be loaded are kept
    with their reason in ingest.rejects: [bold]earmark status[/bold] shows them.
    """
    settings = load_settings()
    if path is None and (tenant_id or dataset or source):
        raise typer.BadParameter("--tenant, --dataset and --source go with PATH")
    if path is not None and tenant_id is None:
        raise typer.BadParameter("PATH needs --tenant: whose rows are these?", param_hint="--tenant")
    database = _database(settings)
    if path is None or tenant_id is None:
        report = _load_landing(settings, database, quiet=json_)
    else:
        from orchestration.lib.ingestion.landing import load_path
        from orchestration.lib.ingestion.summary import LoadSummary

        with database.connect("earmark load") as connection, _progress(disable=json_) as bar:
            task = bar.add_task("loading", total=None)
            report = LoadSummary.of(
                load_path(
                    connection,
                    path,
                    tenant_id=tenant_id,
                    dataset=dataset,
                    source=source,
                    key=hash_key(settings),
                    lookups=lookups(settings),
                    on_result=lambda result: bar.update(task, advance=1, description=_file_name(result.uri)),
                )
            )
    if report.datasets and has_dagster(database):
        _tell_dagster(settings, database, lambda told: told.loads(report))
    if json_:
        _print_json(report.as_dict())
    else:
        if report.datasets:
            out.print(_load_table(report))
        out.print(str(report))
        for refused in report.refused:
            err.print(f"[bold red]refused[/bold red] {escape(refused)}", highlight=False, soft_wrap=True)
    if report.refused:
        raise typer.Exit(1)


@app.command()
def build(
    start: Annotated[
        str | None, typer.Option("--event-time-start", help="Refresh from this day or time on (UTC).")
    ] = None,
    end: Annotated[
        str | None, typer.Option("--event-time-end", help="Refresh up to this day or time, without it.")
    ] = None,
    full: Annotated[bool, typer.Option("--full-refresh", help="Rebuild every table from nothing.")] = False,
    select: Annotated[
        list[str] | None,
        typer.Option("--select", "-s", help="Only this model; may be given again. With --full-refresh: whole."),
    ] = None,
    json_: Json = False,
) -> None:
    """Build the models: refresh what loads have changed, rebuild what you have edited.

    For anything else that dbt can do there is [bold]earmark dbt[/bold].
    """
    if (start is None) != (end is None):
        raise typer.BadParameter("--event-time-start and --event-time-end go together")
    windows = [Window.parse(start, end)] if start is not None and end is not None else []
    settings = load_settings()
    database = _database(settings)
    plan = _refresh(settings, database, windows, full=full, models=select or [], quiet=json_).plan
    if json_:
        _print_json(
            {
                "windows": [window.as_vars() for window in plan.windows],
                "slices": [asdict(item) for item in plan.news],
                "models": plan.models,
            }
        )
    else:
        out.print(plan.summary())


@app.command()
def fit(json_: Json = False) -> None:
    """Fit the data-driven attribution models (Markov, Shapley), then build what stands on them.

    Dagster does it every night, [bold]earmark run[/bold] at its end. Months whose journeys and settings are as
    before are not fitted anew.
    """
    settings = load_settings()
    database = _database(settings)
    stage = _fit(settings, database, quiet=json_)
    if json_:
        _print_json(_fit_as_dict(stage))
        return
    out.print(stage.describe(), highlight=False)
    _show_notes(stage)


@app.command()
def maintain(json_: Json = False) -> None:
    """Make chunks ahead of time and drop those that retention gives up. Dagster does it every night.

    How long rows are kept is in timeseries.hypertables: listener events two years. What models made of them stays.
    """
    with _database(load_settings()).connect(autocommit=True) as connection:
        row = connection.execute("select timeseries.maintain()").fetchone()
    dropped = row[0] if row else 0
    if json_:
        _print_json({"chunks_dropped": dropped})
    else:
        out.print(f"chunks are there for the next 7 days; {dropped} old ones dropped")


@app.command(name="status")
def status_(json_: Json = False) -> None:
    """Show where things stand: schema, loads, rejects, refused files and what waits for a refresh."""
    settings = load_settings()
    database = resolve(settings, read_only=True, start=False)
    with database.connect(read_only=True) as connection:
        migrations = status(connection)
        pending = [item.file_name for item in migrations if item.state is not State.APPLIED]
        if any(item.state is State.PENDING for item in migrations):
            fail("the database is not migrated; run: earmark migrate")
        row = connection.execute("show server_version").fetchone()
        engine = recorded(connection)
        ledger = results.ledger(connection)
        refused = results.refused_files(connection)
        refused_total = results.count_refused_files(connection)
        rejects = results.reject_reasons(connection)
    state = {
        "database": str(database),
        "server": row[0] if row else None,
        "engine": f"{engine.engine} {engine.version}",
        "landing": settings.landing_root,
        "migrations_not_as_on_disk": pending,
        "datasets": [asdict(line) for line in ledger],
        "refused_files": refused,
        "refused_files_total": refused_total,
        "rejects": rejects,
    }
    if json_:
        _print_json(state)
        return
    for name in ("database", "server", "engine", "landing"):
        out.print(f"[bold]{name:9}[/bold] {escape(str(state[name]))}", highlight=False, soft_wrap=True)
    _show_ledger(ledger)
    _show_rejects(rejects)
    for file in refused:
        out.print(f"[red]refused[/red] {escape(file['message'])}", highlight=False, soft_wrap=True)
    if refused_total > len(refused):
        out.print(f"and {refused_total - len(refused)} more, in ingest.files")


@app.command(name="demo-data")
def demo_data(
    root: Annotated[
        Path | None, typer.Argument(help="The landing folder to write. Without it: .earmark/landing.")
    ] = None,
    days: Annotated[int, typer.Option(min=7, max=730, help="How many days of listening.")] = 60,
    events: Annotated[int, typer.Option(min=1000, help="About how many requests in all.")] = 200_000,
    tenants: Annotated[int, typer.Option(min=1, max=20, help="How many tenants.")] = 2,
    seed: Annotated[int, typer.Option(help="The same seed writes the same files.")] = 7,
) -> None:
    """Write made-up data that is shaped like the real thing, with a truth that attribution can find."""
    from orchestration.lib.demo import write_demo_data

    folder = root or Path(load_settings().home) / "landing"
    if folder.exists() and any(folder.iterdir()):
        fail(f"{folder} is not empty: name another folder, or remove it first")
    with err.status("making up listeners"):
        write_demo_data(folder, days=days, events=events, tenants=tenants, seed=seed)
    out.print(f"wrote {folder}; load it with: earmark load", soft_wrap=True)


@app.command()
def attribute(
    file: Annotated[str, typer.Argument(help="Paths with counts, or touches: CSV, TSV, NDJSON or Parquet.")],
    model: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="Only this model; may be given again.")
    ] = None,
    target: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write the table, a row a channel and model: .csv or .parquet."),
    ] = None,
    path: Annotated[str | None, typer.Option(help="Column of paths such as a > b > c.")] = None,
    conversions: Annotated[str | None, typer.Option(help="Column: conversions of a path.")] = None,
    null: Annotated[str | None, typer.Option(help="Column: how often a path did not convert.")] = None,
    separator: Annotated[str, typer.Option(help="What stands between the channels of a path.")] = ">",
    journey: Annotated[str | None, typer.Option(help="Column: whose touch it is.")] = None,
    channel: Annotated[str | None, typer.Option(help="Column: the touch's channel.")] = None,
    time: Annotated[str | None, typer.Option(help="Column: the touch's time; UTC where it has no offset.")] = None,
    converted: Annotated[str | None, typer.Option(help="Column: conversions, or true and false.")] = None,
    converted_at: Annotated[str | None, typer.Option(help="Column: when the journey converted.")] = None,
    value: Annotated[str | None, typer.Option(help="Column: value of the conversions.")] = None,
    per: Annotated[
        str | None, typer.Option(help="Whether flag and value are of each 'row' or of the whole 'journey'.")
    ] = None,
    lookback: Annotated[float | None, typer.Option(help="Leave out touches older than these days.")] = None,
    transform: Annotated[
        list[str] | None,
        typer.Option("--transform", help="collapse, first, distinct or drop:CHANNEL; in the order given."),
    ] = None,
    converting_only: Annotated[
        bool, typer.Option("--converting-only", help="Leave out that paths did not convert.")
    ] = False,
    direct: Annotated[
        list[str] | None, typer.Option(help="A channel that last_non_direct passes over; without it: direct.")
    ] = None,
    weights: Annotated[str, typer.Option(help="position_based: first, middle, last.")] = ".4,.2,.4",
    half_life: Annotated[float, typer.Option(help="time_decay: days.")] = 7.0,
    bootstrap: Annotated[int, typer.Option(help="Samples for 95 % intervals, some hundreds; 0 for none.")] = 0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same intervals.")] = 0,
    json_: Json = False,
) -> None:
    """Credit the conversions of a file by every model, side by side. No database is needed.

    A table of paths: columns path, conversions, value, null. A table of touches: columns journey, channel, time,
    converted, value. Other names are given with the options below.

    Models: first_touch, last_touch, last_non_direct, linear, position_based, time_decay, markov (markov_2 and so
    on for higher orders), shapley. docs/journeys.md says what they do.
    """
    from orchestration.lib.attribution import comparison, reading
    from orchestration.lib.attribution.errors import AttributionError

    if target is not None and target.suffix not in (".csv", ".parquet"):
        fail(f"{target}: give --out a name that ends in .csv or .parquet")
    try:
        options = comparison.Options(
            weights=comparison.parse_weights(weights),
            half_life=half_life,
            direct=tuple(direct) if direct else None,
            bootstrap=bootstrap,
            seed=seed,
        )
        columns = reading.Columns(path, conversions, value, null, journey, channel, time, converted, converted_at)
        journeys = reading.read_journeys(file, columns, separator=separator, per=per, lookback=lookback)
        result = comparison.compare_journeys(
            journeys, model or (), options, transforms=transform or (), converting_only=converting_only
        )
        if target is not None:
            result.write(target)
    except AttributionError as error:
        fail(str(error))
    if json_:
        _print_json({**journeys.summary(), "notes": result.notes, "credit": result.table.to_dicts()})
        return
    out.print(_credit_table(result.table, "conversions"))
    if journeys.has_value:
        out.print(_credit_table(result.table, "value"))
    for note in result.notes:
        out.print(escape(note), highlight=False, soft_wrap=True)


@app.command()
def methodology(
    tenant_ids: Annotated[
        list[str] | None, typer.Option("--tenant", "-t", help="Only this tenant; may be given again.")
    ] = None,
    start: Annotated[
        datetime | None,
        typer.Option(
            "--from", formats=["%Y-%m-%d"], help="The first UTC day; without it: the first that is counted."
        ),
    ] = None,
    end: Annotated[
        datetime | None,
        typer.Option("--to", formats=["%Y-%m-%d"], help="The last UTC day; without it: the last counted."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file, .md or .html; without it: print.")
    ] = None,
    format_: Annotated[
        str | None, typer.Option("--format", help="markdown or html; without it: as the file's name ends.")
    ] = None,
) -> None:
    """Write how downloads were counted in a period, for whoever audits them.

    It holds each rule with what it discarded. Where the figures do not add up, nothing is written.
    """
    from orchestration.lib.methodology import document, figures

    if start is not None and end is not None and start > end:
        raise typer.BadParameter(f"--from {start:%Y-%m-%d} is after --to {end:%Y-%m-%d}")
    as_html = _is_html(output, format_)
    settings = load_settings()
    with _database(settings, read_only=True).connect("earmark methodology", read_only=True) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        try:
            found = figures.gather(
                connection,
                tenant_ids or (),
                first=start.date() if start else None,
                last=end.date() if end else None,
                trusted_proxies=len(settings.trusted_proxies),
            )
        except figures.MethodologyError as error:
            fail(str(error))
    text = document.render(found)
    if as_html:
        text = document.render_html(text)
    if found.pending:
        note = (
            "days of the period wait for a refresh; the document names them. Bring them up to date: earmark build"
        )
        err.print(f"[bold yellow]note[/bold yellow] {note}", highlight=False, soft_wrap=True)
    if output is None:
        sys.stdout.write(text)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        fail(f"{output}: cannot be written ({error.strerror}); name a file in a folder that is there")
    out.print(f"wrote {output}: {found.first} to {found.last}", highlight=False, soft_wrap=True, markup=False)


def _is_html(output: Path | None, format_: str | None) -> bool:
    """Return whether HTML is asked for: by name, or by the ending of the file."""
    endings = {".md": "markdown", ".markdown": "markdown", ".html": "html", ".htm": "html"}
    if format_ is None:
        format_ = endings.get(output.suffix.lower()) if output else "markdown"
        if format_ is None:
            raise typer.BadParameter(f"{output}: end the name in .md or .html, or give --format")
    if format_ not in endings.values():
        raise typer.BadParameter(f"--format is {format_!r}: allowed are markdown and html")
    return format_ == "html"


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where the UI listens.")] = 3000,
    host: Annotated[str, typer.Option(help="The address it listens on.")] = "127.0.0.1",
) -> None:
    """Open the Dagster UI, with the sensors on: what lands in the landing folder reaches the marts by itself."""
    settings = load_settings()
    database = _database(settings)
    database.ensure_exists()
    prepare(database, settings.engine)
    environment = dagster_environment(settings, database)
    out.print(
        f"Dagster on http://{host}:{port}\nlanding folder {settings.landing_root}", highlight=False, soft_wrap=True
    )
    os.chdir(settings.home)  # beside the project's dagster.yaml, Dagster would warn that it reads the copy
    command = ["dagster", "dev", "--workspace", str(PROJECT_ROOT / "workspace.yaml")]
    _exec([*command, "--host", host, "--port", str(port)], environment)


@app.command(
    name="dbt",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)
def dbt_(context: typer.Context) -> None:
    """Run any dbt command on this database: earmark dbt build --select marts.

    A command that builds waits for a refresh at work, and a refresh for it: dbt looks once, when it begins,
    which relations there are, and fails where another makes them meanwhile.
    """
    settings = load_settings()
    command, given = ["dbt", *context.args], set(context.args[:1])
    profiles = {"DBT_PROFILES_DIR": str(PROJECT_ROOT / "dbt_project")}
    os.chdir(PROJECT_ROOT)
    if given & {"parse", "list", "ls", "clean", "deps", "--help", "--version"}:
        _exec(command, {**profiles, **dbt.NO_DATABASE})
    database = _database(settings)
    environment = {**profiles, **database.environment()}
    if not given & {"build", "run", "seed", "snapshot", "retry", "clone"}:
        _exec(command, environment)
    with database.connect("earmark dbt", autocommit=True) as connection, advisory_lock(connection, "refresh"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is dbt's, which cancels what it has begun
        done = subprocess.run([_program("dbt"), *context.args], env={**os.environ, **environment}, check=False)  # noqa: S603
    raise typer.Exit(done.returncode)


@db.command(name="start")
def db_start() -> None:
    """Start the embedded server; it goes on running until it is stopped."""
    settings = _embedded_settings()
    out.print(f"running: {_database(settings)}", highlight=False, soft_wrap=True)


@db.command(name="stop")
def db_stop() -> None:
    """Stop the embedded server. Nothing is lost."""
    from orchestration.lib.warehouse import embedded

    settings = load_settings()
    stopped = embedded.stop(settings.home, _note)  # also one from before the settings named another
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
    from orchestration.lib.warehouse import backup

    settings = load_settings()
    database = _database(settings)
    with err.status(f"backing up {escape(str(database))}"):
        size = backup.back_up(database, file, force=force)
    out.print(f"wrote {file} ({size / 1e6:,.1f} MB)", highlight=False, soft_wrap=True, markup=False)
    key = settings.home / "hash_key"
    where = f"the file {key}" if settings.hash_key is None else "EARMARK_HASH_KEY"
    _note(f"the key that addresses are hashed under is not in it: keep {where} as well, in another place")


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
    from orchestration.lib.warehouse import backup

    settings = load_settings()
    database = _database(settings)
    with err.status(f"restoring {escape(str(file))}"):
        backup.restore(database, file, force=force, say=_note)
    out.print(f"restored {file} into {database}", highlight=False, soft_wrap=True, markup=False)
    out.print("next: earmark migrate, then earmark build, which builds every model once", soft_wrap=True)


@db.command(name="psql", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def db_psql(context: typer.Context) -> None:
    """Open psql on the database; further arguments are psql's own: earmark db psql -c 'select 1'."""
    settings = load_settings()
    database = _database(settings)
    program = shutil.which("psql")
    if settings.uses_embedded_server:
        from orchestration.lib.warehouse import embedded

        program = str(embedded.psql())
    if program is None:
        fail("there is no psql on this machine: install PostgreSQL's client")
    password = {"PGPASSWORD": database.password} if database.password else {}
    address = replace(database, password=None).conninfo()
    _exec([program, "-d", address, *context.args], password)


@tenant.command(name="add")
def tenant_add(
    tenant_id: Annotated[str, typer.Argument(help="Its id, and the name of its landing folder.")],
    name: Annotated[str | None, typer.Option(help="Its name, as people read it.")] = None,
) -> None:
    """Register a tenant. Again with another name: renames it."""
    settings = load_settings()
    with _database(settings).connect(autocommit=True) as connection:
        try:
            connection.execute(
                "insert into tenancy.tenants (tenant_id, name) values (%s, %s) "
                "on conflict (tenant_id) do update set name = excluded.name",
                (tenant_id, name or tenant_id),
            )
        except psycopg.errors.CheckViolation:
            fail(f"{tenant_id!r} is no tenant id: lower-case letters, digits, - and _, 63 at most")
    out.print(f"tenant {tenant_id}; its files go to {settings.landing_root}/{tenant_id}/", soft_wrap=True)


@tenant.command(name="list")
def tenant_list(json_: Json = False) -> None:
    """Show the tenants."""
    with _database(load_settings(), read_only=True).connect(read_only=True) as connection:
        rows = connection.execute("select tenant_id, name from tenancy.tenants order by 1").fetchall()
    if json_:
        _print_json([{"tenant_id": tenant_id, "name": name} for tenant_id, name in rows])
        return
    table = Table("tenant", "name")
    for row in rows:
        table.add_row(*row)
    out.print(table)


@agents.command(name="fetch")
def agents_fetch(
    url: Annotated[
        str | None, typer.Option(help="Where the documents are: URL/bots.json and so on. Without it: opawg's.")
    ] = None,
    folder: Annotated[Path | None, typer.Option(help="A folder with the documents, instead of a URL.")] = None,
    start: Annotated[
        datetime | None,
        typer.Option(
            "--from", formats=["%Y-%m-%d"], help="Classify from this UTC day on; without it: from today on."
        ),
    ] = None,
    json_: Json = False,
) -> None:
    """Fetch opawg's list of user agents and classify by it from a day on. The same content again adds nothing.

    What the list does not know our own patterns decide. A day before today counts anew what was counted: the next
    [bold]earmark build[/bold] does it.
    """
    from orchestration.lib.ingestion import agent_lists, secret_urls

    if url is not None and folder is not None:
        raise typer.BadParameter("give --url or --folder, not both")
    source = str(folder.resolve()) if folder else secret_urls.remember(url or agent_lists.PUBLIC_LIST)
    with err.status(f"fetching {escape(source)}"):
        documents = agent_lists.read_folder(folder) if folder else agent_lists.fetch(source)
        entries = agent_lists.parse(documents)
    with _database(load_settings()).connect("earmark agents") as connection:
        day = start.date() if start else agent_lists.today()
        installed = agent_lists.install(connection, entries, source=source, start=day)
    if json_:
        _print_json(asdict(installed))
    elif not installed.is_new:
        out.print(f"nothing new: {installed.agent_list} has the same content", highlight=False, soft_wrap=True)
    else:
        counts = ", ".join(f"{count} {kind}" for kind, count in installed.counts.items())
        out.print(f"{installed.agent_list}: {counts}", highlight=False, soft_wrap=True)
        _say_days(installed.days)


@agents.command(name="list")
def agents_list(json_: Json = False) -> None:
    """Show the versions, and the days that each classifies. Before the first, our own patterns do."""
    from orchestration.lib.ingestion import agent_lists

    with _database(load_settings(), read_only=True).connect(read_only=True) as connection:
        versions = agent_lists.versions(connection)
    if json_:
        _print_json([asdict(version) for version in versions])
        return
    table = Table("agent list", "from", "until", "entries", "source", "fetched at")
    for version in versions:
        until = version.effective_until.isoformat() if version.effective_until else "-"
        entries = _number(sum(version.counts.values()))
        fetched_at = _time(version.fetched_at)
        table.add_row(
            version.agent_list, version.effective_from.isoformat(), until, entries, version.source, fetched_at
        )
    out.print(table if versions else "no public list: our own patterns classify; earmark agents fetch gets one")


@agents.command(name="drop")
def agents_drop(
    agent_list: Annotated[str, typer.Argument(help="The version, as earmark agents list shows it.")],
    json_: Json = False,
) -> None:
    """Take a version back: its days are classified by the version before, or by our own patterns."""
    from orchestration.lib.ingestion import agent_lists

    with _database(load_settings()).connect("earmark agents") as connection:
        days = agent_lists.drop(connection, agent_list)
    if json_:
        _print_json({"agent_list": agent_list, "days": days})
    else:
        out.print(f"{agent_list} is dropped", highlight=False, soft_wrap=True)
        _say_days(days)


@tenant.command(name="set")
def tenant_set(
    tenant_id: Annotated[str, typer.Argument(metavar="TENANT", help="Its id.")],
    pairs: Annotated[
        list[str],
        typer.Argument(metavar="NAME=VALUE...", help="download_window=rolling_first and so on."),
    ],
    json_: Json = False,
) -> None:
    """Set how a tenant's downloads are counted; the next refresh counts all of its days again.

    download_window: calendar_day, rolling_first or rolling_last.
    counts_unknown_threshold, discards_data_centers, discards_vpns: true or false.
    assumed_bitrate_bps: 8000 to 2000000, or none.
    max_daily_downloads_per_address: 1 or more.
    counted_sources: such as nginx,op3, or none for all.
    """
    from orchestration.lib.ingestion import tenants

    try:
        values = tenants.parse_settings(pairs)
    except tenants.TenantSettingError as error:
        raise typer.BadParameter(str(error)) from None
    with _database(load_settings()).connect() as connection:
        changed = tenants.change_settings(connection, tenant_id, values)
        settings = tenants.read_settings(connection, tenant_id)
        sources = values.get("counted_sources")
        unseen = tenants.unseen_sources(connection, tenant_id, sources) if isinstance(sources, list) else []
    if unseen:
        note = f"nothing of {', '.join(unseen)} is loaded for {tenant_id} yet"
        err.print(f"[bold yellow]note[/bold yellow] {escape(note)}", highlight=False, soft_wrap=True)
    if json_:
        _print_json({"tenant_id": tenant_id, "changed": changed, "settings": settings})
        return
    out.print(_settings_table(tenant_id, settings))
    if changed:
        out.print(f"the next refresh counts all days of {tenant_id} again: earmark build")
    else:
        out.print("nothing changed")


@tenant.command(name="show")
def tenant_show(
    tenant_id: Annotated[str, typer.Argument(metavar="TENANT", help="Its id.")],
    json_: Json = False,
) -> None:
    """Show how a tenant's downloads are counted, and its safe addresses (as hashes)."""
    from orchestration.lib.ingestion import tenants

    with _database(load_settings(), read_only=True).connect(read_only=True) as connection:
        settings = tenants.read_settings(connection, tenant_id)
        safe = tenants.read_safe_addresses(connection, tenant_id)
    if json_:
        addresses = [asdict(item) for item in safe]
        _print_json({"tenant_id": tenant_id, "settings": settings, "safe_addresses": addresses})
        return
    out.print(_settings_table(tenant_id, settings))
    if safe:
        table = Table("safe address (hash)", "until", "reason", title_justify="left")
        for item in safe:
            table.add_row(item.household_key, str(item.expires_on), escape(item.reason))
        out.print(table)


@tenant.command(name="safe-address")
def tenant_safe_address(
    tenant_id: Annotated[str, typer.Argument(metavar="TENANT", help="Its id.")],
    address: Annotated[str, typer.Argument(help="The address, such as 192.0.2.1; only its hash is stored.")],
    until: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="The UTC day it expires; it is safe on the days before."),
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Who the people behind it are.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take it back.")] = False,
) -> None:
    """Say that an address is many people, such as an office: neither its volume nor its network discards them.

    IPv6 addresses are safe as a /64, as they are counted.
    """
    from orchestration.lib.ingestion import tenants

    if remove and (until is not None or reason is not None):
        raise typer.BadParameter("--remove goes alone")
    if not remove and (until is None or reason is None):
        raise typer.BadParameter("--until and --reason are needed: such an exception has an end and a ground")
    settings = load_settings()
    key = hash_key(settings)
    with _database(settings).connect() as connection:
        if until is None or reason is None:
            tenants.remove_safe_address(connection, key, tenant_id, address)
        else:
            tenants.add_safe_address(connection, key, tenant_id, address, until.date(), reason)
    done = "the address is not safe any more" if remove else "the address is safe; only its hash is stored"
    out.print(f"{done}. The next refresh counts all days of {tenant_id} again: earmark build", soft_wrap=True)


@networks.command(name="fetch")
def networks_fetch(
    names: Annotated[list[str] | None, typer.Argument(help="Only these lists, such as aws oracle.")] = None,
    json_: Json = False,
) -> None:
    """Fetch the lists that cloud providers and others publish into <EARMARK_HOME>/networks/.

    Files that are loaded from then on are looked up in them. EARMARK_NETWORK_URLS names mirrors. Lists of your own
    go into the same folder: CSV with the columns network, kind (data_center or vpn), operator and note.

    x4bnet_vpn, and x4bnet_vpn_ipv6 beside it, are fetched only by name: the list holds Apple's Private Relay,
    behind which there are listeners, and their downloads would be discarded.
    """
    from orchestration.lib.ingestion.public_networks import fetch_lists

    settings = load_settings()
    with err.status("fetching"):
        results = fetch_lists(networks_folder(settings), settings.network_urls, names)
    version = lookups(settings).networks.version
    if json_:
        _print_json({"lists": [asdict(result) for result in results], "version": version})
    else:
        table = Table("list", "from")
        table.add_column("ranges", justify="right")
        for result in results:
            table.add_row(result.name, result.url, "-" if result.failed else _number(result.ranges))
        out.print(table)
        out.print(f"in use: {version}", highlight=False, soft_wrap=True)
    failed = [result.failed for result in results if result.failed]
    for text in failed:
        err.print(f"[bold red]not fetched[/bold red] {escape(text)}; its file is as it was", soft_wrap=True)
    if failed:
        raise typer.Exit(1)


# --- What the commands share ---


def _say_days(days: int) -> None:
    if days:
        out.print(f"{days} days of tenants are counted anew by the next earmark build", highlight=False)


def _embedded_settings() -> Settings:
    settings = load_settings()
    if not settings.uses_embedded_server:
        fail("the settings name a server (DATABASE_URL or POSTGRES_HOST): there is no embedded one to handle")
    return settings


def _sayer(*, quiet: bool) -> Callable[[str, str], None]:
    def say(what: str, text: str) -> None:
        if not quiet:
            out.print(f"[bold green]{what:9}[/bold green] {escape(text)}", highlight=False, soft_wrap=True)

    return say


def _ensure_demo_data(root: Path, say: Callable[[str, str], None]) -> None:
    if root.exists() and any(root.iterdir()):
        return
    from orchestration.lib.demo import write_demo_data

    with err.status("making up listeners"):
        write_demo_data(root)
    say("demo data", f"written to {root}; all of it is made up")


def _load_landing(settings: Settings, database: Database, *, quiet: bool) -> LoadSummary:
    from orchestration.lib.ingestion.landing import load_landing, new_files
    from orchestration.lib.ingestion.summary import LoadSummary

    root = settings.landing_root
    with database.connect("earmark load") as connection, _progress(disable=quiet) as bar:
        files = new_files(connection, root)
        task = bar.add_task("loading", total=len(files))
        results = load_landing(
            connection,
            root,
            key=hash_key(settings),
            lookups=lookups(settings),
            only=files,
            on_result=lambda result: bar.update(task, advance=1, description=_file_name(result.uri)),
        )
    return LoadSummary.of(results)


def _file_name(uri: str) -> str:
    return escape(f"loading {uri[-50:]}")


def _refresh(
    settings: Settings,
    database: Database,
    windows: Sequence[Window] = (),
    *,
    full: bool = False,
    models: Sequence[str] = (),
    quiet: bool,
) -> Refresh:
    """Refresh the models, and tell Dagster what came of each model and test, also where one failed."""
    with err.status("reading the models"):
        from orchestration.lib.warehouse.refresh import Refresh, left_behind_in_words

        refresh = Refresh(database, threads=settings.dbt_threads)
    done = []
    try:
        with _progress(disable=quiet) as bar:
            task = bar.add_task("building", total=None)
            for event in refresh.run(windows, full=full, models=models):
                if dbt.is_result(event):
                    done.append(event)
                    data = event["data"]
                    name = data["node_info"]["node_name"]
                    total = data.get("total") or data.get("num_models")  # models and tests name it differently
                    bar.update(task, total=total, completed=data["index"], description=f"building {name[:50]}")
    finally:
        if done and has_dagster(database):
            _tell_dagster(settings, database, lambda told: told.models(refresh, done))
    if refresh.left_behind:
        _note(left_behind_in_words(refresh.left_behind))
    return refresh


def _fit(settings: Settings, database: Database, *, quiet: bool) -> Fit:
    """Run the stage ``fit``, and tell Dagster what came of it, also where a model failed."""
    from orchestration.lib.warehouse.fit import Fit

    stage = Fit(database, threads=settings.dbt_threads)
    done: list[dbt.Event] = []
    try:
        with _progress(disable=quiet) as bar:
            bar.add_task("fitting", total=None)
            done.extend(event for event in stage.run() if dbt.is_result(event))
    finally:
        if done and has_dagster(database):
            _tell_dagster(settings, database, lambda told: told.fit(stage, done))
    return stage


def _fit_as_dict(stage: Fit) -> dict[str, Any]:
    """Return what the stage did; counts are null where there was nothing to do."""
    summary = stage.summary
    return {
        "fitted": summary and summary.fitted,
        "skipped": summary and summary.unchanged,
        "removed": summary and summary.removed,
        "groups": summary and summary.groups,
        "conversions": summary and summary.conversions,
        "notes": summary.notes if summary else [],
        "models": stage.plan.stale,
    }


def _show_notes(stage: Fit) -> None:
    for note in stage.summary.notes if stage.summary else ():
        err.print(f"[bold yellow]note[/bold yellow] {escape(note)}", highlight=False, soft_wrap=True)


def has_dagster(database: Database) -> bool:
    """Whether Dagster keeps its events here (``earmark run`` and ``ui`` see to it): somebody may look for them."""
    with database.connect(read_only=True) as connection:
        row = connection.execute("select to_regclass('dagster.event_logs') is not null").fetchone()
    return bool(row and row[0])


def _tell_dagster(settings: Settings, database: Database, tell: Callable[[Report], object]) -> None:
    """Tell Dagster what was done; where that fails, it was done all the same."""
    with err.status("telling Dagster"):
        logging.getLogger("dagster").setLevel(logging.ERROR)
        os.environ.update(dagster_environment(settings, database))
        from dagster import DagsterInstance
        from dagster_postgres.utils import DagsterPostgresException
        from sqlalchemy.exc import SQLAlchemyError

        from orchestration.defs.report import Report

        try:
            with DagsterInstance.get() as instance:
                tell(Report(instance))
        except (SQLAlchemyError, DagsterPostgresException) as error:
            _note(f"Dagster's UI does not show this, for its tables cannot be written: {database.scrub(error)}")


def _progress(*, disable: bool = False) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", table_column=Column(width=60, no_wrap=True)),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=err,
        transient=True,
        disable=disable or not err.is_terminal,
    )


def dagster_environment(settings: Settings, database: Database) -> dict[str, str]:
    """Return the variables that Dagster's processes need, and lay out their home."""
    home = settings.home / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(PROJECT_ROOT / "dagster.yaml", home / "dagster.yaml")
    return {
        "DAGSTER_HOME": str(home),
        # What Dagster notes is not waited for until it is on the disk: a run commits two hundred times.
        "DAGSTER_POSTGRES_URL": database.url(search_path="dagster", synchronous_commit="off"),
        "PYTHONWARNINGS": "ignore",  # Dagster's own notes to its developers
    }


def _exec(command: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Become another program."""
    os.execvpe(_program(command[0]), list(command), {**os.environ, **environment})  # noqa: S606  (no shell is meant)


def _program(name: str) -> str:
    """Return a program of this virtual environment, or of the path."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else name


def _time(at: datetime | None) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S") if at else "-"


def _number(value: Decimal | float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _campaign_table(campaigns: Sequence[results.CampaignResult]) -> Table:
    table = Table(
        title="Campaigns to date, last touch", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    table.add_column("campaign", overflow="fold", min_width=16)
    for name in ("impressions", "reach", "spend", "conv.", "revenue", "CPA", "ROAS"):
        table.add_column(name, justify="right", no_wrap=True)
    for tenant_id, rows in itertools.groupby(campaigns, key=lambda row: row.tenant_id):
        table.add_row(f"[bold]{escape(tenant_id)}[/bold]")
        for row in rows:
            table.add_row(
                escape(row.campaign_name),
                _number(row.impressions),
                _number(row.reach),
                f"{_number(row.spend)} {row.currency}",
                _number(row.conversions),
                _number(row.revenue),
                _number(row.cpa, 2),
                _number(row.roas, 2),
            )
        table.add_section()
    return table


def _waterfall_table(waterfall: Sequence[results.Waterfall]) -> Table:
    table = Table(title="What became of every request", title_justify="left", box=box.SIMPLE_HEAD)
    tenants = sorted({row.tenant_id for row in waterfall})
    table.add_column("outcome")
    for tenant_id in tenants:
        table.add_column(tenant_id, justify="right")
    requests = {(row.outcome, row.tenant_id): row.requests for row in waterfall}
    outcomes = sorted({row.outcome for row in waterfall}, key=lambda name: (name != "counted", name))
    for outcome in outcomes:
        table.add_row(outcome, *(_number(requests.get((outcome, item), 0)) for item in tenants))
    totals = [sum(row.requests for row in waterfall if row.tenant_id == item) for item in tenants]
    table.add_section()
    table.add_row("all", *(_number(total) for total in totals))
    return table


def _settings_table(tenant_id: str, settings: Mapping[str, Any]) -> Table:
    table = Table(
        "setting", "value", title=f"How downloads of {escape(tenant_id)} are counted", title_justify="left"
    )
    for name, value in settings.items():
        shown = ",".join(value) if isinstance(value, list) else json.dumps(value).strip('"')
        table.add_row(name, escape("none" if value is None else shown))
    return table


def _credit_table(credit: pl.DataFrame, kind: str) -> Table:
    """Return channels against models, with the interval of each figure below it."""
    models = list(dict.fromkeys(credit["model"]))
    rows = {(row["channel"], row["model"]): row for row in credit.iter_rows(named=True)}
    has_intervals = kind == "conversions" and credit["low"].count() > 0
    title = f"Credited {kind}" + (", under each its 95 % interval" if has_intervals else "")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("channel", overflow="fold")
    for model in models:
        table.add_column(model.replace("_", "\n"), justify="right", overflow="fold")
    for channel in dict.fromkeys(credit["channel"]):
        cells = []
        for model in models:
            row = rows[channel, model]
            ends = [row["low"], row["high"]] if has_intervals and row["low"] is not None else []
            cells.append("\n".join(_number(figure, 2) for figure in (row[kind], *ends)))
        table.add_row(escape(channel), *cells)
    table.add_section()
    table.add_row("all", *(_number(credit.filter(model=model)[kind].sum(), 2) for model in models))
    return table


def _load_table(report: LoadSummary) -> Table:
    table = Table("dataset", "files")
    for name in ("read", "loaded", "duplicate", "rejected"):
        table.add_column(name, justify="right")
    for dataset, counts in sorted(report.datasets.items()):
        numbers = (counts.read, counts.loaded, counts.duplicate, counts.rejected)
        table.add_row(dataset, _number(counts.files), *(_number(number) for number in numbers))
    return table


def _show_ledger(ledger: Sequence[results.LedgerLine]) -> None:
    if not ledger:
        out.print("nothing is loaded yet: earmark run, or earmark load PATH --tenant NAME")
        return
    table = Table("tenant", "dataset")
    for name in ("files", "read", "loaded", "duplicate", "rejected"):
        table.add_column(name, justify="right")
    table.add_column("first event")
    table.add_column("last event")
    table.add_column("days pending", justify="right")
    for line in ledger:
        table.add_row(
            line.tenant_id,
            line.dataset,
            _number(line.files),
            _number(line.rows_read),
            _number(line.rows_loaded),
            _number(line.rows_duplicate),
            _number(line.rows_rejected),
            _time(line.first_event_at),
            _time(line.last_event_at),
            _number(line.days_pending),
        )
    out.print(table)


def _show_rejects(rejects: Sequence[Mapping[str, Any]]) -> None:
    if not rejects:
        return
    table = Table("tenant", "dataset", "field", "reason", title="Rejected rows", title_justify="left")
    table.add_column("rows", justify="right")
    table.add_column("for example", overflow="fold")
    for row in rejects:
        table.add_row(
            row["tenant_id"],
            row["dataset"],
            row["field"] or "-",
            row["reason"],
            _number(row["rows"]),
            escape(row["example"][:100]),
        )
    out.print(table)


def _show_next_steps(settings: Settings) -> None:
    out.print(
        "\n[bold]Where to look next[/bold]\n"
        "  make ui                     lineage, freshness and checks; the sensors load what lands\n"
        "  .venv/bin/earmark status    what was loaded, rejected and refused\n"
        "  .venv/bin/earmark db psql   the marts in SQL: table marts.rpt_campaigns;\n"
        f"  {settings.landing_root}/<tenant>/<source>/   drop your own files here",
        highlight=False,
        soft_wrap=True,
    )

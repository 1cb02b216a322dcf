"""The steps of the pipeline, each a command: ``load``, ``build``, ``fit``, ``maintain``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from earmark.addresses.site import hash_key, lookups
from earmark.cli.console import Json, err, figure, note, open_database, out, print_json, progress, tell_unknown
from earmark.cli.listeners import tell
from earmark.ingestion.log_formats import LogFormatError, parse_format
from earmark.settings import Settings, load_settings
from earmark.warehouse import dbt, results
from earmark.warehouse.database import Database
from earmark.warehouse.days import Days

if TYPE_CHECKING:
    from earmark.ingestion.summary import LoadSummary
    from earmark.warehouse.fit import Fit
    from earmark.warehouse.refresh import Refresh


app = typer.Typer()
_SHOWN = 160  # characters of a rejected line


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
    log_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="The format of an access log as the server has it: nginx's log_format or Apache's LogFormat. "
            "In a landing folder it stands in a file _format beside the logs.",
        ),
    ] = None,
    json_: Json = False,
) -> None:
    """Load files into the raw tables. The same file twice adds nothing.

    Source and format are found out from the content where they are not given. Rows that cannot be loaded are kept
    with their reason in ingest.rejects: [bold]earmark status[/bold] shows them.
    """
    settings = load_settings()
    if path is None and (tenant_id or dataset or source or log_format):
        raise typer.BadParameter("--tenant, --dataset, --source and --format go with PATH")
    if path is not None and tenant_id is None:
        raise typer.BadParameter("PATH needs --tenant: whose rows are these?", param_hint="--tenant")
    if log_format is not None:
        try:
            parse_format(log_format)
        except LogFormatError as error:
            raise typer.BadParameter(str(error), param_hint="--format") from error
    database = open_database(settings)
    if path is None or tenant_id is None:
        report = load_files(settings, database, quiet=json_)
    else:
        from earmark.ingestion.landing import load_path
        from earmark.ingestion.summary import LoadSummary

        with database.connect("earmark load") as connection, progress(disable=json_) as bar:
            task = bar.add_task("loading", total=None)
            report = LoadSummary.of(
                load_path(
                    connection,
                    path,
                    tenant_id=tenant_id,
                    dataset=dataset,
                    source=source,
                    log_format=log_format,
                    key=hash_key(settings),
                    lookups=lookups(settings),
                    on_result=lambda result: bar.update(task, advance=1, description=_file_name(result.uri)),
                )
            )
    if report.datasets:
        tell(settings, database, lambda told: told.loads(report))
    with database.connect(read_only=True) as connection:
        rejects = results.rejects_of_loads(connection, report.load_ids)
        unknown = results.unknown_references(connection, tenant_id)
    if json_:
        print_json({**report.as_dict(), "rejects": rejects, "unknown_references": unknown})
    else:
        if report.datasets:
            out.print(_load_table(report))
        out.print(str(report))
        show_rejects(rejects)
        tell_unknown(unknown)
        for uri in report.all_rejected:
            err.print(
                f"[bold red]error[/bold red] {escape(uri)}: none of its rows could be loaded; "
                "ingest.rejects holds them",
                highlight=False,
                soft_wrap=True,
            )
        for refused in report.refused:
            err.print(f"[bold red]refused[/bold red] {escape(refused)}", highlight=False, soft_wrap=True)
    if report.refused or report.all_rejected:
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
    given = [Days.parse(start, end)] if start is not None and end is not None else []
    settings = load_settings()
    database = open_database(settings)
    plan = refresh_models(settings, database, given, full=full, models=select or [], quiet=json_).plan
    if json_:
        print_json(
            {
                "days": [span.as_vars() for span in plan.given],
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
    database = open_database(settings)
    stage = fit_models(settings, database, quiet=json_)
    if json_:
        print_json(fit_as_dict(stage))
        return
    out.print(stage.describe(), highlight=False)
    show_notes(stage)


@app.command()
def maintain(json_: Json = False) -> None:
    """Make chunks ahead of time and drop those that retention gives up. Dagster does it every night.

    How long rows are kept is in timeseries.hypertables: listener events two years. What models made of them stays.
    """
    with open_database(load_settings()).connect(autocommit=True) as connection:
        row = connection.execute("select timeseries.maintain()").fetchone()
    dropped = row[0] if row else 0
    if json_:
        print_json({"chunks_dropped": dropped})
    else:
        out.print(f"chunks are there for the next 7 days; {dropped} old ones dropped")


def load_files(settings: Settings, database: Database, *, quiet: bool) -> LoadSummary:
    """Load what is new in the landing folder."""
    from earmark.ingestion.landing import load_landing, new_files
    from earmark.ingestion.summary import LoadSummary

    root = settings.landing_root
    with database.connect("earmark load") as connection, progress(disable=quiet) as bar:
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


def show_rejects(rejects: Sequence[Mapping[str, Any]]) -> None:
    """Print why rows were rejected, each reason with the first such row."""
    for row in rejects:
        place = f"{row['uri']}, line {row['line_number']}"
        err.print(
            f"[bold yellow]rejected[/bold yellow] {figure(row['rows'])} rows of {escape(row['dataset'])}, "
            f"{escape(row['reason'])}: {escape(row['detail'])}\n"
            f"  {escape(place)}: {escape(_printable(row['original']))}",
            highlight=False,
            soft_wrap=True,
        )


def _printable(text: str) -> str:
    shown = "".join(character if character.isprintable() else " " for character in text[:_SHOWN])
    return shown + ("..." if len(text) > _SHOWN else "")


def _file_name(uri: str) -> str:
    return escape(f"loading {uri[-50:]}")


def refresh_models(
    settings: Settings,
    database: Database,
    given: Sequence[Days] = (),
    *,
    full: bool = False,
    models: Sequence[str] = (),
    quiet: bool,
) -> Refresh:
    """Refresh the models, and tell Dagster what came of each model and test, also where one failed."""
    with err.status("reading the models"):
        from earmark.warehouse.refresh import Refresh, left_behind_in_words

        refresh = Refresh(database, threads=settings.dbt_threads)
    done = []
    try:
        with progress(disable=quiet) as bar:
            task = bar.add_task("building", total=None)
            for event in refresh.run(given, full=full, models=models):
                if dbt.is_result(event):
                    done.append(event)
                    data = event["data"]
                    name = data["node_info"]["node_name"]
                    total = data.get("total") or data.get("num_models")  # models and tests name it differently
                    bar.update(task, total=total, completed=data["index"], description=f"building {name[:50]}")
    finally:
        if done:
            tell(settings, database, lambda told: told.models(refresh, done))
    if refresh.left_behind:
        note(left_behind_in_words(refresh.left_behind))
    return refresh


def fit_models(settings: Settings, database: Database, *, quiet: bool) -> Fit:
    """Run the stage ``fit``, and tell Dagster what came of it, also where a model failed."""
    from earmark.warehouse.fit import Fit

    stage = Fit(database, threads=settings.dbt_threads)
    done: list[dbt.Event] = []
    try:
        with progress(disable=quiet) as bar:
            bar.add_task("fitting", total=None)
            done.extend(event for event in stage.run() if dbt.is_result(event))
    finally:
        if done:
            tell(settings, database, lambda told: told.fit(stage, done))
    return stage


def fit_as_dict(stage: Fit) -> dict[str, Any]:
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


def show_notes(stage: Fit) -> None:
    """Say what is to be known of the months that were fitted."""
    for text in stage.summary.notes if stage.summary else ():
        note(text)


def _load_table(report: LoadSummary) -> Table:
    table = Table("dataset", "files")
    for name in ("read", "loaded", "duplicate", "rejected"):
        table.add_column(name, justify="right")
    for dataset, counts in sorted(report.datasets.items()):
        numbers = (counts.read, counts.loaded, counts.duplicate, counts.rejected)
        table.add_row(dataset, figure(counts.files), *(figure(number) for number in numbers))
    return table

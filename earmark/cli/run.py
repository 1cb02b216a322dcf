"""``earmark run``, the whole way from nothing to campaigns, and ``earmark demo-data``, which it begins with."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from earmark.cli.console import Json, err, fail, figure, open_database, out, print_json, sayer
from earmark.cli.listeners import prepare_listeners, tell
from earmark.cli.steps import fit_as_dict, fit_models, load_files, refresh_models, show_notes
from earmark.settings import Settings, load_settings
from earmark.warehouse import results
from earmark.warehouse.engine import prepare

app = typer.Typer()


@app.command()
def run(json_: Json = False) -> None:
    """Do all of it: start, migrate, load, build, check, and show the campaigns.

    A second run loads what is new, refreshes what has changed, and is quick where nothing has.
    """
    settings = load_settings()
    database = open_database(settings)
    database.ensure_exists()
    say = sayer(quiet=json_)
    ran, engine = prepare(database, settings.engine)
    say("database", f"{database}; {len(ran)} migrations ran" if ran else f"{database}; up to date")
    say("engine", f"{engine.engine} {engine.version}{'; ' if engine.note else ''}{engine.note}")
    if settings.landing is None:
        _ensure_demo_data(Path(settings.landing_root), say)
    report = load_files(settings, database, quiet=json_)
    say("loaded", str(report))
    prepare_listeners(settings, database)
    if report.files:
        tell(settings, database, lambda told: told.loads(report))
    say("built", refresh_models(settings, database, quiet=json_).plan.summary())
    stage = fit_models(settings, database, quiet=json_)
    say("fitted", stage.describe())
    with database.connect(read_only=True) as connection:
        campaigns = results.campaigns(connection)
        waterfall = results.waterfall(connection)
    if json_:
        print_json(
            {
                "load": report.as_dict(),
                "fit": fit_as_dict(stage),
                "campaigns": [asdict(row) for row in campaigns],
            }
        )
        return
    show_notes(stage)
    out.print(_campaign_table(campaigns))
    out.print(_waterfall_table(waterfall))
    _show_next_steps(settings)


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
    from earmark.demo import write_demo_data

    folder = root or Path(load_settings().home) / "landing"
    if folder.exists() and any(folder.iterdir()):
        fail(f"{folder} is not empty: name another folder, or remove it first")
    with err.status("making up listeners"):
        write_demo_data(folder, days=days, events=events, tenants=tenants, seed=seed)
    out.print(f"wrote {folder}; load it with: earmark load", soft_wrap=True)


def _ensure_demo_data(root: Path, say: Callable[[str, str], None]) -> None:
    if root.exists() and any(root.iterdir()):
        return
    from earmark.demo import write_demo_data

    with err.status("making up listeners"):
        write_demo_data(root)
    say("demo data", f"written to {root}; all of it is made up")


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
                figure(row.impressions),
                figure(row.reach),
                f"{figure(row.spend)} {row.currency}",
                figure(row.conversions),
                figure(row.revenue),
                figure(row.cpa, 2),
                figure(row.roas, 2),
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
        table.add_row(outcome, *(figure(requests.get((outcome, item), 0)) for item in tenants))
    totals = [sum(row.requests for row in waterfall if row.tenant_id == item) for item in tenants]
    table.add_section()
    table.add_row("all", *(figure(total) for total in totals))
    return table


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

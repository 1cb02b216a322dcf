"""``earmark status``: where things stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import typer
from rich.markup import escape
from rich.table import Table

from earmark.cli.console import Json, fail, figure, moment, out, print_json, tell_unknown
from earmark.settings import load_settings
from earmark.warehouse import results
from earmark.warehouse.engine import recorded
from earmark.warehouse.migrations import State, status
from earmark.warehouse.server import resolve

app = typer.Typer()


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
        unknown = results.unknown_references(connection)
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
        "unknown_references": unknown,
    }
    if json_:
        print_json(state)
        return
    for name in ("database", "server", "engine", "landing"):
        out.print(f"[bold]{name:9}[/bold] {escape(str(state[name]))}", highlight=False, soft_wrap=True)
    _show_ledger(ledger)
    _show_rejects(rejects)
    tell_unknown(unknown)
    for file in refused:
        out.print(f"[red]refused[/red] {escape(file['message'])}", highlight=False, soft_wrap=True)
    if refused_total > len(refused):
        out.print(f"and {refused_total - len(refused)} more, in ingest.files")


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
            figure(line.files),
            figure(line.rows_read),
            figure(line.rows_loaded),
            figure(line.rows_duplicate),
            figure(line.rows_rejected),
            moment(line.first_event_at),
            moment(line.last_event_at),
            figure(line.days_pending),
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
            figure(row["rows"]),
            escape(row["example"][:100]),
        )
    out.print(table)

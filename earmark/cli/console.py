"""What the commands share: where they print, how figures and errors look, how the database is opened."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from earmark.settings import Settings
from earmark.warehouse.database import Database
from earmark.warehouse.server import resolve

out = Console(width=None if sys.stdout.isatty() else 120)
err = Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for a machine to read, and nothing else.")]


def fail(message: str) -> NoReturn:
    """Print an error and exit with 1."""
    err.print(f"[bold red]error[/bold red] {escape(message)}", highlight=False, soft_wrap=True)
    sys.exit(1)


def note(text: str) -> None:
    """Say on stderr what the user should know beside the result."""
    err.print(f"[bold yellow]note[/bold yellow] {escape(text)}", highlight=False, soft_wrap=True)


def print_json(value: object) -> None:
    """Print plain data, and text for what JSON does not know."""
    sys.stdout.write(json.dumps(value, default=str, indent=2) + "\n")


def open_database(settings: Settings, *, read_only: bool = False) -> Database:
    """Return the database of the settings; the embedded server is started."""
    if settings.uses_embedded_server:
        with err.status("starting PostgreSQL"):
            return resolve(settings, read_only=read_only, say=note)
    return resolve(settings, read_only=read_only)


def progress(*, disable: bool = False) -> Progress:
    """Return a bar for a terminal; elsewhere it shows nothing."""
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


def sayer(*, quiet: bool) -> Callable[[str, str], None]:
    """Return what prints a line a step: what, and what came of it."""

    def say(what: str, text: str) -> None:
        if not quiet:
            out.print(f"[bold green]{what:9}[/bold green] {escape(text)}", highlight=False, soft_wrap=True)

    return say


def moment(at: datetime | None) -> str:
    """Write a time as tables show it."""
    return at.strftime("%Y-%m-%d %H:%M:%S") if at else "-"


def tell_unknown(references: Sequence[Mapping[str, Any]]) -> None:
    """Say on stderr what rows name and is not loaded."""
    for row in references:
        near = f"; did you mean {row['near_miss']!r}?" if row["near_miss"] else ""
        note(
            f"{row['tenant_id']}: {figure(row['row_count'])} rows of {row['dataset']} have the {row['field']} "
            f"{row['value']!r}, which is not among the {row['refers_to']}{near}"
        )


def figure(value: Decimal | float | None, digits: int = 0) -> str:
    """Write a figure as tables show it."""
    return "-" if value is None else f"{value:,.{digits}f}"

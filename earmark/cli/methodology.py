"""``earmark methodology``: the document for auditors."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import psycopg
import typer

from earmark.cli.console import fail, note, open_database, out
from earmark.settings import load_settings

app = typer.Typer()


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
    from earmark.counting.methodology import document, figures

    if start is not None and end is not None and start > end:
        raise typer.BadParameter(f"--from {start:%Y-%m-%d} is after --to {end:%Y-%m-%d}")
    as_html = _is_html(output, format_)
    settings = load_settings()
    with open_database(settings, read_only=True).connect("earmark methodology", read_only=True) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        found = figures.gather(
            connection,
            tenant_ids or (),
            first=start.date() if start else None,
            last=end.date() if end else None,
            trusted_proxies=len(settings.trusted_proxies),
        )
    text = document.render(found)
    if as_html:
        text = document.render_html(text)
    if found.pending:
        note(
            "days of the period wait for a refresh; the document names them. Bring them up to date: earmark build"
        )
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

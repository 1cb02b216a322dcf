"""``earmark attribute``: credit for a table of one's own journeys, without a database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from earmark.cli.console import Json, fail, figure, out, print_json

if TYPE_CHECKING:
    import polars as pl


app = typer.Typer()


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
    from earmark.journeys import comparison, reading

    if target is not None and target.suffix not in (".csv", ".parquet"):
        fail(f"{target}: give --out a name that ends in .csv or .parquet")
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
    if json_:
        print_json({**journeys.summary(), "notes": result.notes, "credit": result.table.to_dicts()})
        return
    out.print(_credit_table(result.table, "conversions"))
    if journeys.has_value:
        out.print(_credit_table(result.table, "value"))
    for note in result.notes:
        out.print(escape(note), highlight=False, soft_wrap=True)


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
            cells.append("\n".join(figure(value, 2) for value in (row[kind], *ends)))
        table.add_row(escape(channel), *cells)
    table.add_section()
    table.add_row("all", *(figure(credit.filter(model=model)[kind].sum(), 2) for model in models))
    return table

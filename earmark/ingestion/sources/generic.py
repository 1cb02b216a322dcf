"""Files in our own terms: the columns are named as the fields of the dataset that is asked for.

Columns are matched whatever their case. What is not a field is kept in ``properties``. A column ``source`` says of
each row who reports it; without one that is the source of the request. An event without an id is identified by all
its values. X-Forwarded-For may also be named as the header is.
"""

from collections.abc import Mapping
from typing import Final

import polars as pl

from earmark.ingestion.datasets import DATASETS
from earmark.ingestion.formats import Format, Head, Shape
from earmark.ingestion.sources.source import IDENTITY, Context, Source, row_identity
from earmark.ingestion.values import id_text, tidy

_FORWARDED_FOR: Final = "forwarded_for"
_HEADER_NAMES: Final = ("x_forwarded_for", "x-forwarded-for")


def _sniff(head: Head) -> bool:
    return head.format in (Format.DELIMITED, Format.NDJSON, Format.JSON, Format.PARQUET)


def missing_fields(head: Head, dataset: str) -> tuple[str, ...]:
    """Return the required fields that a file with known columns does not have."""
    columns = {column.lower() for column in head.columns}
    required = [field.name for field in DATASETS[dataset].fields if field.required]
    return tuple(name for name in required if name not in columns)


def _rows(frame: pl.DataFrame, context: Context) -> Mapping[str, pl.DataFrame]:
    dataset = DATASETS[context.dataset]
    fields = {field.name for field in dataset.fields if not field.derived} | {"source"}
    renamed = {
        name: name.lower()
        for name in frame.columns
        if name not in fields and name.lower() in fields and name.lower() not in frame.columns
    }
    rows = frame.rename(renamed).drop("household_key", "listener_key", "key_id", "enclosure_key", strict=False)
    if "event_id" not in {field.name for field in dataset.fields}:
        return {context.dataset: rows}
    if "event_id" in rows.columns:
        rows = rows.with_columns(tidy(id_text(rows["event_id"]), is_id=True).alias("event_id"))
    # Renamed last: the name is part of the identity of events that were loaded before.
    return {context.dataset: _with_forwarded_for(_with_identity(rows))}


def _with_forwarded_for(rows: pl.DataFrame) -> pl.DataFrame:
    named = next((name for name in rows.columns if name.lower() in _HEADER_NAMES), None)
    if named is None or _FORWARDED_FOR in rows.columns:
        return rows
    return rows.rename({named: _FORWARDED_FOR})


def _with_identity(rows: pl.DataFrame) -> pl.DataFrame:
    if "event_id" in rows.columns:
        given = rows["event_id"].cast(pl.String)
        without = given.is_null() | (given.str.strip_chars() == "")
    else:
        without = pl.Series([True] * rows.height, dtype=pl.Boolean)
    if not without.any() or rows.width == 1:
        return rows
    row = row_identity(rows.drop("event_id", strict=False))
    identity = rows.select(pl.when(without).then(row).alias(IDENTITY))
    return rows.with_columns(identity)


SOURCE: Final = Source(
    name="generic",
    datasets=tuple(DATASETS),
    shape=Shape.RECORDS,
    looks_like="CSV, TSV, NDJSON, JSON or Parquet with columns named as the fields of the dataset",
    sniff=_sniff,
    rows=_rows,
)

"""What a source is: a kind of file that somebody delivers, and how its rows become fields of our datasets.

To add a source, copy one of the modules beside this one, change it, and list it in ``sources/__init__.py``.
``rows`` turns a frame of the file's own columns into one frame a dataset. Its columns are text, named as the
fields of the dataset (``datasets.py``); every other column is kept in ``properties``. Columns with a meaning of
their own:

======================  ====================================================================================
``_line``               where the row stands in the file; must be kept as it is
``_problem``            says what is wrong with a row that cannot be read; None where it can
``_unique_id``          text that identifies the event wherever it appears: a second one is a duplicate
``_identity``           text that the event is made of where nothing identifies it: a second one in the same
                        file is another event, the same in another file is a duplicate
``_listener``           stands for the user agent in the listener key (an audience id)
``_original``           the row's original text, where it is not the line itself
``ip``                  the client's address; it is hashed and not kept
``forwarded_for``       X-Forwarded-For; says who the client is where ``ip`` is a trusted proxy, and is not kept
======================  ====================================================================================
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import polars as pl

from earmark.ingestion.formats import LINE, TEXT, Head, Shape

PROBLEM: Final = "_problem"
UNIQUE_ID: Final = "_unique_id"
IDENTITY: Final = "_identity"
LISTENER: Final = "_listener"
ORIGINAL: Final = "_original"


@dataclass(slots=True)
class Context:
    """What ``rows`` may need to know: the file, the dataset asked for, settings, and what earlier blocks told."""

    name: str
    dataset: str
    log_format: str | None = None  # of a log, as its server has it
    trusts_proxies: bool = False
    state: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Source:
    """A kind of file. ``looks_like`` completes the sentence "a file of this source is ...", for messages."""

    name: str
    datasets: tuple[str, ...]
    shape: Shape
    looks_like: str
    sniff: Callable[[Head], bool]
    rows: Callable[[pl.DataFrame, Context], Mapping[str, pl.DataFrame]]
    aliases: tuple[str, ...] = ()
    is_log: bool = False  # of requests: one without a client's address is kept, and counts as nobody's


def dash_to_null(*columns: str) -> list[pl.Expr]:
    """Return expressions that make ``-`` and empty text null, as access logs mean it."""
    return [
        pl.when(~pl.col(name).is_in(["-", ""])).then(pl.col(name)).alias(name)  # null stays null
        for name in columns
    ]


def none_sent(column: str) -> pl.Expr:
    """Read the ``-`` that logs write for no bytes of a body as 0 (Apache's ``%b``, S3's Bytes Sent)."""
    return pl.when(pl.col(column) == "-").then(pl.lit("0")).otherwise(pl.col(column)).alias(column)


def log_time(column: str) -> pl.Expr:
    """Read ``10/Oct/2000:13:55:36 -0700``; null where it is none."""
    return pl.col(column).str.to_datetime("%d/%b/%Y:%H:%M:%S %z", strict=False, time_unit="us", time_zone="UTC")


def groups(frame: pl.DataFrame, pattern: str) -> pl.DataFrame:
    """Replace the text of each line by the named groups of a pattern, null where it does not match."""
    return frame.with_columns(pl.col(TEXT).str.extract_groups(pattern).alias("_groups")).unnest("_groups")


def column(frame: pl.DataFrame, name: str) -> pl.Expr:
    """Return a column of a file as text, null where the file has none of that name."""
    return pl.col(name).cast(pl.String) if name in frame.columns else pl.lit(None, pl.String)


def given(frame: pl.DataFrame, name: str, *none: str) -> pl.Expr:
    """Return a column as ``column`` does, null where it is empty or says that there is nothing."""
    text = column(frame, name)
    return pl.when(~text.is_in(["", *none])).then(text)


def row_identity(frame: pl.DataFrame) -> pl.Expr:
    """Return all values of a record as the identity of its event."""
    texts = []
    for name in sorted(set(frame.columns) - {LINE}):
        text = pl.col(name).cast(pl.String)
        texts.append(pl.when(text != "").then(pl.concat_str(pl.lit(f"{name}="), text)))
    empty = pl.lit(None, pl.String)
    return (pl.concat_str(texts, separator="\x1f", ignore_nulls=True) if texts else empty).alias(IDENTITY)


def whole_url(scheme: pl.Expr, host: pl.Expr, uri: pl.Expr) -> pl.Expr:
    """Put a URL together; what is whole already, or has no host, stays as it is."""
    whole = pl.concat_str(scheme, pl.lit("://"), host, uri)
    return pl.when(host.is_null() | ~uri.str.starts_with("/")).then(uri).otherwise(whole)

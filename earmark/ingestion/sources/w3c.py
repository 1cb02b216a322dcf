"""Logs in the W3C extended format: IIS and others, their columns named by ``#Fields:`` lines, in any order.

Values are parted by spaces or tabs; a space within one is written ``+`` (IIS). Times are UTC, as the format says.
``sc-bytes`` counts the headers of the answer too. Where the log has a field for X-Forwarded-For it says who the
client is behind a trusted proxy. Without a request id, an event's identity is its line.
"""

from collections.abc import Callable, Mapping
from typing import Final

import polars as pl

from earmark.ingestion.formats import LINE, TEXT, Head, Shape
from earmark.ingestion.sources.source import IDENTITY, PROBLEM, Context, Source, dash_to_null

FIELDS: Final = "#Fields:"
MOST_FIELDS: Final = 200
_NEEDED: Final = ("date", "time", "c-ip", "cs-method", "sc-status")
_RENAMED: Final = {
    "c-ip": "ip",
    "cs-method": "method",
    "sc-status": "status",
    "sc-bytes": "bytes_sent",
    "cs(Referer)": "referrer",
    "cs(Referrer)": "referrer",
    "cs(User-Agent)": "user_agent",
    "x-forwarded-for": "forwarded_for",
    "X-Forwarded-For": "forwarded_for",
    "cs(X-Forwarded-For)": "forwarded_for",
    "cs(Range)": "byte_range",
}
_TEXTS: Final = ("referrer", "user_agent", "forwarded_for")


def by_fields(
    frame: pl.DataFrame, context: Context, part: Callable[[pl.DataFrame, tuple[str, ...]], pl.DataFrame]
) -> Mapping[str, pl.DataFrame]:
    """Make rows of the lines behind each ``#Fields:`` line: files put together hold several of them."""
    is_note = frame[TEXT].str.starts_with("#")
    marks = frame.filter(frame[TEXT].str.starts_with(FIELDS))
    parts = []
    starts = [*marks[LINE].to_list(), None]
    headers = [context.state.get("fields", ()), *(tuple(text[len(FIELDS) :].split()) for text in marks[TEXT])]
    context.state["fields"] = headers[-1]
    data = frame.filter(~is_note)
    for fields, upper in zip(headers, starts, strict=True):
        lines = data if upper is None else data.filter(pl.col(LINE) < upper)
        data = data.filter(pl.col(LINE) > upper) if upper is not None else data
        if not lines.is_empty():
            parts.append(part(lines, fields))
    return {context.dataset: pl.concat(parts, how="diagonal")} if parts else {}


def fault_of(fields: tuple[str, ...], needed: tuple[str, ...]) -> str | None:
    """Say why the fields of a file are no log's, None where they are."""
    missing = [name for name in needed if name not in fields]
    if missing:
        return f"no #Fields: line before it names {', '.join(missing)}"
    if len(fields) > MOST_FIELDS or len(set(fields)) < len(fields):
        return f"the #Fields: line before it names a field twice, or more than {MOST_FIELDS} of them"
    return None


def values(frame: pl.DataFrame, fields: tuple[str, ...], separator: str) -> pl.DataFrame:
    """Part lines into their fields, ``-`` as null; ``_problem`` says where there are more or fewer."""
    parts = pl.col(TEXT).str.strip_chars_end("\r").str.split(separator)
    rows = frame.with_columns(parts.list.to_struct(fields=list(fields)).alias("_values"))
    count = pl.col("_count")
    rows = rows.with_columns(_count=parts.list.len()).unnest("_values").with_columns(dash_to_null(*fields))
    return rows.with_columns(
        pl.when(count != len(fields))
        .then(pl.format("the line has {} fields; its #Fields: line names {}", count, pl.lit(len(fields))))
        .alias(PROBLEM)
    )


def _sniff(head: Head) -> bool:
    marks = [line for line in head.lines() if line.startswith(FIELDS)]
    return any("cs-uri-stem" in line or "cs-uri " in f"{line} " for line in marks)


def _rows(frame: pl.DataFrame, context: Context) -> Mapping[str, pl.DataFrame]:
    return by_fields(frame, context, _part)


def _part(frame: pl.DataFrame, fields: tuple[str, ...]) -> pl.DataFrame:
    stem = "cs-uri-stem" if "cs-uri-stem" in fields else "cs-uri"
    fault = fault_of(fields, (*_NEEDED, stem))
    if fault is not None:
        return frame.select(LINE, pl.lit(fault).alias(PROBLEM))
    separator = "\t" if "\t" in str(frame[TEXT][0]) else " "
    rows = values(frame, fields, separator)
    url = pl.col(stem)
    if "cs-uri-query" in fields and stem != "cs-uri":
        query = pl.col("cs-uri-query")
        url = pl.when(query.is_null()).then(url).otherwise(pl.concat_str(url, pl.lit("?"), query))
    host = next((name for name in ("cs-host", "cs(Host)") if name in fields), None)
    if host is not None:
        whole = pl.concat_str(pl.lit("http://"), pl.col(host), url)
        url = pl.when(pl.col(host).is_null() | ~url.str.starts_with("/")).then(url).otherwise(whole)
    renamed: dict[str, str] = {}
    for old, new in _RENAMED.items():
        if old in fields:
            renamed.setdefault(new, old)
    return rows.select(
        LINE,
        pl.concat_str("date", pl.lit("T"), "time", pl.lit("Z")).alias("occurred_at"),
        url.alias("url"),
        pl.lit("request").alias("event_type"),
        *(
            (pl.col(old).str.replace_all("+", " ", literal=True) if new in _TEXTS else pl.col(old)).alias(new)
            for new, old in renamed.items()
        ),
        pl.col(TEXT).alias(IDENTITY),
        PROBLEM,
    )


SOURCE: Final = Source(
    name="w3c",
    aliases=("iis",),
    datasets=("listener_events",),
    shape=Shape.LINES,
    looks_like="a W3C extended log (IIS): a #Fields: line with date, time, c-ip, cs-uri-stem, then values",
    sniff=_sniff,
    rows=_rows,
    is_log=True,
)

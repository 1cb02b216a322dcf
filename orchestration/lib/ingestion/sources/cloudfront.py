"""Amazon CloudFront standard logs: tab-separated, the columns named by a ``#Fields:`` line.

The host is the one that the viewer asked for (``x-host-header``), as a feed names it. User agents and referrers
are percent-encoded, by some versions of CloudFront twice. An event is its request id and time. The viewer's
cookies are left out.
"""

from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

import polars as pl

from orchestration.lib.ingestion.formats import LINE, TEXT, Head, Shape
from orchestration.lib.ingestion.sources.source import PROBLEM, UNIQUE_ID, Context, Source, dash_to_null

_FIELDS: Final = "#Fields:"
_RENAMED: Final = {
    "c-ip": "ip",
    "cs-method": "method",
    "sc-status": "status",
    "sc-bytes": "bytes_sent",
    "cs(Referer)": "referrer",
    "cs(User-Agent)": "user_agent",
    "x-forwarded-for": "forwarded_for",
    "x-edge-location": "edge_location",
    "x-edge-result-type": "edge_result",
    "sc-content-type": "content_type",
    "c-country": "country_code",
}
_NEEDED: Final = ("date", "time", "c-ip", "cs-method", "cs-uri-stem", "sc-status", "x-edge-request-id")


def _sniff(head: Head) -> bool:
    return any(line.startswith(_FIELDS) and "cs-uri-stem" in line for line in head.lines())


def _rows(frame: pl.DataFrame, context: Context) -> Mapping[str, pl.DataFrame]:
    # Files put together hold several headers: each is valid for the lines after it.
    is_note = frame[TEXT].str.starts_with("#")
    marks = frame.filter(frame[TEXT].str.starts_with(_FIELDS))
    parts = []
    starts = [*marks[LINE].to_list(), None]
    headers = [context.state.get("fields", ()), *(tuple(text[len(_FIELDS) :].split()) for text in marks[TEXT])]
    context.state["fields"] = headers[-1]
    data = frame.filter(~is_note)
    for fields, upper in zip(headers, starts, strict=True):
        part = data if upper is None else data.filter(pl.col(LINE) < upper)
        data = data.filter(pl.col(LINE) > upper) if upper is not None else data
        if not part.is_empty():
            parts.append(_part(part, fields))
    return {context.dataset: pl.concat(parts, how="diagonal")} if parts else {}


def _part(frame: pl.DataFrame, fields: tuple[str, ...]) -> pl.DataFrame:
    missing = [name for name in _NEEDED if name not in fields]
    if missing:
        problem = f"no #Fields: line before it names {', '.join(missing)}"
        return frame.select(LINE, pl.lit(problem).alias(PROBLEM))
    values = pl.col(TEXT).str.strip_chars_end("\r").str.split("\t")
    rows = frame.with_columns(values.list.to_struct(fields=list(fields)).alias("_values"))
    rows = rows.with_columns(_count=values.list.len()).drop(TEXT).unnest("_values")
    rows = rows.with_columns(dash_to_null(*fields))
    host = pl.coalesce(pl.col(name) for name in ("x-host-header", "cs(Host)") if name in fields)
    scheme = pl.col("cs-protocol").fill_null("https") if "cs-protocol" in fields else pl.lit("https")
    url = pl.concat_str(scheme, pl.lit("://"), host, "cs-uri-stem")
    if "cs-uri-query" in fields:
        query = pl.col("cs-uri-query")
        url = pl.when(query.is_null()).then(url).otherwise(pl.concat_str(url, pl.lit("?"), query))
    columns = [
        LINE,
        pl.concat_str("date", pl.lit("T"), "time", pl.lit("Z")).alias("occurred_at"),
        url.alias("url"),
        pl.lit("request").alias("event_type"),
        pl.concat_str("x-edge-request-id", "date", "time", separator=" ").alias(UNIQUE_ID),
        pl.col("x-edge-request-id").alias("request_id"),
        *(pl.col(old).alias(new) for old, new in _RENAMED.items() if old in fields),
        pl.when(pl.col("_count") != len(fields))
        .then(pl.format("the line has {} fields; its #Fields: line names {}", "_count", pl.lit(len(fields))))
        .alias(PROBLEM),
    ]
    if "sc-range-start" in fields and "sc-range-end" in fields:
        start, end = pl.col("sc-range-start"), pl.col("sc-range-end")
        given = start.is_not_null() | end.is_not_null()
        text = pl.concat_str(pl.lit("bytes="), start.fill_null(""), pl.lit("-"), end.fill_null(""))
        columns.append(pl.when(given).then(text).alias("byte_range"))
    rows = rows.select(columns)
    return rows.with_columns(
        _decoded(rows[name]).alias(name)
        for name in ("user_agent", "referrer", "forwarded_for")
        if name in rows.columns
    )


def _decoded(column: pl.Series) -> pl.Series:
    distinct = column.drop_nulls().unique()
    if distinct.is_empty():
        return column
    decoded = pl.Series([decode(text) for text in distinct.to_list()], dtype=pl.String)
    return column.replace_strict(distinct, decoded, default=None, return_dtype=pl.String)


def decode(text: str) -> str:
    """Undo percent-encoding, applied once or twice; a NUL or broken UTF-8 that comes out stays encoded."""
    for _ in range(2):
        plain = unquote(text, errors="replace")
        if plain == text or "\0" in plain or "\ufffd" in plain:
            break
        text = plain
    return text


SOURCE: Final = Source(
    name="cloudfront",
    datasets=("listener_events",),
    shape=Shape.LINES,
    looks_like="a CloudFront standard log: a #Fields: line with date, time, c-ip, cs-uri-stem, then lines of tabs",
    sniff=_sniff,
    rows=_rows,
)

"""Amazon CloudFront standard logs: tab-separated, the columns named by a ``#Fields:`` line.

The host is the one that the viewer asked for (``x-host-header``), as a feed names it. User agents and referrers
are percent-encoded, by some versions of CloudFront twice. ``sc-bytes`` counts the headers too: where the log has
the length of the body or the range that was answered (33 fields, since 2019), no more than that is taken for the
body. An event is its request id and time. The viewer's cookies are left out.
"""

from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import unquote

import polars as pl

from earmark.ingestion.formats import LINE, TEXT, Head, Shape
from earmark.ingestion.sources.source import PROBLEM, UNIQUE_ID, Context, Source, dash_to_null

_FIELDS: Final = "#Fields:"
_RENAMED: Final = {
    "c-ip": "ip",
    "cs-method": "method",
    "sc-status": "status",
    "cs(Referer)": "referrer",
    "cs(User-Agent)": "user_agent",
    "x-forwarded-for": "forwarded_for",
    "x-edge-location": "edge_location",
    "x-edge-result-type": "edge_result",
    "sc-content-type": "content_type",
    "c-country": "country_code",
}
_ASKED: Final = ("cs-uri-stem", "cs-uri-query")
_MOST_FIELDS: Final = 200
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
    if missing or len(fields) > _MOST_FIELDS or len(set(fields)) < len(fields):
        problem = f"no #Fields: line before it names {', '.join(missing)}"
        if not missing:
            problem = f"the #Fields: line before it names a field twice, or more than {_MOST_FIELDS} of them"
        return frame.select(LINE, pl.lit(problem).alias(PROBLEM))
    values = pl.col(TEXT).str.strip_chars_end("\r").str.split("\t")
    rows = frame.with_columns(values.list.to_struct(fields=list(fields)).alias("_values"))
    rows = rows.with_columns(_count=values.list.len()).drop(TEXT).unnest("_values")
    rows = rows.with_columns(dash_to_null(*fields))
    host = pl.coalesce(pl.col(name) for name in ("x-host-header", "cs(Host)") if name in fields)
    scheme = pl.col("cs-protocol").fill_null("https") if "cs-protocol" in fields else pl.lit("https")
    # CloudFront encodes the percent signs of what was asked for.
    asked = {name: pl.col(name).str.replace_all("%25([0-9A-Fa-f]{2})", "%$1") for name in _ASKED if name in fields}
    url = pl.concat_str(scheme, pl.lit("://"), host, asked["cs-uri-stem"])
    if "cs-uri-query" in fields:
        query = asked["cs-uri-query"]
        url = pl.when(query.is_null()).then(url).otherwise(pl.concat_str(url, pl.lit("?"), query))
    columns = [
        pl.col(LINE),
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
    rows = rows.select([*columns, *_bytes(fields)])
    return rows.with_columns(
        _decoded(rows[name]).alias(name)
        for name in ("user_agent", "referrer", "forwarded_for")
        if name in rows.columns
    )


def _bytes(fields: tuple[str, ...]) -> Iterator[pl.Expr]:
    """Return what the log tells of bytes: the range, those of the body that were sent, and those of the object."""
    most = []
    if "sc-content-len" in fields:
        length = pl.col("sc-content-len")
        most.append(length)
        # The length of a whole answer is that of the object; of a part (206) or an error it is not.
        whole = (pl.col("sc-status") == "200") & pl.col("cs-method").is_in(["GET", "HEAD"])
        yield pl.when(whole).then(length).alias("object_bytes")
    if "sc-range-start" in fields and "sc-range-end" in fields:
        start, end = pl.col("sc-range-start"), pl.col("sc-range-end")
        given = start.is_not_null() | end.is_not_null()
        text = pl.concat_str(pl.lit("bytes="), start.fill_null(""), pl.lit("-"), end.fill_null(""))
        yield pl.when(given).then(text).alias("byte_range")
        most.append((end.cast(pl.Int64, strict=False) - start.cast(pl.Int64, strict=False) + 1).cast(pl.String))
    if "sc-bytes" in fields:
        sent = pl.col("sc-bytes")
        numbers = [expression.cast(pl.Int64, strict=False) for expression in (sent, *most)]
        # What is no number stays for the check to refuse.
        known = numbers[0].is_not_null()
        yield pl.when(known).then(pl.min_horizontal(numbers).cast(pl.String)).otherwise(sent).alias("bytes_sent")


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

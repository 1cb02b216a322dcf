"""Amazon CloudFront standard logs: tab-separated, the columns named by a ``#Fields:`` line.

The host is the one that the viewer asked for (``x-host-header``), as a feed names it. User agents and referrers
are percent-encoded, by some versions of CloudFront twice. ``sc-bytes`` counts the headers too: where the log has
the length of the body or the range that was answered (33 fields, since 2019), no more than that is taken for the
body. An event is its request id and time, or its line where
the fields that were chosen have no id. The viewer's cookies are left out.
"""

from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import unquote

import polars as pl

from earmark.ingestion.formats import LINE, TEXT, Head, Shape
from earmark.ingestion.sources.source import IDENTITY, PROBLEM, UNIQUE_ID, Context, Source
from earmark.ingestion.sources.w3c import FIELDS, by_fields, fault_of, values

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
_NEEDED: Final = ("date", "time", "c-ip", "cs-method", "cs-uri-stem", "sc-status")


def _sniff(head: Head) -> bool:
    return any(line.startswith(FIELDS) and "cs-uri-stem" in line and " x-edge-" in line for line in head.lines())


def _rows(frame: pl.DataFrame, context: Context) -> Mapping[str, pl.DataFrame]:
    return by_fields(frame, context, _part)


def _part(frame: pl.DataFrame, fields: tuple[str, ...]) -> pl.DataFrame:
    fault = fault_of(fields, _NEEDED)
    if fault is not None:
        return frame.select(LINE, pl.lit(fault).alias(PROBLEM))
    rows = values(frame, fields, "\t")
    hosts = [pl.col(name) for name in ("x-host-header", "cs(Host)") if name in fields]
    scheme = pl.col("cs-protocol").fill_null("https") if "cs-protocol" in fields else pl.lit("https")
    # CloudFront encodes the percent signs of what was asked for.
    asked = {name: pl.col(name).str.replace_all("%25([0-9A-Fa-f]{2})", "%$1") for name in _ASKED if name in fields}
    stem = asked["cs-uri-stem"]
    url = pl.concat_str(scheme, pl.lit("://"), pl.coalesce(hosts), stem) if hosts else stem
    if "cs-uri-query" in fields:
        query = asked["cs-uri-query"]
        url = pl.when(query.is_null()).then(url).otherwise(pl.concat_str(url, pl.lit("?"), query))
    columns = [
        pl.col(LINE),
        pl.concat_str("date", pl.lit("T"), "time", pl.lit("Z")).alias("occurred_at"),
        url.alias("url"),
        pl.lit("request").alias("event_type"),
        *_identity(fields),
        *(pl.col(old).alias(new) for old, new in _RENAMED.items() if old in fields),
        pl.col(PROBLEM),
    ]
    rows = rows.select([*columns, *_bytes(fields)])
    return rows.with_columns(
        _decoded(rows[name]).alias(name)
        for name in ("user_agent", "referrer", "forwarded_for")
        if name in rows.columns
    )


def _identity(fields: tuple[str, ...]) -> list[pl.Expr]:
    if "x-edge-request-id" not in fields:
        return [pl.col(TEXT).alias(IDENTITY)]
    unique = pl.concat_str("x-edge-request-id", "date", "time", separator=" ")
    return [unique.alias(UNIQUE_ID), pl.col("x-edge-request-id").alias("request_id")]


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
    is_log=True,
)

"""Amazon S3 server access logs.

The URL is bucket and key, whichever way the request named them (virtual host, path style, website), so that it
matches the feed. An operation on something else than the object itself, its ACL or a part of an upload, is its
own method (``GET.ACL``), so that nobody takes it for a GET of the file. An event is its request id, operation
and key: S3 delivers some records twice. Fields that Amazon appends to the format are left out, as are the
accounts of owner and requester and the query of the request, which may hold a signature.
"""

from collections.abc import Mapping
from typing import Final

import polars as pl

from earmark.ingestion.formats import LINE, TEXT, Format, Head, Shape
from earmark.ingestion.sources.source import (
    PROBLEM,
    UNIQUE_ID,
    Context,
    Source,
    dash_to_null,
    groups,
    log_time,
    none_sent,
)

_PATTERN: Final = (
    r"^\S+ (?P<bucket>\S+) \[(?P<time>[^\]]+)\] (?P<ip>\S+) \S+ (?P<request_id>\S+) "
    r"(?P<operation>[A-Z][A-Z0-9_]*\.[A-Za-z0-9_.]+) (?P<key>\S+) "
    r'(?:"(?P<request>.*?)"|-) (?P<status>\d{3}|-) (?P<error_code>[A-Za-z0-9.-]+) (?P<bytes_sent>\d+|-) '
    r"(?P<object_bytes>\d+|-) (?P<total_ms>\d+|-) (?P<turnaround_ms>\d+|-) "
    r'(?:"(?P<referrer>.*?)"+|-) (?:"(?P<user_agent>.*?)"+|-)(?: [^"]*)?$'
)


def _sniff(head: Head) -> bool:
    if head.format is not Format.DELIMITED:
        return False
    lines = pl.DataFrame({TEXT: head.lines()}, schema={TEXT: pl.String})
    return bool(lines[TEXT].str.contains(_PATTERN).any())


def _rows(frame: pl.DataFrame, context: Context) -> Mapping[str, pl.DataFrame]:
    rows = groups(frame, _PATTERN).with_columns(
        occurred_at=log_time("time"),
        method=pl.when(pl.col("operation").str.ends_with(".OBJECT"))
        .then(pl.col("request").str.extract(r"^([A-Z]+) "))
        .otherwise(pl.col("operation").str.extract(r"^[^.]+\.(.+)$")),
    )
    rows = rows.with_columns(
        *dash_to_null("ip", "key", "status", "error_code", "object_bytes", "referrer", "user_agent"),
        none_sent("bytes_sent"),
    )
    # The log writes the key percent-encoded, a space as +, some versions twice.
    key = pl.col("key").str.replace_all("+", "%20", literal=True).str.replace_all("%25", "%", literal=True)
    bucket = pl.col("bucket")
    rows = rows.select(
        LINE,
        "occurred_at",
        "method",
        "status",
        "bytes_sent",
        "object_bytes",
        "ip",
        "user_agent",
        "referrer",
        "operation",
        "error_code",
        "request_id",
        pl.lit("request").alias("event_type"),
        pl.concat_str(pl.lit("https://"), bucket, pl.lit("/"), key.fill_null("")).alias("url"),
        pl.concat_str("request_id", "operation", pl.col("key").fill_null("-"), separator=" ").alias(UNIQUE_ID),
        pl.when(bucket.is_null())
        .then(pl.lit("the line is not of the form of Amazon S3 server access logs"))
        .when(pl.col("occurred_at").is_null())
        .then(pl.lit("the time in brackets is not like 06/Feb/2019:00:00:38 +0000"))
        .alias(PROBLEM),
    )
    return {context.dataset: rows}


SOURCE: Final = Source(
    name="s3",
    datasets=("listener_events",),
    shape=Shape.LINES,
    looks_like="an Amazon S3 server access log: owner bucket [time] address requester id REST.GET.OBJECT key ...",
    sniff=_sniff,
    rows=_rows,
    is_log=True,
)

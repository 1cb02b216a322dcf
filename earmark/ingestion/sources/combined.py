"""Access logs of nginx and Apache, in the combined or the common form, and of Icecast (combined and seconds).

A line whose request is empty or no HTTP (probes, scans) is kept as a request without a method, so that every line
of a log is accounted for. Such a log shows no host: the enclosure key is the path alone. Without a request id, an
event's identity is its line. The quoted field that nginx's own format appends is X-Forwarded-For: where it looks
like one, it says who the client is behind a trusted proxy.
"""

from collections.abc import Mapping
from typing import Final

import polars as pl

from earmark.ingestion.formats import LINE, TEXT, Format, Head, Shape
from earmark.ingestion.sources.source import (
    IDENTITY,
    PROBLEM,
    Context,
    Source,
    dash_to_null,
    groups,
    log_time,
    none_sent,
)

_QUOTED: Final = r'(?:[^"\\]|\\.)*'
_PATTERN: Final = (
    r"^(?:(?P<host>[A-Za-z0-9._-]+:\d+) )?(?P<ip>\S+) \S+ .*?\s?\[(?P<time>[^\]]+)\] "
    rf'"(?P<request>{_QUOTED})" (?P<status>\d{{3}}|-) (?P<bytes_sent>\d+|-)'
    rf'(?: "(?P<referrer>{_QUOTED})" "(?P<user_agent>{_QUOTED})")?(?P<log_extra>.*)$'
)
_REQUEST: Final = r"^(?P<method>[A-Za-z-]+) (?P<url>\S.*?)(?: (?P<protocol>HTTP/[0-9.]+))?$"

# The first quoted field behind the user agent, where it is a list of addresses.
_LISTED: Final = (
    r"(?:\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?|\[?[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(?:\]:\d+|\])?|unknown|_[A-Za-z0-9._-]+)"
)
_FORWARDED: Final = rf'^"({_LISTED}(?:\s*,\s*{_LISTED})*)"(?:\s|$)'


def _sniff(head: Head) -> bool:
    if head.format is not Format.DELIMITED:
        return False
    lines = pl.DataFrame({TEXT: head.lines()}, schema={TEXT: pl.String})
    return bool(lines[TEXT].str.contains(_PATTERN).any())


def _rows(frame: pl.DataFrame, context: Context) -> Mapping[str, pl.DataFrame]:
    rows = groups(frame, _PATTERN).with_columns(
        occurred_at=log_time("time"),
        _request=pl.col("request").str.extract_groups(_REQUEST),
        log_extra=pl.col("log_extra").str.strip_chars(),
    )
    rows = rows.unnest("_request").with_columns(
        *dash_to_null("ip", "status", "referrer", "user_agent"),
        none_sent("bytes_sent"),
    )
    is_http = pl.col("method").is_not_null()
    path = pl.col("url")
    absolute = pl.col("host").is_not_null() & path.str.starts_with("/")
    host = pl.col("host").str.replace(r":\d+$", "")
    rows = rows.select(
        LINE,
        "occurred_at",
        "status",
        "bytes_sent",
        "referrer",
        "ip",
        "method",
        pl.col("user_agent").str.replace_all(r"\\x22|\\\"", '"'),
        pl.when(pl.col("ip").is_not_null() | pl.col("request").is_not_null())
        .then(
            pl.when(~is_http)
            .then(pl.when(pl.col("request") == "").then(pl.lit("-")).otherwise(pl.col("request")))
            .when(absolute)
            .then(pl.concat_str(pl.lit("http://"), host, path))
            .otherwise(path)
        )
        .alias("url"),
        pl.lit("request").alias("event_type"),
        pl.when(pl.col("log_extra") != "").then(pl.col("log_extra")).alias("log_extra"),
        pl.col("log_extra").str.extract(_FORWARDED, 1).alias("forwarded_for"),
        pl.col(TEXT).alias(IDENTITY),
        pl.when(pl.col("request").is_null())
        .then(pl.lit("the line is not of the combined or common log form"))
        .when(pl.col("occurred_at").is_null())
        .then(pl.lit("the time in brackets is not like 10/Oct/2000:13:55:36 -0700"))
        .alias(PROBLEM),
    )
    return {context.dataset: rows}


SOURCE: Final = Source(
    name="combined",
    aliases=("nginx", "apache", "icecast"),
    datasets=("listener_events",),
    shape=Shape.LINES,
    looks_like='an access log: 192.0.2.1 - - [10/Oct/2000:13:55:36 -0700] "GET /ep.mp3 HTTP/1.1" 200 23 "-" "-"',
    sniff=_sniff,
    rows=_rows,
)

"""Access logs of Amazon's load balancers: application (ALB) and classic (ELB).

The client stands with its port. The request holds the whole URL. ``sent_bytes`` counts the headers too. The trace
id may come from the client, so that an event's identity is its line.
"""

from collections.abc import Mapping
from typing import Final

import polars as pl

from earmark.ingestion.formats import LINE, TEXT, Head, Shape
from earmark.ingestion.sources.source import IDENTITY, PROBLEM, Context, Source, dash_to_null, groups

_QUOTED: Final = r'(?:[^"\\]|\\.)*'
_PATTERN: Final = (
    r"^(?:(?:https?|h2|grpcs?|wss?) )?(?P<time>\d{4}-\d\d-\d\dT\S+Z) \S+ (?P<ip>\S+) \S+ "
    r"-?[\d.]+ -?[\d.]+ -?[\d.]+ (?P<status>\d{3}|-) (?:\d{3}|-) \d+ (?P<bytes_sent>\d+) "
    rf'"(?P<request>{_QUOTED})"(?: "(?P<user_agent>{_QUOTED})")?(?: .*)?$'
)
_REQUEST: Final = r"^(?P<method>[A-Za-z-]+) (?P<url>\S.*?)(?: (?:HTTP/[0-9.]+|-))? ?$"


def _sniff(head: Head) -> bool:
    lines = pl.Series(head.lines(), dtype=pl.String)
    return bool(lines.str.contains(_PATTERN).any())


def _rows(frame: pl.DataFrame, context: Context) -> Mapping[str, pl.DataFrame]:
    rows = groups(frame, _PATTERN)
    parts = rows["request"].str.extract_groups(_REQUEST).struct.unnest()
    rows = rows.with_columns(parts).with_columns(
        *dash_to_null("status", "user_agent"), pl.col("ip").str.replace(r":\d+$", "")
    )
    rows = rows.select(
        LINE,
        pl.col("time").alias("occurred_at"),
        *("ip", "method", "status", "bytes_sent", "user_agent"),
        pl.coalesce("url", "request").alias("url"),
        pl.lit("request").alias("event_type"),
        pl.col(TEXT).alias(IDENTITY),
        pl.when(pl.col("request").is_null())
        .then(pl.lit("the line is not of the form of Amazon's load balancer logs"))
        .alias(PROBLEM),
    )
    return {context.dataset: rows}


SOURCE: Final = Source(
    name="alb",
    aliases=("elb",),
    datasets=("listener_events",),
    shape=Shape.LINES,
    looks_like='an Amazon load balancer log: https time name client:port target:port ... 200 200 0 57 "GET https://...',
    sniff=_sniff,
    rows=_rows,
    is_log=True,
)

"""Fastly's log streaming in the JSON format that its documentation gives.

A request that goes through a shield is logged there too, if the service does not restrict it to the edge: those
lines (``fastly_is_edge`` false) are rejects, for the client's own stands in another.
"""

from collections.abc import Mapping
from typing import Final

import polars as pl

from earmark.ingestion.formats import LINE, Head, Shape
from earmark.ingestion.sources.access_log import times_of
from earmark.ingestion.sources.source import IDENTITY, PROBLEM, Context, Source, given, row_identity, whole_url

_NEEDED: Final = ("timestamp", "client_ip", "request_method", "url", "response_status")


def _sniff(head: Head) -> bool:
    return set(_NEEDED) <= set(head.keys())


def _rows(frame: pl.DataFrame, context: Context) -> Mapping[str, pl.DataFrame]:
    def get(name: str) -> pl.Expr:
        return given(frame, name, "(null)")

    rows = frame.with_columns(times_of(frame, "timestamp").alias("occurred_at"), row_identity(frame)).select(
        LINE,
        "occurred_at",
        IDENTITY,
        get("client_ip").alias("ip"),
        get("request_method").alias("method"),
        whole_url(pl.lit("https"), get("host"), get("url")).alias("url"),
        get("response_status").alias("status"),
        get("response_body_size").alias("bytes_sent"),
        get("request_user_agent").alias("user_agent"),
        get("request_referer").alias("referrer"),
        get("request_range").alias("byte_range"),
        pl.lit("request").alias("event_type"),
        pl.when(get("fastly_is_edge").str.to_lowercase().is_in(["false", "0"]))
        .then(pl.lit("a line of a shield: the client's own request is logged at the edge"))
        .alias(PROBLEM),
    )
    return {context.dataset: rows}


SOURCE: Final = Source(
    name="fastly",
    datasets=("listener_events",),
    shape=Shape.RECORDS,
    looks_like="a Fastly log as JSON lines with timestamp, client_ip, request_method, url, response_status",
    sniff=_sniff,
    rows=_rows,
    is_log=True,
)

"""Cloudflare Logpush, dataset HTTP requests: JSON lines.

An event is its Ray ID. ``EdgeResponseBodyBytes`` are the bytes of the body; without that field
``EdgeResponseBytes`` is taken, which counts the headers too. What a Worker fetches in turn is no request of a
client: a reject.
"""

from collections.abc import Mapping
from functools import partial
from typing import Final

import polars as pl

from earmark.ingestion.formats import LINE, Head, Shape
from earmark.ingestion.sources.access_log import times_of
from earmark.ingestion.sources.source import (
    IDENTITY,
    PROBLEM,
    UNIQUE_ID,
    Context,
    Source,
    given,
    row_identity,
    whole_url,
)

_NEEDED: Final = ("ClientIP", "EdgeStartTimestamp", "EdgeResponseStatus")


def _sniff(head: Head) -> bool:
    return set(_NEEDED) <= set(head.keys())


def _rows(frame: pl.DataFrame, context: Context) -> Mapping[str, pl.DataFrame]:
    get = partial(given, frame)
    uri = pl.coalesce(get("ClientRequestURI"), get("ClientRequestPath"))
    rows = frame.with_columns(
        times_of(frame, "EdgeStartTimestamp").alias("occurred_at"), row_identity(frame)
    ).select(
        LINE,
        "occurred_at",
        IDENTITY,
        get("RayID").alias(UNIQUE_ID),
        get("ClientIP").alias("ip"),
        get("ClientRequestMethod").alias("method"),
        whole_url(get("ClientRequestScheme").fill_null("https"), get("ClientRequestHost"), uri).alias("url"),
        get("EdgeResponseStatus").alias("status"),
        pl.coalesce(get("EdgeResponseBodyBytes"), get("EdgeResponseBytes")).alias("bytes_sent"),
        get("ClientRequestUserAgent").alias("user_agent"),
        get("ClientRequestReferer").alias("referrer"),
        get("ClientCountry").str.to_uppercase().alias("country_code"),
        pl.lit("request").alias("event_type"),
        pl.when(get("WorkerSubrequest").str.to_lowercase() == "true")
        .then(pl.lit("a Worker's own request: that of its client stands in a line of its own"))
        .alias(PROBLEM),
    )
    return {context.dataset: rows}


SOURCE: Final = Source(
    name="cloudflare",
    datasets=("listener_events",),
    shape=Shape.RECORDS,
    looks_like="Cloudflare Logpush of HTTP requests: JSON with ClientIP, EdgeStartTimestamp, EdgeResponseStatus",
    sniff=_sniff,
    rows=_rows,
    is_log=True,
)

"""Google Cloud: log entries of requests (load balancer, Cloud Run), and usage logs of Cloud Storage.

Entries are JSON with ``httpRequest``; its ``responseSize`` counts the headers too. Usage logs are CSV, a line a
request, with times in microseconds. Both identify the request.
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
    column,
    given,
    row_identity,
    whole_url,
)

_PATHS: Final = {
    "method": "$.requestMethod",
    "url": "$.requestUrl",
    "status": "$.status",
    "bytes_sent": "$.responseSize",
    "user_agent": "$.userAgent",
    "referrer": "$.referer",
    "ip": "$.remoteIp",
}
_USAGE: Final = ("time_micros", "c_ip", "cs_method", "cs_uri", "sc_status", "sc_bytes")


def _is_entries(head: Head) -> bool:
    return {"httpRequest", "timestamp"} <= set(head.keys())


def _entries(frame: pl.DataFrame, context: Context) -> Mapping[str, pl.DataFrame]:
    request = column(frame, "httpRequest")
    rows = frame.with_columns(times_of(frame, "timestamp").alias("occurred_at"), row_identity(frame)).select(
        LINE,
        "occurred_at",
        IDENTITY,
        pl.concat_str(column(frame, "insertId"), column(frame, "timestamp"), separator=" ").alias(UNIQUE_ID),
        *(request.str.json_path_match(path).alias(name) for name, path in _PATHS.items()),
        pl.lit("request").alias("event_type"),
        pl.when(request.is_null())
        .then(pl.lit("the entry has no httpRequest: it is none of a request"))
        .alias(PROBLEM),
    )
    return {context.dataset: rows}


def _is_usage(head: Head) -> bool:
    return set(_USAGE) <= set(head.columns)


def _usage(frame: pl.DataFrame, context: Context) -> Mapping[str, pl.DataFrame]:
    get = partial(given, frame)
    rows = frame.with_columns(times_of(frame, "time_micros").alias("occurred_at"), row_identity(frame)).select(
        LINE,
        "occurred_at",
        IDENTITY,
        get("s_request_id").alias(UNIQUE_ID),
        get("c_ip").alias("ip"),
        get("cs_method").alias("method"),
        whole_url(pl.lit("https"), get("cs_host"), get("cs_uri")).alias("url"),
        get("sc_status").alias("status"),
        get("sc_bytes").alias("bytes_sent"),
        get("cs_user_agent").alias("user_agent"),
        get("cs_referer").alias("referrer"),
        get("cs_operation").alias("operation"),
        pl.lit("request").alias("event_type"),
    )
    return {context.dataset: rows}


ENTRIES: Final = Source(
    name="google",
    aliases=("gcp", "google_load_balancer"),
    datasets=("listener_events",),
    shape=Shape.RECORDS,
    looks_like="Google Cloud log entries of requests: JSON with timestamp, insertId and httpRequest",
    sniff=_is_entries,
    rows=_entries,
    is_log=True,
)
STORAGE: Final = Source(
    name="google_storage",
    aliases=("gcs",),
    datasets=("listener_events",),
    shape=Shape.RECORDS,
    looks_like="a usage log of Google Cloud Storage: CSV with time_micros, c_ip, cs_method, cs_uri, sc_status",
    sniff=_is_usage,
    rows=_usage,
    is_log=True,
)

"""Access logs of Caddy: JSON lines with the request nested.

``client_ip`` is the client as Caddy's own trusted proxies tell it, ``remote_ip`` (``remote_addr`` with a port in
older versions) who connected. ``size`` are the bytes of the body. Lines of Caddy's other loggers are rejects.
"""

from collections.abc import Mapping
from typing import Final

import polars as pl

from earmark.ingestion.formats import LINE, Head, Shape
from earmark.ingestion.sources.access_log import times_of
from earmark.ingestion.sources.source import IDENTITY, PROBLEM, Context, Source, column, row_identity, whole_url

_PATHS: Final = {
    "client_ip": "$.client_ip",
    "remote_ip": "$.remote_ip",
    "remote_addr": "$.remote_addr",
    "method": "$.method",
    "host": "$.host",
    "uri": "$.uri",
    "user_agent": '$.headers["User-Agent"][0]',
    "referrer": '$.headers["Referer"][0]',
    "byte_range": '$.headers["Range"][0]',
    "forwarded_for": '$.headers["X-Forwarded-For"][0]',
}


def _sniff(head: Head) -> bool:
    keys = head.keys()
    return {"request", "status", "ts"} <= set(keys) and any(
        name in head.text for name in (b'"remote_ip"', b'"remote_addr"')
    )


def _rows(frame: pl.DataFrame, context: Context) -> Mapping[str, pl.DataFrame]:
    request = column(frame, "request")
    answer = column(frame, "resp_headers")
    rows = frame.with_columns(
        *(request.str.json_path_match(path).alias(f"_{name}") for name, path in _PATHS.items()),
        answer.str.json_path_match('$["Content-Range"][0]').str.extract(r"/(\d+)$").alias("_whole"),
        answer.str.json_path_match('$["Content-Length"][0]').alias("_length"),
        times_of(frame, "ts").alias("occurred_at"),
        row_identity(frame),
    )
    status = column(frame, "status")
    rows = rows.select(
        LINE,
        "occurred_at",
        pl.coalesce("_client_ip", "_remote_ip", "_remote_addr").alias("ip"),
        *(pl.col(f"_{name}").alias(name) for name in ("method", "user_agent", "referrer", "byte_range")),
        pl.when(pl.col("_client_ip").is_null()).then(pl.col("_forwarded_for")).alias("forwarded_for"),
        whole_url(pl.lit("http"), pl.col("_host"), pl.col("_uri")).alias("url"),
        status.alias("status"),
        column(frame, "size").alias("bytes_sent"),
        pl.coalesce("_whole", pl.when(status == "200").then(pl.col("_length"))).alias("object_bytes"),
        pl.lit("request").alias("event_type"),
        IDENTITY,
        pl.when(pl.col("_uri").is_null())
        .then(pl.lit("the line has no request: it is none of Caddy's access log"))
        .alias(PROBLEM),
    )
    return {context.dataset: rows}


SOURCE: Final = Source(
    name="caddy",
    datasets=("listener_events",),
    shape=Shape.RECORDS,
    looks_like='a Caddy access log: JSON lines with ts, status, size and request: {"remote_ip": ..., "uri": ...}',
    sniff=_sniff,
    rows=_rows,
    is_log=True,
)

"""What deploy/collect/nginx.conf logs: a pixel and vanity addresses (``pixel``), a prefix for media (``prefix``).

One JSON object a request. The pixel's query holds fields of attribution events under their own names; without an
``action`` it is a view. An ``email`` is hashed here (SHA-256 of its lower case); what is no field is left out, for
anybody can send anything. A visit to a vanity address is a view by its URL. The prefix sees a request and the
range that was asked for, not the bytes that the host behind it sends.
"""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

import polars as pl

from earmark.addresses.emails import sha256_of_email
from earmark.ingestion.datasets import ATTRIBUTION_EVENTS
from earmark.ingestion.formats import LINE, Format, Head, Shape
from earmark.ingestion.sources.source import PROBLEM, Context, Source, dash_to_null

_LOGGED: Final = (
    *("collect", "time", "request_id", "ip", "forwarded_for", "method"),
    *("url", "query", "user_agent", "referrer", "byte_range"),
)
_OWN: Final = frozenset({"event_id", "occurred_at", "type", "url", "user_agent", "properties"})
_ASKED_FOR: Final = tuple(
    field.name for field in ATTRIBUTION_EVENTS.fields if not (field.client or field.derived or field.name in _OWN)
)
_MOST_PARAMETERS: Final = 50
_COMMON: Final = (LINE, "occurred_at", "ip", "forwarded_for", "user_agent", PROBLEM)


def _is_collected(head: Head, kinds: tuple[str, ...]) -> bool:
    if head.format is not Format.NDJSON or not {"collect", "request_id", "query"} <= set(head.columns):
        return False
    return re.search(rf'"collect" *: *"(?:{"|".join(kinds)})"'.encode(), head.text) is not None


def _read(frame: pl.DataFrame, kinds: tuple[str, ...]) -> pl.DataFrame:
    missing = [pl.lit(None, pl.String).alias(name) for name in _LOGGED if name not in frame.columns]
    rows = frame.with_columns(missing).select(LINE, *(pl.col(name).cast(pl.String) for name in _LOGGED))
    rows = rows.with_columns(dash_to_null(*_LOGGED))
    milliseconds = pl.col("time").str.extract(r"^(\d+)\.\d{3}$").cast(pl.Int64, strict=False) * 1000 + pl.col(
        "time"
    ).str.extract(r"^\d+\.(\d{3})$").cast(pl.Int64, strict=False)
    return rows.with_columns(
        pl.from_epoch(milliseconds, time_unit="ms").dt.replace_time_zone("UTC").alias("occurred_at"),
        pl.when(pl.col("collect").is_in(kinds).fill_null(value=False) & milliseconds.is_not_null())
        .then(None)
        .otherwise(pl.lit(f"the line is not one that deploy/collect/nginx.conf logs of a {' or '.join(kinds)}"))
        .alias(PROBLEM),
    )


def _pixel(frame: pl.DataFrame, context: Context) -> Mapping[str, pl.DataFrame]:
    rows = _read(frame, ("pixel", "vanity"))
    is_pixel = pl.col("collect") == "pixel"
    sent = pl.DataFrame(
        [_sent(query) for query in rows.select(pl.when(is_pixel).then("query")).to_series().to_list()],
        schema=dict.fromkeys((*_ASKED_FOR, "_sent_problem"), pl.String),
    )
    rows = pl.concat([rows, sent], how="horizontal")
    rows = rows.with_columns(pl.coalesce(PROBLEM, "_sent_problem").alias(PROBLEM))
    rows = rows.select(
        *_COMMON,
        *(name for name in _ASKED_FOR if name != "action"),
        pl.col("action").fill_null("view"),
        pl.when(is_pixel).then(pl.lit("pixel")).otherwise(pl.lit("vanity_url")).alias("type"),
        pl.col("request_id").alias("event_id"),
        "url",
    )
    return {context.dataset: rows}


def _sent(query: str | None) -> dict[str, str | None]:
    """Return the fields that a pixel's query holds, or under ``_sent_problem`` why it cannot be read."""
    try:
        pairs = parse_qsl(query or "", max_num_fields=_MOST_PARAMETERS, errors="replace")
    except ValueError:
        return {"_sent_problem": f"the pixel's query has more than {_MOST_PARAMETERS} parameters"}
    named = dict(reversed(pairs))
    if len({name for name, _ in pairs}) < len(pairs):
        twice = next(name for name in named if [other for other, _ in pairs].count(name) > 1)
        if twice in (*_ASKED_FOR, "email"):
            return {"_sent_problem": f"the pixel's query names {twice} twice"}
    fields: dict[str, str | None] = {name: named[name] for name in _ASKED_FOR if name in named}
    if "email" in named and "hashed_email" not in fields:
        fields["hashed_email"] = sha256_of_email(named["email"].strip())
    return fields


def _prefix(frame: pl.DataFrame, context: Context) -> Mapping[str, pl.DataFrame]:
    rows = _read(frame, ("prefix",)).select(
        *_COMMON,
        *("url", "method", "referrer", "byte_range"),
        pl.col("request_id").alias("event_id"),
        pl.lit("request").alias("event_type"),
    )
    return {context.dataset: rows}


PIXEL: Final = Source(
    name="pixel",
    datasets=("attribution_events",),
    shape=Shape.RECORDS,
    looks_like="what deploy/collect/nginx.conf logs of its pixel and vanity addresses, a JSON object a line",
    sniff=lambda head: _is_collected(head, ("pixel", "vanity")),
    rows=_pixel,
)
PREFIX: Final = Source(
    name="prefix",
    datasets=("listener_events",),
    shape=Shape.RECORDS,
    looks_like="what deploy/collect/nginx.conf logs of its prefix, a JSON object a line",
    sniff=lambda head: _is_collected(head, ("prefix",)),
    rows=_prefix,
)

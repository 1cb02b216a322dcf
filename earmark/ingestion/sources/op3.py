"""Exports of the OP3 open measurement service: hits (each request) and downloads (as OP3 counts them).

TSV, CSV or JSON. OP3 gives a hash in place of the address and changes it every month: it is hashed again under
``op3:`` and can be counted but never joined to an address. A download has no user agent; its audience id (address,
user agent and referrer of a UTC day) stands for it. What OP3 says of agent, device and bot is kept in
``properties``.
"""

from collections.abc import Mapping
from typing import Final

import polars as pl

from earmark.ingestion.formats import LINE, Format, Head, Shape
from earmark.ingestion.sources.source import IDENTITY, LISTENER, Context, Source

_RENAMED: Final = {
    "time": "occurred_at",
    "url": "url",
    "method": "method",
    "userAgent": "user_agent",
    "referer": "referrer",
    "range": "byte_range",
    "country": "country_code",
    "countryCode": "country_code",
    "regionCode": "region_code",
    "audienceId": "op3_audience_id",
    "episodeId": "op3_episode_id",
    "showUuid": "op3_show_uuid",
}
_KEPT: Final = (
    *("agentType", "agentName", "deviceType", "deviceName", "referrerType", "referrerName", "botType"),
    *("continent", "continentCode", "region", "regionName", "timezone", "metroCode", "asn", "edgeColo", "xpsId"),
)
_SEPARATOR: Final = "\x1f"


def _sniff(head: Head) -> bool:
    if head.format is Format.JSON:
        return b"hashedIpAddress" in head.text or (b'"audienceId"' in head.text and b'"showUuid"' in head.text)
    return {"time", "url", "hashedIpAddress"} <= set(head.columns)


def _rows(frame: pl.DataFrame, context: Context) -> Mapping[str, pl.DataFrame]:
    columns = set(frame.columns)
    texts = frame.with_columns(pl.all().exclude(LINE).cast(pl.String))
    # A block of NDJSON may lack a column that no row of it holds.
    texts = texts.with_columns(
        pl.lit(None, pl.String).alias(name) for name in ("time", "url") if name not in columns
    )
    is_hit = pl.col("uuid").is_not_null() if "uuid" in columns else pl.lit(value=False)
    row = pl.concat_str(
        (pl.concat_str(pl.lit(f"{name}="), pl.col(name)) for name in sorted(columns - {LINE})),
        separator=_SEPARATOR,
        ignore_nulls=True,
    )
    wanted = {old: new for old, new in _RENAMED.items() if old in texts.columns}
    if "country" in columns:
        wanted.pop("countryCode", None)
    selected = [
        pl.col(LINE),
        *(pl.col(old).alias(new) for old, new in wanted.items()),
        *(pl.col(name) for name in _KEPT if name in columns),
        pl.when(is_hit).then(pl.lit("request")).otherwise(pl.lit("download")).alias("event_type"),
        pl.when(~is_hit).then(row).alias(IDENTITY),
    ]
    if "uuid" in columns:
        selected.append(pl.col("uuid").alias("event_id"))
    if "hashedIpAddress" in columns:
        hashed = pl.col("hashedIpAddress")
        selected.append(pl.when(hashed != "").then(pl.concat_str(pl.lit("op3:"), hashed)).alias("ip"))
    if "audienceId" in columns:
        agent = pl.col("userAgent") if "userAgent" in columns else pl.lit(None, pl.String)
        audience = pl.concat_str(pl.lit("op3 audience "), "audienceId")
        selected.append(pl.coalesce(agent, audience).alias(LISTENER))
    return {context.dataset: texts.select(selected)}


SOURCE: Final = Source(
    name="op3",
    datasets=("listener_events",),
    shape=Shape.RECORDS,
    looks_like="an OP3 export with time, url and hashedIpAddress (TSV, CSV, JSON with rows, or NDJSON)",
    sniff=_sniff,
    rows=_rows,
)

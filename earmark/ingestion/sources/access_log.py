"""What the parts of an access log's line become: fields of ``listener_events``. No source of its own.

A line is parted by a layout: the one that ``layouts`` has found, or the server's own format (``log_formats``).
Columns are named by roles. Addresses go to ``ip`` and ``forwarded_for``, and from there nowhere but into the hash.
"""

from typing import Final

import polars as pl

from earmark.ingestion.formats import LINE, TEXT
from earmark.ingestion.sources.source import IDENTITY, PROBLEM, column, dash_to_null, none_sent

_REQUEST: Final = r"^(?P<method>[A-Za-z-]+) (?P<url>\S.*?)(?: (?P<protocol>HTTP/[0-9.]+))?$"
_CLF: Final = "%d/%b/%Y:%H:%M:%S %z"
_NUMBER: Final = r"^\d{9,19}(?:\.\d+)?$"
_HOST: Final = r"^[A-Za-z0-9._-]*\.[A-Za-z0-9._-]*[A-Za-z][A-Za-z0-9._-]*$"  # an address is the server's: no host
LIST_PROBLEM: Final = (
    "several forwarded addresses stand in the client's place, and nothing says which of them are proxies: name "
    "yours in EARMARK_TRUSTED_PROXIES (addresses and CIDR ranges)"
)


def fields(rows: pl.DataFrame, *, time_format: str | None = None, trusts: bool = False) -> pl.DataFrame:
    """Make fields of roles. ``trusts`` says whether any proxy is trusted to say whom it speaks for."""
    roles = set(rows.columns)
    rows = rows.with_columns(_time(rows, time_format).alias("occurred_at"))
    rows = _client(rows)
    named = ("ip", "forwarded_for", "status", "referrer", "user_agent", "host")
    texts = [name for name in named if name in rows.columns]
    rows = rows.with_columns(*dash_to_null(*texts), *(none_sent(n) for n in ("body_bytes",) if n in roles))
    rows = _url(rows)
    if "user_agent" in roles:
        rows = rows.with_columns(pl.col("user_agent").str.replace_all(r"\\x22|\\\"", '"'))
    columns = [pl.col(name) for name in (LINE, "occurred_at", "method", "url") if name in rows.columns]
    columns += [pl.col(n) for n in ("ip", "forwarded_for", "status", "referrer", "user_agent", "country_code")
                if n in rows.columns]  # fmt: skip
    sent = next((name for name in ("body_bytes", "all_bytes") if name in roles), None)
    if sent is not None:
        columns.append(pl.col(sent).alias("bytes_sent"))
    columns += _ranges(roles)
    columns += [
        pl.lit("request").alias("event_type"),
        *((pl.col("log_extra"),) if "log_extra" in rows.columns else ()),
        pl.col(TEXT).alias(IDENTITY),
        _problem(rows, trusts=trusts).alias(PROBLEM),
    ]
    return rows.select(columns)


def _problem(rows: pl.DataFrame, *, trusts: bool) -> pl.Expr:
    listed = pl.lit(value=False)
    if "several" in rows.columns and not trusts:
        listed = pl.col("several")
    return (
        pl.when(pl.col(PROBLEM).is_not_null())
        .then(pl.col(PROBLEM))
        .when(pl.col("occurred_at").is_null())
        .then(pl.lit("the time in brackets is not like 10/Oct/2000:13:55:36 -0700"))
        .when(listed)
        .then(pl.lit(LIST_PROBLEM))
    )


def _client(rows: pl.DataFrame) -> pl.DataFrame:
    """Where only forwarded addresses are logged the last of them is who connected to one's own proxy."""
    if "ip" in rows.columns or "forwarded_for" not in rows.columns:
        return rows
    listed = pl.col("forwarded_for").str.strip_chars(' "')
    return rows.with_columns(
        ip=listed.str.extract(r"([^,\s]+)$"),
        forwarded_for=listed.str.extract(r"^(.*\S)\s*,"),
        several=listed.str.contains(",", literal=True).fill_null(value=False),
    )


def _time(rows: pl.DataFrame, time_format: str | None) -> pl.Series:
    columns = rows.columns
    if "time_own" in columns and time_format is not None:
        own = time_format.replace("%T", "%H:%M:%S").replace("%F", "%Y-%m-%d")
        zone = "UTC" if "%z" in own else None
        texts = rows["time_own"].str.strip_chars("[]")
        return texts.str.to_datetime(own, strict=False, time_unit="us", time_zone=zone)
    if "time_clf" in columns or "time_bracketed" in columns:
        texts = rows["time_clf" if "time_clf" in columns else "time_bracketed"].str.strip_chars("[]")
        found = texts.str.to_datetime(_CLF, strict=False, time_unit="us", time_zone="UTC")
        if found.null_count() == texts.null_count():
            return found
        iso = texts.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%#z", strict=False, time_unit="us", time_zone="UTC")
        return found.fill_null(iso)
    for name, unit in (("time_epoch", 1e6), ("time_ms", 1e3), ("time_us", 1.0)):
        if name in columns:
            return (
                (rows[name].cast(pl.Float64, strict=False) * unit)
                .cast(pl.Int64, strict=False)
                .cast(pl.Datetime("us", "UTC"))
            )
    return times(rows["time_iso" if "time_iso" in columns else "time_any"])


def times_of(frame: pl.DataFrame, name: str) -> pl.Series:
    """Read the times in a column of a file, null where the file has none of that name."""
    return times(frame.with_columns(column(frame, name).alias(name))[name])


def times(texts: pl.Series) -> pl.Series:
    """Read ISO 8601 times and seconds, milli-, micro- or nanoseconds since 1970, by the number's length."""
    texts = texts.cast(pl.String)
    numbers = texts.str.contains(_NUMBER).fill_null(value=False)
    found = texts.str.replace(r"^(\d{4}-\d\d-\d\d) ", "${1}T").str.replace("Z$", "+00:00")
    iso = found.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%#z", strict=False, time_unit="us", time_zone="UTC")
    if not numbers.any():
        return iso
    seconds = texts.set(~numbers, None)
    whole = seconds.str.extract(r"^(\d+)").str.len_chars()
    value = seconds.cast(pl.Float64, strict=False)
    frame = pl.DataFrame({"v": value, "n": whole, "t": seconds})
    micros = frame.select(
        pl.when(pl.col("n") <= 10).then(pl.col("v") * 1e6)
        .when(pl.col("n") <= 13).then(pl.col("v") * 1e3)
        .when(pl.col("n") <= 16).then(pl.col("v"))
        .otherwise(pl.col("v") / 1e3)
    ).to_series()  # fmt: skip
    return iso.fill_null(micros.round().cast(pl.Int64, strict=False).cast(pl.Datetime("us", "UTC")))


def _url(rows: pl.DataFrame) -> pl.DataFrame:
    """Put method and URL together; a request that is no HTTP has no method."""
    host = pl.col("host").str.replace(r":\d+$", "") if "host" in rows.columns else pl.lit(None, pl.String)
    host = pl.when(host.str.contains(_HOST)).then(host)
    if "request" in rows.columns:
        parts = rows["request"].str.extract_groups(_REQUEST).struct.unnest()
        rows = rows.with_columns(parts["method"], parts["url"].alias("_path"))
    else:
        path = pl.col("uri") if "uri" in rows.columns else pl.col("path")
        if "uri" not in rows.columns and "query" in rows.columns:
            query = pl.col("query").str.strip_prefix("?")
            path = (
                pl.when(query.is_in(["", "-"]) | query.is_null())
                .then(path)
                .otherwise(pl.concat_str(path, pl.lit("?"), query))
            )
        rows = rows.with_columns(path.alias("_path"))
    whole = pl.col("_path")
    absolute = host.is_not_null() & whole.str.starts_with("/")
    url = pl.when(absolute).then(pl.concat_str(pl.lit("http://"), host, whole)).otherwise(whole)
    if "request" in rows.columns:
        given = pl.col("request")
        other = pl.when(given == "").then(pl.lit("-")).otherwise(given)
        url = pl.when(pl.col("method").is_null()).then(other).otherwise(url)
    return rows.with_columns(url.alias("url"))


def _ranges(roles: set[str]) -> list[pl.Expr]:
    """Return the bytes that were answered or asked for, and the size of the file, where the log has them."""
    ranges: list[pl.Expr] = []
    sizes: list[pl.Expr] = []
    if "content_range" in roles:
        answered = pl.col("content_range").str.extract(r"^bytes (\d+-\d+)/")
        ranges.append(pl.when(answered.is_not_null()).then(pl.concat_str(pl.lit("bytes="), answered)))
        sizes.append(pl.col("content_range").str.extract(r"^bytes \d+-\d+/(\d+)$"))
    if "asked_range" in roles:
        ranges.append(pl.when(pl.col("asked_range").str.contains(r"^\s*bytes\s*=")).then(pl.col("asked_range")))
    if "content_length" in roles and "status" in roles:
        whole = (pl.col("status") == "200") & pl.col("content_length").str.contains(r"^\d+$")
        sizes.append(pl.when(whole).then(pl.col("content_length")))
    found = [pl.coalesce(ranges).alias("byte_range")] if ranges else []
    return [*found, pl.coalesce(sizes).alias("object_bytes")] if sizes else found

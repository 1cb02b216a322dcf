"""From a source's frame to rows as a table holds them: checked, addresses hashed, ids made, extras in properties.

Pure: no file and no database is touched here.
"""

import hashlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import orjson
import polars as pl

from earmark.addresses.emails import without_partial_emails
from earmark.addresses.privacy import (
    Hasher,
    add_keys,
    clean_addresses,
    hide_address,
    is_private,
    redact_clients,
    redact_column,
)
from earmark.addresses.site import Lookups
from earmark.ingestion.checks import check
from earmark.ingestion.datasets import Dataset, Kind
from earmark.ingestion.formats import LINE, Reject
from earmark.ingestion.sources.source import IDENTITY, LISTENER, ORIGINAL, PROBLEM, UNIQUE_ID
from earmark.ingestion.urls import enclosure_keys
from earmark.ingestion.values import Amounts

# Columns of the staging table beside those of the dataset's own table.
MADE: Final = "_made"  # the event id was made from the row's content
_INTERNAL: Final = frozenset({LINE, PROBLEM, UNIQUE_ID, IDENTITY, LISTENER, ORIGINAL, "_bad_ip", "source"})
_UUID: Final = r"^[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}$"
_CANONICAL_UUID: Final = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
_KEPT_OF_ORIGINAL: Final = 8192
# An address of which a part was taken away: 192.0.2.xxx, 2001:db8:*, or all of it.
_MASKED: Final = (
    r"^[0-9A-Fa-f.:]*[xX*#]+[0-9A-Fa-f.:xX*#]*$|^[0-9]+\.[0-9.]*$|^[0-9A-Fa-f]*:[0-9A-Fa-f:]*$|^(?:0\.0\.0\.0|::)$"
)


@dataclass(frozen=True, slots=True)
class Prepared:
    """Rows to stage, in the order of ``staged_columns``, and the rejects among them."""

    rows: pl.DataFrame
    rejects: list[Reject]
    read: int


def staged_columns(dataset: Dataset) -> tuple[str, ...]:
    """Return the columns of the dataset's table that a file fills, in their order."""
    names = [item.name for item in dataset.fields if not item.client]
    return (*names, "source") if dataset.has_source else tuple(names)


def prepare(
    dataset: Dataset,
    frame: pl.DataFrame,
    source: str,
    hasher: Hasher,
    original: Callable[[int], bytes],
    *,
    lookups: Lookups | None = None,
    ip_optional: bool = False,
    text_is_sound: bool = False,
    amounts: Amounts | None = None,
    now: datetime | None = None,
) -> Prepared:
    """Make the rows of one block ready to be copied into the staging table of ``dataset``.

    ``ip_optional`` lets rows pass whose address is a host name or the like, as logs may hold: without keys, and
    with a property ``no_address`` that says why.
    """
    read = frame.height
    lookups = lookups or Lookups()
    has_client = any(item.client for item in dataset.fields)
    frame = _with_properties(dataset, frame, hasher)
    if has_client:
        frame = lookups.proxies.resolve(_clean_ip(frame))
        frame = add_keys(frame, hasher, lookups.networks.kinds if dataset.has_network else None)
        if ip_optional:
            frame = _without_address(frame.drop("_bad_ip"))
        frame = hide_address(frame, ("url", "referrer", "user_agent", "event_id", "cookie_id"))
        frame = redact_clients(frame, hasher)
    frame = _without_emails(dataset, frame, hasher)
    rows, rejects = check(dataset, frame, now, text_is_sound=text_is_sound, amounts=amounts)
    originals = frame[ORIGINAL] if ORIGINAL in frame.columns else None
    lines = frame[LINE]
    rejects = [
        replace(
            reject,
            detail=_message(reject.detail, hasher),
            original=_original(reject, lines, originals, original, hasher),
        )
        for reject in rejects
    ]
    if dataset.is_of_events:
        rows = _with_event_id(rows, hasher)
    if dataset.url is not None:
        method = rows["method"] if "method" in rows.columns else None
        keys = enclosure_keys(rows[dataset.url])
        if method is not None and ip_optional:
            # A log line without a method names no file.
            keys = keys.set(method.is_null() & ~rows[dataset.url].str.contains("^https?://"), None)
        rows = rows.with_columns(keys.alias("enclosure_key"))
    if dataset.has_source:
        rows = _with_source(rows, source)
    wanted = [LINE, *((MADE,) if dataset.is_of_events else ()), *staged_columns(dataset)]
    return Prepared(rows.select(wanted), rejects, read)


def redact(reject: Reject, hasher: Hasher) -> Reject:
    """Hash the addresses in a reject that was made while the file was read."""
    return replace(
        reject,
        detail=_message(reject.detail, hasher),
        original=_kept(reject.original or b"", hasher, is_cut=reject.reason == "line_too_long"),
    )


def readable(raw: bytes) -> str:
    r"""Return an original line as PostgreSQL's text holds it: bytes that are none are written ``\xff``."""
    return raw.decode("utf-8", "backslashreplace").replace("\0", "\\x00")


def _message(text: str, hasher: Hasher) -> str:
    # It quotes the beginning of a value: an address may be cut.
    return without_partial_emails(hasher.redact(text.encode()).decode())


def _kept(text: bytes, hasher: Hasher, *, is_cut: bool = False) -> bytes:
    text = hasher.redact(text)
    if is_cut:
        text = without_partial_emails(text.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    return text[:_KEPT_OF_ORIGINAL]


def _without_emails(dataset: Dataset, frame: pl.DataFrame, hasher: Hasher) -> pl.DataFrame:
    """Replace e-mail addresses in every text that the table keeps."""
    names = [item.name for item in dataset.fields if item.kind in (Kind.TEXT, Kind.LIST) and not item.client]
    columns = [
        frame[name] for name in (*names, "source") if name in frame.columns and frame[name].dtype == pl.String
    ]
    return frame.with_columns(hasher.redact_emails(column).alias(column.name) for column in columns)


def _original(
    reject: Reject,
    lines: pl.Series,
    originals: pl.Series | None,
    original: Callable[[int], bytes],
    hasher: Hasher,
) -> bytes:
    if originals is not None:
        text = str(originals[lines.index_of(reject.line) or 0] or "").encode()
    else:
        text = original(reject.line)
    return _kept(text, hasher)


def _clean_ip(frame: pl.DataFrame) -> pl.DataFrame:
    if "ip" not in frame.columns:
        return frame
    return frame.with_columns(clean_addresses(frame["ip"]).alias("ip"))


def _without_address(frame: pl.DataFrame) -> pl.DataFrame:
    """Say in the properties of a log's request why its client is not known: it is no listener of its own."""
    unknown = frame["household_key"].is_null()
    if not unknown.any():
        return frame
    client = pl.col("ip") if "ip" in frame.columns else pl.lit(None, pl.String)
    why = (
        pl.when(client.is_null())
        .then(pl.lit("none"))
        .when(client.str.contains(_MASKED))
        .then(pl.lit("masked"))
        .otherwise(pl.lit("host_name"))
    )
    own = pl.col("properties") if "properties" in frame.columns else pl.lit(None, pl.String)
    rest = pl.when(own.is_null() | (own == "{}")).then(pl.lit("}")).otherwise("," + own.str.slice(1))
    said = pl.concat_str(pl.lit('{"no_address":"'), why, pl.lit('"'), rest)
    # What is no object is left to fail.
    is_object = own.is_null() | own.str.starts_with("{")
    return frame.with_columns(
        pl.when(pl.col("household_key").is_null() & is_object).then(said).otherwise(own).alias("properties")
    )


def _with_source(rows: pl.DataFrame, source: str) -> pl.DataFrame:
    if "source" not in rows.columns:
        return rows.with_columns(pl.lit(source).alias("source"))
    own = pl.col("source").cast(pl.String)
    return rows.with_columns(pl.when(own != "").then(own).otherwise(pl.lit(source)).alias("source"))


# --- Properties -------------------------------------------------------------------------------------------


def _with_properties(dataset: Dataset, frame: pl.DataFrame, hasher: Hasher) -> pl.DataFrame:
    """Put the columns that are no fields into ``properties``; what identifies a client stays out."""
    # A column of the file named as one that loading computes (network) is an extra like any other.
    fields = {item.name for item in dataset.fields if not item.derived}
    extras = [name for name in frame.columns if name not in fields and name not in _INTERNAL]
    kept = [name for name in extras if not is_private(name)]
    pieces = [_member(frame[name], name) for name in kept]
    if "event_id" in frame.columns and dataset.is_of_events:
        own = frame["event_id"].cast(pl.String)
        odd = own.set(own.str.contains(_UUID) | (own == ""), None)
        if odd.null_count() < len(odd):
            pieces.append(_member(odd, "event_id"))
    given = frame["properties"] if "properties" in frame.columns else None
    if pieces:
        members = frame.select(pl.concat_str(pieces, separator=",", ignore_nulls=True)).to_series()
        merged = "{" + members + "}" if given is None else _merged(given, members)
        frame = frame.with_columns(merged.alias("properties"))
    if "properties" in frame.columns:
        frame = frame.with_columns(redact_column(frame["properties"], hasher).alias("properties"))
    return frame.drop(extras)


def _member(column: pl.Series, name: str) -> pl.Series:
    """Return ``"name":value`` of each row as JSON text, null where there is no value."""
    if column.dtype.is_numeric() or column.dtype == pl.Boolean:
        finite = column.set(~column.is_finite(), None) if column.dtype.is_float() else column
        values = finite.cast(pl.String)
    else:
        texts = column.cast(pl.String)
        texts = texts.set(texts == "", None)
        encoded = pl.DataFrame({"v": texts}).select(pl.struct("v").struct.json_encode()).to_series()
        values = encoded.str.slice(5).str.strip_suffix("}")
        values = values.set(texts.is_null(), None)
    return (orjson.dumps(name).decode() + ":" + values).alias(name)


def _merged(given: pl.Series, members: pl.Series) -> pl.Series:
    """Join the file's own properties and further members; where the former are no object they are kept to fail."""
    text = given.cast(pl.String).str.strip_chars()
    text = text.set(text == "", None).fill_null("{}")
    is_object = text.str.starts_with("{") & text.str.ends_with("}")
    inner = text.str.slice(1).str.strip_suffix("}").str.strip_chars()
    comma = pl.when((pl.col("inner") == "") | (pl.col("members") == "")).then(pl.lit("")).otherwise(pl.lit(","))
    frame = pl.DataFrame({"text": text, "inner": inner, "members": members, "is_object": is_object})
    joined = pl.concat_str(pl.lit("{"), "members", comma, "inner", pl.lit("}"))
    return frame.select(pl.when("is_object").then(joined).otherwise("text").alias("properties")).to_series()


# --- Event ids --------------------------------------------------------------------------------------------


def event_id_of(text: str) -> str:
    """Return the UUID (version 8, RFC 9562) that stands for an id that is none: from its sha256."""
    return _uuid(hashlib.sha256(text.encode()).hexdigest())


def _uuid(digits: str) -> str:
    return f"{digits[:8]}-{digits[8:12]}-8{digits[13:16]}-8{digits[17:20]}-{digits[20:32]}"


def _with_event_id(rows: pl.DataFrame, hasher: Hasher) -> pl.DataFrame:
    none = pl.Series([None], dtype=pl.String).new_from_index(0, rows.height)
    given = rows["event_id"].cast(pl.String) if "event_id" in rows.columns else none
    if given.str.contains(_CANONICAL_UUID).fill_null(value=False).all():
        return rows.with_columns(given.alias("event_id"), pl.lit(value=False).alias(MADE))
    unique = rows[UNIQUE_ID] if UNIQUE_ID in rows.columns else none
    identity = rows[IDENTITY] if IDENTITY in rows.columns else none
    is_uuid = given.str.contains(_UUID).fill_null(value=False).to_list()
    ids = []
    made = []
    for valid, own, key, content in zip(is_uuid, given, unique, identity, strict=True):
        if valid:
            ids.append(str(uuid.UUID(own)))
        elif own or key:
            ids.append(event_id_of(own or key))
        else:
            ids.append(_uuid(hasher.event(content or "").hex()))
        made.append(not own and not key)
    return rows.with_columns(pl.Series("event_id", ids, dtype=pl.String), pl.Series(MADE, made, dtype=pl.Boolean))

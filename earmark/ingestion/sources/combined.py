"""Access logs of nginx, Apache and their like: combined or common, of Icecast, or in the server's own format.

Where the client's address stands is found over the file's lines (``layouts``), or said by the format that was
given (``log_formats``). Lines may be wrapped by what carries them: syslog, Docker, Kubernetes, JSON around
each; or be JSON objects whose keys are named as nginx's variables. A line that fits no layout is a reject.

A line whose request is empty or no HTTP (probes, scans) is kept as a request without a method, so that every line
of a log is accounted for. Such a log shows no host, unless a virtual host stands in it: the enclosure key is the
path alone. Without a request id, an event's identity is its line. The quoted field that nginx's own format appends
is X-Forwarded-For: where it looks like one, it says who the client is behind a trusted proxy.
"""

from collections.abc import Mapping
from typing import Final

import polars as pl

from earmark.addresses.privacy import MAYBE_ADDRESS
from earmark.ingestion.formats import TEXT, Format, Head, Shape
from earmark.ingestion.layouts import ADDRESS, LOOKS_SO, SAMPLE, Layout, LayoutError, find_layout
from earmark.ingestion.log_formats import TIMES, LogFormat, LogFormatError, format_of_keys, parse_format
from earmark.ingestion.sources import access_log
from earmark.ingestion.sources.source import PROBLEM, Context, Source

# The first quoted field behind the user agent, where it is a list of addresses.
_LISTED: Final = (
    r"(?:\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?|\[?[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(?:\]:\d+|\])?|unknown|_[A-Za-z0-9._-]+)"
)
_FORWARDED: Final = rf'^"({_LISTED}(?:\s*,\s*{_LISTED})*)"(?:\s|$)'
_WRAPPERS: Final = ("log", "message", "MESSAGE")  # keys that hold a line: Docker, shippers, journald
_NO_FORM: Final = "the line is not of the combined or common log form"


def _sniff(head: Head) -> bool:
    lines = pl.Series(head.lines(), dtype=pl.String)
    if head.format is Format.NDJSON:
        return format_of_keys(head.columns) is not None or _wrapper(lines) is not None
    if head.format is Format.XML:
        lines = lines.filter(lines.str.contains(r"^<\d{1,3}>"))
    return head.format is not Format.PARQUET and bool(lines.str.contains(LOOKS_SO).any())


def _wrapper(lines: pl.Series) -> str | None:
    """Return the key of JSON lines that holds a line of an access log, None where none does."""
    for key in _WRAPPERS:
        if lines.str.contains(f'"{key}"', literal=True).any():
            inner = _inner(lines.filter(lines.str.starts_with("{")), key)
            if inner.str.contains(LOOKS_SO).any():
                return key
    return None


def _inner(lines: pl.Series, key: str) -> pl.Series:
    return _paths(pl.DataFrame({TEXT: lines}), {TEXT: f'$["{key}"]'})[TEXT].str.strip_chars_end("\r\n")


def _paths(frame: pl.DataFrame, paths: Mapping[str, str]) -> pl.DataFrame:
    """Return the values of JSON texts at some paths; null where a text is no JSON."""
    try:
        return frame.select(pl.col(TEXT).str.json_path_match(path).alias(name) for name, path in paths.items())
    except pl.exceptions.PolarsError:
        none = pl.lit(None, pl.String)
        return frame.select(pl.lit(0)).select(none.alias(name) for name in paths)


def _rows(frame: pl.DataFrame, context: Context) -> Mapping[str, pl.DataFrame]:
    layout = context.state.get("layout")
    if layout is None:
        layout = context.state["layout"] = _find(frame, context)
    key = context.state.get("wrapper")
    if key is not None:
        frame = frame.with_columns(_inner(frame[TEXT], key).fill_null("").alias(TEXT))
    rows = _by_format(frame, layout) if isinstance(layout, LogFormat) else _by_layout(frame, layout)
    time_format = layout.time_format if isinstance(layout, LogFormat) else None
    return {context.dataset: access_log.fields(rows, time_format=time_format, trusts=context.trusts_proxies)}


def _find(frame: pl.DataFrame, context: Context) -> Layout | LogFormat:
    lines = frame[TEXT]
    if context.log_format is not None:
        try:
            layout = parse_format(context.log_format)
        except LogFormatError as error:
            raise LogFormatError(f"{context.name}: {error}") from error
        if not _fits(lines.head(SAMPLE), layout):
            raise LayoutError(
                f"{context.name}: none of its first lines fits the log format that was given; nothing was loaded. "
                "Give it as the server has it, nginx's log_format or Apache's LogFormat. The first line is: "
                f"{lines[0][:200]}"
            )
        return layout
    if lines.head(SAMPLE).str.starts_with("{").all():
        context.state["wrapper"] = _wrapper(lines.head(SAMPLE))
        if context.state["wrapper"] is not None:
            lines = _inner(lines, context.state["wrapper"]).drop_nulls()
        else:
            keys = tuple(Head(context.name, Format.NDJSON, "\n".join(lines.head(SAMPLE)).encode()).keys())
            found = format_of_keys(keys)
            if found is not None:
                return found
    return find_layout(lines, context.name, trusts=context.trusts_proxies)


def _fits(lines: pl.Series, layout: LogFormat) -> bool:
    if layout.pattern is not None:
        return bool(lines.str.contains(layout.pattern).any())
    found = _paths(pl.DataFrame({TEXT: lines}), layout.paths)
    return not found.is_empty() and not all(column.null_count() == len(column) for column in found)


def _by_format(frame: pl.DataFrame, layout: LogFormat) -> pl.DataFrame:
    if layout.pattern is None:
        rows = pl.concat([frame, _paths(frame, layout.paths)], how="horizontal")
        time = next(name for name in (*TIMES, "time_any") if name in layout.paths)
        empty = pl.col(time).is_null()
        return rows.with_columns(
            pl.when(empty)
            .then(pl.lit(f"the line is no JSON object with {layout.paths[time][3:-2]}"))
            .alias(PROBLEM)
        )
    rows = frame.with_columns(pl.col(TEXT).str.extract_groups(layout.pattern).alias("_groups")).unnest("_groups")
    matched = pl.col(TEXT).str.contains(layout.pattern)
    return rows.with_columns(
        pl.when(~matched).then(pl.lit("the line is not of the log format that was given")).alias(PROBLEM)
    )


def _by_layout(frame: pl.DataFrame, layout: Layout) -> pl.DataFrame:
    rows = frame.with_columns(pl.col(TEXT).str.extract_groups(layout.pattern).alias("_groups")).unnest("_groups")
    if "client" in rows.columns:
        rows = rows.with_columns(pl.coalesce("ip", "client").alias("ip")).drop("client")
    if layout.masked:
        rows = rows.with_columns(pl.col("ip").str.replace(r"\.0$", ".*"))
    extra = pl.col("log_extra").str.strip_chars()
    # Two addresses where the file's other lines have one: neither is taken.
    odd = pl.col("between").str.contains(rf"(?:^| ){ADDRESS}(?: |$)") & pl.col("between").str.contains(
        MAYBE_ADDRESS
    )
    rows = rows.with_columns(
        pl.when(extra != "").then(extra).alias("log_extra"),
        pl.when(pl.col("request").is_null())
        .then(pl.lit(_NO_FORM))
        .when(odd)
        .then(pl.lit("an address stands between the client and the time, where its file's layout has none"))
        .alias(PROBLEM),
    ).drop("between")
    if layout.name in ("forwarded", "listed"):
        return rows.with_columns(pl.col("forwarded_for").str.strip_chars('"'))
    return rows.with_columns(pl.col("log_extra").str.extract(_FORWARDED, 1).alias("forwarded_for"))


SOURCE: Final = Source(
    name="combined",
    aliases=("nginx", "apache", "icecast"),
    datasets=("listener_events",),
    shape=Shape.LINES,
    looks_like='an access log: 192.0.2.1 - - [10/Oct/2000:13:55:36 -0700] "GET /ep.mp3 HTTP/1.1" 200 23 "-" "-"',
    sniff=_sniff,
    rows=_rows,
    is_log=True,
)

"""Files to paths: a table of touches or of paths as CSV, TSV, NDJSON, JSON or Parquet, its columns, its checks.

How bytes become rows is not here (``lib.ingestion.formats``). Nothing is rejected row by row: one bad row refuses
the file, for a comparison over the good ones would look right and not be.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import polars as pl

from earmark.ingestion.checks import parse_number, parse_timestamp
from earmark.ingestion.files import local_copy
from earmark.ingestion.formats import LINE, Format, Shape, read_blocks, read_head
from earmark.journeys.errors import AttributionError
from earmark.journeys.paths import Paths, in_order, listed

# A column is found by these names, in any case, where the user names none.
_VALUE_NAMES = ("value", "conversion_value", "conversions_value", "total_conversion_value", "revenue")
_PATH_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "path": ("path",),
    "conversions": ("conversions", "conversion", "total_conversions"),
    "value": _VALUE_NAMES,
    "null": ("null", "nulls", "total_null", "total_nulls"),
}
_TOUCH_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "journey": ("journey", "journey_id", "user_id", "customer_id", "listener_id", "listener_key", "cookie"),
    "channel": ("channel", "channel_name"),
    "time": ("time", "timestamp", "touched_at", "occurred_at", "event_time"),
    "converted": ("converted", "conversion", "conversions", "is_conversion"),
    "converted_at": ("converted_at", "conversion_time", "conversion_timestamp"),
    "value": _VALUE_NAMES,
}
_NEEDED = ("path", "conversions", "journey", "channel", "time")
_SHAPES = (
    "give a table of paths (columns path and conversions) or of touches (columns journey, channel and time), "
    "or name the columns: --path, --conversions, --journey, --channel, --time"
)
_NO_CONVERSION = "holds no conversion that follows a touch: there is nothing to credit"
_TRUTH = {"true": "1", "yes": "1", "false": "0", "no": "0"}
_DAY = 86_400_000_000  # microseconds


@dataclass(frozen=True, slots=True)
class Columns:
    """What the user calls the columns; None: they are found by their usual names."""

    path: str | None = None
    conversions: str | None = None
    value: str | None = None
    null: str | None = None
    journey: str | None = None
    channel: str | None = None
    time: str | None = None
    converted: str | None = None
    converted_at: str | None = None


@dataclass(frozen=True, slots=True)
class Journeys:
    """What a file holds: its paths, what no path can take the credit of, and what was left out or assumed."""

    name: str
    paths: Paths
    has_value: bool
    unattributed_conversions: float = 0.0
    unattributed_value: float = 0.0
    notes: tuple[str, ...] = ()

    def summary(self) -> dict[str, object]:
        """Return what the file holds, as JSON has it."""
        value = float(self.paths.value.sum()) + self.unattributed_value
        return {
            "file": self.name,
            "paths": len(self.paths),
            "touches": len(self.paths.steps),
            "conversions": float(self.paths.conversions.sum()) + self.unattributed_conversions,
            "value": value if self.has_value else None,
            "not_converted": float(self.paths.nulls.sum()),
        }


def read_journeys(
    file: str,
    columns: Columns | None = None,
    *,
    separator: str = ">",
    per: str | None = None,
    lookback: float | None = None,
) -> Journeys:
    """Read a file of paths or touches.

    Args:
        file: a path or an address such as s3://bucket/paths.csv.
        columns: names that are not the usual ones.
        separator: what stands between the channels of a path.
        per: whether flag and value of a touch table are the row's or the whole journey's.
        lookback: days; touches that are older when their journey ends are left out.

    Raises:
        AttributionError: columns are missing, or a row is bad: the text names the row and the field.
        LoadError: the file cannot be read as what it is.

    """
    columns = columns or Columns()
    if lookback is not None and not 0 < lookback < math.inf:
        raise AttributionError(f"the lookback is {lookback:g} days: give a number above 0")
    if per not in (None, "row", "journey"):
        raise AttributionError(f"--per is {per!r}: give row or journey")
    with local_copy(file) as copy:
        head = read_head(copy.path, file)
        blocks = list(read_blocks(copy.path, head, Shape.RECORDS))
    for block in blocks:
        for reject in block.rejects:
            raise AttributionError(f"{file}, line {reject.line}: {reject.detail}")
    frame = pl.concat([block.rows for block in blocks], how="diagonal_relaxed") if blocks else pl.DataFrame()
    if frame.is_empty():
        raise AttributionError(f"{file}: holds no rows: {_SHAPES}")
    rows = _Rows(file, "row" if head.format in (Format.PARQUET, Format.JSON) else "line", frame)
    if _is_path_table(rows, columns):
        if per is not None or lookback is not None:
            raise AttributionError(
                f"{file}: --per and --lookback go with a table of touches; this is one of paths"
            )
        return _read_paths(rows, columns, separator)
    return _read_touches(rows, columns, per, lookback)


# --- Columns and their values -----------------------------------------------------------------------------


class _Rows:
    """The rows of a file as they stand, and how to take a column out of them or refuse one of them."""

    def __init__(self, name: str, unit: str, frame: pl.DataFrame) -> None:
        self.name = name
        self.unit = unit
        self.frame = frame
        self.columns = [column for column in frame.columns if column != LINE]

    def find(self, field: str, usual: tuple[str, ...], named: str | None) -> str | None:
        """Return the name of a column, None where it is not there and need not be."""
        option = field.replace("_", "-")
        if named is not None:
            if named not in self.columns:
                raise AttributionError(
                    f"{self.name}: has no column {named!r} (--{option}): it has {listed(self.columns)}"
                )
            return named
        found = [column for column in self.columns if column.strip().lower() in usual]
        if len(found) > 1:
            both = " and ".join(repr(column) for column in found[:2])
            raise AttributionError(f"{self.name}: {both} could both be the {field}: choose one with --{option}")
        return found[0] if found else None

    def refuse(self, bad: pl.Series, field: str, say: Callable[[int], str]) -> None:
        """Raise for the first of the bad rows, where there are any."""
        rows = bad.fill_null(value=False).arg_true()
        if len(rows):
            more = f" ({len(rows) - 1:,} more like it)" if len(rows) > 1 else ""
            at = int(rows[0])
            raise AttributionError(f"{self.name}, {self.unit} {self.frame[LINE][at]}: {field} {say(at)}{more}")

    def text(self, field: str) -> pl.Series:
        """Return a column as text without space around it, null where it is empty."""
        texts = self.frame[field].cast(pl.String).str.strip_chars()
        return texts.set(texts == "", None)

    def needed_text(self, field: str) -> pl.Series:
        """Return a column as text. No row may lack it."""
        texts = self.text(field)
        self.refuse(texts.is_null(), field, lambda _: "is empty: every row needs one")
        return texts

    def number(self, field: str, *, empty: float | None = None, truth: bool = False) -> pl.Series:
        """Return a column as numbers from 0 on; without ``empty`` no row may lack it."""
        given = self.frame[field]
        texts = self.text(field)
        if given.dtype.is_numeric():
            numbers = given.cast(pl.Float64)
            numbers = numbers.set(~numbers.is_finite(), None)
        else:
            numbers = parse_number(texts.str.to_lowercase().replace(_TRUTH) if truth else texts)
        if empty is None:
            self.refuse(texts.is_null(), field, lambda _: "is empty: write 0 if there were none")
        self.refuse(
            numbers.is_null() & texts.is_not_null(),
            field,
            lambda at: f"is {texts[at]!r}, which is no number: write 0 or more",
        )
        self.refuse(numbers < 0, field, lambda at: f"is {texts[at]}, which is negative: write 0 or more")
        return numbers if empty is None else numbers.fill_null(empty)

    def time(self, field: str, *, needed: bool = True) -> pl.Series:
        """Return a column as times in UTC."""
        given = self.frame[field]
        texts = self.text(field)
        if isinstance(given.dtype, pl.Datetime):
            zoned = (
                given.dt.convert_time_zone("UTC") if given.dtype.time_zone else given.dt.replace_time_zone("UTC")
            )
            times = zoned.dt.cast_time_unit("us")
        else:
            times = parse_timestamp(texts)
        if needed:
            self.refuse(texts.is_null(), field, lambda _: "is empty: every row needs one")
        self.refuse(
            times.is_null() & texts.is_not_null(),
            field,
            lambda at: f"is {texts[at]!r}, which is no time: write ISO 8601, like 2026-01-31T08:00:00Z",
        )
        return times


def _is_path_table(rows: _Rows, columns: Columns) -> bool:
    named = {field.name for field in fields(columns) if getattr(columns, field.name) is not None}
    of_paths = sorted(named & (_PATH_COLUMNS.keys() - _TOUCH_COLUMNS.keys()))
    of_touches = sorted(named & (_TOUCH_COLUMNS.keys() - _PATH_COLUMNS.keys()))
    if of_paths and of_touches:
        raise AttributionError(
            f"--{of_paths[0]} names a column of a path table and --{of_touches[0]} of a touch table: choose one"
        )
    if of_paths or of_touches:
        return bool(of_paths)
    return rows.find("path", _PATH_COLUMNS["path"], None) is not None


def _find(rows: _Rows, columns: Columns, usual: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    found = {field: rows.find(field, names, getattr(columns, field)) for field, names in usual.items()}
    missing = [field for field in usual if field in _NEEDED and found[field] is None]
    if missing:
        raise AttributionError(
            f"{rows.name}: no column for {' and '.join(missing)} among {listed(rows.columns)}: {_SHAPES}"
        )
    return {field: column for field, column in found.items() if column is not None}


# --- Path tables ------------------------------------------------------------------------------------------


def _read_paths(rows: _Rows, columns: Columns, separator: str) -> Journeys:
    """Read paths and add up equal ones, in order of path: the order of rows makes no difference."""
    if not separator.strip():
        raise AttributionError("the separator is blank: give what stands between channels, like '>'")
    names = _find(rows, columns, _PATH_COLUMNS)
    texts = rows.needed_text(names["path"])
    rows.refuse(
        texts.str.starts_with('["'), names["path"], lambda _: f"is a list: write it as text, like a {separator} b"
    )
    conversions = rows.number(names["conversions"])
    value = rows.number(names["value"]) if "value" in names else conversions * 0
    nulls = rows.number(names["null"]) if "null" in names else conversions * 0
    if "value" in names:
        rows.refuse(
            (value > 0) & (conversions == 0),
            names["value"],
            lambda at: f"is {value[at]:g} where {names['conversions']} is 0: a value needs a conversion",
        )
    counts = {"conversions": conversions, "value": value, "nulls": nulls}
    mark = separator.strip()
    sums = [pl.col(list(counts)).sum()]
    frame = pl.DataFrame({"path": texts, **counts}).group_by("path").agg(sums)  # fewer texts to look into
    plain = frame["path"].str.replace_all(rf"\s*{pl.escape_regex(mark)}\s*", mark)
    gaps = plain.str.starts_with(mark) | plain.str.ends_with(mark) | plain.str.contains(mark * 2, literal=True)
    rows.refuse(
        texts.is_in(frame["path"].filter(gaps).implode()),
        names["path"],
        lambda at: f"is {texts[at]!r}, which has an empty part: write a channel on each side of {mark!r}",
    )
    frame = frame.with_columns(plain.alias("path")).group_by("path").agg(sums).sort("path")
    if not frame["conversions"].sum() > 0:
        raise AttributionError(f"{rows.name}: {_NO_CONVERSION}")
    parts = frame["path"].str.split(mark)
    paths = Paths.of(
        parts.explode(),
        parts.list.len().to_numpy(),
        conversions=frame["conversions"].to_numpy(),
        value=frame["value"].to_numpy(),
        nulls=frame["nulls"].to_numpy(),
    )
    single = (
        f"no path holds the separator {mark!r}: each is taken as one channel; if that is wrong, give --separator"
    )
    notes = () if len(paths.steps) > len(paths) else (single,)
    return Journeys(rows.name, paths, has_value="value" in names, notes=notes)


# --- Touch tables -----------------------------------------------------------------------------------------


def _read_touches(rows: _Rows, columns: Columns, per: str | None, lookback: float | None) -> Journeys:
    names = _find(rows, columns, _TOUCH_COLUMNS)
    frame = pl.DataFrame(
        {
            "at": pl.int_range(rows.frame.height, eager=True),
            "journey": in_order(rows.needed_text(names["journey"])),
            "channel": in_order(rows.text(names["channel"])),
            "time": rows.time(names["time"]),
            "converted": rows.number(names["converted"], empty=0, truth=True) if "converted" in names else None,
            "converted_at": rows.time(names["converted_at"], needed=False) if "converted_at" in names else None,
            "value": rows.number(names["value"], empty=0) if "value" in names else 0.0,
        },
        schema_overrides={"converted": pl.Float64, "converted_at": pl.Datetime("us", "UTC")},
    )
    notes: list[str] = []
    if _grain(rows, frame, names, per) == "row":
        touches, outcomes = _per_row(rows, frame, names, notes)
    else:
        touches, outcomes = _per_journey(rows, frame, names, notes)
    return _journeys(rows.name, touches, outcomes, lookback, notes, has_value="value" in names)


def _grain(rows: _Rows, frame: pl.DataFrame, names: Mapping[str, str], per: str | None) -> str:
    """Say whether a row's flag is its own or its journey's.

    Raises:
        AttributionError: the rows do not tell.

    """
    if per == "row" and "converted" not in names:
        raise AttributionError(f"{rows.name}: --per row needs a flag a row: name its column with --converted")
    if per is not None:
        return per
    if "converted" not in names or "converted_at" in names:
        return "journey"
    flag = pl.col("converted") > 0
    flagged = frame.group_by("journey").agg(flag.any().alias("any"), flag.all().alias("all"), pl.len())
    flagged = flagged.filter("any")
    if flagged["all"].all() and (flagged["len"] > 1).any():
        raise AttributionError(
            f"{rows.name}: {names['converted']} is set on every row of each journey that converts: say "
            "--per journey if such a journey converts once, or --per row if each row is a conversion"
        )
    return "row"


# Both ways to read a touch table end in two frames: touches (journey, end, time, channel) in order, ``end`` being
# the time of the conversion that they lead to or null, and outcomes (journey, end, conversions, value), one for
# each time at which a journey converts. Touches of the same time are in order of channel, those that convert last.


def _per_row(
    rows: _Rows, frame: pl.DataFrame, names: Mapping[str, str], notes: list[str]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Cut journeys after each time at which they convert. A row that converts and has a channel is a touch too."""
    converts = frame["converted"] > 0
    rows.refuse(
        frame["channel"].is_null() & ~converts,
        names["channel"],
        lambda _: "is empty: only a row that converts can do without",
    )
    _refuse_value_of_nothing(rows, frame["value"], converts, names)
    frame = frame.sort("journey", "time", pl.col("converted") > 0, "channel").with_columns(
        end=pl.when(pl.col("converted") > 0).then("time").backward_fill().over("journey")
    )
    first = pl.col("time").filter(pl.col("channel").is_not_null()).min().over("journey")
    early = frame.filter((pl.col("converted") > 0) & (first.is_null() | (pl.col("time") < first)))
    _refuse_early(rows, early, names["channel"])
    outcomes = (
        frame.filter(pl.col("converted") > 0)
        .group_by("journey", "end")
        .agg(pl.col("converted").sum().alias("conversions"), pl.col("value").sum())
    )
    touches = frame.filter(pl.col("channel").is_not_null())
    after = touches.filter(
        pl.col("end").is_null() & pl.col("journey").is_in(outcomes["journey"].unique().implode())
    )
    if after.height:
        notes.append(
            f"{after.height:,} touches come after the last conversion of their journey: "
            f"{after['journey'].n_unique():,} further paths, not converted"
        )
    return touches, outcomes


def _per_journey(
    rows: _Rows, frame: pl.DataFrame, names: Mapping[str, str], notes: list[str]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Let each journey convert once, at its ``converted_at`` or at its last touch; later touches are left out."""
    rows.refuse(frame["channel"].is_null(), names["channel"], lambda _: "is empty: every row needs one")
    if "converted" not in names:
        if "converted_at" not in names:
            notes.append("no column says which journeys converted: each is taken to have converted once")
        flag = pl.col("converted_at").is_not_null() if "converted_at" in names else pl.lit(value=True)
        frame = frame.with_columns(converted=flag.cast(pl.Float64))
    for field in ("converted", "value", "converted_at"):
        if field in names:
            said = pl.col(field) if field == "converted_at" else pl.col(field).replace(0, None)
            rows.refuse(
                frame.select(said != said.max().over("journey")).to_series(),
                names[field],
                lambda at: (
                    f"differs from other rows of journey {frame['journey'][at]!r}: it is the whole journey's"
                ),
            )
    whole = pl.col("converted", "value", "converted_at").max().over("journey")
    frame = frame.with_columns(whole)
    converts = frame["converted"] > 0
    if "converted_at" in names:
        rows.refuse(
            frame["converted_at"].is_not_null() & ~converts,
            names["converted_at"],
            lambda _: f"is set and {names['converted']} is not: a journey either converts or does not",
        )
    _refuse_value_of_nothing(rows, frame["value"], converts, names)
    early = frame.filter(pl.col("converted_at") < pl.col("time").min().over("journey"))
    _refuse_early(rows, early, names["channel"])
    frame = frame.sort("journey", "time", "channel").with_columns(
        end=pl.when(pl.col("converted") > 0).then(
            pl.coalesce("converted_at", pl.col("time").max().over("journey"))
        )
    )
    outcomes = (
        frame.filter(pl.col("converted") > 0)
        .group_by("journey", "end")
        .agg(pl.col("converted").first().alias("conversions"), pl.col("value").first())
    )
    late = (pl.col("time") > pl.col("end")).fill_null(value=False)
    touches = frame.filter(~late)
    if touches.height < frame.height:
        notes.append(
            f"{frame.height - touches.height:,} touches after the conversion of their journey are left out"
        )
    return touches, outcomes


def _refuse_value_of_nothing(rows: _Rows, value: pl.Series, converts: pl.Series, names: Mapping[str, str]) -> None:
    if "value" in names:
        rows.refuse(
            (value > 0) & ~converts,
            names["value"],
            lambda at: (
                f"is {value[at]:g} where nothing converts: a value needs a conversion "
                "(--per journey if flag and value are those of the whole journey)"
            ),
        )


def _refuse_early(rows: _Rows, early: pl.DataFrame, field: str) -> None:
    rows.refuse(
        rows.frame.select(pl.int_range(pl.len()).is_in(early["at"].implode())).to_series(),
        field,
        lambda _: (
            "has no touch up to this conversion in the whole journey: add the touch, name a channel on the row "
            "that converts (such as direct), or take the row out"
        ),
    )


def _journeys(
    name: str,
    touches: pl.DataFrame,
    outcomes: pl.DataFrame,
    lookback: float | None,
    notes: list[str],
    *,
    has_value: bool,
) -> Journeys:
    """Make a path of each journey's touches up to each end; one that does not convert ends with its last touch."""
    end = pl.coalesce("end", pl.col("time").max().over("journey", "end"))
    touches = touches.with_columns(age=(end - pl.col("time")).dt.total_microseconds() / _DAY)
    if lookback is not None:
        recent = touches.filter(pl.col("age") <= lookback)
        if recent.height < touches.height:
            notes.append(
                f"{touches.height - recent.height:,} touches are older than {lookback:g} days and left out"
            )
        touches = recent
    key = ["journey", "end"]
    groups = touches.group_by(key, maintain_order=True).len()
    groups = groups.join(outcomes, on=key, how="left", maintain_order="left")
    lost = outcomes.join(groups, on=key, how="anti")
    if not groups["conversions"].sum() > 0:
        raise AttributionError(f"{name}: {_NO_CONVERSION}")
    if lost.height:
        notes.append(
            f"{lost['conversions'].sum():,g} conversions have no touch since the one before, or in the lookback: "
            "they are unattributed"
        )
    paths = Paths.of(
        touches["channel"],
        groups["len"].to_numpy(),
        conversions=groups["conversions"].fill_null(0).to_numpy(),
        value=groups["value"].fill_null(0).to_numpy(),
        nulls=groups["conversions"].is_null().to_numpy(),
        ages=touches["age"].to_numpy(),
    )
    return Journeys(
        name,
        paths,
        has_value=has_value,
        unattributed_conversions=float(lost["conversions"].sum()),
        unattributed_value=float(lost["value"].sum()),
        notes=tuple(notes),
    )

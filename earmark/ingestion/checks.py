"""From text to typed rows: what each kind of field takes, and why a row is refused.

Everything works on whole columns. A row is refused for the first of its faults, in the order of the dataset's
fields; rows that pass hold nothing that the tables would refuse. Where rows come from is not here (``formats``,
``sources``), nor where they go (``load``).
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

import orjson
import polars as pl

from earmark.addresses.emails import sha256_of_email
from earmark.ingestion.datasets import Dataset, Field, Kind
from earmark.ingestion.errors import AmountsUnknownError
from earmark.ingestion.formats import LINE, MAX_TEXT, Reject
from earmark.ingestion.values import BLANKS, DIGITS_LOST, Amounts, id_text, plain_amounts, tidy

EARLIEST: Final = date(2004, 1, 1)  # podcasts are not older
LATEST_AHEAD: Final = timedelta(days=1)  # clocks differ, a day at most
_SHOWN: Final = 120  # characters of a value that a message quotes

_TYPES: Final[dict[Kind, pl.DataType]] = {
    Kind.TIMESTAMP: pl.Datetime("us", "UTC"),
    Kind.DATE: pl.Date(),
    Kind.INTEGER: pl.Int64(),
    Kind.NUMBER: pl.Float64(),
}

# A source says of a row that it cannot be read at all in these columns.
PROBLEM: Final = "_problem"

_ALLOWED: Final[dict[Kind, str]] = {
    Kind.TIMESTAMP: "ISO 8601 such as 2024-05-01T12:00:00Z (without an offset it is read as UTC)",
    Kind.DATE: "a day such as 2024-05-01",
    Kind.INTEGER: "a whole number of at most 18 digits",
    Kind.NUMBER: "a finite number",
    Kind.DECIMAL: "an amount such as 12.50",
    Kind.BOOLEAN: "true/false, t/f, yes/no, y/n or 1/0",
    Kind.CURRENCY: "three letters as in ISO 4217",
    Kind.SHA256: "64 hexadecimal digits (the sha256 of the value)",
    Kind.LIST: "a JSON array of text, or text parted by |",
    Kind.JSON: "a JSON object that holds no NUL",
}

_AMOUNTS: Final[dict[Amounts, str]] = {
    Amounts.POINT: "The file writes decimal points",
    Amounts.COMMA: "The file writes decimal commas",
    Amounts.MIXED: "The file writes decimal commas and points, so that neither 1,234 nor 1.234 tells what it is: "
    "write all amounts in one way",
    Amounts.UNKNOWN: "Nothing in the file tells whether its commas are decimal ones: write 1234.00 or 1.234",
}
_TIME_FORMATS: Final = (
    ("%Y-%m-%dT%H:%M:%S%.fZ", False),
    ("%Y-%m-%dT%H:%M:%S%.f%#z", True),
    ("%Y-%m-%dT%H:%M:%S%.f", False),
    ("%Y-%m-%d", False),
    ("%Y-%m-%dT%H:%MZ", False),
    ("%Y-%m-%dT%H:%M%#z", True),
    ("%Y-%m-%dT%H:%M", False),
)
_LAST_YEAR: Final = 9999
_TRUTH: Final = {
    **dict.fromkeys(("true", "t", "yes", "y", "1"), "true"),
    **dict.fromkeys(("false", "f", "no", "n", "0"), "false"),
}


@dataclass(frozen=True, slots=True)
class Rule:
    """What the table asks of a row beyond the kind of each field. ``fails`` is true where a row breaks it."""

    field: str
    reason: str
    detail: str
    fails: pl.Expr


def _outside(name: str, low: float, high: float) -> pl.Expr:
    return ~pl.col(name).is_between(low, high)


_ACTIONS: Final = "view|signup|lead|purchase|install|offline_purchase"
_QUARTILES: Final = (0, 25, 50, 75, 100)
RULES: Final[dict[str, tuple[Rule, ...]]] = {
    "listener_events": (
        Rule("status", "out_of_range", "0 to 999 is allowed", _outside("status", 0, 999)),
        Rule(
            "quartile",
            "not_in_choices",
            f"allowed are {', '.join(map(str, _QUARTILES))}",
            ~pl.col("quartile").is_in(_QUARTILES),
        ),
    ),
    "episodes": (
        Rule("duration_seconds", "negative", "0 or more is allowed", pl.col("duration_seconds") < 0),
        Rule("bitrate_bps", "out_of_range", "more than 0 is allowed", pl.col("bitrate_bps") <= 0),
    ),
    "campaigns": (
        Rule(
            "ends_at", "out_of_range", "later than starts_at is allowed", pl.col("ends_at") <= pl.col("starts_at")
        ),
        Rule(
            "lookback_days",
            "out_of_range",
            "more than 0 and at most 90 is allowed",
            (pl.col("lookback_days") <= 0) | (pl.col("lookback_days") > 90),
        ),
        Rule(
            "conversion_actions",
            "not_in_choices",
            f"allowed are: {_ACTIONS.replace('|', ', ')}",
            ~pl.col("conversion_actions").str.contains(rf'^\{{(?:"(?:{_ACTIONS})",?)+\}}$'),
        ),
    ),
    "insertion_orders": (
        Rule("cpm", "negative", "0 or more is allowed", pl.col("cpm").str.starts_with("-")),
        Rule(
            "ends_on", "out_of_range", "not before starts_on is allowed", pl.col("ends_on") < pl.col("starts_on")
        ),
    ),
    "ad_units": (
        Rule("starts_at_second", "negative", "0 or more is allowed", pl.col("starts_at_second") < 0),
        Rule("duration_seconds", "out_of_range", "more than 0 is allowed", pl.col("duration_seconds") <= 0),
        Rule(
            "episode_id",
            "missing",
            "an ad that is baked in (delivery baked_in) must say into which episode",
            (pl.col("delivery") == "baked_in") & pl.col("episode_id").is_null(),
        ),
    ),
}


_Check = tuple[pl.Series, Callable[[int], Reject]]


def check(
    dataset: Dataset,
    frame: pl.DataFrame,
    now: datetime | None = None,
    *,
    text_is_sound: bool = False,
    amounts: Amounts | None = None,
) -> tuple[pl.DataFrame, list[Reject]]:
    """Type the columns of a frame and part the rows that pass from those that do not.

    ``frame`` has ``_line`` and columns named as the dataset's fields, of text or, from Parquet, of the type
    itself. The answer keeps every other column as it is. ``now`` is what times may lie at most a day after.
    ``text_is_sound`` says that the reader has seen to it that no text holds a NUL or is too long. ``amounts`` is
    how the file writes them; None: not looked at, as none holds a comma.

    Raises:
        AmountsUnknownError: one does.

    """
    now = now or datetime.now(UTC)
    typed: list[pl.Series] = []
    checks: list[tuple[pl.Series, Callable[[int], Reject]]] = []
    lines = frame[LINE]
    if PROBLEM in frame.columns:
        problems = frame[PROBLEM]
        checks.append((problems.is_not_null(), lambda at: Reject(lines[at], None, "not_readable", problems[at])))
    for field in dataset.fields:
        if field.derived:
            continue
        column, more = _field(
            field,
            frame,
            now,
            is_time=field.name == dataset.time,
            sound=text_is_sound,
            reads=_reader(dataset, amounts),
        )
        typed.append(column)
        checks += more
    if "_bad_ip" in frame.columns:
        checks.append(
            (
                frame["_bad_ip"],
                lambda at: Reject(lines[at], "ip", "not_an_address", "ip holds no IPv4 or IPv6 address"),
            )
        )
    result = frame.with_columns(typed)
    checks += [_any_of(group, result) for group in dataset.any_of]
    for rule in RULES.get(dataset.name, ()):
        broken = result.select(rule.fails.fill_null(value=False)).to_series()
        checks.append((broken, _rule_reject(rule, result)))
    return _part(result, checks)


def _part(frame: pl.DataFrame, checks: Sequence[_Check]) -> tuple[pl.DataFrame, list[Reject]]:
    failing = [(mask, reject) for mask, reject in checks if mask.any()]
    if not failing:
        return frame, []
    refused: dict[int, Reject] = {}
    for mask, reject in failing:
        for at in mask.arg_true().to_list():
            if at not in refused:
                refused[at] = reject(at)
    keep = pl.Series([True] * frame.height).scatter(list(refused), values=False)
    return frame.filter(keep), [refused[at] for at in sorted(refused)]


def _any_of(group: tuple[str, ...], frame: pl.DataFrame) -> _Check:
    none = frame.select(pl.all_horizontal(pl.col(name).is_null() for name in group)).to_series()
    detail = f"at least one of {', '.join(group)} is needed"
    return none, lambda at: Reject(frame[LINE][at], group[0], "missing", detail)


def _rule_reject(rule: Rule, frame: pl.DataFrame) -> Callable[[int], Reject]:
    def reject(at: int) -> Reject:
        value = frame[rule.field][at]
        held = "is missing" if value is None else f"is {_shown(str(value))}"
        return Reject(frame[LINE][at], rule.field, rule.reason, f"{rule.field} {held}: {rule.detail}")

    return reject


def _field(
    field: Field, frame: pl.DataFrame, now: datetime, *, is_time: bool, sound: bool, reads: "_Reads"
) -> tuple[pl.Series, list[_Check]]:
    """Return the typed column of a field and the checks on it."""
    lines = frame[LINE]
    name = field.name
    if name not in frame.columns and not field.required and field.default is None:
        # Nothing to check; the type is what the rules of a dataset compare.
        return pl.Series(name, [None], dtype=_TYPES.get(field.kind, pl.String)).new_from_index(0, frame.height), []
    if name not in frame.columns:
        given = pl.Series(name, [None], dtype=pl.String).new_from_index(0, frame.height)
    else:
        given = _as_given(frame[name], field)
    checks: list[_Check] = []
    written: pl.Series | None = None
    if given.dtype == pl.String and not sound:
        checks += _text_checks(name, given, lines)
    if field.is_id and given.dtype == pl.String:
        checks += _digits_check(name, given, lines)
    detail = f"allowed is {_ALLOWED.get(field.kind, 'text')}"
    if field.is_amount and given.dtype == pl.String:
        plain, hint = reads(given)
        if plain is not given:
            written, given = given, plain
        detail += hint
    filled = given if field.default is None else given.fill_null(field.default)
    written = filled if written is None else written
    column = _PARSERS[field.kind](filled) if field.kind in _PARSERS else filled
    if field.required:
        checks.append(
            (given.is_null(), lambda at: Reject(lines[at], name, "missing", f"{name} is missing or empty"))
        )
    if field.kind in _PARSERS:
        unread = column.is_null() & filled.is_not_null()
        checks.append(
            (
                unread,
                lambda at: Reject(
                    lines[at], name, f"not_{field.kind}", f"{name} is {_shown(str(written[at]))}: {detail}"
                ),
            )
        )
    if field.choices:
        if not column.is_in(field.choices).all():
            column = column.str.strip_chars(BLANKS)
        choices = ", ".join(field.choices)
        checks.append(
            (
                ~column.is_in(field.choices).fill_null(value=True),
                lambda at: Reject(
                    lines[at],
                    name,
                    "not_in_choices",
                    f"{name} is {_shown(str(filled[at]))}: allowed are {choices}",
                ),
            )
        )
    checks += _range_checks(field, column, lines, now, is_time=is_time)
    return column.alias(name), checks


def _as_given(column: pl.Series, field: Field) -> pl.Series:
    """Return a column as text with empty text as null; times and numbers of Parquet keep their type."""
    if field.is_id and column.dtype != pl.String:
        column = id_text(column)
    if column.dtype == pl.String and field.is_end:
        column = _day_ends(column)
    if column.dtype == pl.String and (field.is_id or field.is_trimmed):
        return tidy(column, is_id=field.is_id, prefix=field.prefix)
    if column.dtype == pl.String:
        empty = column.len() and bool((column == "").any())
        return column.set(column == "", None) if empty else column
    if isinstance(column.dtype, pl.Datetime) and field.kind is Kind.TIMESTAMP:
        column = (
            column.dt.convert_time_zone("UTC") if column.dtype.time_zone else column.dt.replace_time_zone("UTC")
        )
        return column.dt.cast_time_unit("us")
    if column.dtype == pl.Date and field.is_end:
        return column.dt.offset_by("1d").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    if isinstance(column.dtype, pl.Datetime) and field.kind is Kind.DATE and column.dtype.time_zone:
        column = column.dt.convert_time_zone("UTC")
    if column.dtype.is_integer() and field.kind is Kind.INTEGER:
        return column.cast(pl.Int64, strict=False)
    if column.dtype == pl.Date and field.kind is Kind.DATE:
        return column
    return column.cast(pl.String)


_Reads = Callable[[pl.Series], tuple[pl.Series, str]]


def _reader(dataset: Dataset, amounts: Amounts | None) -> _Reads:
    """Return what writes the file's amounts in one way, and adds to the message about one that it cannot."""

    def read(given: pl.Series) -> tuple[pl.Series, str]:
        if amounts is not None and dataset.has_amounts:
            return plain_amounts(given, amounts), f". {_AMOUNTS[amounts]}"
        if dataset.has_amounts and given.str.contains(",", literal=True).any():
            raise AmountsUnknownError(f"{given.name} holds a comma")
        return given, ""

    return read


def _day_ends(column: pl.Series) -> pl.Series:
    """Write a bare day as the midnight that ends it."""
    texts = column.str.strip_chars(BLANKS)
    days = texts.set(~texts.str.contains(r"^\d{4}-\d{2}-\d{2}$"), None).str.to_date("%Y-%m-%d", strict=False)
    at = (days.is_not_null() & (days.dt.year() < _LAST_YEAR)).fill_null(value=False)
    if not at.any():
        return column
    ends = days.filter(at).dt.offset_by("1d").dt.to_string("%Y-%m-%dT00:00:00Z")
    return column.scatter(at.arg_true(), ends)


def _digits_check(name: str, given: pl.Series, lines: pl.Series) -> list[_Check]:
    lost = given.drop_nulls().unique().str.contains(DIGITS_LOST)
    if not lost.any():
        return []
    return [
        (
            given.str.contains(DIGITS_LOST).fill_null(value=False),
            lambda at: Reject(
                lines[at],
                name,
                "digits_lost",
                f"{name} is {_shown(str(given[at]))}: a spreadsheet rounded it, and the id cannot be told. Give "
                "the column the format Text and export it again",
            ),
        )
    ]


def _text_checks(name: str, given: pl.Series, lines: pl.Series) -> list[_Check]:
    sizes = given.str.len_bytes()
    checks: list[_Check] = []
    largest = sizes.max()
    if isinstance(largest, int) and largest > MAX_TEXT:
        checks.append(
            (
                (sizes > MAX_TEXT).fill_null(value=False),
                lambda at: Reject(
                    lines[at], name, "too_long", f"{name} is {sizes[at]} bytes long: {MAX_TEXT} are allowed"
                ),
            )
        )
    if (holds := given.str.contains("\0", literal=True).fill_null(value=False)).any():
        checks.append((holds, lambda at: Reject(lines[at], name, "nul", f"{name} holds a NUL, which text cannot")))
    return checks


def _range_checks(
    field: Field, column: pl.Series, lines: pl.Series, now: datetime, *, is_time: bool
) -> list[_Check]:
    name = field.name
    if field.kind is Kind.INTEGER:
        return [
            (
                (column < 0).fill_null(value=False),
                lambda at: Reject(lines[at], name, "negative", f"{name} is {column[at]}: 0 or more is allowed"),
            )
        ]
    if field.kind not in (Kind.TIMESTAMP, Kind.DATE):
        return []
    # Only when something happened is bounded on both sides; a flight may well begin next year.
    earliest = EARLIEST if is_time or field.kind is Kind.DATE or name != "published_at" else date(1970, 1, 1)
    until = (now + LATEST_AHEAD) if is_time else datetime(2100, 1, 1, tzinfo=UTC)
    if field.kind is Kind.DATE:
        outside = (column < earliest) | (column > until.date())
    else:
        start = datetime(earliest.year, earliest.month, earliest.day, tzinfo=UTC)
        outside = (column < start) | (column > until)
    detail = f"allowed is {earliest} to {until:%Y-%m-%d %H:%M} UTC"
    return [
        (
            outside.fill_null(value=False),
            lambda at: Reject(
                lines[at], name, "time_out_of_range", f"{name} is {_shown(_iso(column, at))}: {detail}"
            ),
        )
    ]


def _iso(column: pl.Series, at: int) -> str:
    # A time may be beyond what Python's datetime holds.
    return str(column.slice(at, 1).cast(pl.String)[0])


def _shown(value: str) -> str:
    short = value if len(value) <= _SHOWN else value[:_SHOWN] + "..."
    return '"' + short.replace("\0", "\\0") + '"'


# --- Kinds: a column of text to a column of the type, null where the text is not of the kind ----------------


def parse_timestamp(column: pl.Series) -> pl.Series:
    """Read ISO 8601 times; microseconds, UTC."""
    if column.dtype != pl.String:
        return column
    result = _to_time(column, *_TIME_FORMATS[0])
    # A year of five digits is read too, and fits no column.
    result = result.set((result.dt.year() > _LAST_YEAR).fill_null(value=False), None)
    left = (result.is_null() & column.is_not_null()).arg_true()
    if left.is_empty():
        return result
    texts = column.gather(left).str.strip_chars(BLANKS).str.replace(r"^(\d{4}-\d{2}-\d{2}) +", "${1}T")
    texts = texts.str.replace(r"(T.*[+-]\d{2})$", "${1}00").str.replace(r" *(?:UTC|GMT|z)$", "Z")
    texts = texts.str.replace(r" +([+-]\d)", "${1}")
    texts = texts.set(~texts.str.contains(r"^\d{4}-\d{2}-\d{2}(?:T|$)"), None)
    found = pl.Series([None] * len(texts), dtype=result.dtype)
    for text_format, zoned in _TIME_FORMATS:
        open_ = found.is_null() & texts.is_not_null()
        if not open_.any():
            break
        found = found.zip_with(~open_, _to_time(texts, text_format, zoned))
    return result.scatter(left, found)


def _to_time(column: pl.Series, text_format: str, zoned: bool) -> pl.Series:
    if zoned:
        return column.str.to_datetime(text_format, strict=False, time_unit="us", time_zone="UTC")
    if "%H" not in text_format:
        return column.str.to_date(text_format, strict=False).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return column.str.to_datetime(text_format, strict=False, time_unit="us").dt.replace_time_zone("UTC")


def parse_date(column: pl.Series) -> pl.Series:
    """Read days; a time at midnight, as spreadsheets and Parquet write days, is its day."""
    if column.dtype == pl.Date:
        return column
    texts = column.str.strip_chars(BLANKS).str.replace(r"[T ]00:00(?::00(?:\.0+)?)?(?:Z|\+00:?00)?$", "")
    texts = texts.set(~texts.str.contains(r"^\d{4}-\d{2}-\d{2}$"), None)
    return texts.str.to_date("%Y-%m-%d", strict=False)


def parse_integer(column: pl.Series) -> pl.Series:
    """Read whole numbers; ``206.0``, as tools write whole numbers with gaps, is 206."""
    if column.dtype == pl.Int64:
        return column
    result = column.cast(pl.Int64, strict=False)
    if (result.is_null() & column.is_not_null()).any():
        result = column.str.strip_chars(BLANKS).str.replace(r"\.0+$", "").cast(pl.Int64, strict=False)
    return result


def parse_number(column: pl.Series) -> pl.Series:
    """Read finite numbers."""
    result = column.str.strip_chars(BLANKS).cast(pl.Float64, strict=False)
    return result.set(~result.is_finite(), None)


def parse_decimal(column: pl.Series) -> pl.Series:
    """Read amounts; they stay text, so that no digit is lost on the way to PostgreSQL's numeric."""
    texts = column.str.strip_chars(BLANKS)
    return texts.set(
        ~texts.str.contains(r"^[+-]?(?:\d{1,30}(?:\.\d{0,20})?|\.\d{1,20})(?:[eE][+-]?\d{1,2})?$"), None
    )


def parse_boolean(column: pl.Series) -> pl.Series:
    """Read truth values to ``true`` and ``false``."""
    return (
        column.str.strip_chars(BLANKS)
        .str.to_lowercase()
        .replace_strict(_TRUTH, default=None, return_dtype=pl.String)
    )


def parse_currency(column: pl.Series) -> pl.Series:
    """Read currency codes, in any case."""
    texts = column.str.strip_chars(BLANKS).str.to_uppercase()
    return texts.set(~texts.str.contains("^[A-Z]{3}$"), None)


def parse_sha256(column: pl.Series) -> pl.Series:
    """Read sha256 values to PostgreSQL's text form of bytea."""
    texts = column.str.strip_chars(BLANKS).str.to_lowercase()
    clear = texts.str.contains("@", literal=True).fill_null(value=False)
    if clear.any():
        # The address itself: what was to be given is made of it, and it is not kept.
        hashed = [sha256_of_email(text) for text in texts.filter(clear).to_list()]
        texts = texts.scatter(clear.arg_true(), pl.Series(hashed, dtype=pl.String))
    return ("\\x" + texts).set(~texts.str.contains("^[0-9a-f]{64}$"), None)


def parse_list(column: pl.Series) -> pl.Series:
    """Read lists of text to PostgreSQL's text form of an array."""
    values = column.drop_nulls().unique()
    arrays = pl.Series([_array(text) for text in values.to_list()], dtype=pl.String)
    if values.is_empty():
        return column.cast(pl.String)
    return column.replace_strict(values, arrays, return_dtype=pl.String)


def _array(text: str) -> str | None:
    if text.lstrip().startswith("["):
        try:
            items = orjson.loads(text)
        except orjson.JSONDecodeError:
            return None
        if not all(isinstance(item, str) for item in items):
            return None
    else:
        items = [item.strip() for item in text.strip().strip("{}").replace(",", "|").split("|") if item.strip()]
    if not items:
        return None
    quoted = ('"' + item.replace("\\", "\\\\").replace('"', '\\"') + '"' for item in items)
    return "{" + ",".join(quoted) + "}"


def parse_json(column: pl.Series) -> pl.Series:
    """Check that each text is a JSON object that jsonb takes: no NUL, no lone surrogate, no endless number."""
    present = column.drop_nulls()
    distinct = present.unique()
    if distinct.is_empty():
        return column
    odd = distinct.str.contains(r"\\u|[0-9.][eE][+-]?\d{5,}|^\s*$|\n|\r") | (
        distinct.str.count_matches(r"[\[{]") > _MAX_NESTING
    )
    simple = distinct.filter(~odd)
    try:
        checked = pl.read_ndjson("\n".join(simple.to_list()).encode(), schema={"": pl.String}).height
    except pl.exceptions.PolarsError:
        checked = -1
    suspects = distinct.filter(odd) if checked == len(simple) else distinct
    bad = [text for text in suspects.to_list() if not _is_jsonb_object(text)]
    return column.set(column.is_in(bad), None) if bad else column


_MAX_NESTING: Final = 500
_MAX_EXPONENT: Final = 100_000  # of PostgreSQL's numeric, which jsonb holds numbers as: 131,071 digits


def _is_jsonb_object(text: str) -> bool:
    try:
        value = orjson.loads(text)
        json.loads(text, parse_float=_bounded)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and "\\u0000" not in text.replace("\\\\", "")


def _bounded(number: str) -> float:
    _, _, exponent = number.lower().partition("e")
    if exponent and abs(int(exponent)) > _MAX_EXPONENT:
        raise ValueError("the number is too large for jsonb")
    return 0.0


_PARSERS: Final[dict[Kind, Callable[[pl.Series], pl.Series]]] = {
    Kind.TIMESTAMP: parse_timestamp,
    Kind.DATE: parse_date,
    Kind.INTEGER: parse_integer,
    Kind.NUMBER: parse_number,
    Kind.DECIMAL: parse_decimal,
    Kind.BOOLEAN: parse_boolean,
    Kind.CURRENCY: parse_currency,
    Kind.SHA256: parse_sha256,
    Kind.LIST: parse_list,
    Kind.JSON: parse_json,
}

"""What stands for the same value however a tool wrote it: spaces around it, ids that are none, commas in amounts.

Pure, on whole columns. What each kind of field takes beyond that is in ``checks``.
"""

import re
import sys
from enum import StrEnum
from typing import Final

import polars as pl

# Every kind of space, and what takes no room: zero width, joiners, marks of direction, the soft hyphen.
BLANKS: Final = "".join(chr(code) for code in range(sys.maxunicode + 1) if chr(code).isspace()) + (
    "\u00ad\u180e\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
)
_NO_ID: Final = frozenset(
    (
        *("null", "nan", "none", "undefined", "(not set)", "(none)", "(null)", "<na>", "n/a", "#n/a", ""),
        "00000000-0000-0000-0000-000000000000",
        "0" * 32,
    )
)
# A whole number that came through a column of floats: 1001.0.
_WHOLE: Final = r"^(-?[0-9]+)\.0+$"
# As spreadsheets write a number of many digits: those that they left out are gone.
DIGITS_LOST: Final = r"^[0-9](?:\.[0-9]+)?[eE]\+[0-9]+$"
# None of what is looked for, and what most event ids are: not all zero.
_PLAIN_UUID: Final = r"^[0-9a-f]{7}[1-9a-f]-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
_EXACT: Final = 2**53  # floats hold every whole number below it


def tidy(column: pl.Series, *, is_id: bool = False, prefix: str = "") -> pl.Series:
    """Trim text; of an id also make null what says that there is none, and of ``1001.0`` 1001.

    ``prefix`` is what may stand before an id without being part of it, such as the # of an order.
    """
    if is_id and column.len() and column.str.contains(_PLAIN_UUID).fill_null(value=False).all():
        return column
    distinct = column.drop_nulls().unique()
    trimmed = distinct.str.strip_chars(BLANKS)
    if is_id:
        if prefix:
            trimmed = trimmed.str.strip_prefix(prefix).str.strip_chars(BLANKS)
        trimmed = trimmed.str.replace(_WHOLE, "${1}")
        trimmed = trimmed.set(trimmed.str.to_lowercase().is_in(_NO_ID), None)
    else:
        trimmed = trimmed.set(trimmed == "", None)
    changed = trimmed.ne_missing(distinct)
    if not changed.any():
        return column
    old, new = distinct.filter(changed), trimmed.filter(changed)
    return column.replace(old, new)


def id_text(column: pl.Series) -> pl.Series:
    """Write ids that are numbers as text: whole ones without a point."""
    if not column.dtype.is_float():
        return column.cast(pl.String)
    whole = ((column == column.floor()) & (column.abs() < _EXACT)).fill_null(value=False)
    return (
        whole.to_frame("w")
        .select(
            pl.when("w")
            .then(column.cast(pl.Int64, strict=False).cast(pl.String))
            .otherwise(column.cast(pl.String))
        )
        .to_series()
        .alias(column.name)
    )


class Amounts(StrEnum):
    """How a file writes amounts."""

    POINT = "point"  # 1,234.50
    COMMA = "comma"  # 1.234,50
    MIXED = "mixed"  # both
    UNKNOWN = "unknown"  # 1,234 and nothing that tells what the comma is


_GROUP: Final = r"['\u2019 \u00a0\u202f]"


def _certain(mark: str, other: str) -> str:
    """Return the pattern of amounts in which ``mark`` can only be the decimal one."""
    m, o = re.escape(mark), re.escape(other)
    return (
        rf"^[+-]?(?:[0-9]{{1,3}}(?:(?:{o}|{_GROUP})[0-9]{{3}})+{m}[0-9]+|[0-9]+{m}(?:[0-9]{{1,2}}|[0-9]{{4,}})"
        rf"|0[0-9]*{m}[0-9]+|[0-9]{{4,}}{m}[0-9]+|{m}[0-9]+|[0-9]{{1,3}}(?:{o}[0-9]{{3}}){{2,}})$"
    )


def _form(mark: str, other: str) -> str:
    """Return the pattern of amounts whose decimal mark is ``mark``."""
    m, o = re.escape(mark), re.escape(other)
    return rf"^[+-]?(?:[0-9]+|[0-9]{{1,3}}(?:(?:{o}|{_GROUP})[0-9]{{3}})+)?(?:{m}[0-9]*)?$"


_POINT_CERTAIN: Final = _certain(".", ",")
_COMMA_CERTAIN: Final = _certain(",", ".")
_POINT_FORM: Final = _form(".", ",")
_COMMA_FORM: Final = _form(",", ".")


class Evidence:
    """What the amounts of a file tell about its decimal mark, block by block."""

    def __init__(self) -> None:
        self._point = self._comma = False

    def add(self, texts: pl.Series) -> None:
        """Look at a column of amounts."""
        distinct = texts.drop_nulls().unique().str.strip_chars(BLANKS)
        self._point = self._point or bool(distinct.str.contains(_POINT_CERTAIN).any())
        self._comma = self._comma or bool(distinct.str.contains(_COMMA_CERTAIN).any())

    def judge(self) -> Amounts:
        """Say how the file writes amounts."""
        match self._point, self._comma:
            case True, True:
                return Amounts.MIXED
            case True, False:
                return Amounts.POINT
            case False, True:
                return Amounts.COMMA
        return Amounts.UNKNOWN


def plain_amounts(texts: pl.Series, how: Amounts) -> pl.Series:
    """Write amounts with a point and without groups; what a file of that kind cannot mean stays as it is.

    Where the file does not tell, only amounts that tell it by themselves are changed; the others keep their comma,
    or get one in place of a point that may be of thousands, so that they are refused.
    """
    trimmed = texts.str.strip_chars(BLANKS)
    frame = pl.DataFrame({"t": trimmed})
    point = pl.col("t").str.replace_all(rf",|{_GROUP}", "")
    comma = pl.col("t").str.replace_all(rf"\.|{_GROUP}", "").str.replace(",", ".", literal=True)
    is_point, is_comma = pl.col("t").str.contains(_POINT_FORM), pl.col("t").str.contains(_COMMA_FORM)
    if how is Amounts.POINT:
        value = pl.when(is_point).then(point).otherwise("t")
    elif how is Amounts.COMMA:
        # A point where the file has commas and it is none of thousands: refused, not read as the other kind.
        odd = pl.col("t").str.replace(".", ",", literal=True)
        value = pl.when(is_comma).then(comma).otherwise(odd)
    else:
        unsure = pl.col("t").str.contains(r"^[+-]?[1-9][0-9]{0,2}\.[0-9]{3}$")
        value = (
            pl.when(pl.col("t").str.contains(_POINT_CERTAIN))
            .then(point)
            .when(pl.col("t").str.contains(_COMMA_CERTAIN))
            .then(comma)
            .when(unsure)
            .then(pl.col("t").str.replace(".", ",", literal=True))
            .otherwise("t")
        )
    return frame.select(value.alias(texts.name)).to_series()

"""Spans of days that were asked for: half-open, in UTC, of whole days. Pure functions; no database in here."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Self

from earmark.errors import EarmarkError

_DAY = timedelta(days=1)


class DaysError(EarmarkError, ValueError):
    """A span that means nothing: it ends before it starts, or its times have no zone."""


@dataclass(frozen=True, slots=True, order=True)
class Days:
    """A half-open span of event time, ``[start, end)``, both in UTC."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        for name, at in (("start", self.start), ("end", self.end)):
            if at.utcoffset() is None:
                raise DaysError(
                    f"the span's {name} {at.isoformat()} has no time zone: write it like "
                    f"{at.replace(tzinfo=None).isoformat()}Z"
                )
        if self.start >= self.end:
            raise DaysError(
                f"the span starts at {self.start.isoformat()} and ends at {self.end.isoformat()}: "
                "the end is not in the span and must come after the start"
            )

    @classmethod
    def parse(cls, start: str, end: str) -> Self:
        """Read two ISO 8601 times; a bare date is midnight UTC.

        Raises:
            DaysError: a text is no time, has no zone, or the end is not after the start.

        """
        return cls(_parse_time("start", start), _parse_time("end", end))

    @classmethod
    def of_days(cls, first: date, last: date) -> Self:
        """Return the span of whole UTC days from ``first`` to ``last``, both included."""
        return cls(_midnight(first), _midnight(last) + _DAY)

    def as_vars(self) -> list[str]:
        """Return the pair of texts that the dbt variable ``days`` holds."""
        return [_iso(self.start), _iso(self.end)]

    def __str__(self) -> str:
        """Show the days, as people read them."""
        days = (self.end - self.start) // _DAY
        if self.start == _midnight(self.start.date()) and self.end == self.start + days * _DAY:
            last = (self.end - _DAY).date()
            return str(last) if days == 1 else f"{self.start.date()} to {last}"
        return f"{_iso(self.start)} to {_iso(self.end)}"


def merge_days(days: Iterable[date]) -> list[Days]:
    """Return the fewest spans that hold exactly these UTC days, in order."""
    spans: list[Days] = []
    for day in sorted(set(days)):
        span = Days.of_days(day, day)
        if spans and spans[-1].end == span.start:
            spans[-1] = Days(spans[-1].start, span.end)
        else:
            spans.append(span)
    return spans


def _parse_time(name: str, text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise DaysError(
            f"the span's {name} {text!r} is no time: write it like 2026-01-31 or 2026-01-31T00:00:00Z"
        ) from None
    if len(text) == len("2026-01-31"):
        at = at.replace(tzinfo=UTC)
    return at if at.utcoffset() is None else at.astimezone(UTC)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), tzinfo=UTC)


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")

"""Windows of event time: half-open, in UTC, made of whole days. Pure functions; no database in here."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Self

from earmark.errors import EarmarkError

_DAY = timedelta(days=1)


class WindowError(EarmarkError, ValueError):
    """A window that means nothing: it ends before it starts, or its times have no zone."""


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """A half-open window of event time, ``[start, end)``, both in UTC."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        for name, at in (("start", self.start), ("end", self.end)):
            if at.utcoffset() is None:
                raise WindowError(
                    f"the window's {name} {at.isoformat()} has no time zone: write it like "
                    f"{at.replace(tzinfo=None).isoformat()}Z"
                )
        if self.start >= self.end:
            raise WindowError(
                f"the window starts at {self.start.isoformat()} and ends at {self.end.isoformat()}: "
                "the end is not in the window and must come after the start"
            )

    @classmethod
    def parse(cls, start: str, end: str) -> Self:
        """Read two ISO 8601 times; a bare date is midnight UTC.

        Raises:
            WindowError: a text is no time, has no zone, or the end is not after the start.

        """
        return cls(_parse_time("start", start), _parse_time("end", end))

    @classmethod
    def of_days(cls, first: date, last: date) -> Self:
        """Return the window of whole UTC days from ``first`` to ``last``, both included."""
        return cls(_midnight(first), _midnight(last) + _DAY)

    def as_vars(self) -> list[str]:
        """Return the pair of texts that the dbt variable ``windows`` holds."""
        return [_iso(self.start), _iso(self.end)]

    def __str__(self) -> str:
        """Show the days, as people read them."""
        days = (self.end - self.start) // _DAY
        if self.start == _midnight(self.start.date()) and self.end == self.start + days * _DAY:
            last = (self.end - _DAY).date()
            return str(last) if days == 1 else f"{self.start.date()} to {last}"
        return f"{_iso(self.start)} to {_iso(self.end)}"


def merge_days(days: Iterable[date]) -> list[Window]:
    """Return the fewest windows that hold exactly these UTC days, in order."""
    windows: list[Window] = []
    for day in sorted(set(days)):
        window = Window.of_days(day, day)
        if windows and windows[-1].end == window.start:
            windows[-1] = Window(windows[-1].start, window.end)
        else:
            windows.append(window)
    return windows


def _parse_time(name: str, text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise WindowError(
            f"the window's {name} {text!r} is no time: write it like 2026-01-31 or 2026-01-31T00:00:00Z"
        ) from None
    if len(text) == len("2026-01-31"):
        at = at.replace(tzinfo=UTC)
    return at if at.utcoffset() is None else at.astimezone(UTC)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), tzinfo=UTC)


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")

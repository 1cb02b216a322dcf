"""The rules by which a request is discarded, in words and in their order: ``seeds/counting_rules.csv``.

What they do is in ``models/requests/int_requests__outcomes.sql``. Source: IAB Tech Lab Podcast Technical
Measurement Guidelines v2.3, except where a rule says that it is ours.
"""

import csv
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Final

from earmark.settings import PROJECT_ROOT

SEED: Final = PROJECT_ROOT / "seeds" / "counting_rules.csv"
COUNTED: Final = "counted"


class Stage(StrEnum):
    """The sections of the document that the rules stand in; their order is that of the rules."""

    FILTER = "filter"
    THRESHOLD = "threshold"
    UNIQUES = "uniques"


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: its reason code, what it discards, whose it is, and the settings that it goes by."""

    code: str
    title: str
    text: str
    stage: Stage
    source: str
    settings: tuple[str, ...]


@cache
def rules() -> tuple[Rule, ...]:
    """Return the rules in their order."""
    with SEED.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["code"] != COUNTED]
    return tuple(
        Rule(
            row["code"],
            row["title"],
            row["text"],
            Stage(row["stage"]),
            row["source"],
            tuple(row["settings"].split()),
        )
        for row in rows
    )

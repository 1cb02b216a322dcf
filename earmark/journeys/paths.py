"""Paths in memory: touches in order, how often each path converted and how often not, and how to shorten paths.

How files become paths is not here (``reading``), nor how conversions are credited (``models``, ``markov``).
The marts shorten and credit paths in SQL (``dbt_project/macros/domain/attribution.sql``): what analytics engineers
edit, and late rows refresh a part of. ``earmark attribute`` does it in memory, without a database. A test holds
the two against each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from earmark.journeys.errors import AttributionError

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Truths = npt.NDArray[np.bool_]

TRANSFORMS = ("collapse", "first", "distinct", "drop:CHANNEL")


@dataclass(frozen=True)
class Paths:
    """Paths, the touches of all of them in one array. No path is empty; equal paths may be there more than once.

    Attributes:
        channels: names in order of name, also those that no touch is left of.
        steps: the channel of each touch, an index of ``channels``; one path after the other.
        starts: where each path starts in ``steps``, and at the end how many touches there are.
        conversions: of each path, 0 or more.
        value: of all conversions of each path together; 0 where it has no conversion.
        nulls: how often each path ended without a conversion.
        ages: days from each touch to the end of its path, None where times are not known.

    """

    channels: tuple[str, ...]
    steps: Integers
    starts: Integers
    conversions: Floats
    value: Floats
    nulls: Floats
    ages: Floats | None = None

    @classmethod
    def of(
        cls,
        channels: pl.Series,
        lengths: npt.ArrayLike,
        *,
        conversions: npt.ArrayLike,
        value: npt.ArrayLike | None = None,
        nulls: npt.ArrayLike | None = None,
        ages: npt.ArrayLike | None = None,
    ) -> "Paths":
        """Make paths from the channel of each touch, path after path, and the lengths (1 or more) of the paths.

        Value and nulls are 0 where they are not given.
        """
        names = in_order(channels)
        starts = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
        none = np.zeros(len(starts) - 1)
        return cls(
            channels=tuple(names.unique().sort().cast(pl.String)),
            steps=names.to_physical().to_numpy().astype(np.int64),
            starts=starts,
            conversions=np.asarray(conversions, dtype=np.float64),
            value=none if value is None else np.asarray(value, dtype=np.float64),
            nulls=none if nulls is None else np.asarray(nulls, dtype=np.float64),
            ages=None if ages is None else np.asarray(ages, dtype=np.float64),
        )

    def __len__(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def lengths(self) -> Integers:
        """How many touches each path has."""
        return np.diff(self.starts)

    @cached_property
    def owner(self) -> Integers:
        """Which path each touch is of."""
        return np.repeat(np.arange(len(self)), self.lengths)

    @cached_property
    def position(self) -> Integers:
        """How many touches of its path come before each touch."""
        return np.arange(len(self.steps)) - self.starts[self.owner]

    def without_nulls(self) -> "Paths":
        """Forget that paths ended without a conversion."""
        return replace(self, nulls=np.zeros(len(self)))

    def transformed(self, transforms: Sequence[str]) -> "Paths":
        """Shorten every path by each of ``TRANSFORMS`` in turn. Conversions, value and nulls stay with their path.

        - ``collapse``: of touches of one channel in a row, the first stays.
        - ``first``: of each channel its first touch stays.
        - ``distinct``: the same, then in order of name: the set of channels, whatever order they came in.
        - ``drop:CHANNEL``: touches of the channel go, but for paths that have no other.

        Raises:
            AttributionError: there is no such transform or channel.

        """
        paths = self
        for transform in transforms:
            name, _, channel = transform.partition(":")
            if transform == "collapse":
                paths = paths._collapsed()
            elif transform in ("first", "distinct"):
                paths = paths._once(by_name=transform == "distinct")
            elif name == "drop" and channel:
                paths = paths._without(channel)
            else:
                raise AttributionError(f"there is no transform {transform!r}: choose from {', '.join(TRANSFORMS)}")
        return paths

    def index(self, channel: str) -> int:
        """Return the index of a channel.

        Raises:
            AttributionError: there is no such channel.

        """
        if channel not in self.channels:
            raise AttributionError(f"there is no channel {channel!r}: the channels are {listed(self.channels)}")
        return self.channels.index(channel)

    def _collapsed(self) -> "Paths":
        repeats = np.diff(self.steps, prepend=-1) == 0
        return self._keep(np.flatnonzero(~repeats | (self.position == 0)))

    def _once(self, *, by_name: bool) -> "Paths":
        touches = np.unique(self.owner * len(self.channels) + self.steps, return_index=True)[1]
        return self._keep(touches if by_name else np.sort(touches))

    def _without(self, channel: str) -> "Paths":
        others = self.steps != self.index(channel)
        alone = ~np.logical_or.reduceat(others, self.starts[:-1])
        return self._keep(np.flatnonzero(others | alone[self.owner]))

    def _keep(self, touches: Integers) -> "Paths":
        """Keep these touches, in this order; each path keeps at least one, and they stay together."""
        lengths = np.bincount(self.owner[touches], minlength=len(self))
        return replace(
            self,
            steps=self.steps[touches],
            starts=np.concatenate(([0], np.cumsum(lengths))),
            ages=None if self.ages is None else self.ages[touches],
        )


def in_order(names: pl.Series) -> pl.Series:
    """Return names as numbers behind the scenes, in order of name: sorted and grouped many times faster."""
    return names.cast(pl.Enum(names.drop_nulls().unique().cast(pl.String).sort()))


def listed(names: Sequence[str], most: int = 12) -> str:
    """Return names as a sentence holds them, the first ones where there are many."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")

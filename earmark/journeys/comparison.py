"""All models on the same paths: which are asked for, with which settings, their credit and its interval."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from earmark.journeys import models
from earmark.journeys.errors import AttributionError
from earmark.journeys.markov import Chain
from earmark.journeys.paths import Floats, Paths, listed
from earmark.journeys.reading import Journeys

MODELS = (
    *("first_touch", "last_touch", "last_non_direct", "linear", "position_based", "time_decay"),
    *("markov", "markov_2", "shapley"),
)
DIRECT = ("direct",)
UNATTRIBUTED = "(unattributed)"
LEVEL = 0.95  # of the intervals

# journeys of each path (paths,) and rewards (kinds, paths) -> credit (kinds, channels)
Credit = Callable[[Floats, Floats], Floats]


@dataclass(frozen=True, slots=True)
class Options:
    """Settings: weights of first, middle and last touch, half-life in days, direct channels (None: ``DIRECT``).

    Raises:
        AttributionError: a setting makes no sense.

    """

    weights: tuple[float, float, float] = (0.4, 0.2, 0.4)
    half_life: float = 7.0
    direct: tuple[str, ...] | None = None
    bootstrap: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if not (0 < self.half_life < math.inf):
            raise AttributionError(f"the half-life is {self.half_life:g} days: give a number above 0")
        if not all(weight >= 0 for weight in self.weights) or not math.isclose(sum(self.weights), 1, abs_tol=1e-9):
            given = ",".join(f"{weight:g}" for weight in self.weights)
            raise AttributionError(f"the weights are {given}: give three from 0 on that sum to 1, like .4,.2,.4")
        if self.bootstrap < 0:
            raise AttributionError(f"{self.bootstrap} bootstrap samples: give 0 for none, or some hundreds")
        if self.seed < 0:
            raise AttributionError(f"the seed is {self.seed}: give 0 or more")


def parse_weights(text: str) -> tuple[float, float, float]:
    """Read ``first,middle,last``.

    Raises:
        AttributionError: they are not three numbers.

    """
    try:
        first, middle, last = (float(part) for part in text.split(","))
    except ValueError:
        raise AttributionError(f"the weights are {text!r}: give three numbers, like .4,.2,.4") from None
    return first, middle, last


def prepare(model: str, paths: Paths, options: Options) -> Credit:
    """Return how a model credits these paths, however often each was taken."""
    order = _order(model)
    if order is not None:
        return Chain(paths, order).credit
    if model == "shapley" and len(paths.channels) <= models.MAX_BY_DEFINITION:
        return lambda _journeys, rewards: models.shapley_by_definition(paths, rewards)
    weights = _WEIGHTS[model](paths, options)
    return lambda _journeys, rewards: models.by_weights(paths, weights, rewards)


_WEIGHTS: dict[str, Callable[[Paths, Options], Floats]] = {
    "first_touch": lambda paths, _: models.first_touch(paths),
    "last_touch": lambda paths, _: models.last_touch(paths),
    "last_non_direct": lambda paths, options: models.last_non_direct(paths, options.direct or DIRECT),
    "linear": lambda paths, _: models.linear(paths),
    "position_based": lambda paths, options: models.position_based(paths, options.weights),
    "time_decay": lambda paths, options: models.time_decay(paths, options.half_life),
    "shapley": lambda paths, _: models.shapley_weights(paths),
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Credit by every model, and what to know about it.

    ``table`` has a row for each model and channel: channel, model, conversions, value, low, high. The last two are
    the ends of the interval of conversions, null without bootstrap.
    """

    table: pl.DataFrame
    notes: tuple[str, ...]

    def write(self, target: Path) -> None:
        """Write the table as CSV or, where the name ends in .parquet, as Parquet.

        Raises:
            AttributionError: the file cannot be written.

        """
        try:
            if target.suffix == ".parquet":
                self.table.write_parquet(target)
            else:
                for_spreadsheets(self.table).write_csv(target)
        except OSError as error:
            raise AttributionError(f"{target}: cannot be written ({error})") from error


def for_spreadsheets(table: pl.DataFrame) -> pl.DataFrame:
    """Put an apostrophe before text that a spreadsheet would run as a formula; numbers stay as they are.

    What begins one: OWASP, CSV injection; the full-width forms are taken for the plain ones in some languages.
    """
    text = pl.selectors.string()
    begins = text.str.contains("^[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
    return table.with_columns(pl.when(begins).then("'" + text).otherwise(text).name.keep())


def compare_journeys(
    journeys: Journeys,
    asked: Sequence[str] = (),
    options: Options | None = None,
    *,
    transforms: Sequence[str] = (),
    converting_only: bool = False,
) -> Comparison:
    """Credit what a file holds. For each model the table adds up to the conversions and the value of the file.

    Args:
        journeys: what was read.
        asked: as for ``compare``.
        options: settings of the models.
        transforms: see ``Paths.transformed``.
        converting_only: forget that paths ended without a conversion.

    Raises:
        AttributionError: a model, setting, transform or channel makes no sense.

    """
    paths = journeys.paths.transformed(transforms)
    credit = compare(paths.without_nulls() if converting_only else paths, asked, options)
    table = credit.table
    if journeys.unattributed_conversions:
        lost = pl.DataFrame({"channel": UNATTRIBUTED, "model": table["model"].unique(maintain_order=True)})
        lost = lost.with_columns(
            conversions=pl.lit(journeys.unattributed_conversions), value=pl.lit(journeys.unattributed_value)
        )
        table = pl.concat([table, lost], how="diagonal")
    if not journeys.has_value:
        table = table.with_columns(value=pl.lit(None, pl.Float64))
    return Comparison(table, (*journeys.notes, *credit.notes))


def compare(paths: Paths, asked: Sequence[str] = (), options: Options | None = None) -> Comparison:
    """Credit all conversions and their value by each model.

    Intervals are of conversions: percentiles (95 %) of ``options.bootstrap`` samples. Each draws as many journeys
    as there are, with replacement, converting or not, and credits them anew (Efron, Tibshirani: An introduction to
    the bootstrap, 1993, chapter 13). The same seed gives the same intervals.

    Args:
        paths: with at least one conversion.
        asked: models, of ``MODELS`` or ``markov_<k>`` for the chain of order k up to 9. Without any, all of
            ``MODELS`` that these paths allow; the notes say why others are left out.
        options: settings of the models.

    Raises:
        AttributionError: there is no such model, these paths do not allow it, or there are no conversions.

    """
    options = options or Options()
    if not paths.conversions.sum() > 0:
        raise AttributionError("there are no conversions to credit")
    by_model, notes = _prepare_all(asked, paths, options)
    if "last_non_direct" in by_model:
        notes += _about_direct(paths, options)
    journeys = paths.conversions + paths.nulls
    rewards = np.stack([paths.conversions, paths.value])
    points = np.stack([credit(journeys, rewards) for credit in by_model.values()])
    table = pl.DataFrame(
        {
            "channel": np.tile(paths.channels, len(by_model)),
            "model": np.repeat(list(by_model), len(paths.channels)),
            "conversions": points[:, 0].ravel(),
            "value": points[:, 1].ravel(),
        }
    )
    ends = [pl.lit(None, pl.Float64), pl.lit(None, pl.Float64)]
    if options.bootstrap:
        ends = [pl.lit(pl.Series(end)) for end in _intervals(paths, list(by_model.values()), options)]
    return Comparison(table.with_columns(low=ends[0], high=ends[1]), tuple(notes))


def _prepare_all(asked: Sequence[str], paths: Paths, options: Options) -> tuple[dict[str, Credit], list[str]]:
    for model in asked:
        if model not in MODELS and _order(model) is None:
            raise AttributionError(
                f"there is no model {model!r}: choose from {', '.join(MODELS)} (markov_3 is of order 3, and so on)"
            )
    prepared, notes = {}, []
    for model in asked or MODELS:
        try:
            prepared[model] = prepare(model, paths, options)
        except AttributionError as error:
            if asked:
                raise
            notes.append(f"left out: {error}")
    return prepared, notes


def _about_direct(paths: Paths, options: Options) -> list[str]:
    known = {name.casefold() for name in paths.channels}
    unknown = [name for name in options.direct or DIRECT if name.casefold() not in known]
    if unknown and options.direct:
        channels = listed(paths.channels)
        raise AttributionError(f"there is no channel {unknown[0]!r} to be direct: the channels are {channels}")
    same = "last_non_direct is as last_touch: no channel is called direct; name yours with --direct"
    return [same] if unknown else []


def _intervals(paths: Paths, by_model: Sequence[Credit], options: Options) -> tuple[Floats, Floats]:
    """Return the ends of the intervals, model after model."""
    outcomes = np.concatenate([paths.conversions, paths.nulls])
    occur = np.flatnonzero(outcomes)
    chances = outcomes[occur] / outcomes.sum()
    random = np.random.default_rng(options.seed)
    samples = np.empty((options.bootstrap, len(by_model) * len(paths.channels)))
    for sample in samples:
        drawn = np.zeros(len(outcomes))
        drawn[occur] = random.multinomial(max(1, round(outcomes.sum())), chances)
        conversions, nulls = np.split(drawn, 2)
        sample[:] = np.concatenate([credit(conversions + nulls, conversions[None, :])[0] for credit in by_model])
    low, high = np.quantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return low, high


def _order(model: str) -> int | None:
    """Return the order of a Markov model, None if it is another model."""
    found = re.fullmatch(r"markov(?:_([2-9]))?", model)
    return int(found[1] or 1) if found else None

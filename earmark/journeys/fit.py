"""Data-driven credit of the warehouse's journeys: Markov and Shapley, fitted by month, with bootstrap intervals.

What lives here: from rows of ``int_attribution_journeys`` to rows of schema ``attribution``, where journeys or
settings are others than before. What the models compute is in ``markov`` and ``models``; when to fit, and what
dbt builds then, is in ``lib.warehouse.fit``.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, LiteralString, TypeVar

import numpy as np
import pandas as pd
import polars as pl
import psycopg
from psycopg.rows import class_row

from earmark.journeys.comparison import Options, compare
from earmark.journeys.errors import AttributionError
from earmark.journeys.markov import Chain
from earmark.journeys.paths import Paths

_Row = TypeVar("_Row")

METHODS: Final = ("markov", "shapley")
# A sample of the bootstrap costs the cube of the states; 200 samples of so many take some twenty seconds.
MAX_STATES_WITH_INTERVAL: Final = 1_000
_VERSION: Final = 1  # of what is computed here: with another one everything is fitted anew
_DIGITS: Final = 12  # significant ones that are stored: the last ones depend on the processor
_CREDIT_COLUMNS: Final = (
    *("channel", "conversions", "low", "high", "removal_effect", "share_of_conversions", "share_of_revenue"),
)

# The planner takes joins of what it has no statistics of for tiny, where a nested loop goes through all pairs.
_SETTINGS: Final = (
    "select timeseries.read_columnstore_safely()",
    "set local enable_nestloop = off",
)
# Journeys stand still while they are fitted, and the view is computed once.
_TAKE: Final = """
    create temporary table fit_journeys on commit drop as
    select tenant_id, month, sponsor_id, channels, conversions, revenue, nulls
    from intermediate.int_attribution_journeys
"""
_GROUPS: Final = """
    select
        tenant_id, month, sponsor_id,
        attribution.journeys_digest(channels, conversions, revenue, nulls order by channels collate "C")
            as journeys_digest,
        count(*) as paths,
        sum(conversions)::bigint as conversions,
        sum(nulls)::bigint as nulls,
        sum(revenue) as revenue
    from fit_journeys
    group by tenant_id, month, sponsor_id
    having sum(conversions) > 0
    order by tenant_id collate "C", month, sponsor_id collate "C"
"""
_JOURNEYS: Final = """
    select channels, conversions, revenue::double precision as revenue, nulls
    from fit_journeys
    where tenant_id = %s and month = %s and sponsor_id = %s
    order by channels collate "C"
"""
_MODELS: Final = """
    select model as name, method, coalesce(chain_order, 1) as chain_order, coalesce(with_nulls, true) as with_nulls
    from seeds.attribution_models
    where method = any(%s)
    order by model collate "C"
"""
_LATEST: Final = """
    select tenant_id, model, channel, sum(conversions)
    from attribution.channel_credits as c
    where month = (select max(f.month) from attribution.fits as f where f.tenant_id = c.tenant_id)
    group by tenant_id, model, channel
    order by tenant_id, model, 4 desc, channel
"""


@dataclass(frozen=True, slots=True)
class Model:
    """A data-driven model of the seed ``attribution_models``; order and nulls mean something to markov only."""

    name: str
    method: str
    chain_order: int = 1
    with_nulls: bool = True


@dataclass(frozen=True, slots=True)
class Group:
    """What one fit is of: the journeys of a tenant, month and sponsor, at least one of them converting."""

    tenant_id: str
    month: date
    sponsor_id: str
    journeys_digest: str
    paths: int
    conversions: int
    nulls: int
    revenue: Any

    @property
    def key(self) -> tuple[str, date, str]:
        """The key of the group."""
        return self.tenant_id, self.month, self.sponsor_id

    def __str__(self) -> str:
        """Say whose journeys these are."""
        return f"{self.tenant_id}, {self.month:%Y-%m}, sponsor {self.sponsor_id or 'unknown'}"


@dataclass(frozen=True, slots=True)
class Fitted:
    """Credit by one model.

    Attributes:
        credit: a row a channel, in order of name, with the columns of ``attribution.channel_credits`` after its
            key; no row where the model was left out.
        note: why the model or its interval was left out; None where nothing was.

    """

    credit: pd.DataFrame
    note: str | None = None


@dataclass(frozen=True, slots=True)
class FitSummary:
    """What a run of the fit did.

    Attributes:
        fitted: fits (a group by a model) that were computed.
        unchanged: fits that were there already.
        removed: fits whose journeys or model are no more.
        groups: months of a tenant and sponsor with conversions that have a path.
        conversions: those conversions.
        notes: what was left out, and why, by group and model.
        latest: of each tenant's latest month its credit, summed over sponsors: tenant, model, channel and
            conversions, the most conversions first.

    """

    fitted: int = 0
    unchanged: int = 0
    removed: int = 0
    groups: int = 0
    conversions: int = 0
    notes: tuple[str, ...] = ()
    latest: tuple[tuple[str, str, str, float], ...] = ()

    def __str__(self) -> str:
        """Say in a line what was done."""
        removed = f", {self.removed} removed" if self.removed else ""
        left_out = f"; {len(self.notes)} notes" if self.notes else ""
        return (
            f"{self.fitted} fits computed, {self.unchanged} unchanged{removed}; "
            f"{self.conversions:,} conversions in {self.groups} months of sponsors{left_out}"
        )


def credit_channels(journeys: pd.DataFrame, model: Model, *, samples: int = 0, seed: int = 0) -> Fitted:
    """Credit the conversions of journeys by a data-driven model.

    Revenue is credited by its own fit where no path's revenue is negative (refunds) and some is positive. Else its
    shares are those of conversions. Figures are rounded to 12 significant digits.

    Args:
        journeys: a row a path with ``channels`` (a sequence, not empty), ``conversions``, ``revenue``, ``nulls``.
        model: what to fit.
        samples: of the bootstrap (see ``comparison.compare``); 0 for no interval.
        seed: the same seed gives the same intervals.

    """
    used = journeys if model.with_nulls else journeys[journeys["conversions"] > 0]
    paths = _paths(used)
    paths = paths if model.with_nulls else paths.without_nulls()
    asked = model.method if model.chain_order == 1 else f"{model.method}_{model.chain_order}"
    note, effects = None, None
    try:
        if model.method == "markov":
            chain = Chain(paths, model.chain_order)
            effects = chain.removal_effects(paths.conversions + paths.nulls, paths.conversions[None, :])[0]
            if samples and chain.states > MAX_STATES_WITH_INTERVAL:
                note = (
                    f"no interval: {chain.states:,} states are more than the {MAX_STATES_WITH_INTERVAL:,} "
                    "that a bootstrap is affordable for; group channels, or take a lower order"
                )
                samples = 0
        table = compare(paths, [asked], Options(bootstrap=samples, seed=seed)).table
    except AttributionError as error:
        return Fitted(pd.DataFrame(columns=_CREDIT_COLUMNS), f"left out: {error}")
    conversions = table["conversions"].to_numpy()
    has_own_revenue = (paths.value >= 0).all() and table["value"].sum() > 0
    by_revenue = table["value"].to_numpy() if has_own_revenue else conversions
    credit = pd.DataFrame(
        {
            "channel": table["channel"].to_list(),
            "conversions": conversions,
            "low": table["low"].to_numpy(),
            "high": table["high"].to_numpy(),
            "removal_effect": np.nan if effects is None else effects,
            "share_of_conversions": conversions / conversions.sum(),
            "share_of_revenue": by_revenue / by_revenue.sum(),
        }
    )
    return Fitted(_rounded(credit), note)


def input_digest(journeys_digest: str, model: Model, *, samples: int, seed: int) -> str:
    """Return what a fit depends on as a digest: the same digest, the same figures."""
    settings = [_VERSION, journeys_digest, model.method, model.chain_order, model.with_nulls, samples, seed]
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()


def fit(connection: psycopg.Connection, *, samples: int, seed: int) -> FitSummary:
    """Bring schema ``attribution`` up to date with journeys and models, in one transaction.

    What was fitted to the same journeys with the same settings stays; what has no journeys or model any more goes.
    """
    summary = {"fitted": 0, "unchanged": 0}
    notes = []
    with connection.transaction():
        for setting in _SETTINGS:
            connection.execute(setting)
        connection.execute(_TAKE)
        groups = _rows(connection, Group, _GROUPS)
        models = _rows(connection, Model, _MODELS, (list(METHODS),))
        before = {
            tuple(key): (digest, note)
            for *key, digest, note in connection.execute(
                "select tenant_id, month, sponsor_id, model, input_digest, note from attribution.fits"
            ).fetchall()
        }
        wanted = {(*group.key, model.name) for group in groups for model in models}
        gone = sorted(key for key in before if key not in wanted)
        _delete(connection, gone)
        for group in groups:
            digests = {
                model: input_digest(group.journeys_digest, model, samples=samples, seed=seed) for model in models
            }
            known = {model: before.get((*group.key, model.name), (None, None)) for model in models}
            changed = [model for model in models if known[model][0] != digests[model]]
            results = {model.name: known[model][1] for model in models}
            if changed:
                journeys = _journeys(connection, group)
                for model in changed:
                    fitted = credit_channels(journeys, model, samples=samples, seed=seed)
                    _store(connection, group, model, digests[model], fitted)
                    results[model.name] = fitted.note
            summary["fitted"] += len(changed)
            summary["unchanged"] += len(models) - len(changed)
            notes += [f"{group}: {name}: {note}" for name, note in results.items() if note]
        latest = connection.execute(_LATEST).fetchall()
    return FitSummary(
        **summary,
        removed=len(gone),
        groups=len(groups),
        conversions=sum(group.conversions for group in groups),
        notes=tuple(notes),
        latest=tuple(latest),
    )


def _paths(journeys: pd.DataFrame) -> Paths:
    channels = journeys["channels"]
    return Paths.of(
        pl.Series([channel for path in channels for channel in path], dtype=pl.String),
        channels.map(len).to_numpy(),
        conversions=journeys["conversions"].to_numpy(),
        value=journeys["revenue"].to_numpy(),
        nulls=journeys["nulls"].to_numpy(),
    )


def _rounded(credit: pd.DataFrame) -> pd.DataFrame:
    figures = credit.columns.drop("channel")
    credit[figures] = credit[figures].map(lambda figure: float(f"{figure:.{_DIGITS}g}"))
    return credit


def _rows(
    connection: psycopg.Connection, kind: type[_Row], query: LiteralString, parameters: Sequence[Any] = ()
) -> list[_Row]:
    with connection.cursor(row_factory=class_row(kind)) as cursor:
        return cursor.execute(query, parameters).fetchall()


def _journeys(connection: psycopg.Connection, group: Group) -> pd.DataFrame:
    rows = connection.execute(_JOURNEYS, group.key).fetchall()
    return pd.DataFrame(rows, columns=["channels", "conversions", "revenue", "nulls"])


def _delete(connection: psycopg.Connection, keys: Iterable[tuple[Any, ...]]) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(
            "delete from attribution.fits where (tenant_id, month, sponsor_id, model) = (%s, %s, %s, %s)", keys
        )


def _store(connection: psycopg.Connection, group: Group, model: Model, digest: str, fitted: Fitted) -> None:
    """Put a fit in the place of an earlier one; its credits go with it."""
    key = (*group.key, model.name)
    _delete(connection, [key])
    connection.execute(
        """
        insert into attribution.fits (
            tenant_id, month, sponsor_id, model, input_digest, journeys_digest, paths, conversions, nulls, revenue,
            note
        )
        values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
        """,
        (
            *(*key, digest, group.journeys_digest, group.paths, group.conversions, group.nulls, group.revenue),
            fitted.note,
        ),
    )
    rows = fitted.credit.astype(object).where(fitted.credit.notna(), None)
    with connection.cursor() as cursor:
        cursor.executemany(
            """
            insert into attribution.channel_credits (
                tenant_id, month, sponsor_id, model, channel, conversions, low, high, removal_effect,
                share_of_conversions, share_of_revenue
            )
            values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
            """,
            [(*key, *row) for row in rows.itertuples(index=False)],
        )

"""The stage ``fit`` in the graph: after dbt's models data-driven credit in Python, then the models on top of it.

dbt's models are two assets for its sake: one op could not stand both before and after it.
"""

from collections.abc import Iterator
from typing import Any, Final

import dagster as dg
from dagster_dbt import dbt_assets

from earmark.journeys.fit import FitSummary
from earmark.settings import load_settings
from earmark.warehouse.fit import SELECTION, Fit
from orchestration.defs.assets import MANIFEST, OWNER, TRANSLATOR, selected_models, to_dagster
from orchestration.defs.resources import Warehouse
from orchestration.defs.runs import AGAIN_IF_IT_DIES

CHANNEL_CREDITS: Final = dg.AssetKey(["attribution", "channel_credits"])
FITS: Final = dg.AssetKey(["attribution", "fits"])
_JOURNEYS: Final = dg.AssetKey(["intermediate", "int_attribution_journeys"])
_MODELS: Final = dg.AssetKey(["seeds", "attribution_models"])
_MOST_SHOWN: Final = 30


def _spec(key: dg.AssetKey, description: str) -> dg.AssetSpec:
    return dg.AssetSpec(
        key,
        deps=[_JOURNEYS, _MODELS],
        group_name="attribution",
        kinds={"python", "pandas", "numpy"},
        owners=[OWNER],
        description=description,
        metadata={"dagster/table_name": ".".join(key.path)},
    )


@dg.multi_asset(
    specs=[
        _spec(
            CHANNEL_CREDITS,
            "Credit of each channel by month and sponsor under the data-driven models of the seed "
            "`attribution_models` (Markov chains, Shapley), with 95 % bootstrap intervals. Months whose journeys "
            "and settings are as before are not fitted anew.",
        ),
        _spec(FITS, "What each model was fitted to, and why one was left out."),
    ],
    name="attribution_fit",
    pool="refresh",
)
def attribution_fit(
    context: dg.AssetExecutionContext, warehouse: Warehouse
) -> Iterator[dg.MaterializeResult[None]]:
    """Fit the data-driven models where journeys or settings have changed."""
    summary = Fit(warehouse.database(), threads=load_settings().dbt_threads).fit()
    context.log.info(str(summary))
    for note in summary.notes:
        context.log.warning(note)
    yield from fit_results(summary)


@dbt_assets(
    manifest=MANIFEST,
    name="dbt_fit_models",
    select=SELECTION,
    dagster_dbt_translator=TRANSLATOR,
    pool="refresh",
)
def dbt_fit_models(context: dg.AssetExecutionContext, warehouse: Warehouse) -> Iterator[Any]:
    """Build the models of the stage whole, with their tests, in one dbt invocation."""
    stage = Fit(warehouse.database(), threads=load_settings().dbt_threads)
    for event in stage.build(selected_models(context)):
        yield from to_dagster(event, stage, context)


def fit_results(summary: FitSummary) -> list[dg.MaterializeResult[None]]:
    """Return what Dagster shows of a fit."""
    counts: dict[str, Any] = {
        "fitted": summary.fitted,
        "skipped": summary.unchanged,
        "removed": summary.removed,
        "groups": summary.groups,
        "conversions": summary.conversions,
        "notes": "; ".join(summary.notes) or "none",
    }
    credit = dg.MetadataValue.md(markdown_table(summary))
    return [
        dg.MaterializeResult(asset_key=CHANNEL_CREDITS, metadata={**counts, "credit": credit}),
        dg.MaterializeResult(asset_key=FITS, metadata=counts),
    ]


def markdown_table(summary: FitSummary, most: int = _MOST_SHOWN) -> str:
    """Return the latest month's credit by tenant, model and channel, the most conversions first."""
    lines = ["| tenant | model | channel | conversions |", "| --- | --- | --- | ---: |"]
    for row in summary.latest[:most]:
        tenant, model, channel, conversions = row
        name = channel.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
        lines.append(f"| {tenant} | {model} | {name} | {conversions:,.1f} |")
    if len(summary.latest) > most:
        lines.append(f"\n{len(summary.latest) - most} more rows: attribution.channel_credits")
    return "\n".join(lines)


fit_job = dg.define_asset_job(
    "fit",
    selection=dg.AssetSelection.assets(attribution_fit, dbt_fit_models),
    description="Fit the data-driven models, then build what stands on them.",
    tags=AGAIN_IF_IT_DIES,
)

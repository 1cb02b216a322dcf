"""Telling Dagster what was done without it, so that its UI shows what ``earmark run`` has loaded and built."""

from collections.abc import Iterable

import dagster as dg

from orchestration.defs.assets import load_metadata, raw_key, to_dagster
from orchestration.defs.fit import fit_results
from orchestration.lib.ingestion.summary import LoadSummary
from orchestration.lib.warehouse import dbt
from orchestration.lib.warehouse.fit import Fit
from orchestration.lib.warehouse.refresh import Refresh


def report(
    instance: dg.DagsterInstance, loads: LoadSummary, refresh: Refresh, events: Iterable[dbt.Event]
) -> None:
    """Report the loads and dbt's results as events of no run."""
    for dataset, counts in loads.datasets.items():
        instance.report_runless_asset_event(
            dg.AssetMaterialization(raw_key(dataset), metadata=load_metadata(counts))
        )
    for event in events:
        for told in to_dagster(event, refresh):
            if isinstance(told, dg.AssetMaterialization | dg.AssetCheckEvaluation):
                instance.report_runless_asset_event(told)


def report_fit(instance: dg.DagsterInstance, stage: Fit, events: Iterable[dbt.Event]) -> None:
    """Report what the stage ``fit`` has fitted and built as events of no run."""
    if stage.summary is not None:
        for result in fit_results(stage.summary):
            instance.report_runless_asset_event(
                dg.AssetMaterialization(result.asset_key or "", metadata=result.metadata)
            )
    for event in events:
        for told in to_dagster(event, stage):
            if isinstance(told, dg.AssetMaterialization | dg.AssetCheckEvaluation):
                instance.report_runless_asset_event(told)

"""Telling Dagster what was done without it, so that its UI shows what the command line has loaded and built."""

from collections.abc import Iterable
from dataclasses import dataclass

import dagster as dg

from earmark.ingestion.summary import LoadSummary
from earmark.warehouse import dbt
from earmark.warehouse.fit import Fit
from earmark.warehouse.refresh import Refresh
from orchestration.defs.assets import load_metadata, raw_key, to_dagster
from orchestration.defs.fit import fit_results


@dataclass(frozen=True, slots=True)
class Report:
    """Reports to an instance, as events of no run."""

    instance: dg.DagsterInstance

    def loads(self, loads: LoadSummary) -> None:
        """Report what was loaded, by raw table."""
        for dataset, counts in loads.datasets.items():
            self._tell(dg.AssetMaterialization(raw_key(dataset), metadata=load_metadata(counts)))

    def models(self, stage: Refresh | Fit, events: Iterable[dbt.Event]) -> None:
        """Report what dbt has built and tested, with the slices that each model looked at and replaced."""
        for event in events:
            for told in to_dagster(event, stage):
                if isinstance(told, dg.AssetMaterialization | dg.AssetCheckEvaluation):
                    self._tell(told)

    def fit(self, stage: Fit, events: Iterable[dbt.Event]) -> None:
        """Report what the stage ``fit`` has fitted and built."""
        for result in fit_results(stage.summary) if stage.summary is not None else ():
            self._tell(dg.AssetMaterialization(result.asset_key or "", metadata=result.metadata))
        self.models(stage, events)

    def _tell(self, told: dg.AssetMaterialization | dg.AssetCheckEvaluation) -> None:
        self.instance.report_runless_asset_event(told)

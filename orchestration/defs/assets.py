"""Assets: the landing folder, the raw tables that loading fills, and dbt's models. One graph, files to marts."""

import json
import re
import sys
from collections.abc import Iterator
from typing import Any, Final

import dagster as dg
from dagster_dbt import dbt_assets
from dagster_dbt.core.dbt_cli_event import DbtCoreCliEventMessage
from pydantic import Field

from earmark.addresses.public_networks import fetch_lists
from earmark.addresses.site import lookups, networks_folder
from earmark.ingestion.datasets import DATASETS, Dataset
from earmark.ingestion.landing import load_landing
from earmark.ingestion.summary import DatasetSummary, LoadSummary
from earmark.settings import load_settings
from earmark.warehouse import dbt
from earmark.warehouse.days import Days
from earmark.warehouse.fit import SELECTION, Fit
from earmark.warehouse.refresh import Refresh, left_behind_in_words
from orchestration.defs.resources import Landing, Warehouse
from orchestration.defs.runs import AGAIN_IF_IT_DIES
from orchestration.defs.translator import Translator

OWNER: Final = "team:data-platform"
_REFUSED_SHOWN: Final = 20
_ROWS_WRITTEN: Final = re.compile(r"(?:INSERT 0|SELECT|INSERT) (?P<rows>\d+)$")
LANDING_FILES: Final = dg.AssetKey(["landing", "files"])
PUBLIC_NETWORKS: Final = dg.AssetKey(["landing", "public_networks"])

landing_files = dg.AssetSpec(
    LANDING_FILES,
    group_name="landing",
    kinds={"file"},
    owners=[OWNER],
    description="Files as they arrive: `<landing>/<tenant>/<dataset or source>/...`. "
    "The sensor `landing` looks here for what is new.",
)


@dg.asset(
    key=PUBLIC_NETWORKS,
    group_name="landing",
    kinds={"file"},
    owners=[OWNER],
    retry_policy=dg.RetryPolicy(max_retries=2, delay=30, backoff=dg.Backoff.EXPONENTIAL),
    description="The lists of data centres that providers publish, in `<EARMARK_HOME>/networks`: files that are "
    "loaded from then on are looked up in them. One that cannot be fetched stays as it was. Lists of VPNs hold "
    "Apple's Private Relay, behind which listeners are: `earmark networks fetch` gets them by name.",
)
def public_networks(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """Fetch the public lists of networks."""
    settings = load_settings()
    results = fetch_lists(networks_folder(settings), settings.network_urls)
    failed = [result.failed for result in results if result.failed]
    for text in failed:
        context.log.warning(text)
    return dg.MaterializeResult(
        metadata={
            **{f"ranges/{result.name}": result.ranges for result in results if not result.failed},
            "ranges": sum(result.ranges for result in results),
            "not_fetched": "; ".join(failed) or "none",
            "version": lookups(settings).networks.version or "none",
        }
    )


def raw_key(dataset: str) -> dg.AssetKey:
    """Return the asset key of a raw table."""
    return dg.AssetKey(["raw", dataset])


def _raw_spec(dataset: Dataset) -> dg.AssetSpec:
    schema = dg.TableSchema(
        columns=[
            dg.TableColumn(
                field.name,
                str(field.kind),
                constraints=dg.TableColumnConstraints(nullable=not field.required),
            )
            for field in dataset.fields
            if not field.client
        ]
    )
    return dg.AssetSpec(
        raw_key(dataset.name),
        deps=[LANDING_FILES, *([PUBLIC_NETWORKS] if dataset.has_network else [])],
        group_name="raw",
        kinds={"postgres", "polars"},
        owners=[OWNER],
        description=f"Rows of `raw.{dataset.table}`, keyed by {', '.join(('tenant_id', *dataset.key))}. "
        f"A row whose key is there already: the {dataset.keeps} one stays.",
        metadata={
            "dagster/column_schema": schema,
            "dagster/table_name": f"raw.{dataset.table}",
        },
    )


episode_enclosures = dg.AssetSpec(
    raw_key("episode_enclosures"),
    deps=[raw_key("episodes")],
    group_name="raw",
    kinds={"postgres"},
    owners=[OWNER],
    description="The files that episodes have or had: written by a trigger on `raw.episodes`.",
    metadata={"dagster/table_name": "raw.episode_enclosures"},
)


@dg.multi_asset(
    specs=[_raw_spec(dataset) for dataset in DATASETS.values()],
    name="load_landing_files",
    pool="load",
    # A folder may be a bucket: what is behind a network may fail for a moment.
    retry_policy=dg.RetryPolicy(max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL),
)
def raw_tables(
    context: dg.AssetExecutionContext, warehouse: Warehouse, landing: Landing
) -> Iterator[dg.MaterializeResult[None]]:
    """Load every new file of the landing folder, each in a transaction of its own."""
    with warehouse.connect() as connection:
        results = load_landing(connection, landing.location(), key=landing.key(), lookups=landing.lookups())
        summary = LoadSummary.of(results)
    context.log.info(str(summary))
    for refused in summary.refused:
        context.log.warning(f"refused {refused}")
    # A dataset without new files is told as well: what stands on a skipped asset would be skipped.
    for dataset in DATASETS:
        counts = summary.datasets.get(dataset, DatasetSummary())
        yield dg.MaterializeResult(asset_key=raw_key(dataset), metadata=load_metadata(counts))


def load_metadata(counts: DatasetSummary) -> dict[str, Any]:
    """Return what Dagster shows of the loads of a dataset."""
    return {
        "files": counts.files,
        "rows_read": counts.read,
        "rows_loaded": counts.loaded,
        "rows_duplicate": counts.duplicate,
        "rows_rejected": counts.rejected,
        "first_event_at": str(counts.first_event_at or "-"),
        "watermark": str(counts.last_event_at or "-"),
        "load_ids": ", ".join(str(load_id) for load_id in counts.load_ids) or "-",
        "files_refused": len(counts.refused),
        "refused": "\n".join(counts.refused[:_REFUSED_SHOWN]) or "none",
    }


class DaysConfig(dg.Config):
    """A half-open span of days; ISO 8601 with an offset, or a date (UTC)."""

    start: str
    end: str


class RefreshConfig(dg.Config):
    """What to refresh: ``days``, else all that has changed. ``full`` rebuilds every table whole."""

    days: list[DaysConfig] = Field(default_factory=list)
    full: bool = False


TRANSLATOR: Final = Translator()
MANIFEST: Final[dict[str, Any]] = json.loads(dbt.ensure_manifest().read_bytes())


@dbt_assets(
    manifest=MANIFEST,
    name="dbt_models",
    exclude=SELECTION,  # they stand on an asset that stands on these: see fit.py
    dagster_dbt_translator=TRANSLATOR,
    pool="refresh",
)
def dbt_models(context: dg.AssetExecutionContext, config: RefreshConfig, warehouse: Warehouse) -> Iterator[Any]:
    """Refresh the models in one dbt invocation, inside this process; where only checks are selected, make them."""
    refresh = Refresh(warehouse.database(), threads=load_settings().dbt_threads)
    given = [Days.parse(span.start, span.end) for span in config.days]
    if not context.selected_asset_keys:
        yield from _make_checks(context, refresh)
        return
    for event in refresh.run(given, full=config.full, models=selected_models(context)):
        yield from to_dagster(event, refresh, context)
    if refresh.left_behind:
        context.log.warning(left_behind_in_words(refresh.left_behind))


def _make_checks(context: dg.AssetExecutionContext, refresh: Refresh) -> Iterator[Any]:
    try:
        for event in refresh.test(sorted({key.name for key in context.selected_asset_check_keys})):
            yield from to_dagster(event, refresh, context)
    finally:
        if not refresh.plan.is_empty:
            waiting = len(refresh.plan.models)
            context.log.warning(
                f"{waiting} models wait for a refresh: a check that compares them may fail for that"
            )


def selected_models(context: dg.AssetExecutionContext) -> list[str]:
    """Return the names of the selected models, none where all are."""
    if not context.is_subset:
        return []
    return sorted(key.path[-1] for key in context.selected_asset_keys)


def to_dagster(
    event: dbt.Event, refresh: Refresh | Fit, context: dg.AssetExecutionContext | None = None
) -> Iterator[Any]:
    """Turn an event of dbt into materializations and check results, by dagster-dbt's own classes.

    dbt's own line of it goes to the step's stdout, which Dagster keeps and shows.

    A materialization also says how many rows were written, which slices were looked at and which came out
    otherwise. In a run that planned no checks (``sensors``) those that dbt made are told all the same.
    """
    if context is not None and dbt.is_result(event):
        sys.stdout.write(f"{event['info']['msg']}\n")
    message = DbtCoreCliEventMessage(raw_event=event, event_history_metadata={})
    is_test = event["data"]["node_info"]["resource_type"] == "test" if dbt.is_result(event) else False
    plans = context is None or bool(context.selected_asset_check_keys)
    for told in message.to_default_asset_events(
        manifest=refresh.manifest,
        dagster_dbt_translator=TRANSLATOR,
        context=context if plans or not is_test else None,
    ):
        if isinstance(told, dg.Output | dg.AssetMaterialization):
            yield told.with_metadata({**told.metadata, **_model_metadata(event, refresh)})
        else:
            yield told


def _model_metadata(event: dbt.Event, refresh: Refresh | Fit) -> dict[str, Any]:
    name = event["data"]["node_info"]["node_name"]
    metadata: dict[str, Any] = {}
    written = _ROWS_WRITTEN.match(event["data"]["status"])
    if written:
        metadata["rows_written"] = int(written["rows"])
    if isinstance(refresh, Refresh) and (build := refresh.builds.get(name)) is not None:
        metadata["slices"] = build.slices
        metadata["slices_changed"] = build.changed
    return metadata


# One run does both: a run of its own for the refresh would cost another start and another look of a sensor.
load_job = dg.define_asset_job(
    "load_and_refresh",
    selection=dg.AssetSelection.assets(raw_tables, dbt_models),
    description="Load every new file that has landed, then refresh the models for the slices that changed.",
)
test_job = dg.define_asset_job(
    "test",
    selection=dg.AssetSelection.checks_for_assets(dbt_models),
    description="Make every check of the models over all that they hold; a refresh makes them over its slices.",
    tags=AGAIN_IF_IT_DIES,
)
refresh_job = dg.define_asset_job(
    "refresh",
    selection=dg.AssetSelection.assets(dbt_models),
    description="Refresh the models for the slices, a tenant and a day, that have changed.",
)

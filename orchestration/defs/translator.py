"""How dbt's nodes appear in Dagster: keys, groups, owners, kinds and freshness. Pure functions of the manifest."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DagsterDbtTranslatorSettings, DbtProject

from earmark.warehouse.changes import FIT_TAG

# What readers are promised: a mart is refreshed within the hour, and looked after before it is a day old.
MART_FRESHNESS = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=24), warn_window=timedelta(hours=6))
# What is fitted nightly may miss one night before it is late.
FIT_FRESHNESS = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=54), warn_window=timedelta(hours=30))


class Translator(DagsterDbtTranslator):
    """Sources take the keys of the load's assets; a model's group is dbt's, its folder; marts have an owner."""

    def __init__(self) -> None:
        super().__init__(DagsterDbtTranslatorSettings(enable_source_tests_as_checks=True))

    def get_asset_spec(
        self, manifest: Mapping[str, Any], unique_id: str, project: DbtProject | None
    ) -> dg.AssetSpec:
        """Return the asset of a dbt node."""
        spec = super().get_asset_spec(manifest, unique_id, project)
        node = manifest["sources"].get(unique_id) or manifest["nodes"].get(unique_id)
        if node is None:
            return spec
        schema, is_model = node["schema"], node["resource_type"] == "model"
        attributes: dict[str, Any] = {
            "key": dg.AssetKey([schema, node["name"]]),
            "group_name": node["config"]["group"] if is_model else schema,
        }
        if is_model:
            attributes["kinds"] = {"dbt", "postgres", node["config"]["materialized"][:16]}
            attributes["owners"] = _owners(manifest, node)
            if schema == "marts" and node["config"]["materialized"] != "view":
                attributes["freshness_policy"] = FIT_FRESHNESS if FIT_TAG in node["tags"] else MART_FRESHNESS
        return spec.replace_attributes(**attributes)


def _owners(manifest: Mapping[str, Any], node: Mapping[str, Any]) -> list[str]:
    group = manifest["groups"].get(f"group.{node['package_name']}.{node['config'].get('group')}")
    email = group["owner"].get("email") if group else None
    return [email] if email else ["team:analytics-engineering"]

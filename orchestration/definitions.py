"""The Dagster code location: composes what ``defs/`` holds and nothing else."""

import dagster as dg

from orchestration.defs.agent_lists import public_agent_list
from orchestration.defs.assets import (
    dbt_models,
    episode_enclosures,
    landing_files,
    load_job,
    public_networks,
    raw_tables,
    refresh_job,
    test_job,
)
from orchestration.defs.checks import CHECKS
from orchestration.defs.fit import attribution_fit, dbt_fit_models, fit_job
from orchestration.defs.resources import Landing, Warehouse
from orchestration.defs.schedules import daily_maintenance, maintenance, nightly_fit, nightly_tests
from orchestration.defs.sensors import freshness_sensor, landing_sensor


def build_definitions(warehouse: Warehouse, landing: Landing) -> dg.Definitions:
    """Return the code location on this database and landing folder."""
    return dg.Definitions(
        assets=[
            landing_files,
            public_networks,
            public_agent_list,
            raw_tables,
            episode_enclosures,
            dbt_models,
            attribution_fit,
            dbt_fit_models,
        ],
        asset_checks=CHECKS,
        jobs=[load_job, refresh_job, fit_job, test_job, maintenance],
        schedules=[daily_maintenance, nightly_fit, nightly_tests],
        sensors=[landing_sensor, freshness_sensor],
        resources={"warehouse": warehouse, "landing": landing},
        # A run's steps go one after the other: processes of their own would only cost their start.
        executor=dg.in_process_executor,
    )


definitions = build_definitions(Warehouse(), Landing())

"""Schedules: what has to be done now and then, whatever lands."""

import dagster as dg

from orchestration.defs.assets import test_job
from orchestration.defs.fit import fit_job
from orchestration.defs.resources import Warehouse
from orchestration.defs.runs import AGAIN_IF_IT_DIES


@dg.op(description="Makes chunks ahead of time and drops those that retention gives up.")
def maintain_chunks(context: dg.OpExecutionContext, warehouse: Warehouse) -> None:
    """Call timeseries.maintain()."""
    with warehouse.connect() as connection:
        row = connection.execute("select timeseries.maintain()").fetchone()
    context.log.info(f"{row[0] if row else 0} chunks dropped by retention")


@dg.job(description="Keep the hypertables: chunks ahead of time, retention.", tags=AGAIN_IF_IT_DIES)
def maintenance() -> None:
    """Keep the hypertables."""
    maintain_chunks()


daily_maintenance = dg.ScheduleDefinition(
    name="daily_maintenance",
    job=maintenance,
    cron_schedule="17 3 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)

# After maintenance, like the tests below: all three are for the hours in which nobody waits.
nightly_fit = dg.ScheduleDefinition(
    name="nightly_fit",
    job=fit_job,
    cron_schedule="47 3 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)

nightly_tests = dg.ScheduleDefinition(
    name="nightly_tests",
    job=test_job,
    cron_schedule="17 4 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)

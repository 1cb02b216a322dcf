"""Runs and their processes: how Dagster's run monitoring sees that the process of a run is gone.

Dagster's default launcher cannot tell. Where the code server is killed with the process of a run, the run stays
"started" for ever, its pool is taken, and whoever waits for it waits for ever. Run monitoring is there for that,
but it asks the launcher ("the run could be left hanging in STARTED":
https://github.com/dagster-io/dagster/pull/5432).

So the process of a run holds an advisory lock in Dagster's own database while it lives. PostgreSQL takes the lock
back when the process's connection ends, whatever ended it, on whichever machine or in whichever container. What is
done with a run that is found dead is not decided here: ``dagster.yaml`` has run monitoring fail it, and the
sensors ask for its work again.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

import dagster as dg
import psycopg
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode
from dagster._core.executor.in_process import InProcessExecutor
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._serdes import ConfigurableClassData

from orchestration.lib.warehouse.database import Database

# For jobs that are asked for once a night: what dies (and only that, says dagster.yaml) is run again at once.
AGAIN_IF_IT_DIES: Final = {"dagster/max_retries": "2", "dagster/retry_strategy": "ALL_STEPS"}

# A run is told to have started a moment before its process takes the lock.
_GRACE: Final = timedelta(seconds=10)
_GONE: Final = (
    "the process of this run is gone: it was killed, or its machine or container stopped. What it had committed "
    "stays, the rest is taken up by another run; only what was started by hand must be started again"
)

# Many may hold it, so that nobody waits; whoever could have it alone knows that nobody does.
_HOLD: Final = "select pg_advisory_lock_shared(hashtextextended(%s, 0))"
_IS_FREE: Final = "select pg_try_advisory_xact_lock(hashtextextended(%s, 0))"


class WatchedRunLauncher(dg.DefaultRunLauncher):
    """Dagster's default launcher, able to say whether the process of a run lives.

    ``postgres_url`` is the database of Dagster's own tables, as every process of Dagster reaches it.
    """

    def __init__(self, postgres_url: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(inst_data)
        self._database = Database.from_url(postgres_url)
        self._held: psycopg.Connection | None = None

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Return what ``dagster.yaml`` says of it."""
        return {"postgres_url": dg.StringSource}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        """Make it from ``dagster.yaml``."""
        return cls(**config_value, inst_data=inst_data)

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Whether run monitoring may ask for the process of a run: yes."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Say whether the process of a started run lives.

        Raises:
            DatabaseUnavailableError: nobody can know now; run monitoring leaves the run and asks again.

        """
        if GRPC_INFO_TAG not in run.tags:  # not launched but executed by hand, by whatever executor
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        record = self._instance.get_run_record_by_id(run.run_id)
        started = record.start_time if record is not None else None
        if is_expected(started, datetime.now(UTC)) or self.is_held(run.run_id):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, _GONE)

    def hold(self, run_id: str) -> None:
        """Hold the lock of a run from now on: this process executes it.

        It is not given back when the run's steps are done, but when the process is done with Dagster's instance:
        in between the run is told to have ended, and run monitoring must not come upon it without its lock.

        Raises:
            DatabaseUnavailableError: the database cannot be reached; the run could do nothing either.

        """
        self.dispose()
        self._held = self._database.connect("earmark run", autocommit=True)
        self._held.execute(_HOLD, (_lock_of(run_id),))

    def dispose(self) -> None:
        """Give back the lock, if there is one."""
        if self._held is not None:
            self._held.close()

    def is_held(self, run_id: str) -> bool:
        """Whether a process holds the lock of a run."""
        with self._database.connect("earmark run monitoring") as connection:
            row = connection.execute(_IS_FREE, (_lock_of(run_id),)).fetchone()
        return row != (True,)


def is_expected(started: float | None, now: datetime) -> bool:
    """Whether a run that started then (seconds since 1970) may not hold its lock yet."""
    return started is None or now - datetime.fromtimestamp(started, UTC) < _GRACE


def _lock_of(run_id: str) -> str:
    return f"earmark run {run_id}"


class _WatchedExecutor(InProcessExecutor):
    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[dg.DagsterEvent]:
        launcher = plan_context.instance.run_launcher
        if isinstance(launcher, WatchedRunLauncher):
            launcher.hold(plan_context.run_id)
        yield from super().execute(plan_context, execution_plan)


@dg.executor(name="in_process")
def watched_executor(_context: dg.InitExecutorContext) -> dg.Executor:
    """Execute a run in its process, as Dagster's own ``in_process`` does, and hold the run's lock."""
    return _WatchedExecutor(RetryMode.ENABLED)

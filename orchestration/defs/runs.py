"""Runs and their processes: how a run is started within a moment, and how run monitoring sees that it is gone.

Dagster's code server starts an interpreter for each run, which imports Dagster, dbt and polars for seconds before
the run can begin, and offers no choice of that (``StartRun`` in ``dagster/_grpc/server.py``). A launcher is what
one may bring. This one keeps a process that has done so, from which the process of each run is forked
(``orchestration.run_process``); another takes its place when a file of the project has changed.

While the process of a run lives it holds an advisory lock in Dagster's own database. PostgreSQL takes the lock
back when the process's connection ends, whatever ended it, on whichever machine or in whichever container. So run
monitoring sees that a run is dead; with Dagster's default launcher it cannot ("the run could be left hanging in
STARTED": https://github.com/dagster-io/dagster/pull/5432). What is done with a run that is found dead is not
decided here: ``dagster.yaml`` has run monitoring fail it, and the sensors ask for its work again. By the same
connection the process hears that its run is to be terminated.
"""

import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import IO, Any, Final, Self

import dagster as dg
import psycopg
from dagster import _check as check
from dagster._core.launcher import LaunchRunContext, RunLauncher
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import ConfigurableClass, ConfigurableClassData, serialize_value
from dagster._utils import send_interrupt
from psycopg import sql

from earmark.settings import PROJECT_ROOT
from earmark.warehouse.database import Database

# For jobs that are asked for once a night: what dies (and only that, says dagster.yaml) is run again at once.
AGAIN_IF_IT_DIES: Final = {"dagster/max_retries": "2", "dagster/retry_strategy": "ALL_STEPS"}
# On a run that was launched here: the machine or container that its process is on.
HOST_TAG: Final = "earmark/host"

# Apple's frameworks do not bear a fork (https://docs.python.org/3/library/multiprocessing.html): there the process
# that would be forked executes one run itself.
FORKS: Final = sys.platform != "darwin"

_RUN_PROCESS: Final = (sys.executable, "-m", "orchestration.run_process")
_CODE: Final = ("earmark", "orchestration", "dbt_project", "models", "seeds", "dbt_project.yml")
_GONE: Final = (
    "the process of this run is gone: it was killed, or its machine or container stopped. What it had committed "
    "stays, the rest is taken up by another run; only what was started by hand must be started again"
)
# Many may hold it, so that nobody waits; whoever could have it alone knows that nobody does.
_HOLD: Final = "select pg_advisory_lock_shared(hashtextextended(%s, 0))"
_IS_FREE: Final = "select pg_try_advisory_xact_lock(hashtextextended(%s, 0))"


class WarmRunLauncher(RunLauncher[dg.DagsterInstance], ConfigurableClass):
    """Launches a run in a process of its own that has loaded the code, and says whether it lives.

    ``postgres_url`` is the database of Dagster's own tables, as every process of Dagster reaches it.
    """

    def __init__(self, postgres_url: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._inst_data = inst_data
        self._database = Database.from_url(postgres_url)
        self._starting = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._code = 0.0

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        """How another process makes the same launcher."""
        return self._inst_data

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Return what ``dagster.yaml`` says of it."""
        return {"postgres_url": dg.StringSource}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        """Make it from ``dagster.yaml``."""
        return cls(**config_value, inst_data=inst_data)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start the process of a run. It ends with the run."""
        run = context.dagster_run
        self._instance.add_run_tags(run.run_id, {HOST_TAG: socket.gethostname()})
        arguments = ExecuteRunArgs(
            job_origin=check.not_none(context.job_code_origin),
            run_id=run.run_id,
            instance_ref=self._instance.get_ref(),
        )
        with self._starting:
            print(serialize_value(arguments), file=self._input(), flush=True)
            if not FORKS:
                self.dispose()

    def _input(self) -> IO[str]:
        """Return the input of a process that lives and has read the code as it is now."""
        code = _changed_at()
        if self._process is not None and (self._process.poll() is not None or code != self._code):
            self.dispose()
        if self._process is None:
            self._code = code
            self._process = subprocess.Popen(_RUN_PROCESS, cwd=PROJECT_ROOT, stdin=subprocess.PIPE, text=True)  # noqa: S603
        return check.not_none(self._process.stdin)

    def dispose(self) -> None:
        """Let the process end from which runs are forked; the runs go on."""
        if self._process is not None:
            with suppress(BrokenPipeError):
                check.not_none(self._process.stdin).close()
            self._process = None

    def terminate(self, run_id: str) -> bool:
        """Have a run cancelled, wherever its process is.

        One that has not begun finds that it is cancelled when it does; one whose process is gone is given up by
        run monitoring.
        """
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        with self._database.connect("earmark run launcher", autocommit=True) as connection:
            connection.execute("select pg_notify(%s, '')", (_name_of(run_id),))
        return True

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Whether run monitoring may ask for the process of a run: yes."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Say whether the process of a started run lives.

        Raises:
            DatabaseUnavailableError: nobody can know now; run monitoring leaves the run and asks again.

        """
        if HOST_TAG not in run.tags:  # not launched but executed by hand
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        if self.is_held(run.run_id):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, _GONE)

    def hold(self, run_id: str) -> None:
        """Hold the lock of a run until this process ends, and interrupt it when the run is to be terminated.

        Raises:
            DatabaseUnavailableError: the database cannot be reached; the run could do nothing either.

        """
        connection = self._database.connect("earmark run", autocommit=True)
        connection.execute(_HOLD, (_name_of(run_id),))
        connection.execute(sql.SQL("listen {}").format(sql.Identifier(_name_of(run_id))))

        def listen() -> None:
            with suppress(psycopg.OperationalError):
                for _ in connection.notifies():
                    send_interrupt()

        threading.Thread(target=listen, name="terminate", daemon=True).start()

    def is_held(self, run_id: str) -> bool:
        """Whether a process holds the lock of a run."""
        with self._database.connect("earmark run monitoring") as connection:
            row = connection.execute(_IS_FREE, (_name_of(run_id),)).fetchone()
        return row != (True,)


def _changed_at() -> float:
    """Return when a file of the project was changed last, in seconds since 1970."""
    paths = [PROJECT_ROOT / name for name in _CODE]
    paths += [path for folder in paths for path in folder.rglob("*") if "__pycache__" not in path.parts]
    return max(path.stat().st_mtime for path in paths)


def _name_of(run_id: str) -> str:
    return f"earmark run {run_id}"

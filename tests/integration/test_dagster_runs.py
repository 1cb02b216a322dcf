"""Runs and their processes, on an instance as `dagster.yaml` makes it: which are found dead, and what follows."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import psutil
import psycopg
import pytest
from dagster._core.definitions.reconstruct import ReconstructableJob
from dagster._core.test_utils import create_test_daemon_workspace_context
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from dagster._daemon.daemon import MonitoringDaemon

from earmark.settings import load_settings
from earmark.warehouse.database import Database, DatabaseUnavailableError
from orchestration.command_line import dagster_environment
from orchestration.definitions import definitions
from orchestration.defs import runs
from orchestration.defs.runs import HOST_TAG, WarmRunLauncher
from orchestration.defs.sensors import Asked, has_died, next_request

NOW = datetime(2026, 1, 1, tzinfo=UTC)

# Jobs that say that they are at work, and where, and go on until they are told to end.
PROGRAM = """
import os, time
from pathlib import Path
import dagster as dg
from orchestration.defs.runs import AGAIN_IF_IT_DIES

folder = Path(__file__).parent

@dg.op
def work():
    (folder / "draft").write_text(str(os.getpid()))
    (folder / "draft").rename(folder / "at_work")
    while not (folder / "end").exists():
        time.sleep(0.02)
    if (folder / "fail").exists():
        raise dg.Failure("as it was told")

@dg.job(executor_def=dg.in_process_executor)
def plain():
    work()

@dg.job(executor_def=dg.in_process_executor, tags=AGAIN_IF_IT_DIES)
def nightly():
    work()

if __name__ == "__main__":
    with dg.DagsterInstance.get() as instance:
        dg.execute_job(dg.reconstructable(plain), instance=instance)
"""


@pytest.fixture
def instance(address: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("EARMARK_HOME", str(tmp_path))
    for name, value in dagster_environment(load_settings(), address).items():
        monkeypatch.setenv(name, value)
    (tmp_path / "program.py").write_text(PROGRAM)
    with dg.DagsterInstance.get() as opened:
        yield opened
        (tmp_path / "end").touch()
        _wait(lambda: not any(_launcher(opened).is_held(run.run_id) for run in opened.get_runs()))


@pytest.fixture
def monitor(instance: dg.DagsterInstance) -> Iterator[Callable[[], None]]:
    """Return one round of run monitoring."""
    daemon = MonitoringDaemon(interval_seconds=10)
    with create_test_daemon_workspace_context(EmptyWorkspaceTarget(), instance) as context:
        yield lambda: [*daemon.run_iteration(context)] and None


def _launch(instance: dg.DagsterInstance, folder: Path, name: str = "plain") -> int:
    """Have a job launched; return the process that is at work on it."""
    job = ReconstructableJob.for_file(str(folder / "program.py"), name)
    definition = job.get_definition()
    run = instance.create_run_for_job(definition, tags=definition.tags, job_code_origin=job.get_python_origin())
    with create_test_daemon_workspace_context(EmptyWorkspaceTarget(), instance) as context:
        instance.launch_run(run.run_id, context.create_request_context())
    _wait((folder / "at_work").exists)
    return int((folder / "at_work").read_text())


def _kill(instance: dg.DagsterInstance, process: int) -> None:
    os.kill(process, signal.SIGKILL)
    _wait(lambda: not _launcher(instance).is_held(_run(instance).run_id))


def _wait(condition: Callable[[], object], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "what was waited for does not come"
        time.sleep(0.02)


def _run(instance: dg.DagsterInstance) -> dg.DagsterRun:
    return instance.get_runs(limit=1)[0]


def _launcher(instance: dg.DagsterInstance) -> WarmRunLauncher:
    launcher = instance.run_launcher
    assert isinstance(launcher, WarmRunLauncher)
    return launcher


def test_a_run_whose_process_is_killed_is_failed_and_says_why(
    instance: dg.DagsterInstance, monitor: Callable[[], None], tmp_path: Path
) -> None:
    process = _launch(instance, tmp_path)
    monitor()
    assert _run(instance).status is dg.DagsterRunStatus.STARTED
    assert _run(instance).tags[HOST_TAG] == socket.gethostname()
    _kill(instance, process)
    monitor()
    run = _run(instance)
    assert run.status is dg.DagsterRunStatus.FAILURE
    assert has_died(run)
    (told,) = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    assert "the process of this run is gone" in told.message
    assert run.tags["dagster/will_retry"] == "false"  # the sensors ask again, not Dagster


@pytest.mark.parametrize(("kill", "again"), [(True, "true"), (False, "false")])
def test_a_nightly_job_is_run_again_where_it_died_and_not_where_it_failed(
    instance: dg.DagsterInstance, monitor: Callable[[], None], tmp_path: Path, kill: bool, again: str
) -> None:
    process = _launch(instance, tmp_path, "nightly")
    if kill:
        _kill(instance, process)
    (tmp_path / "fail").touch()
    (tmp_path / "end").touch()
    _wait(lambda: not _launcher(instance).is_held(_run(instance).run_id))
    monitor()
    run = _run(instance)
    assert run.status is dg.DagsterRunStatus.FAILURE
    assert has_died(run) is kill
    assert run.tags["dagster/will_retry"] == again


def test_the_nightly_jobs_are_those_that_are_run_again() -> None:
    jobs = {
        job.name: job.tags.get("dagster/max_retries") for job in definitions.get_repository_def().get_all_jobs()
    }
    assert {name for name, retries in jobs.items() if retries} == {"fit", "maintenance", "test"}


def test_a_run_that_ends_keeps_its_lock_until_that_is_told_and_gives_it_back(
    instance: dg.DagsterInstance, monitor: Callable[[], None], tmp_path: Path
) -> None:
    _launch(instance, tmp_path)
    (tmp_path / "end").touch()
    _wait(lambda: not _launcher(instance).is_held(_run(instance).run_id))
    assert _run(instance).status is dg.DagsterRunStatus.SUCCESS
    monitor()
    assert _run(instance).status is dg.DagsterRunStatus.SUCCESS


def test_a_run_is_terminated_from_any_process_and_ends_as_cancelled(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    _launch(instance, tmp_path)
    with dg.DagsterInstance.from_ref(instance.get_ref()) as another:
        assert _launcher(another).terminate(_run(another).run_id)
    _wait(lambda: _run(instance).status is dg.DagsterRunStatus.CANCELED)
    assert not _launcher(instance).terminate(_run(instance).run_id)


def test_runs_are_forked_from_one_process_until_it_dies_or_the_code_is_another(
    instance: dg.DagsterInstance, monitor: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end() -> None:
        (tmp_path / "end").touch()
        _wait(lambda: not _launcher(instance).is_held(_run(instance).run_id))
        assert _run(instance).status is dg.DagsterRunStatus.SUCCESS
        for name in ("at_work", "end"):
            (tmp_path / name).unlink()

    parents = []
    for changed_at in (0, 0, 1, 1):
        monkeypatch.setattr(runs, "_changed_at", lambda at=changed_at: at)
        parents.append(psutil.Process(_launch(instance, tmp_path)).ppid())
        end()
    assert parents[0] == parents[1]
    assert parents[1] != parents[2] == parents[3]
    _launch(instance, tmp_path)
    psutil.Process(parents[3]).kill()
    monitor()
    end()  # the run went on without the process that it was forked from
    assert psutil.Process(_launch(instance, tmp_path)).ppid() not in parents
    end()


def test_a_run_that_was_not_launched_but_executed_by_hand_is_left_alone(
    instance: dg.DagsterInstance, monitor: Callable[[], None], tmp_path: Path
) -> None:
    with subprocess.Popen([sys.executable, str(tmp_path / "program.py")]) as process:
        try:
            _wait((tmp_path / "at_work").exists)
        finally:
            process.kill()
    monitor()
    assert _run(instance).status is dg.DagsterRunStatus.STARTED


def test_a_run_of_which_nobody_can_know_is_left_alone(
    instance: dg.DagsterInstance, address: Database, tmp_path: Path
) -> None:
    _launch(instance, tmp_path)
    lost = WarmRunLauncher(replace(address, port=1).url())
    lost.register_instance(instance)
    with pytest.raises(DatabaseUnavailableError):
        lost.check_run_worker_health(_run(instance))


def test_a_statement_of_a_killed_process_does_not_go_on(address: Database) -> None:
    program = (
        "import sys; from earmark.warehouse.database import Database;"
        "Database.from_url(sys.argv[1]).connect('earmark killed').execute('select pg_sleep(600)')"
    )
    active = "select from pg_stat_activity where application_name = 'earmark killed' and state = 'active'"
    with address.connect(autocommit=True) as connection:
        process = subprocess.Popen([sys.executable, "-c", program, address.url()])
        try:
            _wait(lambda: connection.execute(active).fetchone() is not None)
        finally:
            process.kill()
            process.wait()
        _wait(lambda: connection.execute(active).fetchone() is None, 30)


def test_sessions_of_dbt_look_for_their_client_too(address: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in address.environment().items():
        monkeypatch.setenv(name, value)
    with psycopg.connect(address.conninfo()) as connection:
        assert connection.execute("show client_connection_check_interval").fetchone() == ("10s",)


def test_a_run_that_died_makes_no_pause_longer() -> None:
    asked = Asked("same", 6, NOW.isoformat())
    later = NOW + timedelta(minutes=1)
    assert next_request("same", asked, later) == timedelta(minutes=31)
    assert next_request("same", asked, later, died=True) == Asked("same", 6, later.isoformat())
    assert next_request("same", asked, NOW, died=True) == timedelta(minutes=1)

"""Runs and their processes, on an instance as `dagster.yaml` makes it: which are found dead, and what follows."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import psycopg
import pytest
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._core.test_utils import create_test_daemon_workspace_context
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from dagster._daemon.daemon import MonitoringDaemon

from orchestration.cli import dagster_environment
from orchestration.definitions import definitions
from orchestration.defs import runs
from orchestration.defs.runs import WatchedRunLauncher, is_expected
from orchestration.defs.sensors import Asked, has_died, next_request
from orchestration.lib.warehouse.database import Database, DatabaseUnavailableError
from orchestration.settings import load_settings

NOW = datetime(2026, 1, 1, tzinfo=UTC)

# A job in a process of its own, which says that it is at work and goes on until it is told to end.
PROGRAM = """
import sys, time
from pathlib import Path
import dagster as dg
from orchestration.defs.runs import AGAIN_IF_IT_DIES, watched_executor

folder = Path(sys.argv[1])

@dg.op
def work():
    (folder / "at_work").touch()
    while not (folder / "end").exists():
        time.sleep(0.02)
    if (folder / "fail").exists():
        raise dg.Failure("as it was told")

@dg.job(executor_def=watched_executor)
def plain():
    work()

@dg.job(executor_def=watched_executor, tags=AGAIN_IF_IT_DIES)
def nightly():
    work()

if __name__ == "__main__":
    with dg.DagsterInstance.get() as instance:
        tags = {name: "{}" for name in sys.argv[3:]}
        dg.execute_job(dg.reconstructable(globals()[sys.argv[2]]), instance=instance, tags=tags)
"""


@pytest.fixture
def instance(address: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("EARMARK_HOME", str(tmp_path))
    for name, value in dagster_environment(load_settings(), address).items():
        monkeypatch.setenv(name, value)
    with dg.DagsterInstance.get() as opened:
        yield opened


@pytest.fixture
def monitor(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Return one round of run monitoring, which waits for no process to take its lock."""
    monkeypatch.setattr(runs, "_GRACE", timedelta(0))
    daemon = MonitoringDaemon(interval_seconds=10)
    with create_test_daemon_workspace_context(EmptyWorkspaceTarget(), instance) as context:
        yield lambda: [*daemon.run_iteration(context)] and None


@contextmanager
def _at_work(folder: Path, job: str, *tags: str) -> Iterator[subprocess.Popen[bytes]]:
    """Execute a job, by default as one that was launched."""
    program = folder / "program.py"
    program.write_text(PROGRAM)
    with subprocess.Popen([sys.executable, str(program), str(folder), job, *(tags or [GRPC_INFO_TAG])]) as process:
        try:
            _wait((folder / "at_work").exists)
            yield process
        finally:
            process.kill()


def _wait(condition: Callable[[], object], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "what was waited for does not come"
        time.sleep(0.02)


def _run(instance: dg.DagsterInstance) -> dg.DagsterRun:
    (run,) = instance.get_runs()
    return run


def _launcher(instance: dg.DagsterInstance) -> WatchedRunLauncher:
    launcher = instance.run_launcher
    assert isinstance(launcher, WatchedRunLauncher)
    return launcher


def test_a_run_whose_process_is_killed_is_failed_and_says_why(
    instance: dg.DagsterInstance, monitor: Callable[[], None], tmp_path: Path
) -> None:
    with _at_work(tmp_path, "plain") as process:
        monitor()
        assert _run(instance).status is dg.DagsterRunStatus.STARTED
        assert _launcher(instance).is_held(_run(instance).run_id)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        _wait(lambda: not _launcher(instance).is_held(_run(instance).run_id))
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
    with _at_work(tmp_path, "nightly") as process:
        if kill:
            process.kill()
        (tmp_path / "fail").touch()
        (tmp_path / "end").touch()
        process.wait()
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
    assert {name for name, retries in jobs.items() if retries} == {"fit", "maintenance"}


def test_a_run_that_ends_keeps_its_lock_until_that_is_told_and_gives_it_back(
    instance: dg.DagsterInstance, monitor: Callable[[], None], tmp_path: Path
) -> None:
    with _at_work(tmp_path, "plain") as process:
        run = _run(instance)
        (tmp_path / "end").touch()
        held = True
        while held:
            held = _launcher(instance).is_held(run.run_id)
        assert _run(instance).status is dg.DagsterRunStatus.SUCCESS
        assert process.wait() == 0
    monitor()
    assert _run(instance).status is dg.DagsterRunStatus.SUCCESS


def test_a_run_that_was_not_launched_but_executed_by_hand_is_left_alone(
    instance: dg.DagsterInstance, monitor: Callable[[], None], tmp_path: Path
) -> None:
    with _at_work(tmp_path, "plain", "by_hand") as process:
        process.kill()
        process.wait()
        _wait(lambda: not _launcher(instance).is_held(_run(instance).run_id))
    monitor()
    assert _run(instance).status is dg.DagsterRunStatus.STARTED


def test_a_run_of_which_nobody_can_know_is_left_alone(
    instance: dg.DagsterInstance, address: Database, tmp_path: Path
) -> None:
    with _at_work(tmp_path, "plain"):
        lost = WatchedRunLauncher(replace(address, port=1).url())
        lost.register_instance(instance)
        with pytest.raises(DatabaseUnavailableError):
            lost.is_held(_run(instance).run_id)


def test_a_run_that_has_just_started_may_not_hold_its_lock_yet() -> None:
    assert is_expected(None, NOW)
    assert is_expected(NOW.timestamp() - 9, NOW)
    assert not is_expected(NOW.timestamp() - 11, NOW)


def test_a_statement_of_a_killed_process_does_not_go_on(address: Database) -> None:
    program = (
        "import sys; from orchestration.lib.warehouse.database import Database;"
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

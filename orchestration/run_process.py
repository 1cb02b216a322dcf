"""The process that the processes of runs are forked from: ``python -m orchestration.run_process``.

It has imported the code and the libraries and has had dbt compile a model, since dbt imports half of itself only
then: what every run would spend four seconds on. It keeps no connection and no thread, executes nothing itself and
so does not grow. A line of its standard input is a run; the end of the input ends it, and leaves its runs at work.
"""

import gc
import logging
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import dagster as dg
from dagster import _check as check
from dagster._cli.api import _execute_run_command_body
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import deserialize_value
from dagster._utils.interrupts import capture_interrupts

from earmark.settings import load_settings
from earmark.warehouse import dbt
from earmark.warehouse.refresh import sliced_models
from earmark.warehouse.server import resolve
from orchestration.defs.runs import FORKS, WarmRunLauncher


def main() -> None:
    """Read runs and have each executed by a process of its own, until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: it is for the runs
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    warm_up()
    gc.freeze()  # or a fork would copy what it has loaded when it looks for garbage there
    for line in sys.stdin:
        if not FORKS or os.fork() == 0:
            execute(deserialize_value(line, ExecuteRunArgs))
            return


def warm_up() -> None:
    """Load what a run will need. Where that fails, the run will say so."""
    with suppress(Exception):
        from orchestration.definitions import definitions
        from orchestration.defs.assets import MANIFEST

        definitions.get_repository_def()
        environment = resolve(load_settings()).environment()
        manifest = dbt.parse(environment)
        arguments = ["compile", *dbt.common_arguments(), "--quiet", "--select", sliced_models(MANIFEST)[0]]
        for _ in dbt.Invocation(arguments, manifest, environment).events():
            pass


def execute(run: ExecuteRunArgs) -> None:
    """Execute a run, as ``dagster api execute_run`` does."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), sys.stdin.fileno())  # or whoever writes would not hear that nobody reads
    with capture_interrupts(), dg.DagsterInstance.from_ref(check.not_none(run.instance_ref)) as instance:
        launcher = instance.run_launcher
        if isinstance(launcher, WarmRunLauncher):
            launcher.hold(
                run.run_id
            )  # before the run is told to have started: monitoring must not meet it without
        _execute_run_command_body(run.run_id, instance, lambda _: None, set_exit_code_on_failure=False)


if __name__ == "__main__":
    logging.captureWarnings(capture=True)
    main()

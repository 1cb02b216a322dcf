"""Becoming another program: ``earmark dbt``, and what psql and Dagster are started by."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import typer

from earmark.cli.console import open_database
from earmark.settings import PROJECT_ROOT, load_settings
from earmark.warehouse import dbt
from earmark.warehouse.database import advisory_lock

app = typer.Typer()


@app.command(
    name="dbt",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)
def dbt_(context: typer.Context) -> None:
    """Run any dbt command on this database: earmark dbt build --select downloads.

    A command that builds waits for a refresh at work, and a refresh for it: dbt looks once, when it begins,
    which relations there are, and fails where another makes them meanwhile.
    """
    settings = load_settings()
    command, given = ["dbt", *context.args], set(context.args[:1])
    profiles = {"DBT_PROFILES_DIR": str(PROJECT_ROOT / "dbt_project")}
    os.chdir(PROJECT_ROOT)
    if given & {"parse", "list", "ls", "clean", "deps", "--help", "--version"}:
        become(command, {**profiles, **dbt.NO_DATABASE})
    database = open_database(settings)
    environment = {**profiles, **database.environment()}
    if not given & {"build", "run", "seed", "snapshot", "retry", "clone"}:
        become(command, environment)
    with database.connect("earmark dbt", autocommit=True) as connection, advisory_lock(connection, "refresh"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is dbt's, which cancels what it has begun
        done = subprocess.run([program("dbt"), *context.args], env={**os.environ, **environment}, check=False)  # noqa: S603
    raise typer.Exit(done.returncode)


def become(command: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Become another program."""
    os.execvpe(program(command[0]), list(command), {**os.environ, **environment})  # noqa: S606  (no shell is meant)


def program(name: str) -> str:
    """Return a program of this virtual environment, or of the path."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else name

"""What Dagster adds to the command line: ``earmark ui``, and hearing of what was done without it.

Registered in the project's entry points; see ``earmark.cli.listeners``. Dagster takes seconds to import, and is
imported where it is needed alone.
"""

import logging
import os
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from earmark.cli.console import err, note, open_database, out
from earmark.cli.programs import become
from earmark.settings import PROJECT_ROOT, Settings, load_settings
from earmark.warehouse.database import Database
from earmark.warehouse.engine import prepare as prepare_database

if TYPE_CHECKING:
    from orchestration.defs.report import Report

app = typer.Typer()


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where the UI listens.")] = 3000,
    host: Annotated[str, typer.Option(help="The address it listens on.")] = "127.0.0.1",
) -> None:
    """Open the Dagster UI, with the sensors on: what lands in the landing folder reaches the marts by itself."""
    settings = load_settings()
    database = open_database(settings)
    database.ensure_exists()
    prepare_database(database, settings.engine)
    environment = dagster_environment(settings, database)
    out.print(
        f"Dagster on http://{host}:{port}\nlanding folder {settings.landing_root}", highlight=False, soft_wrap=True
    )
    os.chdir(settings.home)  # beside the project's dagster.yaml, Dagster would warn that it reads the copy
    command = ["dagster", "dev", "--workspace", str(PROJECT_ROOT / "workspace.yaml")]
    become([*command, "--host", host, "--port", str(port)], environment)


def dagster_environment(settings: Settings, database: Database) -> dict[str, str]:
    """Return the variables that Dagster's processes need, and lay out their home."""
    home = settings.home / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(PROJECT_ROOT / "dagster.yaml", home / "dagster.yaml")
    return {
        "DAGSTER_HOME": str(home),
        # What Dagster notes is not waited for until it is on the disk: a run commits two hundred times.
        "DAGSTER_POSTGRES_URL": database.url(search_path="dagster", synchronous_commit="off"),
        "PYTHONWARNINGS": "ignore",  # Dagster's own notes to its developers
    }


def prepare(settings: Settings, database: Database) -> None:
    """Make Dagster's tables, where they are missing."""
    if not _has_tables(database):
        _report(settings, database, lambda _report: None)


def tell(settings: Settings, database: Database, what: Callable[["Report"], object]) -> None:
    """Tell Dagster, where its tables are: somebody may look at its UI."""
    if _has_tables(database):
        _report(settings, database, what)


def _report(settings: Settings, database: Database, what: Callable[["Report"], object]) -> None:
    """Report to Dagster's instance; where that fails, what was done is done all the same."""
    with err.status("telling Dagster"):
        logging.getLogger("dagster").setLevel(logging.ERROR)
        os.environ.update(dagster_environment(settings, database))
        from dagster import DagsterInstance
        from dagster_postgres.utils import DagsterPostgresException
        from sqlalchemy.exc import SQLAlchemyError

        from orchestration.defs.report import Report

        try:
            with DagsterInstance.get() as instance:
                what(Report(instance))
        except (SQLAlchemyError, DagsterPostgresException) as error:
            note(f"Dagster's UI does not show this, for its tables cannot be written: {database.scrub(error)}")


def _has_tables(database: Database) -> bool:
    with database.connect(read_only=True) as connection:
        row = connection.execute("select to_regclass('dagster.event_logs') is not null").fetchone()
    return bool(row and row[0])

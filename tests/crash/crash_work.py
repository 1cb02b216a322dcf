"""What is killed: the project's own operations, each as one process that does it once.

A process is forked from one that has imported everything, and that alone: a kill costs no start of Python.
"""

import multiprocessing
import os
import traceback
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

from earmark.addresses.privacy import HashKey
from earmark.cli import app
from earmark.ingestion.landing import load_landing
from earmark.warehouse.database import Database
from earmark.warehouse.engine import prepare
from earmark.warehouse.fit import Fit
from earmark.warehouse.refresh import Refresh

KEY: Final = HashKey("k1", b"0123456789abcdef")
_CONTEXT: Final = multiprocessing.get_context("forkserver")
# Not this module: the process that is forked from does not know where it lies (python/cpython#117378).
_CONTEXT.set_forkserver_preload(
    [
        "dbt.cli.main",
        "dbt.adapters.postgres",
        "earmark.cli",
        "earmark.ingestion.landing",
        "earmark.warehouse.engine",
        "earmark.warehouse.fit",
        "earmark.warehouse.refresh",
    ]
)


def load(database: Database, root: str) -> None:
    """Load what is new in a landing folder."""
    with database.connect("crash load") as connection:
        results = load_landing(connection, root, key=KEY)
    refused = [result.refused for result in results if result.refused]
    assert not refused, refused


def refresh(database: Database, _root: str) -> None:
    """Refresh the models, with their tests."""
    for _event in Refresh(database, threads=2).run():
        pass


def rebuild(database: Database, _root: str) -> None:
    """Build every model from nothing, with its tests."""
    for _event in Refresh(database, threads=2).run(full=True):
        pass


def build_by_hand(database: Database, selection: str) -> None:
    """Build models as a person does: earmark dbt build."""
    os.environ["DATABASE_URL"] = database.url()
    app(["dbt", "build", "--exclude-resource-types", "test", "unit_test", "--select", *selection.split()])


def fit(database: Database, _root: str) -> None:
    """Fit the data-driven models, and build what stands on them."""
    for _event in Fit(database, threads=2).run():
        pass


def maintain(database: Database, _root: str) -> None:
    """Make chunks ahead of time, drop old ones."""
    with database.connect("crash maintain", autocommit=True) as connection:
        connection.execute("select timeseries.maintain()")


def migrate(database: Database, engine: str) -> None:
    """Bring an empty database up to date."""
    prepare(database, engine)


def make_and_migrate(database: Database, engine: str) -> None:
    """Make the database where it is missing, and bring it up to date."""
    database.ensure_exists()
    prepare(database, engine)


def start(work: Callable[[Database, str], None], database: Database, argument: str, errors: Path) -> BaseProcess:
    """Begin a piece of work in a process of its own; what it fails of is written to a file, its name first."""
    process = _CONTEXT.Process(target=_run, args=(work, database, argument, str(errors)))
    process.start()
    return process


def _run(work: Callable[[Database, str], None], database: Database, argument: str, errors: str) -> None:
    try:
        work(database, argument)
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 1)
    except BaseException as error:  # noqa: BLE001  (whatever it is, the test judges it)
        Path(errors).write_text(f"{type(error).__name__}\n{traceback.format_exc()}", encoding="utf-8")
        os._exit(1)

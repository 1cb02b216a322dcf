"""Who is told what the command line has loaded, built and fitted: whoever registers for it.

The library knows no Dagster. A package that orchestrates names a module in its entry points, in group
``earmark.cli``: with commands of its own (``app``), and with what hears of what is done. The project's own is
``orchestration.command_line``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Protocol, cast

import typer

from earmark.settings import Settings
from earmark.warehouse import dbt
from earmark.warehouse.database import Database

if TYPE_CHECKING:
    from earmark.ingestion.summary import LoadSummary
    from earmark.warehouse.fit import Fit
    from earmark.warehouse.refresh import Refresh


class Listener(Protocol):
    """Is told what was done, when it is done."""

    def loads(self, loads: LoadSummary) -> None:
        """Hear what was loaded, by dataset."""

    def models(self, stage: Refresh | Fit, events: Sequence[dbt.Event]) -> None:
        """Hear what dbt has built and tested in a refresh."""

    def fit(self, stage: Fit, events: Sequence[dbt.Event]) -> None:
        """Hear what was fitted, and built upon it."""


class Plugin(Protocol):
    """A module of the entry points."""

    app: typer.Typer

    def prepare(self, settings: Settings, database: Database) -> None:
        """Make what listening needs, where it is missing: from then on somebody may look."""

    def tell(self, settings: Settings, database: Database, what: Callable[[Listener], object]) -> None:
        """Tell the module's listener, where somebody may look; else nothing is imported for it."""


@cache
def plugins() -> tuple[Plugin, ...]:
    """Return the modules that are registered."""
    return tuple(cast("Plugin", entry.load()) for entry in entry_points(group="earmark.cli"))


def prepare_listeners(settings: Settings, database: Database) -> None:
    """Make what listening needs: ``earmark run`` sets up all that there is."""
    for plugin in plugins():
        plugin.prepare(settings, database)


def tell(settings: Settings, database: Database, what: Callable[[Listener], object]) -> None:
    """Tell all listeners."""
    for plugin in plugins():
        plugin.tell(settings, database, what)

"""The stage ``fit``: what no window can refresh at a fair price, after the refresh and nightly.

First the data-driven models are fitted (``lib.attribution.fit``), then dbt builds the models tagged ``fit`` whole,
with their tests, in one invocation. Where neither a model that they stand on was built since, nor their SQL is
another, nothing is done.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from typing import Any, Final

import psycopg

from orchestration.lib.attribution.fit import FitSummary, fit
from orchestration.lib.attribution.settings import AttributionSettings, check_settings
from orchestration.lib.warehouse import changes, dbt
from orchestration.lib.warehouse.database import Database, advisory_lock
from orchestration.lib.warehouse.migrations import require_current
from orchestration.lib.warehouse.refresh import Plan, fit_models, project_variables

SELECTION: Final = f"tag:{changes.FIT_TAG}"


class Fit:
    """One run of the stage on a database, under the lock of the refresh: what it reads stands still.

    Use: ``stage = Fit(database)``, ``for event in stage.run(): …``; ``stage.summary`` says what was fitted (None
    where there was nothing to do), ``stage.plan`` what dbt built.
    """

    def __init__(self, database: Database, *, threads: int = 4) -> None:
        """Read the settings and parse the project.

        Raises:
            AttributionSettingsError: the settings of attribution are wrong.

        """
        self.settings = check_settings()
        self.database = database
        self.threads = threads
        self._manifest = dbt.parse(database.environment())
        self.manifest: dict[str, Any] = json.loads(dbt.ensure_manifest().read_bytes())
        self.plan = Plan((), (), ())
        self.summary: FitSummary | None = None

    def run(self) -> Iterator[dbt.Event]:
        """Fit and build where something has changed, and yield dbt's events.

        Raises:
            DbtError: a model or test failed; the next run does it again.

        """
        with self._at_work() as connection:
            state = _state(connection, self.manifest, self.settings)
            if _is_recorded(connection, state) and not _is_missing(connection, self.manifest):
                return
            self.summary = self._fit(connection)
            yield from self._build()
            changes.record_versions(connection, {**_versions(self.manifest), **state}, state)

    def fit(self) -> FitSummary:
        """Fit alone."""
        with self._at_work() as connection:
            self.summary = self._fit(connection)
        return self.summary

    def build(self, models: Sequence[str] = ()) -> Iterator[dbt.Event]:
        """Build the models tagged ``fit``, or these of them, and yield dbt's events.

        Raises:
            DbtError: a model or test failed.

        """
        with self._at_work():
            yield from self._build(models)

    def describe(self) -> str:
        """Say in a line what was done."""
        if self.summary is None:
            return "nothing to do: the models stand on what is there"
        return f"{self.summary}; {len(self.plan.stale)} models built"

    @contextmanager
    def _at_work(self) -> Iterator[psycopg.Connection]:
        with (
            self.database.connect("earmark fit", autocommit=True) as connection,
            advisory_lock(connection, "refresh"),
        ):
            require_current(connection)
            yield connection

    def _fit(self, connection: psycopg.Connection) -> FitSummary:
        return fit(connection, samples=self.settings.bootstrap_samples, seed=self.settings.seed)

    def _build(self, models: Sequence[str] = ()) -> Iterator[dbt.Event]:
        chosen = tuple(sorted(models))
        self.plan = Plan(windows=(), stale=chosen or fit_models(self.manifest), windowed=())
        arguments = fit_arguments(chosen or (SELECTION,), threads=self.threads)
        yield from dbt.Invocation(arguments, self._manifest, self.database.environment()).events()


def fit_arguments(selection: Sequence[str], *, threads: int) -> list[str]:
    """Return dbt's arguments: one ``dbt build`` of the selection and its tests."""
    return [
        "build",
        *dbt.common_arguments(),
        "--threads",
        str(threads),
        "--exclude-resource-types",
        "unit_test",
        "--select",
        *selection,
    ]


def _state(
    connection: psycopg.Connection, manifest: Mapping[str, Any], settings: AttributionSettings
) -> dict[str, str]:
    """Return a digest for each model of the stage: of settings, version and last builds of windowed models."""
    builds = connection.execute(
        'select model, invocation_id from ingest.model_builds where seen is not null order by model collate "C"'
    ).fetchall()
    versions = _versions(manifest)
    return {
        name: hashlib.sha256(json.dumps([*astuple(settings), versions[name], builds]).encode()).hexdigest()[:16]
        for name in fit_models(manifest)
    }


def _is_recorded(connection: psycopg.Connection, state: Mapping[str, str]) -> bool:
    recorded: dict[str, str] = dict(
        connection.execute(
            "select model, version from ingest.model_builds where model = any(%s)", (list(state),)
        ).fetchall()
    )
    return recorded == state


def _versions(manifest: Mapping[str, Any]) -> dict[str, str]:
    return changes.model_versions(manifest, project_variables())


def _is_missing(connection: psycopg.Connection, manifest: Mapping[str, Any]) -> bool:
    names = set(fit_models(manifest))
    relations = [
        f"{node['schema']}.{node['alias']}" for node in manifest["nodes"].values() if node["name"] in names
    ]
    row = connection.execute(
        "select coalesce(bool_or(to_regclass(name) is null), false) from unnest(%s::text[]) as name", (relations,)
    ).fetchone()
    return bool(row and row[0])

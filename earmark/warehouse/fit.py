"""The stage ``fit``: what no slice can refresh at a fair price, after the refresh and nightly.

First the data-driven models are fitted (``lib.attribution.fit``), then dbt builds the models tagged ``fit`` whole,
with their tests, in one invocation. The stage is a reader of the change log, under the name ``fit``: where what
its models read has not changed since, and neither have their SQL and the settings, nothing is done.
"""

import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from typing import Any, Final

import psycopg

from earmark.journeys.fit import FitSummary, fit
from earmark.journeys.settings import AttributionSettings, check_settings
from earmark.warehouse import changes, dbt
from earmark.warehouse.database import Database, advisory_lock
from earmark.warehouse.migrations import require_current
from earmark.warehouse.refresh import Plan, fit_models, project_variables

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
        self.plan = Plan()
        self.summary: FitSummary | None = None

    def run(self) -> Iterator[dbt.Event]:
        """Fit and build where something has changed, and yield dbt's events.

        Raises:
            DbtError: a model or test failed; the next run does it again.

        """
        with self._at_work() as connection:
            version = _version(self.manifest, self.settings)
            reads = changes.producers(self.manifest, fit_models(self.manifest))
            run = f"fit {uuid.uuid4()}"
            is_current = _is_recorded(connection, version) and not _is_missing(connection, self.manifest)
            if is_current and changes.FIT_TAG not in changes.models_to_refresh(connection):
                return
            # What changes while the stage is at work is news to its next run.
            connection.execute("select ingest.begin_build(%s, %s, %s, true)", (changes.FIT_TAG, run, reads))
            self.summary = self._fit(connection)
            yield from self._build()
            connection.execute("select ingest.end_build(%s, %s, %s)", (changes.FIT_TAG, run, reads))
            changes.record_versions(
                connection, {**_versions(self.manifest), changes.FIT_TAG: version}, [changes.FIT_TAG]
            )

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
        self.plan = Plan(stale=chosen or fit_models(self.manifest))
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


def _version(manifest: Mapping[str, Any], settings: AttributionSettings) -> str:
    """Return a digest of the settings and of the versions of the stage's models."""
    versions = _versions(manifest)
    parts = [*astuple(settings), *(versions[name] for name in fit_models(manifest))]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _is_recorded(connection: psycopg.Connection, version: str) -> bool:
    found = connection.execute(
        "select 1 from ingest.model_builds where model = %s and version = %s and cluster = ingest.cluster()",
        (changes.FIT_TAG, version),
    )
    return found.rowcount > 0


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

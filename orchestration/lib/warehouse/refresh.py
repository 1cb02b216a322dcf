"""The refresh: from changed days to refreshed models, in one dbt invocation.

What is decided here: whether there is anything to do, which models are rebuilt whole, and dbt's arguments for it.
Models tagged ``fit`` are none of it: ``fit`` builds them.
Which days a model refreshes it finds out itself, unless windows are given. ``changes`` knows what changed, ``dbt``
runs the command.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg
import yaml

from orchestration.lib.attribution.settings import check_settings
from orchestration.lib.warehouse import changes, dbt
from orchestration.lib.warehouse.database import Database, advisory_lock
from orchestration.lib.warehouse.migrations import require_current
from orchestration.lib.warehouse.windows import Window
from orchestration.settings import PROJECT_ROOT

# A refresh of a window touches these; the rest are views and seeds, built when their text changes.
WINDOWED: Final = frozenset({"hypertable", "continuous_aggregate", "incremental"})


@dataclass(frozen=True, slots=True)
class Plan:
    """What a refresh will do: refresh ``windows`` of the windowed models, rebuild ``stale`` models whole.

    ``given``: the windows were asked for; else they are the days that wait, and each model takes what is news
    to it.
    """

    windows: tuple[Window, ...]
    stale: tuple[str, ...]
    windowed: tuple[str, ...]
    given: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.windows and not self.stale

    @property
    def models(self) -> tuple[str, ...]:
        """The models and seeds that dbt will build."""
        windowed = self.windowed if self.windows else ()
        return tuple(sorted({*self.stale, *windowed}))

    def summary(self) -> str:
        """Say in a line what was done."""
        if self.is_empty:
            return "nothing to do: the models hold all that was loaded"
        parts = []
        refreshed = set(self.windowed) - set(self.stale)
        if self.windows and refreshed:
            listed = ", ".join(str(window) for window in self.windows[:3])
            more = f" and {len(self.windows) - 3} more windows" if len(self.windows) > 3 else ""
            parts.append(f"{len(refreshed)} models refreshed for {listed}{more}")
        if self.stale:
            listed = ", ".join(self.stale[:3])
            more = f" and {len(self.stale) - 3} more" if len(self.stale) > 3 else ""
            parts.append(f"{len(self.stale)} built whole ({listed}{more})")
        return "; ".join(parts)


def make_plan(
    connection: psycopg.Connection,
    manifest: Mapping[str, Any],
    *,
    windows: Sequence[Window] = (),
    full: bool = False,
    models: Sequence[str] = (),
) -> Plan:
    """Decide what to refresh: ``windows`` where given, else what has changed; ``full``: everything.

    With ``models``, only those: for ``windows``, or whole where none are given. Models of the stage ``fit`` are
    none of it.

    Raises:
        DbtError: one of ``models`` is of the stage ``fit``.

    """
    of_fit = set(fit_models(manifest))
    if chosen_of_fit := sorted(of_fit.intersection(models)):
        raise dbt.DbtError(f"{', '.join(chosen_of_fit)}: no refresh builds this, but the stage fit: earmark fit")
    if models:
        chosen = tuple(sorted(models))
        if windows and not full:
            return Plan(windows=tuple(windows), stale=(), windowed=chosen, given=True)
        return Plan(windows=(), stale=chosen, windowed=())
    versions = changes.model_versions(manifest, project_variables())
    stale = sorted(set(versions) - of_fit) if full else changes.stale_models(connection, manifest, versions)
    return Plan(
        windows=tuple(windows) or tuple(changes.windows_of(changes.pending_days(connection))),
        stale=tuple(stale),
        windowed=tuple(
            sorted(
                node["name"]
                for node in manifest["nodes"].values()
                if node["resource_type"] == "model"
                and node["config"]["materialized"] in WINDOWED
                and node["name"] not in of_fit
            )
        ),
        given=bool(windows),
    )


def fit_models(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the models that the stage ``fit`` builds, in name order."""
    return tuple(
        sorted(
            node["name"]
            for node in manifest["nodes"].values()
            if node["resource_type"] == "model" and changes.FIT_TAG in node["tags"]
        )
    )


def build_arguments(plan: Plan, *, threads: int) -> list[str]:
    """Return dbt's arguments for a plan: one ``dbt build`` of its models and their tests.

    Tests that also read a model of the stage ``fit`` are left to that stage.
    """
    variables: dict[str, Any] = {"rebuild": list(plan.stale)}
    if plan.given:
        variables["windows"] = [window.as_vars() for window in plan.windows]
    return [
        "build",
        *dbt.common_arguments(),
        "--threads",
        str(threads),
        "--exclude-resource-types",
        "unit_test",
        "--select",
        *plan.models,
        "--exclude",
        f"tag:{changes.FIT_TAG}",
        "--vars",
        json.dumps(variables),
    ]


class Refresh:
    """One refresh of a database, under the lock that lets only one run at a time.

    Use: ``refresh = Refresh(database)``, ``for event in refresh.run(): …``; ``refresh.plan`` says what it did.
    Parsing the project is paid once for each object.
    """

    def __init__(self, database: Database, *, threads: int = 4) -> None:
        """Parse the project.

        Raises:
            AttributionSettingsError: the settings of attribution are wrong.

        """
        check_settings()
        self.database = database
        self.threads = threads
        self.plan = Plan((), (), ())
        self._manifest = dbt.parse(database.environment())
        self.manifest: dict[str, Any] = json.loads(dbt.ensure_manifest().read_bytes())

    def run(
        self, windows: Sequence[Window] = (), *, full: bool = False, models: Sequence[str] = ()
    ) -> Iterator[dbt.Event]:
        """Refresh, as ``make_plan`` decides, and yield dbt's events. With nothing to do, nothing is run.

        A model whose build or test failed keeps its days: they are refreshed again the next time.

        Raises:
            DbtError: a model or test failed.

        """
        with (
            self.database.connect("earmark refresh", autocommit=True) as connection,
            advisory_lock(connection, "refresh"),
        ):
            require_current(connection)
            self.plan = plan = make_plan(connection, self.manifest, windows=windows, full=full, models=models)
            versions = changes.model_versions(self.manifest, project_variables())
            if plan.is_empty:
                changes.record_versions(connection, versions, ())
                return
            changes.begin_whole(connection, plan.stale)
            arguments = build_arguments(plan, threads=self.threads)
            invocation = dbt.Invocation(arguments, self._manifest, self.database.environment())
            yield from invocation.events()
            changes.record_versions(connection, versions, plan.stale)


def project_variables() -> dict[str, Any]:
    """Return the ``vars`` of ``dbt_project.yml``."""
    project = yaml.safe_load((PROJECT_ROOT / "dbt_project.yml").read_text(encoding="utf-8"))
    variables: dict[str, Any] = project.get("vars", {})
    return variables

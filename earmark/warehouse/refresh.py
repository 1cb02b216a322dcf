"""The refresh: from changed slices to refreshed models, in one dbt invocation.

What is decided here: whether there is anything to do, which models take part, which are rebuilt whole, and dbt's
arguments for it. Models tagged ``fit`` are none of it: ``fit`` builds them. Which slices a model refreshes it
finds out itself, unless days are given. ``changes`` knows what changed, ``dbt`` runs the command.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg
import yaml

from earmark.journeys.settings import check_settings
from earmark.settings import PROJECT_ROOT
from earmark.warehouse import changes, dbt
from earmark.warehouse.changes import Build, Slice
from earmark.warehouse.database import Database, advisory_lock
from earmark.warehouse.days import Days, merge_days
from earmark.warehouse.migrations import require_current

_MOST_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class Plan:
    """What a refresh will do: rebuild ``stale`` models whole and let ``sliced`` ones refresh.

    Those refresh the days that were asked for (``given``), or, without, what of the ``news`` each has not seen.
    ``waiting`` are the models that would be built too, had somebody not chosen others.
    """

    stale: tuple[str, ...] = ()
    sliced: tuple[str, ...] = ()
    given: tuple[Days, ...] = ()
    news: tuple[Slice, ...] = ()
    waiting: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.sliced and not self.stale

    @property
    def models(self) -> tuple[str, ...]:
        """The models and seeds that dbt will build."""
        return tuple(sorted({*self.stale, *self.sliced}))

    def summary(self) -> str:
        """Say in a line what was done."""
        if self.is_empty and self.waiting:
            return f"nothing is news to the chosen models; {len(self.waiting)} others wait: earmark build"
        if self.is_empty:
            return "nothing to do: the models hold all that was loaded"
        parts = []
        refreshed = set(self.sliced) - set(self.stale)
        if refreshed:
            parts.append(f"{len(refreshed)} models refreshed for {self.what_changed()}")
        if self.stale:
            parts.append(f"{len(self.stale)} built whole ({_list(self.stale)})")
        return "; ".join(parts)

    def what_changed(self) -> str:
        """Say in a few words what the sliced models are refreshed for."""
        if self.given:
            return _list([str(span) for span in self.given])
        return slices_in_words(self.news) if self.news else "nothing new"


def slices_in_words(slices: Sequence[Slice]) -> str:
    """Return the days and tenants of slices as people read them, the first few."""
    days = [str(span) for span in merge_days(item.day for item in slices if item.day is not None)]
    if any(item.day is None for item in slices):
        days.append("any day")
    tenants = sorted({item.tenant_id for item in slices})
    if "" in tenants:
        return f"{_list(days)} of every tenant"
    return f"{_list(days)} of {_list(tenants)}"


def _list(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _MOST_SHOWN} more" if len(texts) > _MOST_SHOWN else ""
    return ", ".join(texts[:_MOST_SHOWN]) + more


def make_plan(
    connection: psycopg.Connection,
    manifest: Mapping[str, Any],
    *,
    given: Sequence[Days] = (),
    full: bool = False,
    models: Sequence[str] = (),
) -> Plan:
    """Decide what to refresh: the days ``given``, else what has changed; ``full``: everything.

    With ``models``, only those: for the days ``given``, or where something is news to them; whole where they have
    no slices or their SQL has changed. Models of the stage ``fit`` are none of it.

    Raises:
        DbtError: one of ``models`` is of the stage ``fit``.

    """
    of_fit = set(fit_models(manifest))
    if chosen_of_fit := sorted(of_fit.intersection(models)):
        raise dbt.DbtError(f"{', '.join(chosen_of_fit)}: no refresh builds this, but the stage fit: earmark fit")
    versions = changes.model_versions(manifest, project_variables())
    if full:
        everything = set(versions) - of_fit
        chosen = set(models) or everything
        return Plan(stale=tuple(sorted(chosen)), waiting=tuple(sorted(everything - chosen)))
    stale = set(changes.stale_models(connection, manifest, versions))
    with_slices = set(sliced_models(manifest))
    begun = {*stale, *changes.models_to_refresh(connection)}
    sliced = with_slices if given else changes.readers(manifest, begun)
    waiting: set[str] = set()
    if models:
        waiting = (stale | sliced).difference(models)
        if not given:  # what was not chosen is not built, and so is no news to anybody
            sliced = changes.readers(manifest, begun.intersection(models))
        stale = stale.intersection(models) | set(models) - with_slices
        sliced = sliced.intersection(models) - stale
    return Plan(
        stale=tuple(sorted(stale)),
        sliced=tuple(sorted(sliced)),
        given=tuple(given),
        news=() if given else tuple(changes.pending_slices(connection)),
        waiting=tuple(sorted(waiting)),
    )


def sliced_models(manifest: Mapping[str, Any]) -> list[str]:
    """Return the names of the models that a refresh builds slice by slice, in name order."""
    return sorted(changes.readers(manifest, (node["name"] for node in manifest["nodes"].values())))


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

    Tests that also read a model of the stage ``fit`` are left to that stage. Where others wait that were
    not chosen, only those tests run that read the plan's models and what these are made of: the others are older.
    """
    variables: dict[str, Any] = {"rebuild": list(plan.stale)}
    if plan.given:
        variables["days"] = [span.as_vars() for span in plan.given]
    return [
        "build",
        *dbt.common_arguments(),
        "--threads",
        str(threads),
        "--exclude-resource-types",
        "unit_test",
        "--indirect-selection",
        "buildable" if plan.waiting else "eager",
        "--select",
        *plan.models,
        "--exclude",
        f"tag:{changes.FIT_TAG}",
        "--vars",
        json.dumps(variables),
    ]


def arguments_of_tests(tests: Sequence[str], *, threads: int) -> list[str]:
    """Return dbt's arguments for these tests over all that the models hold."""
    return ["test", *dbt.common_arguments(), "--threads", str(threads), "--select", *tests]


def left_behind_in_words(relations: Sequence[str]) -> str:
    """Say what is to be done with what removed models have left."""
    return f"no model builds {_list(relations)} any more: drop what nobody reads"


class Refresh:
    """One refresh of a database, under the lock that lets only one run at a time.

    Use: ``refresh = Refresh(database)``, ``for event in refresh.run(): …``; ``refresh.plan`` says what it did and
    ``refresh.builds``, by model, for which slices; ``refresh.left_behind`` names what removed models have left.
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
        self.plan = Plan()
        self.builds: dict[str, Build] = {}
        self.left_behind: list[str] = []
        self._manifest = dbt.parse(database.environment())
        self.manifest: dict[str, Any] = json.loads(dbt.ensure_manifest().read_bytes())

    def run(
        self, given: Sequence[Days] = (), *, full: bool = False, models: Sequence[str] = ()
    ) -> Iterator[dbt.Event]:
        """Refresh, as ``make_plan`` decides, and yield dbt's events. With nothing to do, nothing is run.

        A model whose build failed keeps its news: it is refreshed again the next time. One that was built whole on
        others that are older than their SQL is built whole again with them.

        Raises:
            DbtError: a model or test failed.

        """
        with (
            self.database.connect("earmark refresh", autocommit=True) as connection,
            advisory_lock(connection, "refresh"),
        ):
            require_current(connection)
            self.left_behind = changes.forget_removed(connection, self.manifest)
            self.plan = plan = make_plan(connection, self.manifest, given=given, full=full, models=models)
            versions = changes.model_versions(self.manifest, project_variables())
            if plan.is_empty:
                return
            outdated = set(changes.stale_models(connection, self.manifest, versions)).difference(plan.stale)
            changes.begin_whole(connection, plan.stale)
            arguments = build_arguments(plan, threads=self.threads)
            invocation = dbt.Invocation(arguments, self._manifest, self.database.environment())
            for event in invocation.events():
                if dbt.is_result(event) and event["data"]["node_info"]["resource_type"] == "model":
                    name = event["data"]["node_info"]["node_name"]
                    build = changes.build_of(connection, name, event["info"]["invocation_id"])
                    if build is not None:
                        self.builds[name] = build
                yield event
            changes.record_versions(connection, versions, changes.founded(self.manifest, plan.stale, outdated))

    def test(self, tests: Sequence[str]) -> Iterator[dbt.Event]:
        """Make these tests over all that the models hold, not over slices, and yield dbt's events.

        ``plan`` says afterwards what waits for a refresh: a test that compares it with its sources may fail.

        Raises:
            DbtError: a test failed.

        """
        with (
            self.database.connect("earmark tests", autocommit=True) as connection,
            advisory_lock(connection, "refresh"),
        ):
            require_current(connection)
            self.plan = make_plan(connection, self.manifest)
            arguments = arguments_of_tests(tests, threads=self.threads)
            yield from dbt.Invocation(arguments, self._manifest, self.database.environment()).events()


def project_variables() -> dict[str, Any]:
    """Return the ``vars`` of ``dbt_project.yml``."""
    project = yaml.safe_load((PROJECT_ROOT / "dbt_project.yml").read_text(encoding="utf-8"))
    variables: dict[str, Any] = project.get("vars", {})
    return variables

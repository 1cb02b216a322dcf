"""dbt in this process, for the tests that build models: parsed once for all databases of a worker."""

import json
from pathlib import Path
from typing import Any

import pytest
from dbt.cli.main import dbtRunner, dbtRunnerResult

from earmark.settings import PROJECT_ROOT
from earmark.warehouse.database import Database
from earmark.warehouse.dbt import as_dict
from earmark.warehouse.refresh import make_plan

SLICED = "config.materialized:hypertable config.materialized:continuous_aggregate config.materialized:incremental"


class Dbt:
    """dbt in this process, with its project parsed once for all databases."""

    def __init__(self, target: Path, project: Path = PROJECT_ROOT) -> None:
        self._arguments = [
            "--project-dir", str(project), "--profiles-dir", str(PROJECT_ROOT / "dbt_project"),
            "--target-path", str(target), "--log-path", str(target), "--log-level", "none",
            "--no-use-colors", "--no-write-json",
        ]  # fmt: skip
        parsed = dbtRunner().invoke(["parse", "--no-partial-parse", *self._arguments])
        assert parsed.success, parsed.exception
        self.manifest = parsed.result
        self._plain = as_dict(self.manifest)
        self._database: Database | None = None

    def use(self, database: Database, patch: pytest.MonkeyPatch) -> "Dbt":
        """Point the parsed project at a database: its name is part of every relation."""
        self._database = database
        for name, value in database.environment().items():
            patch.setenv(name, value)
        for node in [*self.manifest.nodes.values(), *self.manifest.sources.values()]:
            node.database = database.name
            if getattr(node, "relation_name", None):
                node.relation_name = f'"{database.name}".' + node.relation_name.split(".", 1)[1]
        return self

    def __call__(self, *arguments: str, **variables: Any) -> dbtRunnerResult:
        """Run a command and return its result, failed or not."""
        given = ["--vars", json.dumps(variables)] if variables else []
        return dbtRunner(manifest=self.manifest).invoke([*arguments, *self._arguments, *given])

    def build(self, *arguments: str, data_tests: bool = False, **variables: Any) -> None:
        """Build everything, or with days the sliced models; without a word, once all is built, what has news."""
        selected = ["--select", *SLICED.split()] if variables.get("days") and not arguments else []
        if not arguments and not variables and self._database is not None:
            with self._database.connect(autocommit=True) as connection:
                plan = make_plan(connection, self._plain)
            if plan.is_empty:
                return
            if not plan.stale:
                selected = ["--select", *plan.models]
        without = ["unit_test"] if data_tests else ["unit_test", "test"]
        result = self("build", "--exclude-resource-types", *without, *selected, *arguments, **variables)
        assert result.success, self.messages(result)

    @staticmethod
    def messages(result: dbtRunnerResult) -> str:
        """Return what failed and why."""
        if result.exception is not None:
            return str(result.exception)
        return "\n".join(
            f"{item.node.name}: {item.message}" for item in result.result if item.status not in ("success", "pass")
        )


@pytest.fixture(scope="session")
def parsed(server: Database, tmp_path_factory: pytest.TempPathFactory) -> Dbt:
    """Return dbt with the project parsed; point it at a database with ``use``."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment().items():
            patch.setenv(name, value)
        return Dbt(tmp_path_factory.mktemp("target"))


@pytest.fixture
def dbt(parsed: Dbt, address: Database, monkeypatch: pytest.MonkeyPatch) -> Dbt:
    """Return dbt for the test's database on plain PostgreSQL."""
    return parsed.use(address, monkeypatch)


@pytest.fixture
def dbt_on_any_engine(parsed: Dbt, any_engine: Database, monkeypatch: pytest.MonkeyPatch) -> Dbt:
    """Return dbt for the test's database, on each engine in turn."""
    return parsed.use(any_engine, monkeypatch)

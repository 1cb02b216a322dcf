"""The dbt project as a whole: what its manifest promises, and its macros on literal values."""

import csv
import json
import re
import runpy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from dbt.cli.main import dbtRunner, dbtRunnerResult
from psycopg.conninfo import conninfo_to_dict

PROJECT = Path(__file__).parents[2]
WINDOWED = ("hypertable", "continuous_aggregate")


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the folder of a parse that takes deprecations for errors; no database is asked."""
    folder = tmp_path_factory.mktemp("target")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HOST", "USER", "DATABASE"):
            patch.setenv(f"POSTGRES_{name}", "none")
        parsed = dbtRunner().invoke(
            ["parse", "--no-partial-parse", "--warn-error-options", '{"error": ["Deprecations"]}', *common(folder)]
        )
    assert parsed.success, parsed.exception
    return folder


def common(target: Path, project: Path = PROJECT) -> list[str]:
    return [
        "--project-dir", str(project), "--profiles-dir", str(PROJECT / "dbt_project"),
        "--target-path", str(target), "--log-path", str(target), "--log-level", "none", "--no-use-colors",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def models(target: Path) -> dict[str, dict[str, Any]]:
    manifest = json.loads((target / "manifest.json").read_text())
    return {key: node for key, node in manifest["nodes"].items() if node["resource_type"] == "model"}


def test_marts_are_public_contracts_and_all_else_is_protected(models: Mapping[str, Mapping[str, Any]]) -> None:
    for node in models.values():
        is_mart = node["schema"] == "marts"
        assert node["access"] == ("public" if is_mart else "protected"), node["name"]
        assert node["contract"]["enforced"] == is_mart, node["name"]
        assert node["group"] == node["fqn"][1], node["name"]
        assert node["schema"] in ("staging", "intermediate", "rollups", "marts"), node["name"]


def test_no_model_reads_what_stands_in_a_later_folder(models: Mapping[str, Mapping[str, Any]]) -> None:
    folders = yaml.safe_load((PROJECT / "dbt_project.yml").read_text())["models"]["earmark"]
    order = [name for name in folders if not name.startswith("+")]
    assert {node["fqn"][1] for node in models.values()} == set(order)
    backwards = [
        (node["name"], models[parent]["name"])
        for node in models.values()
        for parent in node["depends_on"]["nodes"]
        if parent in models and order.index(models[parent]["fqn"][1]) > order.index(node["fqn"][1])
    ]
    assert backwards == []


def test_what_a_model_promises_stands_beside_it(models: Mapping[str, Mapping[str, Any]]) -> None:
    for node in models.values():
        sql, text = Path(node["original_file_path"]), Path(node["patch_path"].partition("://")[2])
        assert text.parent == sql.parent, node["name"]
        assert text.stem == sql.stem or sql.parent.name == "staging", node["name"]


def test_what_the_docs_repeat_is_as_it_is_said(models: Mapping[str, Mapping[str, Any]]) -> None:
    pages = runpy.run_path(str(PROJECT / "docs" / "generate.py"))["pages"]()
    for page, text in pages.items():
        assert page.read_text(encoding="utf-8") == text, "run: make docs"
    dictionary = pages[PROJECT / "docs" / "marts.md"]
    marts = [node["name"] for node in models.values() if node["schema"] == "marts"]
    assert sorted(re.findall(r"^### (\w+)$", dictionary, re.MULTILINE)) == sorted(marts)


def test_every_model_says_its_grain_and_every_column_of_a_mart_what_it_is(
    models: Mapping[str, Mapping[str, Any]],
) -> None:
    for node in models.values():
        assert node["description"].startswith("One row "), node["name"]
        if node["schema"] == "marts":
            assert [name for name, column in node["columns"].items() if not column["description"]] == []


def test_the_chain_of_the_model_has_the_rules_of_the_seed_in_their_order(
    models: Mapping[str, Mapping[str, Any]],
) -> None:
    with (PROJECT / "seeds" / "counting_rules.csv").open(newline="") as file:
        rules = [row["code"] for row in csv.DictReader(file)]
    code = models["model.earmark.int_requests__outcomes"]["raw_code"]
    chain = [rule for rule in re.findall(r"then '(\w+)'", code) if rule in rules]
    assert chain == [rule for rule in rules if rule in chain]
    # The others are what agents are discarded as, and what the windows of counting.standing() find.
    assert set(rules).difference(chain) == {
        *("no_user_agent", "bot", "not_a_player", "apple_watch", "forged_user_agent"),
        *("below_threshold", "duplicate", "counted"),
    }


@pytest.fixture
def dbt(target: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dbtRunnerResult]:
    parts = conninfo_to_dict(database)
    for name, key in (
        ("HOST", "host"),
        ("PORT", "port"),
        ("USER", "user"),
        ("PASSWORD", "password"),
        ("DATABASE", "dbname"),
    ):
        monkeypatch.setenv(f"POSTGRES_{name}", str(parts.get(key) or ("5432" if key == "port" else "")))

    def run(*arguments: str, project: Path = PROJECT, **variables: Any) -> dbtRunnerResult:
        folder = target if project == PROJECT else project / "target"
        return dbtRunner().invoke([*arguments, *common(folder, project), "--vars", json.dumps(variables)])

    return run


def rendered(result: dbtRunnerResult) -> str:
    assert result.success, result.exception or result.result
    return str(result.result.results[0].node.compiled_code).strip()


MIDNIGHT = "timestamptz '2026-01-04 00:00:00+00'"


def test_given_days_are_whole_utc_days_of_all_tenants(dbt: Callable[..., dbtRunnerResult]) -> None:
    cases = {
        "one day": [["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]],
        "an hour of it": [["2026-01-01T05:00:00Z", "2026-01-01T06:00:00Z"]],
        "over midnight": [["2026-01-01T23:59:59.5Z", "2026-01-02T00:00:00.000001Z"]],
        "another offset": [["2026-01-01T00:00:00+02:00", "2026-01-01T02:00:00+02:00"]],
        "two": [
            ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"],
            ["2026-01-05T00:00:00Z", "2026-01-06T00:00:00Z"],
        ],
    }
    slices = "[{'tenants': none, 'days': parse_days(%s)}]"
    text = "\n".join(f"{{{{ slices_predicate({slices % given}, 'd', 'date') }}}}" for given in cases.values())
    text += """
        {{ slices_predicate([
            {'tenants': ["o'hare", 'b'], 'days': [['2026-01-01', '2026-01-02'], [none, none]]},
            {'tenants': ['c'], 'days': [['2026-01-05', none]]},
        ], 'a.t', tenant_column='a.tenant_id', before_days=1, after_days=2) }}
        {{ slices_predicate([], 't') }}
        {{ in_slices('t') }}
        {{ in_slices('t', before_days=1, after_days=1) }}
    """
    lines = rendered(dbt("compile", "--inline", text, days=cases["one day"])).splitlines()

    def days(first: str, after: str) -> str:
        return f"d >= date '2026-01-{first}' and d < date '2026-01-{after}'"

    def times(first: str, after: str) -> str:
        return f"t >= timestamptz '{first} 00:00:00+00' and t < timestamptz '{after} 00:00:00+00'"

    assert [line.strip() for line in lines] == [
        f"({days('01', '02')})",
        f"({days('01', '02')})",
        f"({days('01', '03')})",
        "(d >= date '2025-12-31' and d < date '2026-01-01')",
        f"((({days('01', '02')}) or ({days('05', '06')})))",
        f"((a.tenant_id in ('o''hare', 'b')) or (a.tenant_id in ('c') and a.t >= {MIDNIGHT}))",
        "false",
        f"({times('2026-01-01', '2026-01-02')})",
        f"({times('2025-12-31', '2026-01-03')})",
    ]


@pytest.mark.parametrize(
    ("days", "said"),
    [
        ([], "The variable days is empty"),
        ("2026-01-01", "The variable days is a list of [start, end]"),
        ([["2026-01-01T00:00:00Z"]], "A span of days is [start, end]"),
        (["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"], "A span of days is [start, end]"),
        ([["2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z"]], "A span of days must end after it starts"),
        ([["2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"]], "A span of days must end after it starts"),
        ([["2026-01-01T00:00:00", "2026-01-02T00:00:00"]], "needs an offset"),
        ([["2026-01-01", "2026-01-02"]], "Not a time: 2026-01-01"),
        ([["yesterday", "today"]], "Not a time: yesterday"),
    ],
)
def test_wrong_days_are_refused(dbt: Callable[..., dbtRunnerResult], days: Any, said: str) -> None:
    result = dbt("compile", "--inline", "{{ in_slices('t') }}", days=days)
    assert not result.success
    assert said in str(result.exception or result.result.results[0].message)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("", "Model broken: a hypertable needs a time_column. Add time_column="),
        ("time_column='d', chunk_interval='a week'", "Model broken: chunk_interval is whole days"),
        ("time_column='d', after_days=-1", "Model broken: after_days is a whole number of days"),
        ("time_column='d', befor_days=1", "Model broken: there is no config 'befor_days'"),
        (
            "time_column='d', on_schema_change='sync'",
            "Model broken: on_schema_change is ignore, fail, append_new_columns or sync_all_columns",
        ),
        ("time_column='d', indexes=[{'columns': ['a'], 'unique': true}]", "must hold the time column d"),
    ],
)
def test_a_wrong_config_is_refused_when_the_model_compiles(
    tmp_path: Path, dbt: Callable[..., dbtRunnerResult], config: str, said: str
) -> None:
    text = "\nselect 1 as a, date '2026-01-01' as d where {{ in_slices('d', column_type='date') }}"
    refuse(tmp_path, dbt, {"broken": "{{ config(materialized='hypertable', " + config + ") }}" + text}, said)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("time_column='b'", "Model broken: bucket is a number of minutes, hours, days, weeks, months or years"),
        ("time_column='b', bucket='a day'", "Model broken: bucket is a number of minutes"),
        ("time_column='b', bucket='7 hours'", "Model broken: a bucket of 7 hours crosses midnight"),
        ("time_column='b', bucket='1 hour'", "its bucket of 1 hour is not a multiple of the 1 day of parent"),
        ("time_column='b', bucket='1 week', after_days=1", "there is no config 'after_days'"),
        ("time_column='b', bucket='1 week', contract={'enforced': true}", "no constraints that a contract could"),
        ("time_column='b', bucket='1 week', retention='long'", "retention is a number of days, weeks, months"),
        ("time_column='b', bucket='1 week', columnstore='on'", "columnstore is {'after': '60 days'"),
        (
            "time_column='b', bucket='1 week', indexes=[{'columns': ['b'], 'unique': true}]",
            "a continuous aggregate takes no unique index",
        ),
    ],
)
def test_a_wrong_aggregate_is_refused_when_the_model_compiles(
    tmp_path: Path, dbt: Callable[..., dbtRunnerResult], config: str, said: str
) -> None:
    parent = "{{ config(materialized='continuous_aggregate', time_column='b', bucket='1 day') }} select now() as b"
    broken = "{{ config(materialized='continuous_aggregate', " + config + ") }}"
    select = " select b from {{ ref('parent') }} where {{ in_slices('b') }}"
    refuse(tmp_path, dbt, {"parent": parent, "broken": broken + select}, said)


def test_a_view_has_no_slices(tmp_path: Path, dbt: Callable[..., dbtRunnerResult]) -> None:
    text = "{{ config(materialized='view') }} select now() as b where {{ in_slices('now()') }}"
    refuse(tmp_path, dbt, {"broken": text}, "Model broken: a view has no slices")


def refuse(tmp_path: Path, dbt: Callable[..., dbtRunnerResult], models: dict[str, str], said: str) -> None:
    """Compile models of a project of their own: the one that is broken must be refused with this text."""
    (tmp_path / "models").mkdir()
    for name, text in models.items():
        (tmp_path / "models" / f"{name}.sql").write_text(text)
    (tmp_path / "dbt_project.yml").write_text(
        f"name: broken\nprofile: earmark\nmacro-paths: ['{PROJECT}/dbt_project/macros']\n"
    )
    result = dbt("compile", project=tmp_path)
    assert not result.success
    told = result.exception or [node.message for node in result.result.results if node.node.name == "broken"]
    assert said in str(told)


def test_urls_are_compared_as_people_mean_them(dbt: Callable[..., dbtRunnerResult], database: str) -> None:
    query = rendered(dbt("compile", "--inline", "select {{ plain_url('%(url)s') }}, {{ is_media('%(path)s') }}"))
    with psycopg.connect(database) as connection:
        for url, path, plain, media in (
            ("HTTPS://www.Example.com/Pod/?a=1", "h/a.mp3", "example.com/pod", True),
            ("example.com/pod", "/A.M4A", "example.com/pod", True),
            (" http://example.com/pod#top ", "h/a.mp3/", "example.com/pod", False),
            ("www.example.com", "h/feed.xml", "example.com", False),
            ("example.com//", "h/mp3", "example.com", False),
        ):
            row = connection.execute(query, {"url": url, "path": path}).fetchone()
            assert row == (plain, media), url

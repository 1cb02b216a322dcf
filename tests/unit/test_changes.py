"""Model versions: they change with what a model computes, and with nothing else."""

import copy
import json
from datetime import date
from typing import Any

import pytest

from earmark.warehouse import dbt
from earmark.warehouse.changes import Slice, describe, model_versions, producers, readers
from earmark.warehouse.days import Days
from earmark.warehouse.refresh import Plan, build_arguments, fit_models, project_variables

MANIFEST: dict[str, Any] = {
    "macros": {
        "macro.earmark.used": {
            "package_name": "earmark",
            "macro_sql": "{% macro used() %}{{ deep() }}{% endmacro %}",
            "depends_on": {"macros": ["macro.earmark.deep"]},
        },
        "macro.earmark.deep": {
            "package_name": "earmark",
            "macro_sql": '{% macro deep() %}{{ var( "hours", 24 ) }}{% endmacro %}',
            "depends_on": {"macros": []},
        },
        "macro.dbt.theirs": {"package_name": "dbt", "macro_sql": "{{ var(x) }}", "depends_on": {"macros": []}},
    },
    "nodes": {
        "model.earmark.parent": {
            "name": "parent",
            "resource_type": "model",
            "package_name": "earmark",
            "raw_code": "select {{ used() }}",
            "checksum": {"checksum": "abc"},
            "unrendered_config": {"materialized": "hypertable"},
            "columns": {"day": {"name": "day", "data_type": "date", "description": "the day"}},
            "description": "one row a day",
            "depends_on": {
                "macros": ["macro.earmark.used", "macro.dbt.theirs"],
                "nodes": ["source.earmark.raw.x"],
            },
        },
        "model.earmark.child": {
            "name": "child",
            "resource_type": "model",
            "package_name": "earmark",
            "raw_code": "select {{ var('days') }} from {{ ref('parent') }}",
            "checksum": {"checksum": "def"},
            "unrendered_config": {},
            "columns": {},
            "description": "",
            "depends_on": {"macros": [], "nodes": ["model.earmark.parent"]},
        },
        "model.earmark.other": {
            "name": "other",
            "resource_type": "model",
            "package_name": "earmark",
            "raw_code": "select var",
            "checksum": {"checksum": "ghi"},
            "unrendered_config": {},
            "columns": {},
            "description": "",
            "depends_on": {"macros": [], "nodes": []},
        },
        "seed.earmark.lines": {
            "name": "lines",
            "resource_type": "seed",
            "package_name": "earmark",
            "raw_code": "",
            "checksum": {"checksum": "jkl"},
            "unrendered_config": {"column_types": {"day": "date"}},
            "columns": {},
            "depends_on": {"macros": []},
        },
        "test.earmark.unique": {"name": "unique", "resource_type": "test"},
    },
}


def _changed(**steps: Any) -> set[str]:
    manifest = copy.deepcopy(MANIFEST)
    for path, value in steps.items():
        kind, name, *rest = path.split("__")
        node = manifest[kind][name.replace("_of_", ".")]
        for part in rest[:-1]:
            node = node[part]
        node[rest[-1]] = value
    before, after = model_versions(MANIFEST, {}), model_versions(manifest, {})
    return {name for name in before if before[name] != after[name]}


def test_a_changed_text_reaches_the_children_and_nobody_else() -> None:
    assert _changed(nodes__model_of_earmark_of_parent__checksum={"checksum": "xyz"}) == {"parent", "child"}


def test_a_changed_macro_reaches_whoever_calls_it() -> None:
    assert _changed(macros__macro_of_earmark_of_deep__macro_sql="changed") == {"parent", "child"}


def test_a_changed_column_type_or_config_counts_and_a_description_does_not() -> None:
    assert _changed(nodes__model_of_earmark_of_other__unrendered_config={"chunk_interval": "1 day"}) == {"other"}
    assert _changed(nodes__model_of_earmark_of_parent__columns__day__data_type="timestamptz") == {
        "parent",
        "child",
    }
    assert _changed(nodes__model_of_earmark_of_parent__columns__day__description="another") == set()
    assert _changed(nodes__model_of_earmark_of_parent__description="another") == set()
    assert _changed(macros__macro_of_dbt_of_theirs__macro_sql="another") == set()


def _moved_by(name: str, manifest: dict[str, Any] = MANIFEST, variables: dict[str, Any] | None = None) -> set[str]:
    variables = variables or {"days": 30, "hours": 12, "nobodys": 1}
    before = model_versions(manifest, variables)
    after = model_versions(manifest, {**variables, name: "another"})
    return {model for model in before if before[model] != after[model]}


def test_a_changed_variable_reaches_those_that_name_it_and_what_stands_on_them() -> None:
    assert _moved_by("days") == {"child"}
    assert _moved_by("hours") == {"parent", "child"}  # by a macro that a macro calls
    assert _moved_by("nobodys") == set()


@pytest.mark.parametrize(
    "code",
    [
        "{{ var('no' ~ 'bodys') }}",
        "{{ var(name) }}",
        "{{ var(var_name='nobodys') }}",
        "{% set read = var %}{{ read('nobodys') }}",
        "{{ var('days') }} {{ var(name, 1) }}",
    ],
)
def test_a_variable_whose_name_is_computed_may_be_any(code: str) -> None:
    manifest = copy.deepcopy(MANIFEST)
    manifest["nodes"]["model.earmark.parent"]["raw_code"] = code
    assert _moved_by("nobodys", manifest) == {"parent", "child"}


@pytest.mark.parametrize("code", ["{# var(name) #} -- var(name)", "{{ env_var('days') }}", "{{ note('var') }}"])
def test_what_only_looks_like_a_variable_is_none(code: str) -> None:
    manifest = copy.deepcopy(MANIFEST)
    manifest["nodes"]["model.earmark.other"]["raw_code"] = code
    assert "other" not in _moved_by("days", manifest)


def test_a_variable_in_a_configuration_counts_of_models_and_seeds() -> None:
    manifest = copy.deepcopy(MANIFEST)
    manifest["nodes"]["model.earmark.other"]["unrendered_config"] = {"post-hook": [{"sql": "{{ var('days') }}"}]}
    manifest["nodes"]["seed.earmark.lines"]["unrendered_config"] = {"enabled": "{{ var('days') }}"}
    assert _moved_by("days", manifest) == {"child", "lines", "other"}


def test_a_variable_of_the_package_alone_counts() -> None:
    variables = {"days": 30, "earmark": {"days": 60}}
    assert _moved_by("days", variables=variables) == set()
    assert _moved_by("earmark", variables=variables) == {"child"}


def test_in_the_project_a_variable_rebuilds_what_stands_on_those_that_name_it() -> None:
    manifest = json.loads(dbt.ensure_manifest().read_bytes())
    variables = project_variables()
    built = {key for key, node in manifest["nodes"].items() if node["resource_type"] in ("model", "seed")}
    reached: set[str] = set()
    waiting = [key for key in built if "claim_grace_days" in manifest["nodes"][key]["raw_code"]]
    while waiting:
        key = waiting.pop()
        if key in built and key not in reached:
            reached.add(key)
            waiting.extend(manifest["child_map"][key])
    moved = _moved_by("claim_grace_days", manifest, variables)
    assert moved == {manifest["nodes"][key]["name"] for key in reached}
    assert moved >= {"int_campaigns__claims", "fct_conversions", "fct_attribution_credits"}
    assert not moved & {"int_requests__outcomes", "fct_downloads", "fct_ad_impressions", "user_agent_patterns"}
    media = _moved_by("media_extensions", manifest, variables)  # which a macro names
    assert "int_requests__outcomes" in media
    assert not media & {"int_campaigns__claims", "fct_conversions", "stg_raw__listener_events"}


def test_the_arguments_of_dbt_name_days_and_models_once() -> None:
    plan = Plan(
        given=(Days.parse("2026-01-01", "2026-01-03"), Days.parse("2026-02-01", "2026-02-02")),
        stale=("child",),
        sliced=("child", "parent"),
    )
    arguments = build_arguments(plan, threads=3)
    assert arguments[0] == "build"
    assert arguments[arguments.index("--select") + 1 : arguments.index("--exclude")] == ["child", "parent"]
    assert arguments[arguments.index("--exclude") + 1 : arguments.index("--vars")] == ["tag:fit"]
    assert arguments[-1] == (
        '{"rebuild": ["child"], "days": [["2026-01-01T00:00:00Z", "2026-01-03T00:00:00Z"], '
        '["2026-02-01T00:00:00Z", "2026-02-02T00:00:00Z"]]}'
    )
    assert plan.summary() == ("1 models refreshed for 2026-01-01 to 2026-01-02, 2026-02-01; 1 built whole (child)")


def test_beside_models_that_wait_only_the_chosen_and_what_they_are_made_of_are_tested() -> None:
    for waiting, way in (((), "eager"), (("other",), "buildable")):
        arguments = build_arguments(Plan(sliced=("chosen",), waiting=waiting), threads=1)
        assert arguments[arguments.index("--indirect-selection") + 1] == way


def test_an_empty_plan_says_so() -> None:
    assert Plan().is_empty
    assert Plan().models == ()
    assert Plan().summary() == "nothing to do: the models hold all that was loaded"


def test_days_that_nobody_gave_are_left_to_the_models() -> None:
    news = (
        Slice("raw.spend", "acme", date(2026, 1, 1), 7),
        Slice("raw.spend", "beta", date(2026, 1, 2), 7),
        Slice("raw.campaigns", "acme", None, 8),
    )
    plan = Plan(sliced=("child",), news=news)
    assert build_arguments(plan, threads=1)[-1] == '{"rebuild": []}'
    assert plan.summary() == "1 models refreshed for 2026-01-01 to 2026-01-02, any day of acme, beta"


def test_the_models_of_the_stage_fit_are_those_with_its_tag() -> None:
    nodes = {
        "model.a": {"name": "a", "resource_type": "model", "tags": ["fit"]},
        "model.b": {"name": "b", "resource_type": "model", "tags": ["other"]},
        "test.c": {"name": "c", "resource_type": "test", "tags": ["fit"]},
    }
    assert fit_models({"nodes": nodes}) == ("a",)


LINKED: dict[str, Any] = {
    "nodes": {
        name: {
            "name": name.split(".")[-1],
            "resource_type": name.split(".")[0],
            "config": {"materialized": kind},
            "depends_on": {"nodes": parents},
            "tags": ["fit"] if name == "model.fitted" else [],
        }
        for name, kind, parents in (
            ("seed.patterns", "seed", []),
            ("model.staged", "view", ["source.raw.events"]),
            ("model.facts", "hypertable", ["model.staged", "seed.patterns"]),
            ("model.shown", "view", ["model.facts", "model.staged"]),
            ("model.days", "continuous_aggregate", ["model.shown"]),
            ("model.fitted", "table", ["model.shown", "model.days"]),
        )
    },
    "sources": {
        "source.raw.events": {
            "name": "events",
            "resource_type": "source",
            "schema": "raw",
            "identifier": "listener_events",
        }
    },
    "child_map": {
        "source.raw.events": ["model.staged"],
        "seed.patterns": ["model.facts"],
        "model.staged": ["model.facts", "model.shown"],
        "model.facts": ["model.shown"],
        "model.shown": ["model.days", "model.fitted"],
        "model.days": ["model.fitted", "test.days"],
    },
}


def test_what_a_model_reads_is_found_through_views() -> None:
    assert producers(LINKED, ["facts"]) == ["raw.listener_events"]
    assert producers(LINKED, ["days"]) == ["facts", "raw.listener_events"]
    assert producers(LINKED, ["fitted"]) == ["days", "facts", "raw.listener_events"]


def test_the_readers_of_a_model_are_those_that_a_refresh_builds() -> None:
    assert readers(LINKED, ["facts"]) == {"facts", "days"}
    assert readers(LINKED, ["patterns"]) == {"facts", "days"}
    assert readers(LINKED, ["fit"]) == set()


def test_slices_are_shown_as_people_read_them() -> None:
    assert describe(None) == "whole"
    assert describe([]) == "none"
    groups = [
        {"tenants": None, "days": [["2026-01-01", "2026-01-02"], ["2026-01-05", None]]},
        {"tenants": ["acme", "beta"], "days": [["2026-01-01", "2026-01-04"], [None, None]]},
    ]
    assert describe(groups) == (
        "every tenant: 2026-01-01, from 2026-01-05 on; acme, beta: 2026-01-01 to 2026-01-03, any day"
    )
    many = [{"tenants": [f"t{n}" for n in range(7)], "days": [[None, "2026-01-01"]]}] * 6
    assert describe(many).endswith("t0, t1, t2, t3, t4 and 2 more: before 2026-01-01; 1 more groups")

"""Model versions: they change with what a model computes, and with nothing else."""

import copy
from typing import Any

from orchestration.lib.warehouse.changes import model_versions
from orchestration.lib.warehouse.refresh import Plan, build_arguments, fit_models
from orchestration.lib.warehouse.windows import Window

MANIFEST: dict[str, Any] = {
    "macros": {
        "macro.earmark.used": {
            "package_name": "earmark",
            "macro_sql": "one",
            "depends_on": {"macros": ["macro.earmark.deep"]},
        },
        "macro.earmark.deep": {"package_name": "earmark", "macro_sql": "two", "depends_on": {"macros": []}},
        "macro.dbt.theirs": {"package_name": "dbt", "macro_sql": "three", "depends_on": {"macros": []}},
    },
    "nodes": {
        "model.earmark.parent": {
            "name": "parent",
            "resource_type": "model",
            "package_name": "earmark",
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
            "checksum": {"checksum": "ghi"},
            "unrendered_config": {},
            "columns": {},
            "description": "",
            "depends_on": {"macros": [], "nodes": []},
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


def test_a_changed_variable_reaches_all() -> None:
    assert model_versions(MANIFEST, {}) != model_versions(MANIFEST, {"days": 90})


def test_the_arguments_of_dbt_name_windows_and_models_once() -> None:
    plan = Plan(
        windows=(Window.parse("2026-01-01", "2026-01-03"), Window.parse("2026-02-01", "2026-02-02")),
        stale=("child",),
        windowed=("child", "parent"),
        given=True,
    )
    arguments = build_arguments(plan, threads=3)
    assert arguments[0] == "build"
    assert arguments[arguments.index("--select") + 1 : arguments.index("--exclude")] == ["child", "parent"]
    assert arguments[arguments.index("--exclude") + 1 : arguments.index("--vars")] == ["tag:fit"]
    assert arguments[-1] == (
        '{"rebuild": ["child"], "windows": [["2026-01-01T00:00:00Z", "2026-01-03T00:00:00Z"], '
        '["2026-02-01T00:00:00Z", "2026-02-02T00:00:00Z"]]}'
    )
    assert plan.summary() == ("1 models refreshed for 2026-01-01 to 2026-01-02, 2026-02-01; 1 built whole (child)")


def test_an_empty_plan_says_so() -> None:
    assert Plan((), (), ("child",)).is_empty
    assert Plan((), (), ("child",)).models == ()


def test_windows_that_nobody_gave_are_left_to_the_models() -> None:
    plan = Plan(windows=(Window.parse("2026-01-01", "2026-01-03"),), stale=(), windowed=("child",))
    assert build_arguments(plan, threads=1)[-1] == '{"rebuild": []}'


def test_the_models_of_the_stage_fit_are_those_with_its_tag() -> None:
    nodes = {
        "model.a": {"name": "a", "resource_type": "model", "tags": ["fit"]},
        "model.b": {"name": "b", "resource_type": "model", "tags": ["other"]},
        "test.c": {"name": "c", "resource_type": "test", "tags": ["fit"]},
    }
    assert fit_models({"nodes": nodes}) == ("a",)

"""Settings of attribution: each thing that can be wrong is told with its file, row, field and fix."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from earmark.journeys.settings import (
    CHANNELS_SEED,
    MODELS_SEED,
    PROJECT_FILE,
    AttributionSettings,
    AttributionSettingsError,
    check_settings,
)
from earmark.settings import PROJECT_ROOT

MODELS_HEADER = "model,method,first_weight,middle_weight,last_weight,half_life_days,chain_order,with_nulls"
CHANNELS_HEADER = "tenant_id,dimension,value,treat_as,reason"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a copy of the project's own settings."""
    (tmp_path / "seeds").mkdir()
    for name in (PROJECT_FILE, MODELS_SEED, CHANNELS_SEED):
        shutil.copyfile(PROJECT_ROOT / name, tmp_path / name)
    return tmp_path


def told(project: Path) -> list[str]:
    with pytest.raises(AttributionSettingsError) as caught:
        check_settings(project)
    first, *problems = str(caught.value).splitlines()
    assert first == "the settings of attribution are wrong:"
    return problems


def write_models(project: Path, *rows: str, header: str = MODELS_HEADER) -> None:
    (project / MODELS_SEED).write_text("\n".join([header, "last_touch,last_touch,,,,,,", *rows]) + "\n")


def write_channels(project: Path, *rows: str) -> None:
    (project / CHANNELS_SEED).write_text("\n".join([CHANNELS_HEADER, *rows]) + "\n")


def set_variable(project: Path, name: str, value: Any) -> None:
    document = yaml.safe_load((project / PROJECT_FILE).read_text())
    document["vars"][name] = value
    (project / PROJECT_FILE).write_text(yaml.safe_dump(document))


def test_what_ships_is_right(project: Path) -> None:
    assert check_settings(project) == AttributionSettings(bootstrap_samples=200, seed=0)
    assert check_settings() == check_settings(project)


def test_an_analysts_own_models_and_channels_are_right(project: Path) -> None:
    write_models(
        project,
        "u_shaped,position_based,.3,.3,.4,,,",
        "only_ends,position_based,0.5,0,0.5,,,",
        "slow_decay,time_decay,,,,0.5,,",
        "markov_9,markov,,,,,9,FALSE",
        "data_driven,shapley,,,,,,",
    )
    write_channels(project, 'acme,podcast,p1,excluded,"a test, of ours"', ",touch_type,survey,direct,")
    for name, value in {
        "attribution_model": "u_shaped",
        "attribution_dimension": "podcast",
        "attribution_path_transforms": ["collapse", "drop:p1", "distinct"],
        "attribution_windows_days": [90],
        "attribution_bootstrap_samples": 0,
        "attribution_seed": 12,
        "signal_precedence": ["pixel", "survey", "vanity_url", "promo_code", "campaign_id"],
    }.items():
        set_variable(project, name, value)
    assert check_settings(project) == AttributionSettings(bootstrap_samples=0, seed=12)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("x,last_click,,,,,,", "method: there is no 'last_click'; choose from first_touch, last_touch, "),
        ("x,,,,,,,", "method: it is empty; choose from first_touch, "),
        (",linear,,,,,,", "model: it is empty; name the model"),
        (
            "Last Click!,linear,,,,,,",
            "model: 'Last Click!' has other characters than a to z, 0 to 9 and _; name it last_click",
        ),
        (
            "x,position_based,.4,.2,.5,,,",
            "first_weight, middle_weight, last_weight: .4 + .2 + .5 is 1.1; give three that sum to 1",
        ),
        ("x,position_based,.5,,.5,,,", "middle_weight: position_based needs it; give a number from 0 to 1"),
        ("x,position_based,-1,1,1,,,", "first_weight: it is '-1'; give a number from 0 to 1"),
        ("x,position_based,nan,.5,.5,,,", "first_weight: it is 'nan'; give a number from 0 to 1"),
        ("x,position_based,40%,.2,.4,,,", "first_weight: it is '40%'; give a number from 0 to 1"),
        (
            "x,linear,1,,,,,",
            "first_weight: it is 1, but linear has none; leave it empty (it is of position_based)",
        ),
        (
            "x,shapley,,,,7,,",
            "half_life_days: it is 7, but shapley has none; leave it empty (it is of time_decay)",
        ),
        ("x,time_decay,,,,,,", "half_life_days: time_decay needs it; give a number of days above 0, such as 7"),
        ("x,time_decay,,,,0,,", "half_life_days: it is '0'; give a number of days above 0"),
        ("x,time_decay,,,,-7,,", "half_life_days: it is '-7'; give"),
        ("x,time_decay,,,,inf,,", "half_life_days: it is 'inf'; give"),
        ("x,markov,,,,,0,true", "chain_order: it is '0'; give a whole number from 1 to 9"),
        ("x,markov,,,,,10,true", "chain_order: it is '10'; give"),
        ("x,markov,,,,,1.5,true", "chain_order: it is '1.5'; give"),
        ("x,markov,,,,,,true", "chain_order: markov needs it; give"),
        ("x,markov,,,,,1,", "with_nulls: markov needs it; give true or false"),
        ("x,markov,,,,,1,maybe", "with_nulls: it is 'maybe'; give true or false"),
        ("x,last_touch,,,,,1,", "chain_order: it is 1, but last_touch has none; leave it empty (it is of markov)"),
        ("x, linear,,,,,,", "method: ' linear' has spaces around it; take them out"),
    ],
)
def test_a_wrong_model(project: Path, row: str, problem: str) -> None:
    write_models(project, row)
    problems = told(project)
    assert any(text.startswith(f"seeds/attribution_models.csv, row 3, {problem}") for text in problems), problems


def test_a_name_given_twice(project: Path) -> None:
    write_models(project, "x,linear,,,,,,", "x,shapley,,,,,,", "y,linear,,,,,,")
    assert told(project) == ["seeds/attribution_models.csv, row 3 and row 4, model: x is there 2 times; keep one"]


def test_a_seed_without_models(project: Path) -> None:
    (project / MODELS_SEED).write_text(MODELS_HEADER + "\n")
    assert any(text.startswith("seeds/attribution_models.csv has no row: add a model") for text in told(project))


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (
            MODELS_HEADER + ",note",
            "row 1, note: there is no such column; take it out; the columns are model, method",
        ),
        (MODELS_HEADER.removesuffix(",with_nulls"), "row 1, with_nulls: the column is missing; add it"),
        (MODELS_HEADER + ",model", "row 1, model: the column is there twice; keep one"),
        (MODELS_HEADER.replace("model,", "Model,"), "row 1, Model: there is no such column; take it out"),
    ],
)
def test_wrong_columns(project: Path, header: str, problem: str) -> None:
    write_models(project, header=header)
    assert told(project)[0].startswith(f"seeds/attribution_models.csv, {problem}")


def test_a_row_of_another_length(project: Path) -> None:
    write_models(project, "x,linear,,,")
    write_channels(project, "acme,podcast,p1,excluded,a, b")
    assert told(project) == [
        f"seeds/attribution_{row} fields instead of {columns}; put text that holds a comma in quotes"
        for row, columns in (("models.csv, row 3: it has 5", 8), ("channels.csv, row 2: it has 6", 5))
    ]


def test_a_missing_or_unreadable_file(project: Path) -> None:
    (project / CHANNELS_SEED).unlink()
    (project / MODELS_SEED).write_bytes(MODELS_HEADER.encode() + b"\nx,\xff,,,,,,\n")
    first, second = told(project)
    assert first.startswith("seeds/attribution_models.csv is no CSV in UTF-8")
    assert second.startswith("seeds/attribution_channels.csv is missing; put it back, with the columns tenant_id,")


def test_a_byte_order_mark_and_windows_line_ends_are_no_mistake(project: Path) -> None:
    (project / MODELS_SEED).write_bytes(
        b"\xef\xbb\xbf" + f"{MODELS_HEADER}\r\nlast_touch,last_touch,,,,,,\r\n\r\n".encode()
    )
    check_settings(project)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("Acme Inc,podcast,p,excluded,", "tenant_id: 'Acme Inc' is no tenant's id; leave it empty for all"),
        (",show,p,excluded,", "dimension: there is no 'show'; choose from campaign, podcast, episode, ad_unit,"),
        (",,p,excluded,", "dimension: it is empty; choose from campaign,"),
        (",podcast,,excluded,", "value: it is empty; give the id of the podcast"),
        (",podcast,p,ignored,", "treat_as: there is no 'ignored'; choose from direct, excluded"),
        (",podcast,p ,excluded,", "value: 'p ' has spaces around it; take them out"),
    ],
)
def test_a_wrong_channel(project: Path, row: str, problem: str) -> None:
    write_channels(project, row)
    problems = told(project)
    assert len(problems) == 1
    assert problems[0].startswith(f"seeds/attribution_channels.csv, row 2, {problem}")


def test_a_channel_given_twice(project: Path) -> None:
    write_channels(project, ",podcast,p,excluded,", "acme,podcast,p,direct,", ",podcast,p,direct,")
    assert told(project) == [
        "seeds/attribution_channels.csv, row 4, value: row 2 says how to treat 'p' already; keep one of them"
    ]


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("attribution_model", "last_click", "there is no 'last_click'; choose from first_touch, "),
        ("attribution_model", "markov_2", "markov_2 is fitted monthly and has no credit of a day; choose from "),
        ("attribution_model", None, "it is empty; give the name of a model of seeds/attribution_models.csv"),
        ("attribution_dimension", "show", "there is no 'show'; choose from campaign, podcast, episode, ad_unit, "),
        ("attribution_dimension", ["podcast"], "there is no ['podcast']; choose from"),
        (
            "attribution_path_transforms",
            "collapse",
            "it is 'collapse'; give a list of collapse, first, distinct, ",
        ),
        ("attribution_path_transforms", ["drop:"], "there is no transform 'drop:'; choose from collapse, "),
        ("attribution_path_transforms", ["last"], "there is no transform 'last'; choose from"),
        ("attribution_path_transforms", [1], "there is no transform 1; choose from"),
        ("attribution_cut_at_conversion", "no", "it is 'no'; give true or false"),
        ("attribution_cut_at_conversion", 0, "it is 0; give true or false"),
        ("attribution_windows_days", [], "it is []; give a list of days, such as [1, 7, 14, 30]"),
        ("attribution_windows_days", 30, "it is 30; give a list of days"),
        ("attribution_windows_days", [0, 7], "0 is no window; give whole days from 1 on"),
        ("attribution_windows_days", [-1], "-1 is no window; give"),
        ("attribution_windows_days", [1.5], "1.5 is no window; give"),
        ("attribution_windows_days", ["7"], "'7' is no window; give"),
        ("attribution_windows_days", [True], "true is no window; give"),
        ("attribution_windows_days", [7, 7, 30], "7 is there 2 times; give each window once"),
        (
            "attribution_windows_days",
            [7, 91],
            "91 is more than attribution_max_lookback_days (90), beyond which no",
        ),
        ("attribution_max_lookback_days", 0, "it is 0; give a whole number from 1 to 90"),
        ("attribution_max_lookback_days", 365, "it is 365; give a whole number from 1 to 90"),
        (
            "signal_precedence",
            ["pixel"],
            "it is ['pixel']; list campaign_id, promo_code, vanity_url, pixel, survey, each",
        ),
        (
            "signal_precedence",
            ["pixel", "pixel", "survey", "vanity_url", "promo_code"],
            "it is ['pixel', 'pixel', 'survey', 'vanity_url', 'promo_code']; list",
        ),
        ("signal_precedence", "pixel", "it is 'pixel'; list"),
        ("identity_max_households", 0, "it is 0; give a whole number from 1 on"),
        ("attribution_bootstrap_samples", -1, "it is -1; give a whole number from 0 to 10000"),
        ("attribution_bootstrap_samples", 1e6, "it is 1000000.0; give a whole number from 0 to 10000"),
        ("attribution_seed", "x", "it is 'x'; give a whole number from 0 on"),
    ],
)
def test_a_wrong_variable(project: Path, name: str, value: Any, problem: str) -> None:
    set_variable(project, name, value)
    problems = told(project)
    assert len(problems) == 1, problems
    assert problems[0].startswith(f"dbt_project.yml, vars, {name}: {problem}")


def test_a_missing_variable(project: Path) -> None:
    document = yaml.safe_load((project / PROJECT_FILE).read_text())
    del document["vars"]["attribution_dimension"]
    (project / PROJECT_FILE).write_text(yaml.safe_dump(document))
    assert told(project) == [
        "dbt_project.yml, vars, attribution_dimension: it is missing; campaign is how it ships"
    ]


@pytest.mark.parametrize("text", ["vars: [", "- a list", "name: earmark", ""])
def test_a_project_file_that_is_none(project: Path, text: str) -> None:
    (project / PROJECT_FILE).write_text(text)
    (problem,) = told(project)
    assert problem.startswith(("dbt_project.yml cannot be read: ", "dbt_project.yml has no vars; add them"))


def test_all_that_is_wrong_is_told_at_once(project: Path) -> None:
    write_models(project, "x,linear,1,,,,,", "y,time_decay,,,,0,,")
    write_channels(project, ",show,p,excluded,")
    set_variable(project, "attribution_dimension", "show")
    assert len(told(project)) == 4

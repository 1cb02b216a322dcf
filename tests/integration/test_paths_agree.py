"""Paths are shortened and credited twice: in memory for `earmark attribute`, in SQL for the marts. They agree.

Once in numpy, because a table of one's own journeys needs no database; once in SQL, because analytics engineers
edit it and late rows refresh a part of it. Random journeys go through both, touch by touch.
"""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import psycopg
import pytest

from earmark.journeys import models
from earmark.journeys.paths import Floats, Paths

Dbt = Any  # the class of conftest.py, which tests cannot import
CHANNELS = ("a", "b", "B", "direct", "ä")
CONVERTED_AT = datetime(2026, 3, 1, tzinfo=UTC)
TRANSFORMS: list[list[str]] = [
    [],
    ["collapse"],
    ["first"],
    ["distinct"],
    ["drop:b", "collapse"],
    ["collapse", "drop:b"],
    ["drop:direct", "first", "drop:ä"],
    ["drop:b", "distinct"],
]
MODELS: dict[str, Callable[[Paths], Floats]] = {
    "first_touch": models.first_touch,
    "last_touch": models.last_touch,
    "last_non_direct": lambda paths: models.last_non_direct(paths, ("direct",)),
    "linear": models.linear,
    "position_based": lambda paths: models.position_based(paths, (0.4, 0.2, 0.4)),
    "time_decay": lambda paths: models.time_decay(paths, 7),
    "shapley": models.shapley_weights,
}
TABLES = """
create temporary table touched (
    path integer, touch_id text, touch_type text, signal text, touch_at timestamptz, match_type text,
    channel text collate "C", ad_unit_id text, set_aside text
);
create temporary table models as
select method as model, method, .4 as first_weight, .2 as middle_weight, .4 as last_weight, 7 as half_life_days
from unnest(%s::text[]) as method
"""


def draw(seed: int, paths: int = 120) -> list[list[tuple[str, float]]]:
    """Return journeys: the channels of touches in order of time, with their ages in days."""
    dice = random.Random(seed)  # noqa: S311  (the same journeys each time)
    return [
        sorted(
            ((dice.choice(CHANNELS), round(dice.uniform(0, 30), 3)) for _ in range(dice.randint(1, 9))),
            key=lambda touch: -touch[1],
        )
        for _ in range(paths)
    ]


def in_memory(journeys: list[list[tuple[str, float]]], transforms: list[str]) -> dict[tuple[Any, ...], float]:
    touches = [touch for journey in journeys for touch in journey]
    paths = Paths.of(
        pl.Series([channel for channel, _ in touches]),
        [len(journey) for journey in journeys],
        conversions=np.ones(len(journeys)),
        ages=[age for _, age in touches],
    ).transformed(transforms)
    return {
        (model, int(path), int(place) + 1, paths.channels[step]): round(float(weight), 9)
        for model, weigh in MODELS.items()
        for path, place, step, weight in zip(paths.owner, paths.position, paths.steps, weigh(paths), strict=True)
        if weight > 0
    }


@pytest.mark.parametrize("transforms", TRANSFORMS, ids=lambda transforms: "+".join(transforms) or "none")
def test_sql_and_memory_shorten_and_credit_alike(
    dbt: Dbt, connection: psycopg.Connection, transforms: list[str]
) -> None:
    journeys = draw(seed=len(str(transforms)))
    connection.execute(TABLES.replace("%s", "array['" + "', '".join(MODELS) + "']").encode())
    with connection.cursor().copy(
        "copy touched (path, touch_id, touch_type, touch_at, channel) from stdin"
    ) as copy:
        for number, journey in enumerate(journeys):
            for place, (channel, age) in enumerate(journey):
                copy.write_row((number, f"{place:02}", "visit", CONVERTED_AT - timedelta(days=age), channel))
    placed = (
        "(select *, channel = 'direct' as is_direct,"
        f" extract(epoch from timestamptz '{CONVERTED_AT}' - touch_at) as age_seconds"
        " from ({{ positioned('touched', 'path') }}) as t where left_out_as is null)"
    )
    text = "{% set placed %}" + placed + "{% endset %}{{ credited(placed, 'models', 'path') }}"
    found = connection.execute(
        "select model, path, position, channel, round(credited_to - credited_from, 9)::double precision from ("
        + compiled(dbt, text, transforms)
        + ") as credits"
    ).fetchall()
    assert {tuple(row[:4]): row[4] for row in found} == pytest.approx(in_memory(journeys, transforms), abs=2e-9)


def compiled(dbt: Dbt, text: str, transforms: list[str]) -> str:
    result = dbt("compile", "--inline", text, attribution_path_transforms=transforms)
    assert result.success, result.exception
    return str(result.result.results[0].node.compiled_code)

"""Credit of real paths and journeys against figures that others worked out."""

import csv
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from earmark.journeys.comparison import compare
from earmark.journeys.markov import Chain
from earmark.journeys.reading import read_journeys

MODELS = {
    "first": "first_touch",
    "last": "last_touch",
    "linear": "linear",
    "position_40_20_40": "position_based",
    "time_decay_7d": "time_decay",
}


def expected(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def credit(table: pl.DataFrame, model: str, figure: str) -> dict[str, float]:
    rows = table.filter(model=model)
    return dict(zip(rows["channel"], rows[figure], strict=True))


@pytest.mark.parametrize(
    ("model", "column", "tolerance"),
    [
        ("first_touch", "first_touch", 1e-9),
        ("last_touch", "last_touch", 1e-9),
        ("linear", "linear_touch", 1e-9),
        ("markov", "markov1", 1e-6),
    ],
)
def test_real_paths(shared_data: Path, model: str, column: str, tolerance: float) -> None:
    folder = shared_data / "attribution" / "pathdata"
    rows = expected(folder / "expected.csv")
    table = compare(read_journeys(str(folder / "paths.csv")).paths, [model]).table
    for figure in ("conversions", "value"):
        reference = {row["channel_name"]: float(row[f"{column}_{figure}"]) for row in rows}
        assert credit(table, model, figure) == pytest.approx(reference, rel=tolerance, abs=tolerance)


def test_removal_effects_of_real_paths(shared_data: Path) -> None:
    folder = shared_data / "attribution" / "pathdata"
    paths = read_journeys(str(folder / "paths.csv")).paths
    rewards = np.stack([paths.conversions, paths.value])
    effects = Chain(paths, 1).removal_effects(paths.conversions + paths.nulls, rewards)
    for row in expected(folder / "expected.csv"):
        at = paths.index(row["channel_name"])
        assert effects[0, at] == pytest.approx(float(row["removal_effect_conversion"]), abs=1e-9)
        assert effects[1, at] == pytest.approx(float(row["removal_effect_value"]), abs=1e-9)


@pytest.mark.parametrize("lookback", ["none", "7", "14"])
def test_real_journeys(shared_data: Path, lookback: str) -> None:
    folder = shared_data / "attribution" / "journeys"
    days = None if lookback == "none" else float(lookback)
    table = compare(read_journeys(str(folder / "touches.csv"), lookback=days).paths).table
    rows = [row for row in expected(folder / "expected.csv") if row["lookback_days"] == lookback]
    assert {row["model"] for row in rows} == MODELS.keys()
    for row in rows:
        for figure in ("conversions", "value"):
            ours = credit(table, MODELS[row["model"]], figure)[row["channel"]]
            assert ours == pytest.approx(float(row[figure]), rel=1e-9), (row, figure)

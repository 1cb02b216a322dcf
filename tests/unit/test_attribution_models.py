"""Models against figures worked out by hand, plain definitions, and laws that hold for any input."""

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earmark.journeys import models
from earmark.journeys.comparison import MODELS, Options, compare
from earmark.journeys.errors import AttributionError
from earmark.journeys.markov import Chain
from earmark.journeys.paths import Paths

Row = tuple[Sequence[str], float, float, float]  # path, conversions, value, nulls


def paths_of(rows: Sequence[Row], ages: Sequence[Sequence[float]] | None = None) -> Paths:
    return Paths.of(
        pl.Series([channel for row in rows for channel in row[0]]),
        [len(row[0]) for row in rows],
        conversions=[row[1] for row in rows],
        value=[row[2] for row in rows],
        nulls=[row[3] for row in rows],
        ages=None if ages is None else [age for path in ages for age in path],
    )


def credit(rows: Sequence[Row], model: str, options: Options | None = None, **more: object) -> dict[str, float]:
    table = compare(paths_of(rows, **more), [model], options).table
    return dict(zip(table["channel"], table["conversions"], strict=True))


def converted(*paths: str) -> list[Row]:
    return [(tuple(path), 1, 1, 0) for path in paths]


row = st.tuples(
    st.lists(st.sampled_from("abcde"), min_size=1, max_size=6).map(tuple),
    st.integers(0, 3),
    st.integers(0, 100),
    st.integers(0, 3),
).map(lambda given: (given[0], given[1], given[2] if given[1] else 0, given[3]))
some_rows = st.lists(row, min_size=1, max_size=12).filter(lambda rows: any(row[1] for row in rows))
transforms = st.lists(st.sampled_from(("collapse", "first", "distinct", "drop:a", "drop:b")), max_size=3)


# --- By hand ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "path", "expected"),
    [
        ("first_touch", "abca", {"a": 1, "b": 0, "c": 0}),
        ("last_touch", "abc", {"a": 0, "b": 0, "c": 1}),
        ("linear", "abca", {"a": 0.5, "b": 0.25, "c": 0.25}),
        ("position_based", "a", {"a": 1}),
        ("position_based", "ab", {"a": 0.5, "b": 0.5}),
        ("position_based", "abc", {"a": 0.4, "b": 0.2, "c": 0.4}),
        ("position_based", "abcd", {"a": 0.4, "b": 0.1, "c": 0.1, "d": 0.4}),
        ("shapley", "aab", {"a": 0.5, "b": 0.5}),
    ],
)
def test_weights_by_hand(model: str, path: str, expected: dict[str, float]) -> None:
    assert credit(converted(path), model) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("weights", "path", "expected"),
    [
        ((0.6, 0.3, 0.1), "ab", {"a": 6 / 7, "b": 1 / 7}),
        ((0.6, 0.3, 0.1), "abcd", {"a": 0.6, "b": 0.15, "c": 0.15, "d": 0.1}),
        ((0, 1, 0), "ab", {"a": 0.5, "b": 0.5}),
        ((0, 1, 0), "abc", {"a": 0, "b": 1, "c": 0}),
    ],
)
def test_position_weights_can_be_set(
    weights: tuple[float, float, float], path: str, expected: dict[str, float]
) -> None:
    assert credit(converted(path), "position_based", Options(weights=weights)) == pytest.approx(expected)


def test_last_non_direct_passes_over_direct_in_any_case_and_falls_back() -> None:
    rows: list[Row] = [(("mail", "Direct", "direct"), 3, 0, 0), (("direct", "Direct"), 2, 0, 0)]
    assert credit(rows, "last_non_direct") == {"Direct": 2, "direct": 0, "mail": 3}
    assert credit(rows, "last_non_direct", Options(direct=("mail",))) == {"Direct": 2, "direct": 3, "mail": 0}


def test_time_decay_halves_with_each_half_life() -> None:
    ages = [[14, 7, 0]]
    assert credit(converted("abc"), "time_decay", ages=ages) == pytest.approx({"a": 1 / 7, "b": 2 / 7, "c": 4 / 7})
    of_day = credit(converted("abc"), "time_decay", Options(half_life=14), ages=ages)
    assert of_day["c"] / of_day["a"] == pytest.approx(2)


def test_time_decay_keeps_its_ratios_when_all_touches_are_very_old() -> None:
    assert credit(converted("ab"), "time_decay", ages=[[90_007, 90_000]]) == pytest.approx(
        {"a": 1 / 3, "b": 2 / 3}
    )


def test_the_small_markov_example() -> None:
    rows: list[Row] = [(("G",), 2, 20, 1), (("M",), 1, 10, 0), (("G", "M"), 1, 10, 0)]
    paths = paths_of(rows)
    effects = Chain(paths, 1).removal_effects(paths.conversions + paths.nulls, paths.conversions[None, :])
    assert effects[0] == pytest.approx([0.75, 0.5])
    assert credit(rows, "markov") == pytest.approx({"G": 2.4, "M": 1.6})
    assert compare(paths, ["markov"]).table["value"].to_list() == pytest.approx([24, 16])


def test_paths_that_did_not_convert_change_markov_and_nothing_else() -> None:
    rows: list[Row] = [(("a", "b"), 2, 0, 0), (("c", "a", "b"), 1, 0, 9), (("b",), 1, 0, 3)]
    paths = paths_of(rows)
    with_, without = compare(paths).table, compare(paths.without_nulls()).table
    for model in with_["model"].unique():
        same = with_.filter(model=model)["conversions"].equals(without.filter(model=model)["conversions"])
        assert same == (not model.startswith("markov")), model


def test_a_channel_that_never_converts_gets_nothing_and_is_listed() -> None:
    rows: list[Row] = [(("a",), 1, 5, 0), (("z", "z"), 0, 0, 4)]
    for model in ("first_touch", "linear", "markov", "markov_2", "shapley"):
        assert credit(rows, model) == pytest.approx({"a": 1, "z": 0})


# --- Against plain definitions ----------------------------------------------------------------------------


def removal_effects_by_removing(rows: Sequence[Row], order: int, reward: int) -> dict[str, float]:
    """Solve the chain anew without each channel, state by state."""

    def states(path: Sequence[str]) -> list[tuple[str, ...]]:
        return [tuple(path[max(0, at - order + 1) : at + 1]) for at in range(len(path))]

    names = sorted({state for row in rows for state in states(row[0])})
    index = {name: at for at, name in enumerate(names)}
    moves, start = np.zeros((len(names), len(names))), np.zeros(len(names))
    visits, earned = np.zeros(len(names)), np.zeros(len(names))
    for row in rows:
        path = [index[state] for state in states(row[0])]
        journeys = row[1] + row[3]
        start[path[0]] += journeys
        for at in path:
            visits[at] += journeys
        for one, other in itertools.pairwise(path):
            moves[one, other] += journeys
        earned[path[-1]] += row[reward]
    visits[visits == 0] = 1

    def expected(removed: str | None) -> float:
        kept = [at for name, at in index.items() if removed not in name]
        inner = np.eye(len(kept)) - (moves / visits[:, None])[np.ix_(kept, kept)]
        return float(start[kept] @ np.linalg.solve(inner, (earned / visits)[kept])) if kept else 0.0

    whole = expected(None)
    channels = sorted({channel for row in rows for channel in row[0]})
    return {channel: 1 - expected(channel) / whole for channel in channels}


@settings(deadline=None)
@given(rows=some_rows, order=st.integers(1, 3))
def test_removal_effects_are_those_of_a_chain_without_the_channel(rows: list[Row], order: int) -> None:
    paths = paths_of(rows)
    rewards = np.stack([paths.conversions, paths.value])
    effects = Chain(paths, order).removal_effects(paths.conversions + paths.nulls, rewards)
    for kind, reward in ((0, 1), (1, 2)):
        if rewards[kind].sum():
            expected = removal_effects_by_removing(rows, order, reward)
            assert dict(zip(paths.channels, effects[kind], strict=True)) == pytest.approx(expected, abs=1e-9)


def test_states_of_high_order_over_many_channels_are_found_too() -> None:
    # Too many possible states for a table, few that occur.
    rows: list[Row] = [((f"c{at}", f"c{at * 7 % 40}", f"c{at}"), 1 + at % 3, 0, at % 2) for at in range(40)]
    paths = paths_of(rows)
    effects = Chain(paths, 5).removal_effects(paths.conversions + paths.nulls, paths.conversions[None, :])
    expected = removal_effects_by_removing(rows, 5, 1)
    assert dict(zip(paths.channels, effects[0], strict=True)) == pytest.approx(expected)


def shapley_by_orders(rows: Sequence[Row]) -> dict[str, float]:
    """Average what each channel adds when it joins, over all orders in which channels can join."""
    channels = sorted({channel for row in rows for channel in row[0]})

    def worth(members: set[str]) -> float:
        return sum(row[1] for row in rows if set(row[0]) <= members)

    value = dict.fromkeys(channels, 0.0)
    for order in itertools.permutations(channels):
        for at, channel in enumerate(order):
            value[channel] += worth(set(order[: at + 1])) - worth(set(order[:at]))
    return {channel: total / math.factorial(len(channels)) for channel, total in value.items()}


@settings(deadline=None)
@given(rows=some_rows)
def test_shapley_is_the_average_over_all_orders(rows: list[Row]) -> None:
    assert credit(rows, "shapley") == pytest.approx(shapley_by_orders(rows), abs=1e-9)


@given(
    rows=st.lists(
        st.tuples(st.lists(st.sampled_from("abcdefghijkl"), min_size=1, max_size=14), st.integers(0, 9)),
        min_size=1,
    )
)
@settings(deadline=None)
def test_shapley_in_closed_form_is_shapley_by_definition(rows: list[tuple[list[str], int]]) -> None:
    paths = paths_of([(path, count, count * 2.5, 0) for path, count in rows])
    rewards = np.stack([paths.conversions, paths.value])
    closed = models.by_weights(paths, models.shapley_weights(paths), rewards)
    assert models.shapley_by_definition(paths, rewards) == pytest.approx(closed, abs=1e-9)


def test_shapley_takes_the_closed_form_beyond_twelve_channels() -> None:
    rows: list[Row] = [(tuple("abcdefghijklm"), 13, 0, 0), (("a",), 1, 0, 0)]
    assert credit(rows, "shapley") == pytest.approx({"a": 2} | dict.fromkeys("bcdefghijklm", 1))


# --- Laws -------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(rows=some_rows, transforms=transforms, ages=st.randoms(use_true_random=False))
def test_every_conversion_and_all_value_is_credited(rows: list[Row], transforms: list[str], ages: object) -> None:
    touches = [sorted((ages.uniform(0, 400) for _ in row[0]), reverse=True) for row in rows]  # type: ignore[attr-defined]
    paths = paths_of(rows, touches)
    known = [item for item in transforms if ":" not in item or item[-1] in paths.channels]
    table = compare(paths.transformed(known)).table
    assert set(table["model"]) == set(MODELS)
    for model in MODELS:
        of_model = table.filter(model=model)
        assert of_model["channel"].to_list() == list(paths.channels)
        assert of_model["conversions"].sum() == pytest.approx(sum(row[1] for row in rows), rel=1e-12)
        assert of_model["value"].sum() == pytest.approx(sum(row[2] for row in rows), rel=1e-12)
        assert of_model["conversions"].min() >= -1e-12


@settings(deadline=None)
@given(rows=some_rows, data=st.data())
def test_order_of_paths_and_merging_equal_ones_make_no_difference(rows: list[Row], data: st.DataObject) -> None:
    merged: dict[tuple[str, ...], list[float]] = {}
    for path, *counts in rows:
        sums = merged.setdefault(tuple(path), [0, 0, 0])
        merged[tuple(path)] = [old + new for old, new in zip(sums, counts, strict=True)]
    expected = compare(paths_of([(path, *counts) for path, counts in merged.items()])).table
    shuffled = compare(paths_of(data.draw(st.permutations(rows)))).table
    assert shuffled["conversions"].to_list() == pytest.approx(expected["conversions"].to_list(), abs=1e-9)
    assert shuffled["value"].to_list() == pytest.approx(expected["value"].to_list(), abs=1e-9)


# --- Transforms -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (["collapse"], ["bab", "a", "aca"]),
        (["first"], ["ba", "a", "ac"]),
        (["distinct"], ["ab", "a", "ac"]),
        (["drop:a"], ["bbb", "aa", "c"]),
        (["drop:a", "collapse"], ["b", "a", "c"]),
        (["collapse", "drop:a"], ["bb", "a", "c"]),
        ([], ["bbab", "aa", "aaca"]),
    ],
)
def test_transforms(transform: list[str], expected: list[str]) -> None:
    paths = paths_of(converted("bbab", "aa", "aaca")).transformed(transform)
    names = [paths.channels[step] for step in paths.steps]
    assert ["".join(names[a:b]) for a, b in itertools.pairwise(paths.starts)] == expected


@pytest.mark.parametrize(
    ("transform", "expected"), [("collapse", [5, 3, 1]), ("first", [5, 3]), ("distinct", [3, 5])]
)
def test_the_first_touch_that_is_kept_keeps_its_age(transform: str, expected: list[float]) -> None:
    paths = paths_of(converted("bbab"), [[5, 4, 3, 1]]).transformed([transform])
    assert paths.ages is not None
    assert paths.ages.tolist() == expected


# --- Intervals --------------------------------------------------------------------------------------------


def test_intervals_have_the_width_that_theory_says() -> None:
    # Of 1,000 journeys 300 convert by a: a binomial count, 300 +- 1.96 sqrt(1000 * .3 * .7) = 271.6 to 328.4.
    rows: list[Row] = [(("a",), 300, 0, 0), (("b",), 100, 0, 600)]
    table = compare(paths_of(rows), ["first_touch"], Options(bootstrap=4000)).table
    assert table["low"][0] == pytest.approx(271.6, abs=2)
    assert table["high"][0] == pytest.approx(328.4, abs=2)


def test_the_same_seed_gives_the_same_intervals_whatever_else_is_asked_for() -> None:
    rows: list[Row] = [(("a", "b"), 30, 0, 40), (("b",), 10, 0, 60), (("a",), 5, 0, 5)]
    paths = paths_of(rows)
    options = Options(bootstrap=50, seed=3)
    once = compare(paths, ["markov", "shapley"], options).table
    assert once.equals(compare(paths, ["markov", "shapley"], options).table)
    assert once.filter(model="shapley").equals(compare(paths, ["shapley"], options).table)
    assert not once.equals(compare(paths, ["markov", "shapley"], Options(bootstrap=50, seed=4)).table)
    assert (once["low"] < once["conversions"]).all()
    assert (once["high"] > once["conversions"]).all()


def test_a_sample_without_conversions_credits_nothing() -> None:
    table = compare(paths_of([(("a",), 1, 0, 50)]), ["markov", "shapley"], Options(bootstrap=200)).table
    assert table["low"].to_list() == [0, 0]


# --- What is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda: Options(half_life=0), "half-life is 0 days"),
        (lambda: Options(half_life=math.nan), "half-life is nan days"),
        (lambda: Options(weights=(0.4, 0.4, 0.4)), "sum to 1"),
        (lambda: Options(weights=(-0.5, 1, 0.5)), "sum to 1"),
        (lambda: Options(weights=(math.nan, 0.5, 0.5)), "sum to 1"),
        (lambda: Options(bootstrap=-1), "-1 bootstrap samples"),
        (lambda: Options(seed=-1), "seed is -1"),
        (lambda: compare(paths_of(converted("a")), ["best"]), "no model 'best': choose from first_touch"),
        (lambda: compare(paths_of(converted("a")), ["markov_0"]), "no model 'markov_0'"),
        (lambda: compare(paths_of(converted("a")), ["time_decay"]), "needs times"),
        (lambda: compare(paths_of([(("a",), 0, 0, 5)])), "no conversions to credit"),
        (lambda: paths_of(converted("a")).transformed(["sort"]), "no transform 'sort': choose from collapse"),
        (lambda: paths_of(converted("a")).transformed(["drop:b"]), "no channel 'b': the channels are a"),
        (lambda: compare(paths_of(many_states()), ["markov_2"]), "take a lower order"),
        (lambda: compare(paths_of(many_states()), ["markov_9"]), "take a lower order"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: Callable[[], object], told: str) -> None:
    with pytest.raises(AttributionError, match=told):
        wrong()


def test_models_that_the_paths_do_not_allow_are_left_out_with_their_reason() -> None:
    credit = compare(paths_of(many_states()))
    assert set(MODELS) - set(credit.table["model"]) == {"time_decay", "markov_2"}
    assert [note.split(" needs ")[0].split(" has ")[0] for note in credit.notes[:2]] == [
        "left out: time_decay",
        "left out: markov of order 2",
    ]


def many_states() -> list[Row]:
    return [((f"c{one}", f"c{other}"), 1, 0, 0) for one in range(200) for other in range(26)]

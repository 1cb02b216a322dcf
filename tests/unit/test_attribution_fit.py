"""Fitting journeys: figures worked out by hand, laws of the shares, and what is left out. No database in here."""

import numpy as np
import pandas as pd
import pytest

from earmark.journeys import fit as fitting
from earmark.journeys.fit import FitSummary, Model, credit_channels, input_digest

MARKOV = Model("markov", "markov", 1, with_nulls=True)
CONVERTING = Model("markov_converting", "markov", 1, with_nulls=False)
SECOND_ORDER = Model("markov_2", "markov", 2, with_nulls=True)
SHAPLEY = Model("shapley", "shapley")
# The small check of Markov: P(conversion) = 0.8, removal effects .75 (G) and .5 (M), credit 2.4 and 1.6.
CHECK = [(["G"], 2, 20.0, 1), (["M"], 1, 10.0, 0), (["G", "M"], 1, 10.0, 0)]


def journeys(rows: list[tuple[list[str], int, float, int]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["channels", "conversions", "revenue", "nulls"])


def figures(rows: list[tuple[list[str], int, float, int]], model: Model, column: str) -> dict[str, float]:
    credit = credit_channels(journeys(rows), model).credit
    return dict(zip(credit["channel"], credit[column], strict=True))


def test_markov_by_hand() -> None:
    assert figures(CHECK, MARKOV, "conversions") == pytest.approx({"G": 2.4, "M": 1.6}, abs=1e-11)
    assert figures(CHECK, MARKOV, "removal_effect") == pytest.approx({"G": 0.75, "M": 0.5}, abs=1e-11)
    assert figures(CHECK, MARKOV, "share_of_conversions") == pytest.approx({"G": 0.6, "M": 0.4}, abs=1e-11)


def test_without_nulls_only_converting_journeys_count() -> None:
    # All of four convert: without G are lost G, G, G > M, without M are M, G > M.
    assert figures(CHECK, CONVERTING, "removal_effect") == pytest.approx({"G": 0.75, "M": 0.5}, abs=1e-11)
    many_nulls = [*CHECK, (["X"], 0, 0.0, 50), (["M", "X"], 0, 0.0, 50)]
    assert figures(many_nulls, CONVERTING, "conversions") == figures(CHECK, CONVERTING, "conversions")
    assert figures(many_nulls, MARKOV, "conversions") != figures(CHECK, MARKOV, "conversions")
    # A channel that never led to a conversion is told, with nothing.
    assert figures(many_nulls, MARKOV, "conversions")["X"] == 0


def test_a_second_order_chain_knows_the_order_of_touches() -> None:
    rows = [(["a", "b"], 4, 0.0, 0), (["b", "a"], 0, 0.0, 4), (["b"], 1, 0.0, 3)]
    assert figures(rows, SECOND_ORDER, "conversions") != figures(rows, MARKOV, "conversions")
    # By hand, states a, b, ab, ba: of 5 conversions in 12, a b takes 4; without a is left b (1/8 of 2/3), 1/12.
    assert figures(rows, SECOND_ORDER, "removal_effect") == pytest.approx({"a": 0.8, "b": 1}, abs=1e-11)


def test_shapley_splits_equally_over_distinct_channels() -> None:
    rows = [(["a", "b", "a"], 3, 0.0, 7), (["b"], 1, 0.0, 0)]
    assert figures(rows, SHAPLEY, "conversions") == pytest.approx({"a": 1.5, "b": 2.5})
    assert credit_channels(journeys(rows), SHAPLEY).credit["removal_effect"].isna().all()


def test_shapley_of_many_channels_takes_the_closed_form() -> None:
    channels = [f"c{number:02}" for number in range(13)]
    assert figures([(channels, 13, 0.0, 0)], SHAPLEY, "conversions") == pytest.approx(dict.fromkeys(channels, 1))


def test_revenue_has_shares_of_its_own() -> None:
    rows = [(["a"], 1, 90.0, 0), (["b"], 1, 10.0, 0)]
    assert figures(rows, MARKOV, "share_of_conversions") == pytest.approx({"a": 0.5, "b": 0.5})
    assert figures(rows, MARKOV, "share_of_revenue") == pytest.approx({"a": 0.9, "b": 0.1})


@pytest.mark.parametrize("revenue", [(-5.0, 105.0), (0.0, 0.0), (-5.0, -5.0)])
def test_revenue_that_no_chain_can_share_follows_conversions(revenue: tuple[float, float]) -> None:
    rows = [(["a"], 3, revenue[0], 0), (["b"], 1, revenue[1], 0)]
    for model in (MARKOV, SHAPLEY):
        assert figures(rows, model, "share_of_revenue") == figures(rows, model, "share_of_conversions")


def test_intervals_hold_the_figure_and_are_the_same_every_time() -> None:
    rows = [(["a"], 300, 0.0, 700), (["a", "b"], 100, 0.0, 200), (["b"], 100, 0.0, 900)]
    for model in (MARKOV, CONVERTING, SHAPLEY):
        first = credit_channels(journeys(rows), model, samples=50, seed=1).credit
        assert (first["low"] < first["conversions"]).all()
        assert (first["conversions"] < first["high"]).all()
        pd.testing.assert_frame_equal(first, credit_channels(journeys(rows), model, samples=50, seed=1).credit)
        another = credit_channels(journeys(rows), model, samples=50, seed=2).credit
        assert not first["low"].equals(another["low"])


def test_figures_have_twelve_digits() -> None:
    credit = credit_channels(journeys([(["a", "b", "c"], 1, 1.0, 0)]), SHAPLEY).credit
    assert credit["conversions"].tolist() == [0.333333333333] * 3


def test_a_chain_with_too_many_states_is_left_out_with_a_note() -> None:
    rows = [([f"c{number}"], 1, 1.0, 0) for number in range(5_001)]
    fitted = credit_channels(journeys(rows), MARKOV)
    assert fitted.credit.empty
    assert fitted.note is not None
    assert "left out: markov of order 1 has more than 5,000 states with 5,001 channels" in fitted.note


def test_a_chain_too_large_for_a_bootstrap_has_no_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "MAX_STATES_WITH_INTERVAL", 1)
    fitted = credit_channels(journeys(CHECK), MARKOV, samples=20)
    assert fitted.credit["conversions"].tolist() == pytest.approx([2.4, 1.6])
    assert fitted.credit[["low", "high"]].isna().all(axis=None)
    assert "no interval: 2 states" in (fitted.note or "")
    assert credit_channels(journeys(CHECK), SHAPLEY, samples=20).note is None


def test_shares_add_up_whatever_the_journeys() -> None:
    random = np.random.default_rng(5)
    rows = []
    for _ in range(60):
        path = [str(channel) for channel in random.choice(list("abcdefg"), size=random.integers(1, 6))]
        conversions = int(random.integers(0, 3))
        rows.append(
            (path, conversions, float(random.integers(0, 100)) * (conversions > 0), int(random.integers(0, 9)))
        )
    for model in (MARKOV, CONVERTING, SECOND_ORDER, SHAPLEY):
        credit = credit_channels(journeys(rows), model).credit
        assert credit["conversions"].sum() == pytest.approx(sum(row[1] for row in rows), rel=1e-10)
        assert credit["share_of_conversions"].sum() == pytest.approx(1, abs=1e-10)
        assert credit["share_of_revenue"].sum() == pytest.approx(1, abs=1e-10)


def test_a_digest_is_of_all_that_a_fit_depends_on() -> None:
    def digest(journeys_digest: str = "j", model: Model = MARKOV, samples: int = 200, seed: int = 0) -> str:
        return input_digest(journeys_digest, model, samples=samples, seed=seed)

    others = [
        digest("k"), digest(model=CONVERTING), digest(model=SECOND_ORDER), digest(model=SHAPLEY),
        digest(samples=100), digest(seed=1),
    ]  # fmt: skip
    assert len({digest(), *others}) == 7
    assert digest(model=Model("another_name", "markov", 1, with_nulls=True)) == digest()


def test_what_was_done_is_said_in_a_line() -> None:
    summary = FitSummary(fitted=3, unchanged=1, removed=2, groups=2, conversions=1234, notes=("n",))
    assert str(summary) == (
        "3 fits computed, 1 unchanged, 2 removed; 1,234 conversions in 2 months of sponsors; 1 notes"
    )
    assert str(FitSummary()) == "0 fits computed, 0 unchanged; 0 conversions in 0 months of sponsors"

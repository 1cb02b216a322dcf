"""Models that split each conversion by where its touches stand, and Shapley's. The Markov model is in ``markov``.

Every function here is linear in conversions and value: crediting the sum of two inputs is the sum of the credits.
"""

import math
from collections.abc import Collection

import numpy as np

from earmark.journeys.errors import AttributionError
from earmark.journeys.paths import Floats, Paths

MAX_BY_DEFINITION = 12  # channels; 2^12 coalitions


def first_touch(paths: Paths) -> Floats:
    """Return the weight of each touch: all to the first. Like all weights here: shape (touches,), sum 1 a path."""
    weights = np.zeros(len(paths.steps))
    weights[paths.starts[:-1]] = 1
    return weights


def last_touch(paths: Paths) -> Floats:
    """Return the weight of each touch: all to the last."""
    weights = np.zeros(len(paths.steps))
    weights[paths.starts[1:] - 1] = 1
    return weights


def last_non_direct(paths: Paths, direct: Collection[str]) -> Floats:
    """Return the weight of each touch: all to the last of a channel that is not direct; to the last if all are.

    ``direct`` are names in any case.
    """
    folded = {name.casefold() for name in direct}
    counts = np.array([name.casefold() not in folded for name in paths.channels])
    at = np.where(counts[paths.steps], np.arange(len(paths.steps)), -1)
    latest = np.maximum.reduceat(at, paths.starts[:-1])
    weights = np.zeros(len(paths.steps))
    weights[np.where(latest < 0, paths.starts[1:] - 1, latest)] = 1
    return weights


def linear(paths: Paths) -> Floats:
    """Return the weight of each touch: 1/n."""
    return (1 / paths.lengths)[paths.owner]


def position_based(paths: Paths, weights: tuple[float, float, float]) -> Floats:
    """Return the weight of each touch: first, middle (shared by the touches between) and last.

    One touch takes all; two share as first to last does, equally where both are 0.
    """
    first, middle, last = weights
    ends = first + last
    of_two = (first / ends, last / ends) if ends > 0 else (0.5, 0.5)
    length = paths.lengths[paths.owner]
    is_first = paths.position == 0
    is_last = paths.position == length - 1
    return np.select(
        [length == 1, (length == 2) & is_first, length == 2, is_first, is_last],
        [1.0, of_two[0], of_two[1], first, last],
        middle / np.maximum(length - 2, 1),
    )


def time_decay(paths: Paths, half_life: float) -> Floats:
    """Return the weight of each touch: 2^(-age / half-life), normalised; the half-life in days.

    Raises:
        AttributionError: the paths have no times.

    """
    if paths.ages is None:
        raise AttributionError("time_decay needs times, and a path table has none: give a table of touches")
    # Ages from the youngest touch on: the ratios are the same, and no path's weights all vanish.
    youngest = np.minimum.reduceat(paths.ages, paths.starts[:-1])
    raw = np.exp2((youngest[paths.owner] - paths.ages) / half_life)
    return raw / np.add.reduceat(raw, paths.starts[:-1])[paths.owner]


def by_weights(paths: Paths, weights: Floats, rewards: Floats) -> Floats:
    """Return the credit of each channel: shape (kinds, channels) for rewards of shape (kinds, paths)."""
    return np.stack(
        [
            np.bincount(paths.steps, weights=weights * reward[paths.owner], minlength=len(paths.channels))
            for reward in rewards
        ]
    )


def shapley_by_definition(paths: Paths, rewards: Floats) -> Floats:
    """Return the Shapley value of each channel: shape (kinds, channels) for rewards of shape (kinds, paths).

    phi_c = sum over S without c of |S|! (N - |S| - 1)! / N! * (v(S + c) - v(S)), where v(S) is what paths earned
    that use only channels of S (Shapley: A value for n-person games, 1953). Time and memory grow with 2^N.
    """
    count = len(paths.channels)
    coalition = np.bitwise_or.reduceat(np.left_shift(1, paths.steps), paths.starts[:-1])
    every = np.arange(1 << count)
    # Earned with exactly the channels of S, then with any of them: sums over subsets, one channel after the other.
    worth = np.stack([np.bincount(coalition, weights=reward, minlength=len(every)) for reward in rewards])
    for channel in range(count):
        cube = worth.reshape(len(rewards), -1, 2, 1 << channel)
        cube[:, :, 1] += cube[:, :, 0]
    size = np.bitwise_count(every)
    factorial = [math.factorial(number) for number in range(count + 1)]
    share = np.array([factorial[less] * factorial[count - less - 1] / factorial[count] for less in range(count)])
    credit = np.zeros((len(rewards), count))
    for channel in range(count):
        without = every[every >> channel & 1 == 0]
        credit[:, channel] = (worth[:, without | 1 << channel] - worth[:, without]) @ share[size[without]]
    return credit


def shapley_weights(paths: Paths) -> Floats:
    """Return the weight of each touch by which ``by_weights`` gives the Shapley value, for any number of channels.

    Each conversion is split equally over its distinct channels: v is a sum of unanimity games, one a path, whose
    Shapley value that is (Shapley 1953; Zhao, Mahboobi, Bagheri: Shapley value methods for attribution modeling in
    online advertising, 2018, for the form on paths).
    """
    once = np.unique(paths.owner * len(paths.channels) + paths.steps, return_index=True)[1]
    weights = np.zeros(len(paths.steps))
    weights[once] = (1 / np.bincount(paths.owner[once], minlength=len(paths)))[paths.owner[once]]
    return weights

"""The Markov model: paths as a chain of states, and what removing a channel costs. Exact, nothing is simulated.

The graph, the removal effect and the credit are those of Anderl, Becker, von Wangenheim, Schumann: Mapping the
customer journey, International Journal of Research in Marketing 33 (2016), 457-474. Fundamental matrix: Kemeny,
Snell: Finite Markov Chains (1960), chapter 3.
"""

import numpy as np

from earmark.journeys.errors import AttributionError
from earmark.journeys.paths import Floats, Integers, Paths

MAX_STATES = 5_000  # the matrix is dense: 200 MB
_SMALL = 1 << 22  # as many possible states can be counted in a table


class Chain:
    """The states of order ``order`` that paths go through.

    A state is the last ``order`` channels of a path, fewer at its beginning. Paths lead from the start through the
    states to a conversion or to null.
    """

    def __init__(self, paths: Paths, order: int) -> None:
        """Find the states.

        Raises:
            AttributionError: there are more than ``MAX_STATES``.

        """
        self._paths = paths
        self._first = paths.starts[:-1]
        self._last = paths.starts[1:] - 1
        base = len(paths.channels) + 1
        if base**order >= 1 << 62:
            raise AttributionError(_too_many(order, len(paths.channels)))
        codes, self._state = _compact(_codes(paths, base, order), base**order)
        self._count = len(codes)
        if self._count > MAX_STATES:
            raise AttributionError(_too_many(order, len(paths.channels)))
        digits = np.stack([codes // base**back % base for back in range(order)]) - 1
        self._holding = [np.flatnonzero((digits == at).any(axis=0)) for at in range(len(paths.channels))]
        inner = paths.position > 0
        self._mover = paths.owner[inner]
        self._move = self._state[np.flatnonzero(inner) - 1] * self._count + self._state[inner]

    @property
    def states(self) -> int:
        """How many states there are: time grows with their cube."""
        return self._count

    def removal_effects(self, journeys: Floats, rewards: Floats) -> Floats:
        """Return 1 - E(reward without a channel) / E(reward), where flow into the removed channel goes to null.

        With E from the fundamental matrix F: a walk earns start F r, and what of it passes through the states S of
        a channel is (start F)_S (F_SS)^-1 (F r)_S. So one inversion serves all channels.

        Args:
            journeys: of each path how many took it, converting or not; shape (paths,).
            rewards: conversions or value of each path; shape (kinds, paths).

        Returns:
            Shape (kinds, channels); 0 where nothing is earned.

        """
        count = self._count
        visits = np.bincount(self._state, weights=journeys[self._paths.owner], minlength=count)
        visits[visits == 0] = 1  # a state that nobody visits: any row does
        moves = np.bincount(self._move, weights=journeys[self._mover], minlength=count * count)
        fundamental = np.linalg.inv(np.eye(count) - moves.reshape(count, count) / visits[:, None])
        start = np.bincount(self._state[self._first], weights=journeys, minlength=count) / journeys.sum()
        reached = start @ fundamental
        last = self._state[self._last]
        per_visit = np.stack([np.bincount(last, weights=reward, minlength=count) for reward in rewards]) / visits
        earned = per_visit @ fundamental.T
        effects = np.zeros((len(rewards), len(self._holding)))
        for at, states in enumerate(self._holding):
            if len(states):
                within = fundamental[np.ix_(states, states)]
                effects[:, at] = np.linalg.solve(within, earned[:, states].T).T @ reached[states]
        expected: Floats = earned @ start
        return _ratio(effects, expected[:, None])

    def credit(self, journeys: Floats, rewards: Floats) -> Floats:
        """Return total * RE / sum(RE) for each kind of reward and channel; arguments as of ``removal_effects``."""
        effects = self.removal_effects(journeys, rewards)
        total: Floats = rewards.sum(axis=1, keepdims=True)
        return _ratio(effects, effects.sum(axis=1, keepdims=True)) * total


def _ratio(parts: Floats, whole: Floats) -> Floats:
    """Return parts / whole, 0 where the whole is 0."""
    ratio: Floats = np.divide(parts, whole, out=np.zeros_like(parts), where=whole > 0)
    return ratio


def _codes(paths: Paths, base: int, order: int) -> Integers:
    """Return the last ``order`` channels up to each touch as one number, the touch's own channel last."""
    codes = paths.steps + 1
    for back in range(1, min(order, len(paths.steps))):
        earlier = np.concatenate((np.zeros(back, np.int64), paths.steps[:-back] + 1))
        codes = codes + np.where(paths.position >= back, earlier, 0) * base**back
    return codes


def _compact(codes: Integers, possible: int) -> tuple[Integers, Integers]:
    """Return the codes that occur and, for each code given, which of them it is."""
    if possible > _SMALL:
        return np.unique(codes, return_inverse=True)
    found = np.flatnonzero(np.bincount(codes, minlength=possible))
    number = np.zeros(possible, np.int64)
    number[found] = np.arange(len(found))
    return found, number[codes]


def _too_many(order: int, channels: int) -> str:
    return (
        f"markov of order {order} has more than {MAX_STATES:,} states with {channels:,} channels: "
        "group channels, or take a lower order"
    )

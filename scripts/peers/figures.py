"""Medians over rounds, and how sure they are."""

from __future__ import annotations

import statistics
from math import comb
from typing import Mapping, NamedTuple, Sequence

CONFIDENCE = 0.95


class Figure(NamedTuple):
    """A median and its interval, which is unknown with too few rounds."""

    median: float
    low: float | None
    high: float | None


def figure(values: Sequence[float]) -> Figure:
    """The median of the values and an interval that holds the true median with at least 95 % probability.

    The interval lies between two of the values themselves: each falls below the true median with probability one half,
    whatever the distribution, so how many do is a matter of coin tosses. A shared machine's slow outliers, which are
    anything but normally distributed, cannot make it wrong; the price is that fewer than six values give none.
    """
    ordered = sorted(values)
    outside = left_out(len(ordered))
    if outside is None:
        return Figure(statistics.median(ordered), None, None)
    return Figure(statistics.median(ordered), ordered[outside], ordered[-1 - outside])


def left_out(count: int) -> int | None:
    """How many values at either end the interval leaves out; none if even the whole range is not sure enough."""
    best, tail = None, 0.0
    for outside in range((count + 1) // 2):
        tail += comb(count, outside) / 2**count
        if 1 - 2 * tail < CONFIDENCE:
            break
        best = outside
    return best


def ratio(above: Mapping[int, float], below: Mapping[int, float]) -> Figure | None:
    """The ratio of two programs from the rounds that have both: what slows a round down slows both of them."""
    rounds = sorted(above.keys() & below.keys())
    return figure([above[number] / below[number] for number in rounds]) if rounds else None

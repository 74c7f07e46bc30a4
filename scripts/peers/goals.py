"""What mpt is meant to reach beside its peers, and whether it does."""

from __future__ import annotations

from typing import NamedTuple

from .catalogue import MPT_DATA, MPT_MODEL, PROGRAMS
from .figures import Figure, figure, ratio

# The fastest of the tuned programs, whichever it turns out to be.
BEST_TUNED = "the best tuned program"


class Goal(NamedTuple):
    """`mpt` is to be at least `factor` times as fast as `peer`."""

    mpt: str
    peer: str
    factor: float
    precision: str


GOALS: tuple[Goal, ...] = (
    Goal(MPT_MODEL.name, BEST_TUNED, 1.0, "bf16"),
    Goal(MPT_MODEL.name, "pytorch-hand-split-tuned", 1.10, "bf16"),
    Goal(MPT_MODEL.name, "pytorch-hand-split", 1.22, "bf16"),
    Goal(MPT_MODEL.name, "pytorch-single", 1.4, "bf16"),
    Goal(MPT_DATA.name, "pytorch-ddp-tuned", 1.15, "bf16"),
    Goal(MPT_DATA.name, "pytorch-ddp", 1.6, "bf16"),
    Goal(MPT_MODEL.name, BEST_TUNED, 1.0, "fp32"),
)


class Verdict(NamedTuple):
    goal: str
    found: str
    met: bool
    doubtful: bool  # the interval, if there is one, lies on both sides of the goal


class Measured:
    """The results of all rounds, by program and precision."""

    def __init__(self, results: list[dict]) -> None:
        self.results = results

    def rates(self, program: str, precision: str) -> dict[int, float]:
        """Examples per second by round."""
        return {result["round"]: result["examples_per_second"] for result in self._of(program, precision)}

    def memory(self, program: str, precision: str, which: str = "peak") -> float | None:
        """The median of the peak, or of what the libraries took before any work (which mpt does not tell)."""
        sizes = [result.get(f"{which}_resident_bytes") for result in self._of(program, precision)]
        return None if None in sizes or not sizes else figure(sizes).median

    def best_tuned(self, precision: str) -> str | None:
        """The tuned program with the highest median. Not the best of each round, which is luck in part."""
        medians = {
            program.name: figure(list(rates.values())).median
            for program in PROGRAMS
            if program.tuned and (rates := self.rates(program.name, precision))
        }
        return max(medians, key=lambda name: medians[name]) if medians else None

    def _of(self, program: str, precision: str) -> list[dict]:
        return [
            result
            for result in self.results
            if (result["program"], result["precision"]) == (program, precision) and "failed" not in result
        ]


def verdicts(measured: Measured) -> list[Verdict]:
    """Every goal of which both sides were measured."""
    speeds = (speed(goal, measured) for goal in GOALS)
    memories = (
        memory(own.name, peer.name, precision, measured)
        for precision in ("bf16", "fp32")
        for own in PROGRAMS
        if own.is_mpt
        for peer in PROGRAMS
        if not peer.is_mpt and peer.job == own.job
    )
    return [verdict for verdict in (*speeds, *memories) if verdict]


def speed(goal: Goal, measured: Measured) -> Verdict | None:
    peer = measured.best_tuned(goal.precision) if goal.peer == BEST_TUNED else goal.peer
    found = ratio(measured.rates(goal.mpt, goal.precision), measured.rates(peer, goal.precision)) if peer else None
    if found is None:
        return None
    who = f"{BEST_TUNED} ({peer})" if goal.peer == BEST_TUNED else peer
    return Verdict(
        f"{goal.precision}: {goal.mpt} >= {goal.factor:.2f} x {who}",
        f"{shown(found, '.2f')} x",
        found.median >= goal.factor,
        found.low is not None and found.high is not None and found.low < goal.factor <= found.high,
    )


def memory(own: str, peer: str, precision: str, measured: Measured) -> Verdict | None:
    ours, theirs = measured.memory(own, precision), measured.memory(peer, precision)
    if ours is None or theirs is None:
        return None
    return Verdict(
        f"{precision}: peak memory of {own} below that of {peer}",
        f"{gigabytes(ours)} against {gigabytes(theirs)}",
        ours < theirs,
        False,
    )


def gigabytes(size: float) -> str:
    return f"{size / 1e9:.2f} GB"


def shown(value: Figure, form: str) -> str:
    """`1.23 [1.20, 1.25]`, or only the median where the interval is not known."""
    if value.low is None or value.high is None:
        return f"{value.median:{form}}"
    return f"{value.median:{form}} [{value.low:{form}}, {value.high:{form}}]"

"""What the comparison prints: a line a contestant, and what was aimed at."""

from __future__ import annotations

from typing import Sequence

from peers.figures import Figure, figure, left_out, ratio
from peers.goals import shown
from peers.table import columns

from .contestants import Contestant

HEAD = ("program", "cores", "images/s", "images/s and core", "mpt / it")
# Per core, beside torchvision as most programs use it.
GOAL = 1.5


def rates(results: Sequence[dict], name: str, seconds: str = "seconds") -> dict[int, float]:
    """Images a second by round, of the clock's seconds or of the processor's."""
    return {found["round"]: found["images"] / found[seconds] for found in results if found["name"] == name}


def beside(results: Sequence[dict], contestant: Contestant) -> Figure | None:
    """How many times as fast mpt is by the clock on as many cores."""
    mpt = "mpt" if contestant.cores == 1 else "mpt-all"
    return ratio(rates(results, mpt), rates(results, contestant.name))


def table(results: Sequence[dict], all_of_them: Sequence[Contestant]) -> str:
    """The contestants that gave figures."""
    rows = [HEAD]
    for contestant in all_of_them:
        found = [rates(results, contestant.name, seconds) for seconds in ("seconds", "processor_seconds")]
        if not found[0]:
            continue
        by_clock, by_core = (shown(figure(list(each.values())), ".0f") for each in found)
        times = beside(results, contestant)
        told = "" if contestant.is_mpt or times is None else shown(times, ".2f")
        rows.append((contestant.title, str(contestant.cores), by_clock, by_core, told))
    if len(rows) == 1:
        return "no program gave a figure"
    rounds = len({found["round"] for found in results})
    sure = " In brackets: 95 % intervals." if left_out(rounds) is not None else " A 95 % interval needs 6 rounds."
    note = f"Medians over {rounds} round(s); ratios by the clock, within each round.{sure}"
    return "\n".join([*columns(rows), "", note, *goals(results, all_of_them)])


def goals(results: Sequence[dict], all_of_them: Sequence[Contestant]) -> list[str]:
    """Whether mpt is as much faster as it is to be, on one core."""
    found = []
    for contestant in all_of_them:
        times = None if contestant.is_mpt or contestant.cores > 1 else beside(results, contestant)
        if times is not None:
            verdict = "met   " if times.median >= GOAL else "MISSED"
            found.append(f"{verdict}  one core: mpt >= {GOAL:.1f} x {contestant.title}: {shown(times, '.2f')} x")
    return found

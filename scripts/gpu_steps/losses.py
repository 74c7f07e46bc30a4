"""Whether two runs have the same losses."""

from __future__ import annotations

import json
from pathlib import Path

# Law 1 of ARCHITECTURE.md, for fp64.
BOUND = 1e-9


def compare(run: Path, like: Path) -> str:
    """What is wrong with the losses of a run; empty if each is that of the other run."""
    found, expected = losses(run), losses(like)
    if not expected:
        return "there is nothing to compare its losses with"
    if len(found) != len(expected):
        return f"it recorded {len(found)} steps, the run on the CPU {len(expected)}"
    apart = [abs(mine - theirs) / abs(theirs) for mine, theirs in zip(found, expected)]
    # Not `max`, which passes over a loss that is no number.
    wrong = [step for step, distance in enumerate(apart, start=1) if not distance <= BOUND]
    if not wrong:
        return ""
    step = wrong[0]
    return (
        f"its losses are not those of the CPU, first at step {step}: {found[step - 1]} and {expected[step - 1]} "
        f"are {apart[step - 1]:.1e} apart (bound {BOUND:.0e})"
    )


def losses(run: Path) -> list[float]:
    """The loss of every step that a run recorded."""
    try:
        lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    return [line["loss"] for line in map(json.loads, lines) if line["kind"] == "step"]

"""Whether the peers compute the same function: the same weights, examples and no dropout must give the same losses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Sequence

from setup_steps.console import Console

from .catalogue import Program, Size, named, peer_command
from .running import Failed, from_line, run
from .table import columns

# Rounding differs between a sum and the sum of its halves; a wrong exchange or gradient shows in the third digit.
BOUND = 1e-5
SIZE = Size(batch=16, warmup=1, steps=3)
REFERENCE = named(["pytorch-single"])[0]


def check(programs: Sequence[Program], python: Path, console: Console) -> int:
    """Runs each peer for four steps in fp32 and compares every loss with the single process's."""
    try:
        return compare(programs, python, console)
    except Failed as failure:
        console.say(f"mpt: a peer failed: {failure}")
        return 1


def compare(programs: Sequence[Program], python: Path, console: Console) -> int:
    chosen = [program for program in programs if not (program.is_mpt or program.tuned or program == REFERENCE)]
    wanted = losses(REFERENCE, python)
    rows = [("", *(f"loss {step}" for step in range(1, len(wanted) + 1)), "furthest apart", "")]
    rows.append((REFERENCE.title, *(f"{loss:.7f}" for loss in wanted), "", ""))
    equal = True
    for program in chosen:
        console.say(f"mpt: checking {program.title}")
        found = losses(program, python)
        apart = max(abs(mine - theirs) / abs(theirs) for mine, theirs in zip(found, wanted))
        equal = equal and apart <= BOUND
        rows.append(
            (program.title, *(f"{loss:.7f}" for loss in found), f"{apart:.1e}", "" if apart <= BOUND else "DIFFERS")
        )
    print("\n".join(columns(rows)))
    print("equal" if equal else "not equal", f"(bound {BOUND:.0e})")
    return 0 if equal else 1


def losses(program: Program, python: Path) -> list[float]:
    command = peer_command(program, python, "fp32", SIZE, "--dropout=0")
    return from_line(run(command, os.environ).output)["losses"]

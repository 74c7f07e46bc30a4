"""The command line: brings the launchers, tries each case, and tells."""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Sequence

from libraries.environment import PYTORCH, prepare
from setup_steps.children import Children
from setup_steps.console import Console, SetupError
from setup_steps.places import Places
from setup_steps.sequence import end, explain, interrupt

from . import packages
from .cases import CASES, Wrong
from .hosts import remove_left_over
from .trial import Trial

USAGE = f"""\
Usage: scripts/try-launchers [CASE ...]

torchrun of PyTorch {PYTORCH.version}, mpirun of Open MPI and mpiexec of MPICH start ranks of mpt on
simulated GPUs, on this machine and on hosts made of network namespaces, one of which is cut off. Their
losses and weights are those of one process, bit for bit; what goes wrong is told in a
sentence, and nothing is left running. Needs root, for the namespaces. The first call
installs PyTorch in the cache, and the others by apt-get.

Cases: {", ".join(case.__name__ for case in CASES)}
"""


def main(arguments: Sequence[str], root: Path) -> int:
    """Turns every foreseen trouble into a sentence and an exit code."""
    if list(arguments) in (["--help"], ["-h"]):
        print(USAGE, end="")
        return 0
    known = {case.__name__: case for case in CASES}
    if not set(arguments) <= set(known):
        print(USAGE, end="", file=sys.stderr)
        return 2
    chosen = [known[name] for name in arguments] or list(CASES)
    places, console, children = Places.from_environment(root), Console(), Children()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    try:
        python = prepare(PYTORCH, places, console, children)
        packages.bring(children)
        if not places.program.exists():
            raise SetupError(f"{places.program} is not there: run scripts/setup")
        remove_left_over()
        with tempfile.TemporaryDirectory(prefix="mpt-launchers-") as scratch:
            return 1 if try_all(chosen, places.program, python, Path(scratch)) else 0
    except KeyboardInterrupt as interruption:
        number = interruption.args[0] if interruption.args else signal.SIGINT
        end(console, children, "interrupted", 128 + number)
    except SetupError as error:
        end(console, children, str(error), error.code)
    except OSError as error:
        end(console, children, *explain(error, places))
    return 1


def try_all(chosen: Sequence, program: Path, python: Path, scratch: Path) -> int:
    """Tries each case, whatever became of the others; gives how many failed."""
    failed = 0
    for case in chosen:
        began = time.monotonic()
        trial = Trial(program, python, scratch / case.__name__)
        try:
            with trial:
                told = case(trial)
            verdict = "passed"
        except Wrong as wrong:
            failed, verdict, told = failed + 1, "FAILED", str(wrong)
        print(f"{verdict} {time.monotonic() - began:5.1f} s  {case.__doc__.splitlines()[0]}")
        print("\n".join(f"    {line}" for line in told.splitlines()), flush=True)
        if verdict == "FAILED":
            print("\n".join(f"    | {line}" for line in trial.said().splitlines()), flush=True)
    return failed

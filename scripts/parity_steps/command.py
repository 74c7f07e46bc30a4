"""The command line: brings PyTorch, then goes on in its environment."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Sequence

from libraries.environment import PYTORCH, prepare
from setup_steps.children import Children
from setup_steps.console import Console, SetupError
from setup_steps.places import Places
from setup_steps.sequence import end, explain, interrupt

USAGE = f"""\
Usage: scripts/parity write
       scripts/parity check

PyTorch {PYTORCH.version} trains the shipped models on the same random numbers as mpt.
`write` puts losses, norms, samples and projections into tests/mpt/expected, which
tests/mpt/parity.rs holds mpt to; `check` computes them again and compares them with
what is committed. The first call installs PyTorch in the cache and says what it takes.

Environment:
  XDG_CACHE_HOME    PyTorch lies in its folder mpt (default: ~/.cache)
  PIP_*             and pip's configuration files: package index, certificates, proxy
"""


def main(arguments: Sequence[str], root: Path) -> int:
    """Parses, prepares, and hands over to the environment's Python."""
    if list(arguments) in (["--help"], ["-h"]):
        print(USAGE, end="")
        return 0
    if list(arguments) not in (["write"], ["check"]):
        print(USAGE, end="", file=sys.stderr)
        return 2
    places, console, children = Places.from_environment(root), Console(), Children()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    try:
        python = prepare(PYTORCH, places, console, children)
    except KeyboardInterrupt as interruption:
        number = interruption.args[0] if interruption.args else signal.SIGINT
        end(console, children, "interrupted; the next call installs PyTorch anew", 128 + number)
    except SetupError as error:
        end(console, children, str(error), error.code)
    except OSError as error:
        end(console, children, *explain(error, places))
    # -P: a folder that holds a torch.py is no place to import from.
    command = [str(python), "-B", "-P", "-m", "parity_steps.expectations", *arguments]
    os.execve(python, command, {**os.environ, "PYTHONPATH": str(root / "scripts"), "PYTHONNOUSERSITE": "1"})

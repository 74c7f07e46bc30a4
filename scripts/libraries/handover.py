"""From a script to the Python of a library's environment."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import NoReturn, Sequence

from setup_steps.children import Children
from setup_steps.console import Console, SetupError
from setup_steps.places import Places
from setup_steps.sequence import end, explain, interrupt

from .environment import Library, prepare


def become(library: Library, root: Path, module: str, arguments: Sequence[str]) -> NoReturn:
    """Brings a library, and goes on in its environment with a module of the scripts; every foreseen trouble becomes a
    sentence and an exit code."""
    places, console, children = Places.from_environment(root), Console(), Children()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    try:
        python = prepare(library, places, console, children)
    except KeyboardInterrupt as interruption:
        number = interruption.args[0] if interruption.args else signal.SIGINT
        end(console, children, f"interrupted; the next call installs {library.name} anew", 128 + number)
    except SetupError as error:
        end(console, children, str(error), error.code)
    except OSError as error:
        end(console, children, *explain(error, places))
    # -P: a folder that holds a torch.py is no place to import from.
    command = [str(python), "-B", "-P", "-m", module, *arguments]
    os.execve(python, command, {**os.environ, "PYTHONPATH": str(root / "scripts"), "PYTHONNOUSERSITE": "1"})

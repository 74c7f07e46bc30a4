"""The Python that runs the peers: the cache's, or one that was named."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Sequence

from libraries.environment import JAX, prepare as install
from setup_steps.children import Children
from setup_steps.console import Console, SetupError
from setup_steps.places import Places

# A Python that has the libraries already, used as it is.
VARIABLE = "MPT_PEERS_PYTHON"


def prepare(places: Places, console: Console, children: Children) -> Path:
    """The Python that runs the peers, its libraries installed first if they are not there."""
    given = os.environ.get(VARIABLE)
    if not given:
        return install(JAX, places, console, children)
    if not shutil.which(given):
        raise SetupError(f"{VARIABLE}={given} is no program")
    return Path(os.path.abspath(str(shutil.which(given))))


def versions(python: Path, names: Sequence[str]) -> dict[str, str]:
    """What is installed there of the distributions of these names, as their own metadata say."""
    script = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    call = [str(python), "-c", script, *names]
    outcome = subprocess.run(call, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if outcome.returncode != 0:
        raise SetupError(f"{python} lacks one of {', '.join(names)}: {outcome.stderr.strip().splitlines()[-1]}")
    return dict(zip(names, outcome.stdout.split()))

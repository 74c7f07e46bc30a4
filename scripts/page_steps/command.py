"""The command line of `scripts/live-page`: trains a little, and looks at the page in a browser."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Iterator, Sequence

from monitoring_steps import training
from monitoring_steps.processes import ended, interruptible
from setup_steps import sequence
from setup_steps.children import Children
from setup_steps.console import Console, SetupError
from setup_steps.places import Places

from . import browser, page

USAGE = """\
Usage: scripts/live-page check [--out DIR]

Trains a small network on two CPU devices, model-parallel, and looks at its live page in Chromium
without a window: on a desktop and on a phone, light and dark. It must show every device, need no
scrolling sideways, refresh itself, ask no other place for anything, and say when the run has ended.
--out keeps the pictures. Takes the machine's Chromium, or installs Debian's.
"""
MODE = "model-parallel"
DEVICES = ("cpu:0", "cpu:1")
# Until there is an evaluation to show, which ends an epoch.
EPOCH_SECONDS = 120


def main(arguments: Sequence[str], root: Path) -> int:
    """Turns every foreseen trouble into a sentence and an exit code."""
    if list(arguments) in (["--help"], ["-h"]):
        print(USAGE, end="")
        return 0
    if not (list(arguments[:1]) == ["check"] and (len(arguments) == 1 or (len(arguments) == 3 and arguments[1] == "--out"))):
        print(USAGE, end="", file=sys.stderr)
        return 2
    out = Path(arguments[2]) if len(arguments) == 3 else None
    places, console, children = Places.from_environment(root), Console(), Children()
    with interruptible():
        try:
            chromium = browser.program(console, children)
            sequence.set_up(places, False, console, children)
            return check(places.program, chromium, out)
        except KeyboardInterrupt as interruption:
            children.stop()
            return ended(console, "interrupted", 128 + interruption.args[0])
        except SetupError as error:
            return ended(console, str(error), error.code)
        except OSError as error:
            return ended(console, *sequence.explain(error, places))


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for a while. What the browser still writes there as it ends may stay behind."""
    folder = Path(tempfile.mkdtemp(prefix="mpt-live-page-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check(program: Path, chromium: Path, out: Path | None) -> int:
    """The whole check; the last line counts."""
    with scratch_folder() as scratch:
        pictures = out or scratch
        pictures.mkdir(parents=True, exist_ok=True)
        with training.small("mpt", MODE, program, scratch / "run") as run:
            run.wait_for(r"^epoch 1/\d+: ", EPOCH_SECONDS)
            with browser.Browser(chromium, scratch / "profile") as looking:
                found = page.problems(looking, run.address, DEVICES, pictures)
                run.end()
                found += page.loss(looking)
    print("\n".join(f"PROBLEM: {problem}" for problem in found) or "no problem")
    return 1 if found else 0

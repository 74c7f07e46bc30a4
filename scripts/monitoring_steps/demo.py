"""The demo: a Prometheus and a training run for it to watch, until Ctrl-C; nothing is left behind."""

from __future__ import annotations

import signal
import tempfile
import urllib.parse
from pathlib import Path
from typing import Sequence

from setup_steps import asked, sequence
from setup_steps.children import Children
from setup_steps.console import Console, SetupError
from setup_steps.places import Places

from . import prometheus
from .dashboard import dashboard_file, shipped
from .processes import ended, interruptible
from .prometheus import REMEDY, Programs, Server
from .training import Run

USAGE = """\
Usage: scripts/demo-monitoring [ARGS of mpt train]

Trains, by default the recipe `quick` in two halves, with an endpoint for Prometheus, starts
a Prometheus that scrapes it each second by the rules in cluster/monitoring, and prints where
to look. Ctrl-C ends both. Needs prometheus and promtool (Debian: apt-get install prometheus).
"""
DEFAULT = ("--recipe", "quick", "--gpus", "2", "--mode", "model-parallel", "--epochs", "200")
JOB = "mpt-demo"
SHOWN = "sum by (device) (rate(mpt_examples_total[10s]))"
LOOK_SECONDS = 1.0


def main(arguments: Sequence[str], root: Path) -> int:
    """Turns every foreseen trouble into a sentence and an exit code."""
    if list(arguments) in (["--help"], ["-h"]):
        print(USAGE, end="")
        return 0
    places, console, children = Places.from_environment(root), Console(), Children()
    with interruptible():
        try:
            return start(list(arguments) or list(DEFAULT), places, console, children)
        except KeyboardInterrupt as interruption:
            children.stop()
            number = interruption.args[0]
            # Ctrl-C is how a demo ends.
            return ended(console, "both have ended", 0 if number == signal.SIGINT else 128 + number)
        except SetupError as error:
            return ended(console, str(error), error.code)
        except OSError as error:
            return ended(console, *sequence.explain(error, places))


def start(arguments: Sequence[str], places: Places, console: Console, children: Children) -> int:
    """Prepares what is missing, then shows it all from a folder that goes with it."""
    programs = prometheus.installed()
    if not programs:
        raise SetupError(f"this machine lacks prometheus and promtool ({REMEDY})")
    sequence.set_up(places, asked.needed(["train", *arguments], places.root), console, children)
    with tempfile.TemporaryDirectory(prefix="mpt-demo-") as scratch:
        return show(arguments, programs, places, Path(scratch))


def show(arguments: Sequence[str], programs: Programs, places: Places, scratch: Path) -> int:
    """Starts both, says where to look, and stays until one is told to end or Prometheus does."""
    if not any(argument.startswith("--run-dir") for argument in arguments):
        arguments = [*arguments, f"--run-dir={scratch / 'run'}"]
    with Run("mpt train", places.program, arguments, Path.cwd()) as run:
        folder = shipped(places.root)
        configuration = prometheus.configured(folder / "prometheus", scratch / "configuration", {JOB: run.address})
        with Server(programs, configuration, scratch / "data") as server:
            print(addresses(run.address, server, places.root), flush=True)
            told = False
            while server.running():
                if not told and run.wait(LOOK_SECONDS):
                    # Its last lines are its results.
                    said = ["", "the training has ended:", *run.last, "Ctrl-C ends Prometheus too"]
                    print("\n".join(said), flush=True)
                    told = True
                elif told:
                    server.wait(LOOK_SECONDS)
            raise server.failure("ended")


def addresses(run: str, server: Server, root: Path) -> str:
    """Where to look."""
    pages = server.pages()
    graph = urllib.parse.urlencode({"g0.expr": SHOWN, "g0.tab": 0, "g0.range_input": "5m"})
    return "\n".join(
        [
            f"live page of the run   http://{run}/",
            f"its metrics            http://{run}/metrics",
            f"Prometheus             {pages}/graph?{graph}",
            f"its alerts             {pages}/alerts",
            f"Grafana's dashboard    {dashboard_file(root)}",
            f"how to import it       {shipped(root) / 'README.md'}",
            f"its data source        {server.url}",
            "Ctrl-C ends both",
        ]
    )

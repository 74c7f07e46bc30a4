"""The order of things: install torchvision, make the files, measure in turn, round after round, and tell."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Sequence

from libraries.environment import TORCHVISION, prepare
from peers import computer, running
from peers.comparison import positive, to_an_end
from peers.environment import versions
from peers.record import demand_folder
from peers.running import Failed
from setup_steps import sequence
from setup_steps.children import Children
from setup_steps.console import Console, SetupError
from setup_steps.places import Places

from .contestants import Contestant, command, contestants, result
from .told import table

ROUNDS = 9  # the fewest whose 95 % interval leaves out the best and the worst
IMAGES = 768
LIBRARIES = "torch", "torchvision", "pillow"


def main(arguments: Sequence[str], root: Path) -> int:
    """The whole comparison; gives the exit code."""
    options = parse(arguments)
    return to_an_end(lambda *parts: compare(options, *parts), root)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/compare-images",
        description="Runs mpt's loader of image files and torchvision's in turn on JPEG files like ImageNet's: shorter side "
        "to 256, a random window of 224, half of them mirrored, mean and deviation taken away.",
    )
    add = parser.add_argument
    add("--rounds", type=positive, default=ROUNDS, help="how often each runs (default: %(default)s)")
    add("--images", type=positive, default=IMAGES, help="files of an epoch (default: %(default)s)")
    add("--make", type=Path, metavar="DIR", help="only make the files, in this new folder: to train on")
    add("--json", type=Path, metavar="FILE", help="write down every run")
    add("--mpt", type=Path, metavar="FILE", help="the mpt to run, as it is (default: this repository's)")
    add("--quick", action="store_true", help="one short round, to see that everything runs")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.images = 1, 128
    return options


def compare(options: argparse.Namespace, places: Places, console: Console, children: Children) -> int:
    """All of it; the exit code says whether everything could be measured, not which goals were met."""
    demand_folder(options.json)
    python = prepare(TORCHVISION, places, console, children)
    if options.make:
        if options.make.exists():
            raise SetupError(f"--make: {options.make} is there already; name a new folder")
        console.say(f"mpt: {photographs(python, options.make, options.images)['files']} files in {options.make}")
        return 0
    if not options.mpt:
        sequence.set_up(places, False, console, children)
    elif not os.access(options.mpt, os.X_OK):
        raise SetupError(f"--mpt: {options.mpt} is no program")
    mpt = options.mpt.resolve() if options.mpt else places.program
    machine = computer.describe(mpt, versions(python, LIBRARIES), {})
    everyone, results, failures = contestants(machine["cores"]), [], {}
    with tempfile.TemporaryDirectory() as scratch:
        made = photographs(python, Path(scratch), options.images)
        size = f"{options.images} JPEG files of 500 x 375, {made['mean_bytes'] / 1000:.0f} kB each"
        console.say(f"mpt: {computer.sentence(machine)}; torchvision {machine['torchvision']}; {size}")
        try:
            for number in range(1, options.rounds + 1):
                # Every round begins with another one, so that none is always the first.
                begin = number % len(everyone)
                for contestant in [*everyone[begin:], *everyone[:begin]]:
                    if contestant.name not in failures:
                        measure(contestant, number, (mpt, python, Path(scratch), options.images), results, failures)
                console.say(f"round {number} of {options.rounds} done")
        finally:  # An interrupted comparison prints what there is.
            print("\n".join([table(results, everyone), *failures.values()]), flush=True)
            if options.json:
                record = {"machine": machine, **made, "results": results, "failures": failures}
                options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 1 if failures else 0


def photographs(python: Path, folder: Path, count: int) -> dict:
    """Makes the files; how many bytes they have."""
    script = Path(__file__).with_name("photographs.py")
    made = running.run([str(python), str(script), f"--count={count}", str(folder)], os.environ)
    return json.loads(made.output)


def measure(
    contestant: Contestant,
    number: int,
    how: tuple[Path, Path, Path, int],
    results: list[dict],
    failures: dict[str, str],
) -> None:
    """Runs a contestant once, on the last of the cores that this process may use: the first has the most else to do."""
    mpt, python, folder, images = how
    usable = sorted(os.sched_getaffinity(0))
    # What is started gets the cores of who starts it.
    os.sched_setaffinity(0, usable[-contestant.cores :])
    try:
        ended = running.run(command(contestant, mpt, python, folder), os.environ)
        results.append({**result(contestant, ended.output, images), "round": number, "name": contestant.name})
    except Failed as failure:
        failures[contestant.name] = f"{contestant.title} failed and is left out from there on: {failure}"
    finally:
        os.sched_setaffinity(0, usable)

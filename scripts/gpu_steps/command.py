"""The command line and the order of things: look, set up, try every part, and tell."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Iterator, Mapping, Sequence

from setup_steps import flavour, sequence
from setup_steps.children import Children
from setup_steps.console import Console, SetupError, seconds
from setup_steps.places import Places
from setup_steps.sequence import interrupt

from . import found, losses, running
from .parts import Bench, Part, parts
from .report import FAILED, PASSED, Report, Result, write

# The names under which the driver and NCCL are looked up; the simulator is both.
SIMULATOR = "libmpt_simulator.so"
SIMULATED = ("libcuda.so", "libcuda.so.1", "libnccl.so", "libnccl.so.2")
REHEARSED_GPUS = 2


def main(arguments: Sequence[str], root: Path) -> int:
    """Turns every foreseen trouble into a sentence and an exit code."""
    options = parse(arguments)
    places, console, children = Places.from_environment(root), Console(), Children()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    try:
        with tempfile.TemporaryDirectory(prefix="mpt-gpu-check-") as scratch:
            return check(options, places, Path(scratch), console, children)
    except KeyboardInterrupt as interruption:
        number = interruption.args[0] if interruption.args else signal.SIGINT
        return end(console, children, f"interrupted; {options.out} has what came before, if anything", 128 + number)
    except SetupError as error:
        return end(console, children, str(error), error.code)
    except OSError as error:
        return end(console, children, *sequence.explain(error, places))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/gpu-check",
        description="Tries mpt on the GPUs of this machine and writes one report: what was found, equality with the "
        "CPU, training in each mode, benchmarks.",
        epilog="The report is written anew after each part. Exit codes: 0 nothing failed; 1 something did; 2 there is "
        "no GPU, or the call was wrong.",
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("gpu-check.md"), metavar="FILE", help="the report (default: %(default)s)")
    add("--gpus", type=positive, metavar="N", help="use so many (default: all there are)")
    add("--rehearse", action="store_true", help="use simulated GPUs, for what can be tried on them")
    return parser.parse_args(arguments)


def positive(text: str) -> int:
    if int(text) < 1:
        raise ValueError
    return int(text)


def end(console: Console, children: Children, said: str, code: int) -> int:
    children.stop()
    console.clear()
    console.say(f"mpt: {said}")
    return code


def check(
    options: argparse.Namespace, places: Places, scratch: Path, console: Console, children: Children
) -> int:
    """All of it."""
    if not options.out.absolute().parent.is_dir():
        raise SetupError(f"--out {options.out}: there is no folder {options.out.absolute().parent}")
    if not options.rehearse:
        demand_gpus(options.gpus, found.look(os.environ, places))
    os.environ[flavour.VARIABLE] = flavour.CPU if options.rehearse else flavour.CUDA
    sequence.set_up(places, False, console, children)
    count = options.gpus or REHEARSED_GPUS
    environment = simulated(places, scratch, count) if options.rehearse else dict(os.environ)
    machine = found.look(environment, places)
    bench = Bench(places.program, places.target, scratch / "runs", options.gpus or len(machine.gpus), options.rehearse)
    planned = list(parts(bench))
    facts = found.facts(machine, places, environment)
    report = Report(facts, "" if options.rehearse else found.links(), options.rehearse, len(planned), [])
    write(report, options.out)
    for result in results(planned, bench, environment, places.root, console):
        report = report._replace(results=[*report.results, result])
        write(report, options.out)
    print(f"{report.verdict()}; see {options.out}")
    return 1 if report.those(FAILED) else 0


def demand_gpus(wanted: int | None, machine: found.Found) -> None:
    """Ends the call where there are not as many GPUs as it needs."""
    rehearse = "scripts/gpu-check --rehearse tries what can be tried on simulated ones"
    if machine.lacks:
        raise SetupError(f"this machine lacks {machine.lacks}; {rehearse}")
    if wanted and wanted > len(machine.gpus):
        raise SetupError(f"--gpus {wanted}: this machine has {len(machine.gpus)} that CUDA can use")


def simulated(places: Places, scratch: Path, gpus: int) -> dict[str, str]:
    """The environment of a program that finds the simulator instead of the driver and NCCL."""
    folder = scratch / "simulator"
    folder.mkdir()
    for name in SIMULATED:
        (folder / name).symlink_to(places.program.with_name(SIMULATOR))
    before = os.environ.get("LD_LIBRARY_PATH", "")
    return {
        **os.environ,
        "LD_LIBRARY_PATH": f"{folder}:{before}" if before else str(folder),
        "MPT_SIMULATOR_FOLDER": str(folder),
        "MPT_SIMULATOR_DEVICES": str(gpus),
    }


def results(
    planned: Sequence[Part], bench: Bench, environment: Mapping[str, str], root: Path, console: Console
) -> Iterator[Result]:
    """Runs the parts one after the other, whatever became of those before."""
    # cargo would take another libtorch from the caller's environment.
    environment = {name: value for name, value in environment.items() if not name.startswith("LIBTORCH")}
    for number, part in enumerate(planned, start=1):
        console.status(f"part {number} of {len(planned)}", part.name)
        ended = running.run(part.command, environment, root, part.limit)
        result = judged(part, ended, bench)
        console.clear()
        console.say(f"mpt: {part.name}: {result.verdict} in {seconds(ended.seconds)}")
        yield result


def judged(part: Part, ended: running.Ended, bench: Bench) -> Result:
    """Says of a part whether it passed."""
    if ended.code is None:
        why = f"it had not ended after {part.limit:.0f} s: something waits that nothing will wake"
        return Result(part, ended, FAILED, why)
    if ended.code != 0:
        return Result(part, ended, FAILED, "its last lines say why")
    why = losses.compare(bench.runs / part.run, bench.runs / part.like) if part.like else ""
    return Result(part, ended, FAILED if why else PASSED, why)

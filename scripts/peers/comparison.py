"""The order of things: install, check or measure in turn, round after round, and tell."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import Callable, NoReturn, Sequence

from setup_steps import sequence
from setup_steps.children import Children
from setup_steps.console import Console, SetupError
from setup_steps.places import Places

from . import allocator, check, computer, environment, running
from .catalogue import PROGRAMS, Program, Size, named
from .goals import Measured, verdicts
from .record import Record
from .running import Failed, Tools
from .table import goal_lines, table

ROUNDS = 9  # the fewest whose 95 % interval leaves out the best and the worst
LIBRARIES = "torch", "jax", "numpy"
NAMES = ", ".join(program.name for program in PROGRAMS)


def main(arguments: Sequence[str], root: Path) -> int:
    """The whole comparison; gives the exit code."""
    options = parse(arguments)
    return to_an_end(lambda *parts: compare(options, *parts), root)


def to_an_end(work: Callable[[Places, Console, Children], int], root: Path) -> int:
    """Does it, and turns every foreseen trouble into a sentence and an exit code."""
    places, console, children = Places.from_environment(root), Console(), Children()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    try:
        return work(places, console, children)
    except KeyboardInterrupt as interruption:
        number = interruption.args[0] if interruption.args else signal.SIGINT
        return end(console, children, "interrupted", 128 + number)
    except (SetupError, running.Failed) as error:
        return end(console, children, str(error), getattr(error, "code", 1))
    except OSError as error:
        return end(console, children, *sequence.explain(error, places))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/compare-peers",
        description="Runs mpt and its peers in turn on the same AlexNet, and tells how they compare.",
        epilog=f"Programs: {NAMES}. A beginning, like pytorch or mpt, names several. "
        f"{environment.VARIABLE} names a Python that has PyTorch and JAX, instead of the cache's own.",
    )
    add = parser.add_argument
    add("--rounds", type=positive, default=ROUNDS, help="how often each runs (default: %(default)s)")
    add("--steps", type=positive, default=5, help="steps that count in a run (default: %(default)s)")
    add("--warmup", type=natural, default=2, help="steps before them (default: %(default)s)")
    add("--batch-size", type=positive, default=128, help="examples in a step (default: %(default)s)")
    add("--precision", choices=("bf16", "fp32", "both"), default="both")
    add("--programs", type=choice, default=list(PROGRAMS), metavar="NAME,...", help="only these")
    add("--json", type=Path, metavar="FILE", help="record every run; a record that is there is gone on with")
    add("--mpt", type=Path, metavar="FILE", help="the mpt to run, as it is (default: this repository's)")
    more = {"action": "append", "default": [], "metavar": "KEY=VALUE"}
    add("--set", **more, help="one more key of mpt's recipe, like data.image=[1,28,28]; repeatable")
    add("--tuning", type=assignment, **more, help="one more variable for the tuned programs; repeatable")
    add("--quick", action="store_true", help="one short round, to see that everything runs")
    add("--check", action="store_true", help="measure nothing: see that all peers compute the same losses")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.steps, options.warmup, options.batch_size = 1, 1, 1, 16
    return options


def positive(text: str) -> int:
    if int(text) < 1:
        raise ValueError
    return int(text)


def natural(text: str) -> int:
    return positive(text) if int(text) else 0


def choice(text: str) -> list[Program]:
    try:
        return named(text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def assignment(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise ValueError
    return key, value


def interrupt(number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt(number)


def end(console: Console, children: Children, said: str, code: int) -> int:
    children.stop()
    console.clear()
    console.say(f"mpt: {said}")
    return code


def compare(options: argparse.Namespace, places: Places, console: Console, children: Children) -> int:
    """All of it; the exit code says whether everything could be measured, not which goals were met."""
    programs = options.programs
    peers = options.check or any(not program.is_mpt for program in programs)
    python = environment.prepare(places, console, children) if peers else None
    versions = environment.versions(python, LIBRARIES) if python else {}
    if options.check:
        assert python is not None
        return check.check(programs, python, console)

    tuning = prepare_tuning(options, programs, places, console, children)
    if not tuning:
        programs = [program for program in programs if not program.tuned]
    tools = Tools(prepare_mpt(options, programs, places, console, children), python, tuning, options.set)
    precisions = ("bf16", "fp32") if options.precision == "both" else (options.precision,)
    size = Size(options.batch_size, options.warmup, options.steps)
    contestants = [(program, precision) for precision in precisions for program in programs]
    record = Record(options.json, computer.describe(tools.mpt, versions, tuning), size)
    console.say(f"mpt: {computer.sentence(record.machine)}")
    try:
        for _ in range(options.rounds):
            play(contestants, size, tools, record, console)
    finally:  # An interrupted comparison prints what there is.
        conclude(record)
    return 1 if record.failures else 0


def prepare_tuning(
    options: argparse.Namespace, programs: Sequence[Program], places: Places, console: Console, children: Children
) -> dict[str, str]:
    """The environment of the tuned programs; empty if there are none."""
    if not any(program.tuned for program in programs):
        return {}
    library = allocator.prepare(places, console, children)
    return {"LD_PRELOAD": library, **dict(options.tuning)} if library else {}


def prepare_mpt(
    options: argparse.Namespace, programs: Sequence[Program], places: Places, console: Console, children: Children
) -> Path:
    """The mpt to run: the one given, or this repository's, built first if it is not there."""
    if options.mpt:
        if not os.access(options.mpt, os.X_OK):
            raise SetupError(f"--mpt: {options.mpt} is no program")
        return options.mpt.resolve()
    if any(program.is_mpt for program in programs):
        sequence.set_up(places, False, console, children)
    return places.program


def play(
    contestants: Sequence[tuple[Program, str]], size: Size, tools: Tools, record: Record, console: Console
) -> None:
    """One round: each program once. Every round begins with another one, so that none is always the first."""
    number = record.next_round()
    begin = number % len(contestants)
    for program, precision in [*contestants[begin:], *contestants[:begin]]:
        if record.has_failed(program.name, precision):
            continue
        try:
            result = running.measure(program, precision, size, tools)
            console.say(
                f"round {number}: {program.title}, {precision}: {result['examples_per_second']:.1f} examples/s, "
                f"loss {result['loss_first']:.3f}"
            )
        except Failed as failure:
            result = {"failed": str(failure)}
            console.say(f"round {number}: {program.title}, {precision} failed and is left out from here: {failure}")
        record.add({**result, "round": number, "program": program.name, "precision": precision})
    record.save()


def conclude(record: Record) -> None:
    """Prints the tables, and records what they say."""
    measured = Measured(record.results)
    found = verdicts(measured)
    record.summary = [verdict._asdict() for verdict in found]
    record.save()
    print(table(measured, record.failures))
    if found:
        print(f"\n{goal_lines(found)}")
    sys.stdout.flush()

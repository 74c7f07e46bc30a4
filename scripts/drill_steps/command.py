"""The command line: drills runs until enough kills have happened, and tells."""

from __future__ import annotations

import argparse
import itertools
import json
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any, Sequence

from launcher_steps.trial import Trial, Wrong
from setup_steps.places import Places
from setup_steps.sequence import interrupt

from .job import FORMS, Form
from .moments import PHASES, kills
from .record import Record, compare
from .run import Lengths, Tally, drilled, measure

ABOUT = """\
Runs of a small network on two devices, in both modes, with ranks as threads and as rehearsed processes, are killed
(SIGKILL) at random moments and gone on with by --resume auto, until they have ended. Then weights, velocities and
the record must be those of a run that was not killed, to the last bit; after each kill the newest checkpoint must be
whole and taken, and no step but the last few done again."""


def main(arguments: Sequence[str], root: Path) -> int:
    parser = argparse.ArgumentParser("scripts/drill", description=ABOUT)
    parser.add_argument("--kills", type=int, default=200, help="how many; 200 unless told")
    parser.add_argument("--seed", type=int, default=0, help="of the moments; 0 unless told")
    parser.add_argument("--json", action="store_true", help="the summary as JSON, on stdout")
    parser.add_argument("--out", type=Path, help="a new folder in which the runs stay; else they are removed")
    chosen = parser.parse_args(arguments)
    program = Places.from_environment(root).program
    if not program.exists():
        parser.exit(1, f"drill: {program} is not there: run scripts/setup\n")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    with tempfile.TemporaryDirectory(prefix="mpt-drill-") as scratch:
        try:
            summary = drill(program, (chosen.out or Path(scratch)).resolve(), chosen.kills, chosen.seed)
        except Wrong as wrong:
            parser.exit(1, f"drill: a run that was not killed: {wrong}\n")
        except KeyboardInterrupt as interruption:
            return 128 + (interruption.args[0] if interruption.args else signal.SIGINT)
    print(json.dumps(summary) if chosen.json else shown(summary))
    return 0 if summary["equal"] else 1


def drill(program: Path, folder: Path, number: int, seed: int) -> dict[str, Any]:
    """Drills runs, one form after the other, until there have been so many kills; gives the summary."""
    begun = time.monotonic()
    random, tally = Random(seed), Tally()
    whole: dict[str, tuple[Record, Lengths]] = {}
    problems, runs = [], 0
    for form in itertools.cycle(FORMS):
        if len(tally.kills) >= number:
            break
        if form.mode not in whole:
            with Trial(program, Path(), folder / f"whole-{form.mode}") as trial:
                whole[form.mode] = measure(trial, thread(form))
        drawn = kills(form, min(form.kills, number - len(tally.kills)), random)
        runs += 1
        record, problem = drilled(program, folder / f"run-{runs}", form, drawn, whole[form.mode], tally)
        if not problem:
            try:
                compare(record, whole[form.mode][0])
            except (Wrong, ValueError, OSError) as wrong:
                problem = str(wrong)
        if problem:
            problems.append(f"run {runs} ({form.name}): {problem}")
            if len(problems) == 3:
                break
    return {
        "kills": len(tally.kills),
        "kills_by_phase": {phase: Counter(kill[0] for kill in tally.kills)[phase] for phase in PHASES},
        "kills_by_victim": dict(Counter(kill[1] for kill in tally.kills)),
        "runs": runs,
        "resumes": tally.resumes,
        "steps_repeated_at_most": max(tally.repeated, default=0),
        "equal": not problems,
        "problems": problems,
        "seed": seed,
        "seconds": round(time.monotonic() - begun, 1),
    }


def thread(form: Form) -> Form:
    """The form whose numbers those of processes equal, to the last bit."""
    return next(other for other in FORMS if other.mode == form.mode and not other.processes)


def shown(summary: dict[str, Any]) -> str:
    """The summary for people."""

    def parts(counts: dict[str, int]) -> str:
        return ", ".join(f"{name} {count}" for name, count in counts.items())

    verdict = "equal to the last bit" if summary["equal"] else "NOT EQUAL"
    return "\n".join(
        [
            *summary["problems"],
            f"{summary['kills']} kills: {parts(summary['kills_by_phase'])}",
            f"of {parts(summary['kills_by_victim'])}",
            f"{summary['runs']} runs, resumed {summary['resumes']} times, at most "
            f"{summary['steps_repeated_at_most']} steps done again after a kill",
            f"weights, velocities and records beside those of runs that were not killed: {verdict}",
            f"in {summary['seconds']} s, seed {summary['seed']}",
        ]
    )

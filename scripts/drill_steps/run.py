"""One run: begun, killed, gone on with, killed again, until it ends."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Sequence

from launcher_steps.trial import LIMIT_SECONDS, Trial, Wrong

from .job import INTERVAL, STEPS_PER_EPOCH, Form, command
from .moments import CHECKPOINT, EVALUATION, ONE, RANK, START, TRAINING, Kill
from .record import Record

POLL_SECONDS = 0.001
# By so much processes start later than threads, about.
SLOWER = 4.0
# Two checkpoints at most are not there yet when a run is killed: that under way, and one that is due and waits for it.
MOST_LOST = 2 * INTERVAL


@dataclass
class Lengths:
    """How long the phases of a run take, in seconds."""

    start: float = 0.0
    step: float = 0.0
    checkpoint: float = 0.0
    evaluation: float = 0.0


@dataclass
class Tally:
    """What was done to runs."""

    # (phase, victim) of each kill.
    kills: list[tuple[str, str]] = field(default_factory=list)
    resumes: int = 0
    # Steps that had to be done again, after each kill.
    repeated: list[int] = field(default_factory=list)


class Drilled:
    """A run and the programs that work on it, one after the other."""

    def __init__(self, trial: Trial, form: Form, lengths: Lengths, tally: Tally) -> None:
        self.trial = trial
        self.form = form
        self.lengths = lengths
        self.tally = tally
        self.record = Record(trial.folder / "run")
        self.attempts = 0
        self.newest = 0
        self.left_behind: set[tuple[str, int]] = set()

    def drill(self, kills: Sequence[Kill]) -> None:
        """Carries out as many kills as the run is long enough for, and lets it end."""
        for kill in kills:
            self.start()
            if not self.comes(kill):
                break
            phase = self.phase()
            before = self.said()
            self.strike(kill)
            self.tally.kills.append((phase, kill.victim))
            self.look(before)
        else:
            self.start()
        self.trial.end_of(self.name)
        self.trial.nothing_is_left()
        self.look(self.said())
        self.trial.ends_with(self.name, 0)

    @property
    def name(self) -> str:
        return f"attempt-{self.attempts}"

    def start(self) -> None:
        """Begins the run, or goes on with it."""
        self.tally.resumes += self.attempts > 0
        self.attempts += 1
        self.left_behind = self.record.unfinished()
        self.begun = time.monotonic()
        self.trial.start(self.name, command(self.trial.program, self.form, self.record.run))

    def said(self) -> list[dict[str, Any]]:
        """What the program that works on the run has said, without what is meant for people and a torn last line."""
        lines = self.trial.log(self.name).split("\n")[:-1]
        return [json.loads(line) for line in lines if line.startswith("{")]

    def is_training(self) -> bool:
        return any(line["kind"] == "first_step" for line in self.said())

    def comes(self, kill: Kill) -> bool:
        """Waits for the moment of a kill; tells whether it came before the end of the run."""
        lengths, record = self.lengths, self.record
        if kill.phase == START:
            return self.wait(kill.share * lengths.start * (SLOWER if self.form.processes else 1.0))

        def step() -> int:
            last = record.last()
            return last["step"] if last else 0

        def writes() -> bool:
            return any(int(name[-8:]) > kill.step for name, _ in record.unfinished() - self.left_behind)

        def evaluates() -> bool:
            last = record.last()
            return bool(last) and last["kind"] == "step" and last["step"] % STEPS_PER_EPOCH == 0

        happened, length = {
            TRAINING: (lambda: step() > kill.step, 3 * lengths.step),
            CHECKPOINT: (writes, lengths.checkpoint),
            EVALUATION: (lambda: step() > kill.step and evaluates(), lengths.evaluation),
        }[kill.phase]
        # Until it trains, the record may hold steps that are to be done again.
        return self.until(self.is_training) and self.until(happened) and self.wait(kill.share * length)

    def until(self, happened: Callable[[], bool]) -> bool:
        """Waits for something that only looking tells; false if the program has ended before."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while not happened():
            if self.ended():
                return False
            if time.monotonic() > deadline:
                raise Wrong(f"{self.name} has not come on for {LIMIT_SECONDS:.0f} s")
            time.sleep(POLL_SECONDS)
        return not self.ended()

    def wait(self, seconds: float) -> bool:
        time.sleep(seconds)
        return not self.ended()

    def ended(self) -> bool:
        return self.trial.running[self.name].poll() is not None

    def phase(self) -> str:
        """What the run is doing, as far as can be seen from without."""
        if not self.is_training():
            return START
        if self.record.unfinished() - self.left_behind:
            return CHECKPOINT
        last = self.record.last()
        at_end = last is not None and last["kind"] == "step" and last["step"] % STEPS_PER_EPOCH == 0
        return EVALUATION if at_end else TRAINING

    def strike(self, kill: Kill) -> None:
        """Kills, and waits until nothing of the run is left: what was not killed has to end by itself."""
        started = self.trial.running[self.name]
        if kill.victim == ONE:
            victims = [started.pid]
        else:
            ranks = sorted(set(self.trial.left()) - {started.pid})
            victims = [ranks[kill.rank % len(ranks)]] if kill.victim == RANK and ranks else [started.pid, *ranks]
        for victim in victims:
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                continue  # It has ended.
        self.trial.end_of(self.name)
        self.trial.nothing_is_left()

    def look(self, said: Sequence[dict[str, Any]]) -> None:
        """Checks what a run has said until it was killed, and what it left."""
        warning = next((line["message"] for line in said if line["level"] not in ("info", "debug")), None)
        if warning:
            raise Wrong(f"{self.name} warned: {warning}")
        begun = next((line["steps_done"] for line in said if line["kind"] == "started"), None)
        if begun not in (None, self.newest):
            raise Wrong(f"{self.name} went on after step {begun}, though there is a checkpoint of step {self.newest}")
        lines = self.record.lines()
        newest = max(self.record.checkpoints(), default=0)
        if newest < self.newest:
            raise Wrong(f"{self.name} left no checkpoint newer than step {newest}; there was one of step {self.newest}")
        best = self.record.run / "checkpoints" / "best"
        if best.is_symlink() and not best.exists():
            raise Wrong(f"{self.name} left {best}, which leads nowhere")
        repeated = lines[-1]["step"] - newest if lines else 0
        if repeated > MOST_LOST:
            raise Wrong(f"{self.name} left no checkpoint of its last {repeated} steps, but one is due every {INTERVAL}")
        self.tally.repeated.append(max(0, repeated))
        self.newest = newest


def measure(trial: Trial, form: Form) -> tuple[Record, Lengths]:
    """Lets a run go on to its end, and takes the times of its phases."""
    run = Drilled(trial, form, Lengths(), Tally())
    run.start()
    run.until(run.is_training)
    start = time.monotonic() - run.begun
    run.trial.ends_with(run.name, 0)
    lines = run.record.lines()
    saved = [line["seconds"] for line in run.said() if line["kind"] == "checkpoint"]
    tests = [epoch["time"] - step["time"] for step, epoch in zip(lines, lines[1:]) if epoch["kind"] == "epoch"]
    steps = [line["seconds"] for line in lines if line["kind"] == "step"]
    return run.record, Lengths(start, *(sum(found) / len(found) for found in (steps, saved, tests)))


def drilled(
    program: Path, folder: Path, form: Form, kills: Sequence[Kill], like: tuple[Record, Lengths], tally: Tally
) -> tuple[Record, str | None]:
    """Drills one run; gives what it left, and what went wrong, if anything did."""
    trial = Trial(program, Path(), folder)
    with trial:
        run = Drilled(trial, form, like[1], tally)
        try:
            run.drill(kills)
        except Wrong as wrong:
            said = "\n".join(f"    | {line}" for line in trial.said().splitlines())
            return run.record, f"{wrong}\n{said}"
    return run.record, None

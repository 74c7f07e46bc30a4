"""What scripts/drill does to runs, and what it finds: a program stands in for mpt, whole and with one flaw at a time."""

from __future__ import annotations

import os
import random
import textwrap
import unittest
from pathlib import Path
from unittest import mock

from drill_steps.command import drill
from drill_steps.job import EPOCHS, FORMS, STEPS_PER_EPOCH
from drill_steps.moments import ONE, PHASES, kills
from drill_steps.record import Record
from launcher_steps.trial import Wrong
from tests.support import ScratchTest

# Trains: its weights are the number of steps done, and a velocity that a resumed run has to know. The record and the
# checkpoints are like mpt's.
PROGRAM = """\
#!{python}
import json, os, shutil, sys, time
from pathlib import Path
flaw = os.environ["FLAW"]
run = Path(sys.argv[sys.argv.index("--run-dir") + 1])
folder, log = run / "checkpoints", run / "metrics.jsonl"
folder.mkdir(parents=True, exist_ok=True)
log.touch()

def say(kind, **more):
    print(json.dumps({{"kind": kind, "level": "info", "message": kind, **more}}), file=sys.stderr, flush=True)

def write(line):
    with open(log, "a") as file:
        file.write(json.dumps({{"time": time.time(), **line}}) + "\\n")

def save(step, velocity):
    place, unfinished = folder / f"step-{{step:08}}", folder / f".step-{{step:08}}"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    if flaw == "a name too early":
        place.mkdir(exist_ok=True)
    (unfinished / "model.safetensors").write_text(str(step))
    time.sleep(0.02)
    (unfinished / "optimizer.safetensors").write_text(str(velocity))
    shutil.rmtree(place, ignore_errors=True)
    unfinished.rename(place)
    say("checkpoint", seconds=0.02)
    for old in sorted(folder.glob("step-*"))[:-2]:
        shutil.rmtree(old)

step, velocity = 0, 0
for newest in sorted(folder.glob("step-*"))[-1:]:
    if not (newest / "optimizer.safetensors").exists():
        print(json.dumps({{"kind": "w", "level": "warning", "message": "damaged"}}), file=sys.stderr, flush=True)
        shutil.rmtree(newest)
        continue
    step, velocity = int(newest.name[5:]), int((newest / "optimizer.safetensors").read_text())
    if flaw == "forgotten velocities":
        velocity = 0
lines = [line for line in log.read_text().splitlines(True) if line.endswith("\\n")]
kept = [line for line in lines if json.loads(line)["step"] <= step and not (
    json.loads(line)["kind"] == "epoch" and json.loads(line)["step"] == step)]
log.write_text("".join(lines if flaw == "lines told twice" else kept))
say("started", steps_done=step)
time.sleep(0.02)
if step % {per_epoch} == 0 and step:
    write({{"kind": "epoch", "step": step}})
while step < {steps}:
    step, velocity = step + 1, velocity + step
    time.sleep(0.002)
    write({{"kind": "step", "step": step, "seconds": 0.002, "loss": velocity}})
    say("first_step")
    if step % 7 == 0 or step % {per_epoch} == 0:
        save(step, velocity)
    if step % {per_epoch} == 0:
        time.sleep(0.01)
        write({{"kind": "epoch", "step": step}})
"""


class DrillTest(ScratchTest):
    def drilled(self, flaw: str) -> dict:
        program = self.scratch / "mpt"
        steps = EPOCHS * STEPS_PER_EPOCH
        program.write_text(PROGRAM.format(python="/usr/bin/env python3", per_epoch=STEPS_PER_EPOCH, steps=steps))
        program.chmod(0o755)
        with mock.patch.dict(os.environ, FLAW=flaw):
            return drill(program, self.scratch / "runs", 8, 3)

    def test_runs_that_lose_nothing_are_equal_after_as_many_kills_as_were_asked_for(self) -> None:
        found = self.drilled("none")
        self.assertEqual((found["problems"], found["equal"], found["kills"]), ([], True, 8))
        self.assertEqual(sum(found["kills_by_phase"].values()), 8)

    def test_velocities_that_are_forgotten_are_found(self) -> None:
        found = self.drilled("forgotten velocities")
        self.assertFalse(found["equal"])
        self.assertIn("where that of the run that was not killed has", found["problems"][0])

    def test_a_checkpoint_that_has_its_name_before_it_is_whole_is_found(self) -> None:
        found = self.drilled("a name too early")
        self.assertRegex(" ".join(found["problems"]), "warned: damaged|there is a checkpoint of step")

    def test_lines_that_are_told_twice_are_found(self) -> None:
        found = self.drilled("lines told twice")
        self.assertIn("belongs", found["problems"][0])


class RecordTest(ScratchTest):
    def record(self, text: str) -> Record:
        (self.scratch / "metrics.jsonl").write_text(textwrap.dedent(text))
        return Record(self.scratch)

    def test_only_the_last_line_may_be_torn(self) -> None:
        step = '{"kind": "step", "step": 1}\n'
        self.assertEqual(len(self.record(step + '{"kind": "st').lines()), 1)
        self.assertEqual(self.record(step + '{"kind": "st').last()["step"], 1)
        with self.assertRaisesRegex(Wrong, "a line that is none"):
            self.record('{"kind": "st\n' + step).lines()
        self.assertEqual((Record(Path("/nowhere")).last(), Record(Path("/nowhere")).lines()), (None, []))

    def test_a_step_that_is_missing_is_found(self) -> None:
        with self.assertRaisesRegex(Wrong, r"has \('step', 3\) where \('step', 2\) belongs"):
            self.record('{"kind": "step", "step": 1}\n{"kind": "step", "step": 3}\n').lines()


class MomentsTest(unittest.TestCase):
    def test_moments_are_those_of_the_seed_and_of_all_phases_in_the_order_of_steps(self) -> None:
        for form in FORMS:
            drawn = kills(form, 100, random.Random(5))
            self.assertEqual(drawn, kills(form, 100, random.Random(5)))
            self.assertNotEqual(drawn, kills(form, 100, random.Random(6)))
            self.assertEqual({kill.phase for kill in drawn}, set(PHASES))
            self.assertEqual([kill.step for kill in drawn], sorted(kill.step for kill in drawn))
            self.assertEqual(form.processes, any(kill.victim != ONE for kill in drawn))


if __name__ == "__main__":
    unittest.main()

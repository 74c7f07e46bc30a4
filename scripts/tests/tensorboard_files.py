"""TensorBoard's own reader on the event files of a run, against the lines of the same run's metrics.jsonl.

The run is resumed twice: once to go on after a crash that tore its last event, once from a checkpoint in its middle.
`scripts/test --all` runs this, with the mpt that was built for the other tests.
"""

from __future__ import annotations

import json
import math
import struct
import subprocess
import tempfile
import unittest
from pathlib import Path
from typing import Iterator

from libraries.environment import TENSORBOARD, prepare
from setup_steps.children import Children
from setup_steps.console import Console
from setup_steps.places import Places

from .support import SCRIPTS

# Every tag with its steps, values and times, without leaving any out.
READ = """
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
accumulator = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0})
accumulator.Reload()
tags = accumulator.Tags()["scalars"]
print(json.dumps({tag: [[e.step, e.value, e.wall_time] for e in accumulator.Scalars(tag)] for tag in tags}))
"""

TINY = (
    *("--model", "tiny", "--batch-size", "8", "--gpus", "2", "--epochs", "3", "--quiet"),
    *("--set", "data.source=synthetic", "--set", "data.image=[2,13,13]", "--set", "data.classes=5"),
    *("--set", "data.train_examples=40", "--set", "data.test_examples=16"),
)
PHASES = ("data", "forward", "exchange", "wait", "backward", "reduce", "optimizer")

# Steps, values and times by tag.
Scalars = dict[str, list[list[float]]]


def figures(line: dict) -> Iterator[tuple[str, float | None]]:
    """The tags of a line of the record, and what TensorBoard should show there."""
    if line["kind"] == "epoch":
        for key in ("train_loss", "train_accuracy", "test_loss", "test_accuracy"):
            yield f"epoch/{key}", line[key]
        return
    for key in ("loss", "accuracy", "learning_rate", "gradient_norm", "loader_queue"):
        yield f"step/{key}", line[key]
    for layer, norm in line["layer_gradient_norms"].items():
        yield f"gradient_norm/{layer}", norm
    yield "examples_per_second/all", line["examples_per_second"]
    for own in line["devices"]:
        yield f"examples_per_second/{own['device']}", own["examples_per_second"]
        whole = sum(own[f"{phase}_seconds"] for phase in PHASES)
        for phase in (*PHASES, "overlapped"):
            yield f"phase_share/{own['device']}/{phase}", own[f"{phase}_seconds"] / whole


def expected(run: Path) -> Scalars:
    scalars: Scalars = {}
    for text in (run / "metrics.jsonl").read_text().splitlines():
        line = json.loads(text)
        for tag, value in figures(line):
            number = math.nan if value is None else value
            scalars.setdefault(tag, []).append([line["step"], number, line["time"]])
    return scalars


def shown(scalars: Scalars) -> Scalars:
    """Values as far as event files hold them: in single precision. NaN stands for itself."""
    single = lambda value: repr(struct.unpack("f", struct.pack("f", value))[0])  # noqa: E731
    return {tag: [[step, single(value), time] for step, value, time in rows] for tag, rows in scalars.items()}


class TensorBoardTest(unittest.TestCase):
    def setUp(self) -> None:
        self.places = Places.from_environment(SCRIPTS.parent)
        self.python = prepare(TENSORBOARD, self.places, Console(), Children())
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.run_folder = Path(folder.name) / "run"

    def train(self, *arguments: str) -> None:
        command = [str(self.places.program), "train", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def files(self) -> list[Path]:
        return sorted(self.run_folder.glob("events.out.tfevents.*"))

    def read(self) -> Scalars:
        command = [str(self.python), "-B", "-P", "-c", READ, str(self.run_folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
        return json.loads(done.stdout)

    def compare(self, steps: int, files: int) -> None:
        found, wanted = self.read(), expected(self.run_folder)
        self.assertEqual(len(self.files()), files)
        self.assertEqual([row[0] for row in wanted["step/loss"]], list(range(1, steps + 1)))
        self.assertEqual([row[0] for row in wanted["epoch/test_loss"]], list(range(5, steps + 1, 5)))
        self.assertEqual(shown(found), shown(wanted))

    def test_it_reads_what_the_record_tells_also_of_a_resumed_run(self) -> None:
        run = str(self.run_folder)
        self.train(*TINY, "--run-dir", run)
        self.compare(steps=15, files=1)

        # A crash has torn the last event, which tells of the last epoch: its evaluation is done again.
        whole = self.files()[0].read_bytes()
        self.files()[0].write_bytes(whole[:-3])
        self.train("--resume", run, "--epochs", "4", "--quiet")
        self.compare(steps=20, files=2)

        # What was done after the checkpoint is void.
        self.train("--resume", f"{run}/checkpoints/step-00000015", "--epochs", "5", "--quiet")
        self.compare(steps=25, files=3)


if __name__ == "__main__":
    unittest.main()

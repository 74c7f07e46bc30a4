"""What can be seen of a run in its folder, while it goes on and when it has been killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from launcher_steps.trial import Wrong

from .job import STEPS_PER_EPOCH

# What a line says of time, which is another in every run.
TIMES = {"seconds", "examples_per_second", "devices", "time", "loader_queue", "bottleneck"}
FILES = ("model.safetensors", "optimizer.safetensors")
# Longer than any line of the record.
TAIL_BYTES = 1 << 14


class Record:
    """A run's folder."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.log = run / "metrics.jsonl"

    def last(self) -> dict[str, Any] | None:
        """The last whole line, which is of a step or of an epoch."""
        try:
            with open(self.log, "rb") as file:
                file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
                whole = file.read().rpartition(b"\n")[0]
        except OSError:
            return None
        return json.loads(whole.rpartition(b"\n")[2]) if whole else None

    def lines(self) -> list[dict[str, Any]]:
        """All lines, of which only the last may be torn; checks that none is missing and none is there twice."""
        try:
            text = self.log.read_bytes()
        except OSError:
            return []
        try:
            lines = [json.loads(line) for line in text.split(b"\n")[:-1]]
        except ValueError as error:
            raise Wrong(f"{self.log} has a line that is none: {error}") from None
        expected: list[tuple[str, int]] = []
        for step in range(1, len(lines) + 1):
            expected.append(("step", step))
            if step % STEPS_PER_EPOCH == 0:
                expected.append(("epoch", step))
        found = [(line["kind"], line["step"]) for line in lines]
        if found != expected[: len(found)]:
            wrong = next(pair for pair in zip(found, expected) if pair[0] != pair[1])
            raise Wrong(f"{self.log} has {wrong[0]} where {wrong[1]} belongs")
        return lines

    def numbers(self) -> list[dict[str, Any]]:
        """The lines without what is another in every run."""
        return [{key: value for key, value in line.items() if key not in TIMES} for line in self.lines()]

    def checkpoints(self) -> list[int]:
        """The steps of those that bear their name, in order."""
        return sorted(int(folder.name.removeprefix("step-")) for folder in (self.run / "checkpoints").glob("step-*"))

    def unfinished(self) -> set[tuple[str, int]]:
        """Those that are being written, or were; what a crash left behind does not change any more."""
        found = set()
        for folder in (self.run / "checkpoints").glob(".step-*"):
            try:
                found.add((folder.name, folder.stat().st_mtime_ns))
            except FileNotFoundError:
                continue  # It has got its name.
        return found


def compare(run: Record, like: Record) -> None:
    """Checks that two runs have the same numbers, to the last bit."""
    for found, expected in zip(run.numbers(), like.numbers(), strict=True):
        if found != expected:
            raise Wrong(f"{run.log} has\n{found}\nwhere that of the run that was not killed has\n{expected}")
    name = f"checkpoints/step-{like.checkpoints()[-1]:08}"
    for file in FILES:
        if (run.run / name / file).read_bytes() != (like.run / name / file).read_bytes():
            raise Wrong(f"{name}/{file} is not the same file as that of the run that was not killed")

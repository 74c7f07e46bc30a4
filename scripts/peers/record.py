"""What was measured so far, and the file that keeps it."""

from __future__ import annotations

import json
from pathlib import Path

from setup_steps.console import SetupError

from .catalogue import Size

# What must be the same for rounds to be put together.
SAME = ("processor", "cores", "torch", "jax")


def demand_folder(file: Path | None) -> None:
    """Sees that a record can be written at the end of hours, if one is to be."""
    if file and not file.absolute().parent.is_dir():
        raise SetupError(f"--json: there is no folder {file.absolute().parent}")


class Record:
    """Results of all rounds. A file that is there already is gone on with."""

    def __init__(self, file: Path | None, machine: dict, size: Size) -> None:
        self.file = file
        self.machine = machine
        self.size = size._asdict()
        self.results: list[dict] = []
        self.summary: list[dict] = []
        if file and file.exists():
            self._go_on(file)
        else:
            demand_folder(file)

    def _go_on(self, file: Path) -> None:
        try:
            before = json.loads(file.read_text(encoding="utf-8"))
            machine, size, results = before["machine"], before["size"], before["results"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SetupError(f"--json: {file} is no record of a comparison: name another file") from error
        for key in SAME:
            if key in machine and key in self.machine and machine[key] != self.machine[key]:
                raise SetupError(f"--json: {file} was recorded with {key} {machine[key]}: name another file")
        if size != self.size:
            raise SetupError(f"--json: {file} was recorded with other sizes ({size}): name another file")
        self.results = [result for result in results if "failed" not in result]

    def add(self, result: dict) -> None:
        self.results.append(result)

    def next_round(self) -> int:
        """Above all that there are; the rounds of a file that is gone on with count on."""
        return 1 + max((result["round"] for result in self.results), default=0)

    def has_failed(self, program: str, precision: str) -> bool:
        return any(
            "failed" in result and (result["program"], result["precision"]) == (program, precision)
            for result in self.results
        )

    @property
    def failures(self) -> list[str]:
        """A line for each program that failed."""
        return [
            f"{result['program']}, {result['precision']}, failed: {result['failed']}"
            for result in self.results
            if "failed" in result
        ]

    def save(self) -> None:
        """Writes the file anew beside its place and moves it there, so that no interruption leaves half of one."""
        if not self.file:
            return
        part = self.file.with_name(self.file.name + ".part")
        content = {"machine": self.machine, "size": self.size, "results": self.results, "summary": self.summary}
        part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        part.replace(self.file)

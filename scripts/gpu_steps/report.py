"""The report: a verdict, what was found, and of each part its command, end, time and output."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Mapping, NamedTuple, Sequence

from setup_steps.console import seconds

from .parts import Part
from .running import Ended

# Of a long output its beginning and its end: what was asked for, and what went wrong.
FIRST_LINES, LAST_LINES = 60, 140
NOT_A_PROOF = "This was a rehearsal on simulated GPUs: it proves nothing about real ones."


PASSED, FAILED = "passed", "FAILED"


class Result(NamedTuple):
    """What became of a part."""

    part: Part
    ended: Ended
    verdict: str
    why: str = ""  # unless it passed


class Report(NamedTuple):
    """All that is known so far."""

    facts: Mapping[str, str]
    links: str
    rehearsed: bool
    planned: int
    results: Sequence[Result]

    def those(self, verdict: str) -> list[str]:
        """The parts that ended so."""
        return [result.part.name for result in self.results if result.verdict == verdict]

    def verdict(self) -> str:
        """One sentence."""
        took = seconds(sum(result.ended.seconds for result in self.results))
        said = [f"{len(self.those(PASSED))} of {self.planned} parts passed in {took}"]
        if self.those(FAILED):
            said.append(f"{FAILED}: {', '.join(f'`{name}`' for name in self.those(FAILED))}")
        if len(self.results) < self.planned:
            said.append(f"it ended before the last {self.planned - len(self.results)}")
        return "; ".join(said)

    def markdown(self) -> str:
        """The whole report."""
        title = "mpt on simulated GPUs" if self.rehearsed else "mpt on the GPUs of this machine"
        blocks = [f"# {title}", f"**{self.verdict()}.**"]
        blocks += [NOT_A_PROOF] if self.rehearsed else []
        blocks += ["## What was found", rows(("", ""), self.facts.items())]
        blocks += [fenced(self.links)] if self.links else []
        blocks += ["## Parts", self.table(), *(section(result) for result in self.results)]
        return "\n\n".join(blocks) + "\n"

    def table(self) -> str:
        found = [
            (result.part.name, result.verdict, result.ended.how, seconds(result.ended.seconds))
            for result in self.results
        ]
        return rows(("part", "", "exit code", "time"), found)


def rows(heads: Sequence[str], lines) -> str:
    """A table."""
    table = [heads, ["---"] * len(heads), *lines]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in table)


def section(result: Result) -> str:
    """A part in full."""
    part, ended, verdict, why = result
    end = f"{verdict}, exit code {ended.how}, {seconds(ended.seconds)}"
    said = f"{end}: {why}" if why else end
    return "\n\n".join([f"### {part.name}", fenced(shlex.join(part.command)), said, fenced(shortened(ended.output))])


def fenced(text: str) -> str:
    """A block of text as it is, between fences longer than any in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"


def shortened(text: str) -> str:
    """The text without colours, and without its middle if it is long."""
    lines = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text).rstrip().splitlines()
    if len(lines) > FIRST_LINES + LAST_LINES:
        left_out = len(lines) - FIRST_LINES - LAST_LINES
        lines = [*lines[:FIRST_LINES], f"[{left_out} lines are left out here]", *lines[-LAST_LINES:]]
    return "\n".join(lines)


def write(report: Report, path: Path) -> None:
    """Puts the report in place of an older one, whole at any time: a GPU may take the machine down with it."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(report.markdown(), encoding="utf-8")
    fresh.replace(path)

"""One trial: programs that run at the same time, each with a file of what it says, and none of which is left at the
end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Callable, Mapping, Sequence

# The variable by which every process of a trial is known, whatever sessions and groups its launcher made.
MARK = "TRIAL_OF_LAUNCHERS"
# Others compute on the machine too.
LIMIT_SECONDS = 120.0
POLL_SECONDS = 0.1


class Wrong(Exception):
    """What a case found wrong."""


class Trial:
    """Its programs and their files. `with` ends whatever is still there."""

    def __init__(self, program: Path, python: Path, folder: Path) -> None:
        self.program = program
        self.python = python
        self.folder = folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        folder.mkdir(parents=True)

    def __enter__(self) -> "Trial":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.left():
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for started in self.running.values():
            started.wait()

    def start(self, name: str, command: Sequence[str], more: Mapping[str, str] = {}) -> None:
        """Starts a program under a name."""
        known = {key: value for key, value in os.environ.items() if not key.startswith("MPT_")}
        # Temporary files, among them the simulator's, lie in the trial's folder.
        environment = {**known, MARK: str(self.folder), "TMPDIR": str(self.folder), **more}
        with open(self.folder / f"{name}.log", "wb") as log:
            self.running[name] = subprocess.Popen(
                command, env=environment, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def end_of(self, name: str, limit: float = LIMIT_SECONDS) -> int:
        """Waits for the end of a program; gives its exit code."""
        try:
            return self.running[name].wait(limit)
        except subprocess.TimeoutExpired:
            raise Wrong(f"{name} had not ended after {limit:.0f} s") from None

    def run(self, name: str, command: Sequence[str], more: Mapping[str, str] = {}) -> None:
        """Runs a program that is to end well."""
        self.start(name, command, more)
        self.ends_with(name, 0)

    def ends_with(self, name: str, expected: int) -> None:
        code = self.end_of(name)
        if code != expected:
            raise Wrong(f"{name} ended with exit code {code}, not {expected}")

    def wait_until(self, what: str, happened: Callable[[], bool]) -> None:
        """Waits for something that only looking tells."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while not happened():
            if time.monotonic() > deadline:
                raise Wrong(f"{what} did not happen within {LIMIT_SECONDS:.0f} s")
            ended = [name for name, process in self.running.items() if process.poll() is not None]
            if ended:
                raise Wrong(f"{ended[0]} ended before this: {what}")
            time.sleep(POLL_SECONDS)

    def line(self, name: str, part: str) -> str:
        """The first line of a program that holds some words."""
        found = [line.strip() for line in self.log(name).splitlines() if part in line]
        if not found:
            raise Wrong(f"{name} did not say: {part}")
        return found[0]

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def said(self) -> str:
        """The last lines of every program, for a person who looks what went wrong."""
        tails = [(name, self.log(name).splitlines()[-25:]) for name in self.running]
        return "\n".join(f"{name}: {line}" for name, lines in tails for line in lines)

    def left(self) -> list[int]:
        """The processes of this trial that are there."""
        mark = f"{MARK}={self.folder}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue  # It has ended.
        return found

    def nothing_is_left(self) -> None:
        """Checks that no process is left but those that are ending."""
        deadline = time.monotonic() + LIMIT_SECONDS / 10
        while self.left():
            if time.monotonic() > deadline:
                names = [Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ") for process in self.left()]
                raise Wrong(f"processes are left: {names}")
            time.sleep(POLL_SECONDS)


def steps(run: Path) -> list[tuple[float, float]]:
    """Loss and accuracy of every step that a run recorded."""
    try:
        lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = [json.loads(line) for line in lines if line.endswith("}")]
    return [(line["loss"], line["accuracy"]) for line in found if line["kind"] == "step"]


def same(run: Path, like: Path) -> str:
    """Checks that two runs have the same losses and weights to the last bit; says what was compared."""
    found, expected = steps(run), steps(like)
    if not expected or found != expected:
        raise Wrong(f"the losses are {found}, those of one process {expected}")
    for file in ("model.safetensors", "optimizer.safetensors"):
        name = f"checkpoints/step-{len(expected):08}/{file}"
        if (run / name).read_bytes() != (like / name).read_bytes():
            raise Wrong(f"{name} is not the same file as that of one process")
    return f"{len(expected)} losses, weights and velocities are those of one process, to the last bit"

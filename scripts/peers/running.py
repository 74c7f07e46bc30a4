"""One call of a program: its outcome as a few numbers, or a sentence why there are none."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Mapping, NamedTuple, Sequence

from .catalogue import Program, Size, mpt_command, peer_command

# Longer than any of them takes, were the machine ten times as slow.
LIMIT_SECONDS = 1800.0


class Failed(Exception):
    """A program that gave no figure, and what it said last."""


class Ended(NamedTuple):
    """What a program left behind."""

    output: str
    peak: int  # bytes resident at most in the process that was called


class Tools(NamedTuple):
    """What the programs run with."""

    mpt: Path
    python: Path | None  # only mpt is run
    tuning: Mapping[str, str]  # environment of the tuned programs
    settings: Sequence[str] = ()  # more of mpt's recipe


def measure(program: Program, precision: str, size: Size, tools: Tools) -> dict:
    """Runs a program once."""
    environment = {**os.environ, **(tools.tuning if program.tuned else {})}
    if program.is_mpt:
        with tempfile.TemporaryDirectory() as folder:
            run_folder = Path(folder) / "run"
            ended = run(mpt_command(program, tools.mpt, precision, size, run_folder, tools.settings), environment)
            return from_metrics(read(run_folder / "metrics.jsonl"), size, ended.peak)
    assert tools.python is not None
    return from_line(run(peer_command(program, tools.python, precision, size), environment).output)


def read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise Failed(f"it left no {path.name}") from error


def from_line(output: str) -> dict:
    """The line of JSON that a peer prints last."""
    try:
        line = json.loads(output.strip().splitlines()[-1])
        return {**line, "examples_per_second": float(line["examples_per_second"])}
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise Failed("it printed no line of JSON with a result") from error


def from_metrics(text: str, size: Size, peak: int) -> dict:
    """The same from the steps that mpt recorded. Their seconds hold the wait for data too."""
    steps = [line for line in map(json.loads, text.splitlines()) if line["kind"] == "step"]
    counted = steps[size.warmup :]
    if len(counted) != size.steps:
        raise Failed(f"it recorded {len(steps)} steps instead of {size.warmup + size.steps}")
    seconds = [step["seconds"] for step in counted]
    return {
        "step_seconds": seconds,
        "examples_per_second": size.batch / statistics.median(seconds),
        "peak_resident_bytes": peak,
        "loss_first": steps[0]["loss"],
        "loss_last": steps[-1]["loss"],
        "losses": [step["loss"] for step in steps],
    }


def run(command: Sequence[str], environment: Mapping[str, str]) -> Ended:
    """Runs a program to its end in a process group of its own, so that it ends with all that it started.

    However this ends, an interruption included, nothing of the program is left running.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                command,
                env={**environment, "PYTHONDONTWRITEBYTECODE": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )
        except OSError as error:
            raise Failed(f"{command[0]}: {error.strerror}") from error
        timer = threading.Timer(LIMIT_SECONDS, kill, [process.pid])
        timer.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            timer.cancel()
            kill(process.pid)
            if process.returncode is None:  # interrupted
                process.wait()
        if process.returncode != 0:
            raise Failed(f"{reason(process.returncode)}: {last_line(text(errors)) or 'it said nothing'}")
        return Ended(text(output), usage.ru_maxrss * 1024)


def kill(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def reason(code: int) -> str:
    return f"exit code {code}" if code > 0 else f"ended by {signal.Signals(-code).name}"


def text(file) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def last_line(said: str) -> str:
    """The line that says what went wrong: in Python's tracebacks the last one."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else ""

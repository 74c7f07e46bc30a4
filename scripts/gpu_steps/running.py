"""One part: a program with a time limit, its end and what it said."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Mapping, NamedTuple, Sequence

# Ranks that wait for each other in the driver may not hear a request to end.
GRACE_SECONDS = 10


class Ended(NamedTuple):
    """What became of a program."""

    code: int | None  # none where it had to be ended
    seconds: float
    output: str

    @property
    def how(self) -> str:
        """The exit code in words."""
        if self.code is None:
            return f"none, ended after {self.seconds:.0f} s"
        return str(self.code) if self.code >= 0 else signal.Signals(-self.code).name


def run(command: Sequence[str], environment: Mapping[str, str], folder: Path, limit: float) -> Ended:
    """Runs a program in a process group of its own; however this ends, nothing of the group is left."""
    with tempfile.TemporaryFile() as output:
        began = time.monotonic()
        try:
            process = subprocess.Popen(
                command,
                env=dict(environment),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            return Ended(127, 0.0, f"{command[0]}: {error.strerror}")
        try:
            code: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            end(process)
        seconds = time.monotonic() - began
        output.seek(0)
        return Ended(code, seconds, output.read().decode(errors="replace"))


def end(process: subprocess.Popen) -> None:
    """Asks a group to end, and ends it where that does not help. One that hangs in the driver cannot be ended at all,
    and is left behind."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if number == signal.SIGKILL or process.poll() is None:
            try:
                os.killpg(process.pid, number)
                process.wait(GRACE_SECONDS)
            except (ProcessLookupError, PermissionError, subprocess.TimeoutExpired):
                pass

"""Programs that set-up runs: each in a process group of its own, so that it ends with all that it started."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections import deque
from typing import Callable, Deque, IO, NamedTuple, Sequence

from .console import Stopped

LINE_END = re.compile(rb"[\r\n]+")


class Outcome(NamedTuple):
    """How a program ended, and the last lines that it said."""

    code: int
    lines: list[str]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


class Children:
    """The programs that run now. After `stop` they are gone and no new one starts."""

    def __init__(self) -> None:
        self.running: set[subprocess.Popen[bytes]] = set()
        self.guard = threading.Lock()
        self.stopped = threading.Event()

    def run(
        self,
        command: Sequence[str],
        *,
        folder: str | None = None,
        environment: dict[str, str] | None = None,
        on_line: Callable[[str], None] = lambda line: None,
        limit: float | None = None,
        keep: int = 60,
    ) -> Outcome:
        """Runs a program to its end, tells each line as it comes, and keeps the last ones.

        A line also ends at a carriage return: that is how progress bars are drawn. A program that runs past `limit`
        seconds is ended and counts as failed.
        """
        process = self._start(command, folder, environment)
        timer = threading.Timer(limit, self._end, [process]) if limit else None
        if timer:
            timer.start()
        kept: Deque[str] = deque(maxlen=keep)
        assert process.stdout is not None
        try:
            for line in lines(process.stdout):
                kept.append(line)
                on_line(line)
            code = process.wait()
        finally:
            process.stdout.close()
            if timer:
                timer.cancel()
            with self.guard:
                self.running.discard(process)
        self.check()
        return Outcome(code, list(kept))

    def check(self) -> None:
        """Raises `Stopped` once everything is to end."""
        if self.stopped.is_set():
            raise Stopped

    def stop(self) -> None:
        """Ends every program."""
        self.stopped.set()
        with self.guard:
            for process in self.running:
                self._end(process)

    def _start(
        self, command: Sequence[str], folder: str | None, environment: dict[str, str] | None
    ) -> subprocess.Popen[bytes]:
        with self.guard:
            self.check()
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self.running.add(process)
            return process

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        try:
            os.killpg(process.pid, signal.SIGTERM)
        except ProcessLookupError:
            pass


def lines(stream: IO[bytes]):
    """The lines of a stream without their ends, empty ones left out."""
    rest = b""
    while True:
        chunk = os.read(stream.fileno(), 65536)
        if not chunk:
            break
        *whole, rest = LINE_END.split(rest + chunk)
        yield from (line.decode(errors="replace") for line in whole if line)
    if rest:
        yield rest.decode(errors="replace")

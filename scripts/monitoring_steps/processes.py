"""Programs that run beside this one: what they say is heard line by line, and none of them is left behind."""

from __future__ import annotations

import contextlib
import queue
import re
import signal
import subprocess
import threading
import time
from collections import deque
from pathlib import Path
from typing import Deque, Iterator, Mapping, NoReturn, Sequence

from gpu_steps.running import end
from setup_steps.children import lines
from setup_steps.console import Console, SetupError

KEPT = 30  # last lines, to say why a program ended


class Process:
    """A program in a process group of its own. Used as a context, it ends with it."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.said: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.last: Deque[str] = deque(maxlen=KEPT)
        try:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us, who then end it in order
            )
        except OSError as error:
            raise SetupError(f"{command[0]} cannot be started ({error.strerror})") from error
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.end()

    def wait_for(self, pattern: str, limit: float, *others: str) -> re.Match[str]:
        """Waits for a line that has this in it, and for one of each other pattern, in whatever order they come; gives
        the first pattern's match. A program that ends without, or says nothing of it, is a failure."""
        deadline = time.monotonic() + limit
        found: dict[str, re.Match[str]] = {}
        wanted = (pattern, *others)
        while missing := [each for each in wanted if each not in found]:
            try:
                line = self.said.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise self.failure(f"has not said {missing[0]!r} after {limit:.0f} s") from None
            if line is None:
                raise self.failure(f"ended, exit code {self.process.wait()}")
            found.update({each: match for each in missing if (match := re.search(each, line))})
        return found[pattern]

    def failure(self, what: str) -> SetupError:
        """An error with the program's last lines."""
        return SetupError("\n  ".join([f"{self.name} {what}; its last lines:", *self.last]), code=1)

    def running(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def wait(self, limit: float) -> bool:
        """Waits for its end, for so many seconds; whether it has ended."""
        try:
            self.process.wait(limit)
        except subprocess.TimeoutExpired:
            return False
        return True

    def end(self) -> None:
        """Ends it with all that it started."""
        end(self.process)
        self.reader.join()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            for line in lines(stream):
                self.last.append(line)
                self.said.put(line)
        self.said.put(None)


def ended(console: Console, sentence: str, code: int) -> int:
    """Says how it all ended; gives the exit code."""
    console.clear()
    console.say(f"mpt: {sentence}")
    return code


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Within this the first signal to end raises KeyboardInterrupt with its number. More of them, from an impatient
    person or a terminal that closes, are not heard while everything ends in order."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def interrupt(number: int, _frame: object) -> NoReturn:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt(number)

    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

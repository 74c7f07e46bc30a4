"""What a person sees, all of it on stderr: whole lines, and one status line for the parts that run side by side."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TextIO

from .pins import MB


class SetupError(Exception):
    """Something that the user can mend, told in a sentence; `code` is the exit code it leads to."""

    def __init__(self, sentence: str, code: int = 2) -> None:
        super().__init__(sentence)
        self.code = code


class Stopped(Exception):
    """Another part has failed or the user has interrupted: this one ends without a word."""


def megabytes(size: float) -> str:
    """A size for people: megabytes below a gigabyte, else gigabytes."""
    return f"{size / MB:.0f} MB" if size < 1000 * MB else f"{size / (1000 * MB):.1f} GB"


def seconds(duration: float) -> str:
    """A duration for people."""
    if duration < 10:
        return f"{duration:.1f} s"
    return f"{duration:.0f} s" if duration < 120 else f"{duration / 60:.0f} min {duration % 60:02.0f} s"


class Console:
    """Lines and the status of each part.

    On a terminal the status is one line, drawn over again; elsewhere it is a line of its own every ten seconds. A piece
    of work that ends within the first second never shows one, so a run with nothing to do stays silent.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty() and os.environ.get("TERM") != "dumb"
        self.parts: dict[str, str] = {}
        self.guard = threading.Lock()
        self.drawn = ""
        threading.Thread(target=self._tick, daemon=True).start()

    def say(self, text: str) -> None:
        """Prints a line, above the status line if there is one."""
        with self.guard:
            self._write(text)

    def status(self, part: str, text: str) -> None:
        """Tells how far a part is; an empty text takes it off the line."""
        with self.guard:
            if text:
                self.parts[part] = text
            else:
                self.parts.pop(part, None)

    def clear(self) -> None:
        """Forgets all status."""
        with self.guard:
            self.parts.clear()

    def _write(self, text: str) -> None:
        clear = "\r\x1b[K" if self.live and self.drawn else ""
        self.drawn = ""
        self.stream.write(f"{clear}{text}\n")
        self.stream.flush()

    def _tick(self) -> None:
        interval = 0.2 if self.live else 10.0
        time.sleep(max(interval, 1.0))
        while True:
            with self.guard:
                self._draw(" | ".join(f"{part}: {text}" for part, text in self.parts.items()))
            time.sleep(interval)

    def _draw(self, line: str) -> None:
        if line == self.drawn:
            return
        if not self.live:
            if line:
                self._write(f"mpt: {line}")
            self.drawn = line
            return
        width = os.get_terminal_size(self.stream.fileno()).columns or 80
        self.stream.write(f"\r\x1b[K{line[: width - 1]}")
        self.stream.flush()
        self.drawn = line

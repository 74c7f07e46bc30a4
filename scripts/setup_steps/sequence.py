"""The order of things: libtorch, crates and data side by side, then the build; and how it all can end."""

from __future__ import annotations

import errno
import os
import queue
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Callable, NoReturn, Sequence

from . import build, data, libtorch, pins
from .announce import Missing, announcement, demand, look
from .children import Children
from .console import Console, SetupError, seconds
from .places import Places

USAGE = f"""\
Usage: scripts/setup [--without-data]
       scripts/setup --for ARGS...

Prepares what this machine lacks: libtorch {pins.LIBTORCH_VERSION}, the release build, and Fashion-MNIST;
with --for, what `mpt ARGS` needs. An interrupted run goes on where it stopped.

Environment:
  XDG_CACHE_HOME    libtorch and the data lie in its folder mpt (default: ~/.cache)
  CARGO_TARGET_DIR  where cargo builds (default: target in the repository)
  CXX               the C++ compiler (default: c++)
  PIP_*             and pip's configuration files: package index, certificates, proxy
  {data.MIRROR_VARIABLE}
                    address of a folder with the four files of Fashion-MNIST, asked
                    instead of all other sources
"""

Job = Callable[[], None]


def main(arguments: Sequence[str], root: Path) -> int:
    """Parses, runs, and turns every foreseen trouble into a sentence and an exit code."""
    if list(arguments) in (["--help"], ["-h"]):
        print(USAGE, end="")
        return 0
    for_mpt = list(arguments[:1]) == ["--for"]
    if not for_mpt and list(arguments) not in ([], ["--without-data"]):
        print(USAGE, end="", file=sys.stderr)
        return 2
    places, console, children = Places.from_environment(root), Console(), Children()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    try:
        did = set_up(places, data.needed(arguments[1:]) if for_mpt else not arguments, console, children)
        if not did and not for_mpt:
            console.say("mpt: everything is there already")
        return 0
    except KeyboardInterrupt as interruption:
        number = interruption.args[0] if interruption.args else signal.SIGINT
        end(console, children, "interrupted; running the same command again goes on from here", 128 + number)
    except SetupError as error:
        end(console, children, str(error), error.code)
    except OSError as error:
        end(console, children, *explain(error, places))


def interrupt(number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt(number)


def end(console: Console, children: Children, sentence: str, code: int) -> NoReturn:
    """Ends everything at once: a thread that waits for the network would hold up an orderly exit."""
    children.stop()
    console.clear()
    console.say(f"mpt: {sentence}")
    os._exit(code)


def explain(error: OSError, places: Places) -> tuple[str, int]:
    """A sentence for what the system refused."""
    if error.errno == errno.ENOSPC:
        return f"the disk is full: make room for {places.cache} and {places.target}, and run again", 2
    return f"{error.filename or 'a file'}: {error.strerror or error}", 1


def set_up(places: Places, wants_data: bool, console: Console, children: Children) -> bool:
    """Does what is missing; false if that was nothing."""
    missing = look(places, wants_data)
    if not missing.anything:
        return False
    if missing.heavy:
        console.say(announcement(missing, places))
    demand(missing, places, console)
    started = time.monotonic()
    took = work(missing, places, console, children)
    if missing.heavy:
        parts = ", ".join(f"{part} {seconds(duration)}" for part, duration in took.items())
        console.say(f"mpt: ready in {seconds(time.monotonic() - started)} ({parts})")
    return True


def work(missing: Missing, places: Places, console: Console, children: Children) -> dict[str, float]:
    """Runs the parts, the build once libtorch and the crates are there, and tells how long each took.

    The first part that fails ends the others: its sentence must not wait for a build of minutes.
    """
    due: dict[str, Job] = {}
    if missing.libtorch:
        due["libtorch"] = lambda: libtorch.prepare(places, console, children)
    if missing.program and missing.unpacked:
        due["crates"] = lambda: build.ahead(places, console, children)
    if missing.data:
        due["Fashion-MNIST"] = lambda: data.prepare(places, console, children)
    before_build = {"libtorch", "crates"} & set(due)
    builds = missing.program or missing.rebuild
    was = libtorch.home(places)

    ended: queue.SimpleQueue[tuple[str, float, BaseException | None]] = queue.SimpleQueue()
    took: dict[str, float] = {}
    running = set(due)
    for part, job in due.items():
        start(part, job, ended)
    while running or builds:
        if builds and not before_build & running:
            builds = False
            running.add("build")
            start("build", lambda: build.build(places, console, children, libtorch.home(places) != was), ended)
        part, took[part], error = ended.get()
        if error:
            raise error
        running.discard(part)
    return took


def start(part: str, job: Job, ended: queue.SimpleQueue) -> None:
    """Runs a part in a thread that reports its end."""

    def run() -> None:
        began = time.monotonic()
        error = None
        try:
            job()
        except BaseException as caught:  # Handed over to the main thread, which ends the program.
            error = caught
        ended.put((part, time.monotonic() - began, error))

    threading.Thread(target=run, name=part, daemon=True).start()

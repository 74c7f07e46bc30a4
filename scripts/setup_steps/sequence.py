"""The order of things: libtorch, crates and data side by side, then the build and beside it NVIDIA's libraries; and how
it all can end."""

from __future__ import annotations

import errno
import os
import queue
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Callable, NamedTuple, NoReturn, Sequence

from . import asked, build, cuda, data, flavour, libtorch, pins
from .announce import Missing, announcement, demand, look
from .children import Children
from .console import Console, SetupError, seconds
from .places import Places

USAGE = f"""\
Usage: scripts/setup [--without-data] [--with-nccl]
       scripts/setup --for ARGS...

Prepares what this machine lacks: libtorch {pins.LIBTORCH_VERSION}, the release build, and Fashion-MNIST;
with --for, what `mpt ARGS` needs. Where there is an NVIDIA driver, libtorch comes with
NVIDIA's libraries; --with-nccl brings one of them, NCCL, to any machine, for the tests of
the binding to it. An interrupted run goes on where it stopped.

Environment:
  {flavour.VARIABLE}       cuda or cpu: with or without NVIDIA's libraries (2.0 GB to download,
                    2.8 GB on disk), whatever driver there is
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
    if not for_mpt and not set(arguments) <= {"--without-data", "--with-nccl"}:
        print(USAGE, end="", file=sys.stderr)
        return 2
    places, console, children = Places.from_environment(root), Console(), Children()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    try:
        wants_data = asked.needed(arguments[1:], root) if for_mpt else "--without-data" not in arguments
        did = set_up(places, wants_data, console, children, "--with-nccl" in arguments and not for_mpt, for_mpt)
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


def set_up(
    places: Places,
    wants_data: bool,
    console: Console,
    children: Children,
    wants_nccl: bool = False,
    for_mpt: bool = False,
) -> bool:
    """Does what is missing; false if that was nothing. Where it is done for a call of mpt, data that cannot be had is a
    warning: whether the call needs it mpt knows better, and refuses what it cannot carry out."""
    beside = pins.CUDA_WHEELS if flavour.wants_cuda() else (pins.NCCL,) if wants_nccl else ()
    missing = look(places, wants_data, beside)
    if not missing.anything:
        return False
    if missing.heavy:
        console.say(announcement(missing, places))
    demand(missing, places, console)
    started = time.monotonic()
    took = work(due(missing, places, beside, console, children, for_mpt))
    if missing.heavy:
        parts = ", ".join(f"{part} {seconds(duration)}" for part, duration in took.items())
        console.say(f"mpt: ready in {seconds(time.monotonic() - started)} ({parts})")
    return True


class Part(NamedTuple):
    """Something to do, after others if they are to be done too."""

    job: Job
    after: frozenset[str] = frozenset()


def due(
    missing: Missing,
    places: Places,
    beside: Sequence[pins.Wheel],
    console: Console,
    children: Children,
    for_mpt: bool = False,
) -> dict[str, Part]:
    """The parts of the work."""
    was = libtorch.home(places)

    def build_all() -> None:
        build.build(places, console, children, moved=libtorch.home(places) != was)

    def bring_data() -> None:
        try:
            data.prepare(places, console, children)
        except SetupError as error:
            if not for_mpt:
                raise
            console.status(data.PART, "")
            console.say(f"mpt: warning: {error}")

    parts: dict[str, Part] = {}
    if missing.libtorch:
        parts["libtorch"] = Part(partial(libtorch.prepare, places, console, children))
    if missing.program and missing.unpacked:
        parts["crates"] = Part(partial(build.ahead, places, console, children))
    if missing.data:
        parts["Fashion-MNIST"] = Part(bring_data)
    if missing.cuda:
        parts[cuda.PART] = Part(partial(cuda.prepare, places, beside, console, children), frozenset({"libtorch"}))
    if missing.program or missing.rebuild:
        parts["build"] = Part(build_all, frozenset({"libtorch", "crates"}))
    return parts


def work(parts: dict[str, Part]) -> dict[str, float]:
    """Runs the parts, each once those before it have ended, and tells how long each took.

    The first part that fails ends the others: its sentence must not wait for a build of minutes.
    """
    ended: queue.SimpleQueue[tuple[str, float, BaseException | None]] = queue.SimpleQueue()
    took: dict[str, float] = {}
    waiting = dict(parts)
    while len(took) < len(parts):
        for name in [name for name, part in waiting.items() if not part.after & set(parts) - set(took)]:
            start(name, waiting.pop(name).job, ended)
        name, took[name], error = ended.get()
        if error:
            raise error
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

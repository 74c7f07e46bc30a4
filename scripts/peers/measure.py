"""How every peer is called, timed, and how it tells its result."""

import argparse
import json
import re
import statistics
import sys
import time
from typing import Callable, NamedTuple, Sequence

_libraries = 0


class Memory(NamedTuple):
    """Bytes resident in a process."""

    libraries: int  # once they were loaded, before any work
    peak: int


def parser(description: str) -> argparse.ArgumentParser:
    """The flags that all peers know. Called first of all: what is resident now are the libraries."""
    global _libraries
    _libraries = peak_resident_bytes()
    flags = argparse.ArgumentParser(description=description)
    flags.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    flags.add_argument("--steps", type=int, default=5, help="steps that count")
    flags.add_argument("--warmup", type=int, default=2, help="steps before them")
    flags.add_argument("--batch-size", type=int, default=128, help="examples in a step, over all processes")
    flags.add_argument("--dropout", type=float, default=0.5, help="0 makes losses comparable between the programs")
    return flags


def steps(step: Callable[[], float], arguments: argparse.Namespace) -> tuple[list[float], list[float]]:
    """Runs the steps; the seconds of those that count, and every loss.

    `step` returns the loss as a number, so a step's time holds all of its work.
    """
    seconds, losses = [], []
    for _ in range(arguments.warmup + arguments.steps):
        began = time.perf_counter()
        losses.append(step())
        seconds.append(time.perf_counter() - began)
    return seconds[arguments.warmup :], losses


def peak_resident_bytes() -> int:
    """The most memory that this process ever held."""
    with open("/proc/self/status", encoding="ascii") as status:
        return 1024 * int(re.search(r"^VmHWM:\s+(\d+) kB", status.read(), re.MULTILINE).group(1))


def memory() -> Memory:
    return Memory(_libraries, peak_resident_bytes())


def report(arguments: argparse.Namespace, seconds: Sequence[float], losses: Sequence[float], memory: Memory) -> None:
    """The one line that a peer prints."""
    line = {
        "program": re.sub(r"\.py$", "", sys.argv[0].rpartition("/")[2]),
        "precision": arguments.precision,
        "step_seconds": list(seconds),
        "examples_per_second": arguments.batch_size / statistics.median(seconds),
        "peak_resident_bytes": memory.peak,
        "libraries_resident_bytes": memory.libraries,
        "loss_first": losses[0],
        "loss_last": losses[-1],
        "losses": list(losses),
    }
    print(json.dumps(line), flush=True)

"""What is tried, on how many GPUs: the cheap before the dear, and what others are compared with before them."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator, NamedTuple, Sequence

# The test programs are compiled first. Everything else that takes longer than this hangs.
TESTS_SECONDS = 1800.0
SECONDS = 600.0

# In fp64 what differs is wrong; with momentum, dropout and two towers most things that can be wrong show.
EXACT = (
    *("--recipe", "quick", "--precision", "fp64", "--batch-size", "16", "--steps", "6"),
    *("--set", "data.source=noise", "--set", "data.test_examples=64", "--set", "checkpoint.keep=0"),
)
# What the recipe's ten epochs begin with, on images that need no download.
SHORT = ("--set", "data.source=synthetic", "--set", "data.test_examples=256", "--set", "checkpoint.keep=0")
SHORT_STEPS = ("--steps", "20")
REHEARSED_STEPS = ("--steps", "2", "--batch-size", "16")
FEW_STEPS = ("--recipe", "quick", "--batch-size", "16", "--steps", "2", "--warmup", "1")
LEAST = {"step": FEW_STEPS, "scaling": (*FEW_STEPS, "--rounds", "1"), "exchange": ("--sizes", "1MiB")}
REFERENCE = "on-the-cpu"
# What is computed while tensors travel, and switched off, to see what it brings.
OVERLAP = {
    "": ("--set", "parallel.own_half=on"),
    ", own half off": ("--set", "parallel.own_half=off"),
    ", no overlap": tuple(
        word
        for setting in ("own_half=off", "early_exchange=false", "bucket=all")
        for word in ("--set", f"parallel.{setting}")
    ),
}


class Part(NamedTuple):
    """A program to run."""

    name: str
    command: Sequence[str]
    limit: float = SECONDS
    run: str = ""  # where it records its steps, in the folder of all runs
    like: str = ""  # the record that its losses must equal


class Split(NamedTuple):
    """How GPUs share the work."""

    name: str
    options: Sequence[str]


class Bench(NamedTuple):
    """What the parts run, and on what."""

    mpt: Path
    target: Path
    runs: Path
    gpus: int
    rehearsed: bool


def splits(gpus: int) -> Iterator[Split]:
    """Every way to use so many GPUs."""
    yield Split("single", ("--gpus", "1", "--mode", "single"))
    if gpus > 1:
        yield Split("data-parallel", ("--gpus", str(gpus), "--mode", "data-parallel"))
        yield Split("model-parallel", ("--gpus", str(gpus), "--mode", "model-parallel"))
    if gpus > 3 and gpus % 2 == 0:
        mesh = f"{gpus // 2}x2"
        yield Split(f"mesh {mesh}", ("--gpus", str(gpus), "--mesh", mesh))


def parts(bench: Bench) -> Iterator[Part]:
    """All that is tried. A rehearsal tries what computes elsewhere than on GPUs."""
    yield Part("doctor", (str(bench.mpt), "doctor"))
    yield one_gpu(bench)
    reference = (str(bench.mpt), "train", "--device", "cpu", "--gpus", "1", *EXACT)
    yield recorded(bench, "losses on the CPU, to compare with", reference, REFERENCE)
    for split in splits(bench.gpus):
        name = f"losses, {split.name}"
        yield recorded(bench, name, (*training(bench), *split.options, *EXACT), name, like=REFERENCE)
    for split in splits(bench.gpus):
        if not bench.rehearsed and split.name != "single":
            command = (str(bench.mpt), "verify", "--device", "cuda", *split.options)
            yield Part(f"verify, {split.name}", command)
    steps = REHEARSED_STEPS if bench.rehearsed else SHORT_STEPS
    for split in splits(bench.gpus):
        variants = OVERLAP if split.name == "model-parallel" else {"": ()}
        for variant, settings in variants.items():
            name = f"train, {split.name}{variant}"
            yield recorded(bench, name, (*training(bench), *split.options, *settings, *SHORT, *steps), name)
    yield from benchmarks(bench)


def one_gpu(bench: Bench) -> Part:
    """Copies, streams, events and a group of one: tests of this repository that are run on no other occasion."""
    options = ("--release", "--locked", f"--target-dir={bench.target}", "--test=mpt")
    tests = ("gpu::", "--ignored", "--test-threads=1")
    name = "copies, streams, events, a group of one"
    return Part(name, ("cargo", "test", *options, "--", *tests), limit=TESTS_SECONDS)


def training(bench: Bench) -> tuple[str, ...]:
    return (str(bench.mpt), *(("rehearse",) if bench.rehearsed else ("train", "--device", "cuda")))


def recorded(bench: Bench, name: str, command: Sequence[str], run: str, like: str = "") -> Part:
    """A training run, with its record in a folder of its own."""
    run = run.replace(", ", "-").replace(" ", "-")
    return Part(name, (*command, "--run-dir", str(bench.runs / run)), run=run, like=like)


def benchmarks(bench: Bench) -> Iterator[Part]:
    """Times, on all GPUs at most. Those of simulated GPUs mean nothing: there the least of each is measured."""
    last, count = list(splits(bench.gpus))[-1], ("--gpus", str(bench.gpus))
    measured = {f"step, {last.name}": ("step", *last.options)}
    if bench.gpus > 1:
        measured.update(scaling=("scaling", *count), exchange=("exchange", *count))
    for name, arguments in measured.items():
        least = LEAST[arguments[0]] if bench.rehearsed else ()
        yield Part(f"bench {name}", (str(bench.mpt), "bench", *arguments, *least, "--device", "cuda"))

"""The programs that are compared, and how each is called."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Sequence

HERE = Path(__file__).resolve().parent
DEVICES = 2


class Size(NamedTuple):
    """How much each call does."""

    batch: int
    warmup: int
    steps: int


class Program(NamedTuple):
    name: str  # as on the command line
    title: str  # as in the table
    job: str  # single, model or data: programs of one job can be compared by their memory
    arguments: tuple[str, ...]  # for mpt its mode, for a peer its file and flags of its own
    tuned: bool = False  # with tcmalloc

    @property
    def is_mpt(self) -> bool:
        return self.name.startswith("mpt-")


def peer(name: str, title: str, job: str, *arguments: str) -> tuple[Program, Program]:
    """A peer as installed and tuned."""
    return (
        Program(name, f"{title}, as installed", job, arguments),
        Program(f"{name}-tuned", f"{title}, tuned", job, arguments, tuned=True),
    )


MPT_MODEL = Program("mpt-model-parallel", "mpt model-parallel", "model", ("model-parallel",))
MPT_DATA = Program("mpt-data-parallel", "mpt data-parallel", "data", ("data-parallel",))
MPT_SINGLE = Program("mpt-single", "mpt single", "single", ("single",))

PROGRAMS: tuple[Program, ...] = (
    MPT_MODEL,
    MPT_DATA,
    MPT_SINGLE,
    *peer("pytorch-single", "PyTorch, one process", "single", "pytorch_single.py"),
    *peer("pytorch-ddp", "PyTorch DDP", "data", "pytorch_ddp.py"),
    *peer("pytorch-hand-split", "PyTorch split by hand", "model", "pytorch_hand_split.py"),
    *peer("jax-model", "JAX by feature", "model", "jax_sharded.py", "--variant", "model"),
    *peer("jax-data", "JAX by example", "data", "jax_sharded.py", "--variant", "data"),
)


def peer_command(program: Program, python: Path, precision: str, size: Size, *more: str) -> list[str]:
    """How a peer is called."""
    file, *own = program.arguments
    numbers = [f"--batch-size={size.batch}", f"--warmup={size.warmup}", f"--steps={size.steps}"]
    return [str(python), str(HERE / file), *own, f"--precision={precision}", *numbers, *more]


def mpt_command(
    program: Program, mpt: Path, precision: str, size: Size, run: Path, more: Sequence[str] = ()
) -> list[str]:
    """How mpt is called for the same work: images of the size that its
    recipe has, which it enlarges while the peers are given theirs ready; one epoch, the least of evaluations."""
    steps = size.warmup + size.steps
    settings = {
        "data.source": "noise",
        "data.image": "[1,28,28]",
        "data.train_examples": steps * size.batch,
        "data.test_examples": 2,
    }
    flags = [f"--set={key}={value}" for key, value in settings.items()]
    (mode,) = program.arguments
    return [
        str(mpt),
        "train",
        "--device=cpu",
        f"--gpus={1 if mode == 'single' else DEVICES}",
        f"--mode={mode}",
        f"--precision={precision}",
        f"--batch-size={size.batch}",
        f"--steps={steps}",
        f"--run-dir={run}",
        "--quiet",
        *flags,
        *(f"--set={setting}" for setting in more),
    ]


def named(names: Sequence[str]) -> list[Program]:
    """The programs with these names; a name also stands for all that begin with it, like `pytorch`."""
    chosen = {name: [program for program in PROGRAMS if f"{program.name}-".startswith(f"{name}-")] for name in names}
    for name, found in chosen.items():
        if not found:
            raise ValueError(f"no program is called {name}; there are {', '.join(known.name for known in PROGRAMS)}")
    return [program for program in PROGRAMS if any(program in found for found in chosen.values())]

"""The files in tests/mpt/expected: made anew, or computed again and compared with what is committed."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Callable, Iterator

import torch

from . import jobs, philox_check, record
from .jobs import Job

# How far PyTorch may be from what it gave when the files were written, maybe on another processor: the bounds that mpt
# has to keep in tests/mpt/parity.rs, a tenth of them.
BOUNDS = {"fp64": 1e-10, "fp32": 1e-6}


def main(arguments: list[str], root: Path) -> int:
    """Writes or checks every file; gives the exit code."""
    # One thread adds up in one order, and a machine that does something else is no slower for it.
    torch.set_num_threads(1)
    wrong = philox_check.differences()
    for sentence in wrong:
        print(f"parity: philox.py is no twin of src/random.rs: {sentence}")
    if wrong:
        return 1
    treat = {"write": write, "check": check}[arguments[0]]
    passed = [treat(root / "tests" / "mpt" / "expected" / name, found) for name, found in computed(root)]
    if arguments[0] == "check":
        print(f"{sum(passed)} passed, {len(passed) - sum(passed)} failed")
    return 0 if all(passed) else 1


def computed(root: Path) -> Iterator[tuple[str, dict]]:
    """The name and contents of each file."""
    models = root / "src" / "model" / "shipped"
    kinds: list[tuple[str, list[Job], Callable[[Job, Path], dict]]] = [
        (".json", jobs.EXACT, record.exact),
        ("-timeline.json", jobs.TIMELINES, record.exact),
        ("-curve.json", jobs.CURVES, record.curve),
    ]
    for ending, listed, make in kinds:
        for job in listed:
            yield job.model + ending, make(job, models)
    yield "plateau.json", record.plateau(jobs.PLATEAU)


def write(path: Path, found: dict) -> bool:
    path.parent.mkdir(exist_ok=True)
    path.write_text(laid_out(found), encoding="ascii")
    print(f"parity: wrote {path}")
    return True


def check(path: Path, found: dict) -> bool:
    """Whether a committed file holds what was computed; tells the first differences where it does not."""
    committed = json.loads(path.read_text(encoding="ascii")) if path.exists() else {}
    apart = list(differences(found, committed, BOUNDS[found["job"]["precision"]], ""))
    print(f"parity: {path.name}: {'as committed' if not apart else f'{len(apart)} differences'}")
    for sentence in apart[:5]:
        print(f"  {sentence}")
    return not apart


def differences(found: object, committed: object, bound: float, where: str) -> Iterator[str]:
    """A sentence for each difference. Numbers in a list count in the size of the whole list: one of them alone may be
    next to nothing, and then nothing but rounding."""
    if isinstance(found, dict) and isinstance(committed, dict):
        for name in sorted(found.keys() | committed.keys()):
            yield from differences(found.get(name), committed.get(name), bound, f"{where}/{name}")
    elif numbers(found) and numbers(committed) and len(found) == len(committed):
        size = math.hypot(*found)
        if math.hypot(*(one - other for one, other in zip(found, committed))) > bound * size:
            yield f"{where} is {found}, but {committed} is committed"
    elif numbers([found]) and numbers([committed]):
        yield from differences([found], [committed], bound, where)
    elif found != committed:
        yield f"{where} is {found}, but {committed} is committed"


def numbers(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, (int, float)) for item in value)


def laid_out(found: dict) -> str:
    """JSON with one line for each entry of the parts, so that a change shows what it changed."""
    parts = []
    for name, part in found.items():
        entries = [json.dumps({key: value})[1:-1] for key, value in part.items()] if isinstance(part, dict) else []
        inner = ",\n    ".join(entries)
        parts.append(f'  "{name}": ' + (f"{{\n    {inner}\n  }}" if entries else json.dumps(part)))
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path(__file__).resolve().parents[2]))

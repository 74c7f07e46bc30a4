"""What is missing, what that costs, and whether the machine has it: said before anything heavy begins."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple, Sequence

from . import build, cuda, data, flavour, libtorch, machine, pins, wheels
from .console import Console, SetupError, megabytes
from .places import Places, existing, make_folder

# Crates of the lock file that cargo downloads only for other systems.
FOREIGN = re.compile(r"windows|winapi|wasi|wasm|wit-|js-sys|web-sys|r-efi|hermit|redox|android|core-foundation")


class Missing(NamedTuple):
    """What there is to do."""

    libtorch: bool  # the repository's link leads to none
    wheels: int  # bytes of it to download
    unpacked: int  # bytes it will then take
    program: bool  # there is none yet
    rebuild: bool  # there is one, older than its sources
    data: bool
    crates: int  # to download, about
    cuda: bool = False  # libraries that are wanted beside libtorch, or the name that mpt knows one by
    cuda_wheels: int = 0  # bytes of them to download
    cuda_unpacked: int = 0  # bytes they will then take

    @property
    def anything(self) -> bool:
        return self.libtorch or self.program or self.rebuild or self.data or self.cuda

    @property
    def heavy(self) -> bool:
        """Whether it is worth an announcement: following changed sources is not."""
        return self.unpacked > 0 or self.cuda_unpacked > 0 or self.program or self.data


def look(places: Places, wants_data: bool, beside: Sequence[pins.Wheel] = ()) -> Missing:
    """What is missing, of the wheels wanted `beside` libtorch too. A libtorch that is new to the repository makes the
    program old, which holds the way to it."""
    built = places.program.exists()
    linked = libtorch.ready(places)
    unpacked = linked or libtorch.whole(places.libtorch)
    absent = cuda.lacking(places, beside)
    return Missing(
        libtorch=not linked,
        wheels=0 if unpacked else wheels.bytes_left(places, pins.LIBTORCH_WHEELS),
        unpacked=0 if unpacked else pins.LIBTORCH_UNPACKED,
        program=not built,
        rebuild=built and not (linked and build.ready(places)),
        data=wants_data and not data.ready(places),
        crates=0 if built else missing_crates(places),
        cuda=not cuda.ready(places, beside),
        cuda_wheels=wheels.bytes_left(places, absent),
        cuda_unpacked=int(wheels.total(absent) * pins.CUDA_GROWTH),
    )


def missing_crates(places: Places) -> int:
    """How many crates of the lock file cargo has not downloaded yet."""
    lock = (places.root / "Cargo.lock").read_text(encoding="utf-8")
    listed = re.findall(r'name = "(.+)"\nversion = "(.+)"\nsource = "registry', lock)
    here = {path.name for path in places.registry.glob("cache/*/*.crate")}
    return sum(f"{name}-{version}.crate" not in here and not FOREIGN.search(name) for name, version in listed)


def announcement(missing: Missing, places: Places) -> str:
    """What is going to happen, what it takes, and what the machine has."""
    disk = (
        f"{megabytes(size)} in {path} ({megabytes(machine.free_disk(path))} free)"
        for path, size in disk_needs(missing, places).items()
    )
    lines = [
        "mpt: preparing what this machine lacks",
        f"  download  {', '.join(downloads(missing)) or 'nothing'}",
        f"  disk      {', '.join(disk)}",
        f"  memory    {megabytes(memory_need(missing))} ({megabytes(machine.memory())} available)",
        f"  time      {estimate(missing)}",
    ]
    return "\n".join(lines)


def downloads(missing: Missing) -> list[str]:
    """Each download with its size."""
    found = []
    if missing.wheels:
        found.append(f"libtorch {pins.LIBTORCH_VERSION} {megabytes(missing.wheels)}")
    if missing.cuda_wheels:
        without = f" ({flavour.VARIABLE}={flavour.CPU} does without)" if flavour.wants_cuda() else ""
        found.append(f"{cuda.PART} {megabytes(missing.cuda_wheels)}{without}")
    if missing.crates:
        found.append(f"crates about {megabytes(missing.crates * pins.CRATE_DOWNLOAD)}")
    if missing.data:
        found.append(f"Fashion-MNIST {megabytes(pins.DATA_SIZE)}")
    return found


def disk_needs(missing: Missing, places: Places) -> dict[Path, int]:
    """The bytes that each folder will take at most: wheels and data lie there packed and unpacked for a while."""
    libraries = missing.wheels + missing.unpacked + missing.cuda_wheels + missing.cuda_unpacked
    needs = {
        places.cache: libraries + (2 * pins.DATA_SIZE if missing.data else 0),
        places.target: pins.TARGET_SIZE if missing.program else 0,
        places.registry: missing.crates * pins.CRATE_UNPACKED,
    }
    return {path: size for path, size in needs.items() if size}


def memory_need(missing: Missing) -> int:
    return pins.COMPILE_MEMORY if missing.program else pins.UNPACK_MEMORY


def estimate(missing: Missing) -> str:
    """How long it takes. Downloads and the crates that do not need libtorch go on side by side, the rest after them;
    NVIDIA's libraries come after libtorch, beside the rest."""
    cores = machine.cores()
    libtorch_seconds = missing.wheels / pins.ASSUMED_RATE + pins.UNPACK_SECONDS if missing.unpacked else 0.0
    parts = [libtorch_seconds]
    if missing.data:
        parts.append(pins.DATA_SIZE / pins.ASSUMED_RATE)
    rest = 0.0
    if missing.program:
        parts.append(max(pins.CRATES_CORE_SECONDS / cores, pins.CRATES_LEAST_SECONDS))
        rest = max(pins.BUILD_CORE_SECONDS / cores, pins.BUILD_LEAST_SECONDS)
    total = max(parts) + rest
    if missing.cuda_unpacked:
        cuda_seconds = missing.cuda_wheels / pins.ASSUMED_RATE + pins.CUDA_UNPACK_SECONDS
        total = max(total, libtorch_seconds + cuda_seconds)
    about = f"{total / 60:.0f} minutes" if total > 90 else "a minute" if total > 30 else "half a minute"
    fetches = missing.wheels or missing.cuda_wheels or missing.data
    rate = f", at {megabytes(pins.ASSUMED_RATE)} a second" if fetches else ""
    return f"about {about} on {'1 core' if cores == 1 else f'{cores} cores'}{rate}"


def demand(missing: Missing, places: Places, console: Console) -> None:
    """Ends the set-up with all that the machine lacks for it, in one sentence; too little memory is only a warning."""
    if missing.unpacked or missing.cuda or missing.data:
        make_folder(places.cache)
    lacks = machine.unfit()
    if missing.wheels or missing.cuda_wheels:
        lacks += machine.lacks_pip()
    if missing.program or missing.rebuild:
        lacks += machine.lacks_compilers(places.root / "Cargo.toml")
    lacks += machine.lacks_disk(disk_needs(missing, places))
    if lacks:
        raise SetupError(f"this machine lacks {'; and '.join(lacks)}")
    if (missing.program or missing.rebuild) and not os.access(existing(places.target), os.W_OK):
        raise SetupError(f"{places.target} cannot be written: set CARGO_TARGET_DIR to a folder that can")
    has, needs = machine.memory(), memory_need(missing)
    if missing.heavy and 0 < has < needs:
        console.say(f"mpt: only {megabytes(has)} of memory are available; if compiling dies, set CARGO_BUILD_JOBS=1")

"""PyTorch and numpy in a virtual environment in the cache: whole, or not there."""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
from pathlib import Path

from setup_steps import machine
from setup_steps.children import Children
from setup_steps.console import Console, SetupError, megabytes
from setup_steps.index import Index
from setup_steps.pins import ASSUMED_RATE, LIBTORCH_VERSION, MB
from setup_steps.places import Places, locked, make_folder

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
PART = "PyTorch"
STAMP = ".complete"
# The newest Python that the pinned wheels are for.
NEWEST_PYTHON = (3, 14)

# As measured: PyTorch's wheel is the one for CUDA, which loads only with all of CUDA's libraries beside it.
DOWNLOAD = 2_760 * MB
UNPACKED = 5_050 * MB
UNPACK_SECONDS = 60


def prepare(places: Places, console: Console, children: Children) -> Path:
    """Installs what is not there yet; gives the environment's Python."""
    home = places.cache / f"pytorch-{LIBTORCH_VERSION}"
    if not ready(home):
        demand(places)
        console.say(announcement(places))
        with locked(places, PART, console, children.check):
            if not ready(home):
                install(home, places, console, children)
        console.status(PART, "")
    return home / "bin" / "python"


def ready(home: Path) -> bool:
    """Whether the environment is whole, of these pins, and for the Python that asks."""
    stamp = home / STAMP
    return (home / "bin" / "python").exists() and stamp.exists() and stamp.read_text(encoding="ascii") == identity()


def identity() -> str:
    """What an environment is made of."""
    pins = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    return f"requirements {pins} for Python {sys.version_info[0]}.{sys.version_info[1]}\n"


def announcement(places: Places) -> str:
    """What is going to happen, what it takes, and what the machine has."""
    minutes = (DOWNLOAD / ASSUMED_RATE + UNPACK_SECONDS) / 60
    disk = f"{megabytes(UNPACKED)}, and {megabytes(DOWNLOAD)} for a while, in {places.cache}"
    return "\n".join(
        [
            f"mpt: installing PyTorch {LIBTORCH_VERSION} to compare with; mpt itself does not need it",
            f"  download  {megabytes(DOWNLOAD)}",
            f"  disk      {disk} ({megabytes(machine.free_disk(places.cache))} free)",
            f"  time      about {minutes:.0f} minutes, at {megabytes(ASSUMED_RATE)} a second",
        ]
    )


def demand(places: Places) -> None:
    """Ends the call with all that the machine lacks, in one sentence."""
    make_folder(places.cache)
    lacks = machine.unfit() + machine.lacks_pip() + machine.lacks_disk({places.cache: DOWNLOAD + UNPACKED})
    if sys.version_info[:2] > NEWEST_PYTHON:
        lacks.append(f"a python3 that the pinned PyTorch is for, that is up to {NEWEST_PYTHON[0]}.{NEWEST_PYTHON[1]}")
    if lacks:
        raise SetupError(f"this machine lacks {'; and '.join(lacks)}")


def install(home: Path, places: Places, console: Console, children: Children) -> None:
    """Makes the environment beside its place and moves the whole there. An environment can be moved as long as only
    its Python is called: nothing but the scripts in its bin, which nobody calls, holds its path."""
    scratch = home.with_name(home.name + ".part")
    shutil.rmtree(scratch, ignore_errors=True)
    console.status(PART, "asking the package index")
    # Without a pip of its own: not every Python can make one, and the one that calls serves.
    made = children.run([sys.executable, "-m", "venv", "--without-pip", str(scratch)])
    if made.code != 0:
        raise SetupError(f"python3 cannot make a virtual environment ({made.lines[-1] if made.lines else made.code})")
    temporary = scratch / "temporary"
    temporary.mkdir()

    def tell(line: str) -> None:
        wheel = re.match(r"\s*Downloading (?:\S*/)?(\S+\.whl)(?:\.metadata)?(.*)", line)
        if wheel:
            console.status(PART, f"downloading {wheel.group(1)}{wheel.group(2)}")
        elif line.startswith("Installing"):
            console.status(PART, "unpacking")

    Index(places, children).install(scratch / "bin" / "python", REQUIREMENTS, temporary, tell)
    shutil.rmtree(temporary)
    (scratch / STAMP).write_text(identity(), encoding="ascii")
    shutil.rmtree(home, ignore_errors=True)
    scratch.rename(home)

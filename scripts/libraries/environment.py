"""Libraries in virtual environments of the cache: each whole, or not there."""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
from pathlib import Path
from typing import NamedTuple, Sequence

from setup_steps import machine
from setup_steps.children import Children
from setup_steps.console import Console, SetupError, megabytes
from setup_steps.index import Index
from setup_steps.machine import dotted
from setup_steps.pins import ASSUMED_RATE, LIBTORCH_VERSION, MB
from setup_steps.places import Places, locked, make_folder

HERE = Path(__file__).resolve().parent
STAMP = ".complete"
# The Pythons that the pinned wheels are for: all from the first to the second.
PYTHONS = ((3, 11), (3, 14))


class Library(NamedTuple):
    """A library with all that it needs, in a virtual environment of its own."""

    name: str
    version: str
    pins: Path
    download: int  # bytes, as measured
    unpacked: int
    unpack_seconds: int
    base: Library | None = None  # whose environment this one sees too

    def home(self, places: Places) -> Path:
        """Where it lies. Other Pythons need other wheels."""
        return places.cache / f"{self.name.lower()}-{self.version}-python{dotted(sys.version_info[:2])}"

    def identity(self) -> str:
        """What it is made of: its pins, whatever is said beside them."""
        pins = re.sub("^#.*\n", "", self.pins.read_text(encoding="ascii"), flags=re.MULTILINE)
        return f"pins {hashlib.sha256(pins.encode()).hexdigest()}\n"

    def ready(self, places: Places) -> bool:
        """Whether it is there, whole and of these pins."""
        stamp = self.home(places) / STAMP
        return python_of(self.home(places)).exists() and stamp.exists() and stamp.read_text() == self.identity()


# PyTorch's wheel is the one for CUDA, which loads only with all of CUDA's libraries beside it.
PYTORCH = Library("PyTorch", LIBTORCH_VERSION, HERE / "pytorch.txt", 2_760 * MB, 5_050 * MB, 60)
JAX = Library("JAX", "0.10.2", HERE / "jax.txt", 125 * MB, 550 * MB, 10, base=PYTORCH)
TORCHVISION = Library("torchvision", "0.28.0", HERE / "torchvision.txt", 38 * MB, 130 * MB, 5, base=PYTORCH)
SAFETENSORS = Library("safetensors", "0.8.0", HERE / "safetensors.txt", MB // 2, 2 * MB, 1, base=PYTORCH)
TENSORBOARD = Library("TensorBoard", "2.21.0", HERE / "tensorboard.txt", 45 * MB, 165 * MB, 10)


def prepare(library: Library, places: Places, console: Console, children: Children) -> Path:
    """Installs what is not there yet, what the library builds on first; gives the Python that has it all."""
    missing = [each for each in chain(library) if not each.ready(places)]
    if missing:
        demand(missing, places)
        console.say(announcement(missing, places))
    for each in missing:
        with locked(places, each.name, console, children.check):
            if not each.ready(places):
                install(each, places, console, children)
        console.status(each.name, "")
    return python_of(library.home(places))


def chain(library: Library) -> list[Library]:
    """The library, and before it what it builds on."""
    return [*(chain(library.base) if library.base else []), library]


def announcement(missing: Sequence[Library], places: Places) -> str:
    """What is going to happen, what it takes, and what the machine has."""
    download, unpacked = sum(each.download for each in missing), sum(each.unpacked for each in missing)
    minutes = (download / ASSUMED_RATE + sum(each.unpack_seconds for each in missing)) / 60
    about = f"{minutes:.0f} minutes" if minutes > 1.5 else "a minute"
    disk = f"{megabytes(unpacked)}, and {megabytes(download)} for a while, in {places.cache}"
    return "\n".join(
        [
            f"mpt: installing {' and '.join(f'{each.name} {each.version}' for each in missing)} to compare with; "
            f"mpt itself does not need {'it' if len(missing) == 1 else 'them'}",
            f"  download  {megabytes(download)}",
            f"  disk      {disk} ({megabytes(machine.free_disk(places.cache))} free)",
            f"  time      about {about}, at {megabytes(ASSUMED_RATE)} a second",
        ]
    )


def demand(missing: Sequence[Library], places: Places) -> None:
    """Ends the call with all that the machine lacks, in one sentence."""
    make_folder(places.cache)
    needs = sum(each.download + each.unpacked for each in missing)
    lacks = machine.unfit() + machine.lacks_pip() + machine.lacks_disk({places.cache: needs})
    first, last = PYTHONS
    if not first <= sys.version_info[:2] <= last:
        names = " and ".join(each.name for each in missing)
        lacks.append(
            f"a python3 that the pinned {names} are for, from {dotted(first)} to {dotted(last)} "
            f"(this is {dotted(sys.version_info[:2])})"
        )
    if lacks:
        raise SetupError(f"this machine lacks {'; and '.join(lacks)}")


def install(library: Library, places: Places, console: Console, children: Children) -> None:
    """Makes the environment beside its place and moves the whole there. An environment can be moved as long as only
    its Python is called: nothing but the scripts in its bin, which nobody calls, holds its path."""
    home = library.home(places)
    scratch = home.with_name(home.name + ".part")
    shutil.rmtree(scratch, ignore_errors=True)
    console.status(library.name, "asking the package index")
    # Without a pip of its own: not every Python can make one, and the one that calls serves.
    made = children.run([sys.executable, "-m", "venv", "--without-pip", str(scratch)])
    if made.code != 0:
        raise SetupError(f"python3 cannot make a virtual environment ({made.lines[-1] if made.lines else made.code})")
    temporary = scratch / "temporary"
    temporary.mkdir()

    def tell(line: str) -> None:
        wheel = re.match(r"\s*Downloading (?:\S*/)?(\S+\.whl)(?:\.metadata)?(.*)", line)
        if wheel:
            console.status(library.name, f"downloading {wheel.group(1)}{wheel.group(2)}")
        elif line.startswith("Installing"):
            console.status(library.name, "unpacking")

    Index(places, children).install(python_of(scratch), library.pins, temporary, tell)
    shutil.rmtree(temporary)
    if library.base:
        # A line of such a file is one more folder that packages are looked for in.
        (packages_of(scratch) / "base.pth").write_text(f"{packages_of(library.base.home(places))}\n")
    (scratch / STAMP).write_text(library.identity(), encoding="ascii")
    shutil.rmtree(home, ignore_errors=True)
    scratch.rename(home)


def python_of(environment: Path) -> Path:
    return environment / "bin" / "python"


def packages_of(environment: Path) -> Path:
    """Where a virtual environment has its packages."""
    return environment / "lib" / f"python{dotted(sys.version_info[:2])}" / "site-packages"

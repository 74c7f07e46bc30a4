"""libtorch in the cache: downloaded as wheels, unpacked whole, with a link directory for the build."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from . import wheels
from .children import Children
from .console import Console, SetupError
from .pins import LIBTORCH_VERSION, LIBTORCH_WHEELS
from .places import Places, locked

PART = "libtorch"
STAMP = ".complete"

# What torch-sys and build.rs see. libtorch.so is another name of libtorch_cpu.so, and nothing of CUDA is there:
# torch-sys links libtorch_cuda.so whenever it lies beside the libraries, and a machine without CUDA could not load it.
LINKS = {
    "include": "../torch/include",
    "lib/libtorch_cpu.so": "../../torch/lib/libtorch_cpu.so",
    "lib/libc10.so": "../../torch/lib/libc10.so",
    "lib/libtorch.so": "../../torch/lib/libtorch_cpu.so",
}


def home(places: Places) -> Path | None:
    """The libtorch that the repository's link leads to, in this cache or another."""
    return places.link.resolve().parent if places.link.is_symlink() else None


def ready(places: Places) -> bool:
    """Whether the link leads to a whole libtorch of the pinned version."""
    linked = home(places)
    return linked is not None and linked.name == places.libtorch.name and (linked / STAMP).exists()


def prepare(places: Places, console: Console, children: Children) -> None:
    """Brings libtorch into the cache and points the repository's link at it."""
    if not (places.libtorch / STAMP).exists():
        if not whole(places.libtorch):
            with locked(places, PART, console, children.check):
                if not whole(places.libtorch):
                    wheels.fetch(LIBTORCH_WHEELS, PART, places, console, children)
                    unpack(places, console, children)
                    wheels.discard(LIBTORCH_WHEELS, places)
        stamp(places.libtorch)
    point(places)
    console.status(PART, "")


def whole(folder: Path) -> bool:
    """Whether every file of the wheels is there."""
    return wheels.whole(folder, LIBTORCH_WHEELS)


def unpack(places: Places, console: Console, children: Children) -> None:
    """Unpacks the wheels beside their place and moves the whole there, so that no half-unpacked folder has its name."""
    scratch = places.libtorch.with_name(places.libtorch.name + ".part")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    for wheel in LIBTORCH_WHEELS:
        wheels.extract(wheel, PART, scratch, places, console, children)
    shutil.rmtree(places.libtorch, ignore_errors=True)
    scratch.rename(places.libtorch)


def stamp(folder: Path) -> None:
    """Makes the link directory, and last the stamp that says the folder is whole."""
    try:
        for name, target in LINKS.items():
            link = folder / "link" / name
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                link.symlink_to(target)
        (folder / STAMP).write_text(f"libtorch {LIBTORCH_VERSION}\n", encoding="ascii")
    except OSError as error:
        # A cache that is shared read-only serves as well, only checked anew each time.
        if error.errno not in (errno.EROFS, errno.EACCES):
            raise


def point(places: Places) -> None:
    """Points the repository's link at the cache's link directory."""
    target = places.libtorch / "link"
    if places.link.is_symlink() and os.readlink(places.link) == str(target):
        return
    if places.link.exists() and not places.link.is_symlink():
        raise SetupError(f"{places.link} is not the link that set-up makes: move it away and run again")
    fresh = places.link.with_name(".libtorch.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(places.link)

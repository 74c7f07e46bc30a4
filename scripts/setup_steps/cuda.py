"""What makes libtorch whole on a machine with GPUs. PyTorch's wheel is the CUDA build; what it lacks are NVIDIA's
libraries, unpacked here beside it, where libtorch_cuda.so looks for them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Sequence

from . import libtorch, wheels
from .children import Children
from .console import Console, SetupError
from .pins import Wheel
from .places import Places, locked, make_folder

PART = "NVIDIA's libraries"

# cudarc asks the loader for libnccl.so, a name that the wheel does not have, and the wheel stays as it is. build.rs tells
# programs of this folder.
NCCL_LINK = "link/cuda/libnccl.so"
NCCL_TARGET = "../../nvidia/nccl/lib/libnccl.so.2"


def home(places: Places) -> Path:
    """The libtorch to complete: the one that the repository uses, or is about to."""
    linked = libtorch.home(places)
    return linked if linked is not None and libtorch.ready(places) else places.libtorch


def lacking(places: Places, wanted: Sequence[Wheel]) -> list[Wheel]:
    """Those of the wanted wheels that libtorch's folder does not hold whole."""
    return wheels.lacking(home(places), wanted)


def ready(places: Places, wanted: Sequence[Wheel]) -> bool:
    """Whether the wanted wheels are unpacked and NCCL has its second name."""
    return not wanted or (not lacking(places, wanted) and (home(places) / NCCL_LINK).exists())


def prepare(places: Places, wanted: Sequence[Wheel], console: Console, children: Children) -> None:
    """Brings what is missing of the wanted wheels into libtorch's folder, which must be there."""
    folder = home(places)
    with locked(places, libtorch.PART, console, children.check):
        missing = lacking(places, wanted)
        make_folder(folder)
        wheels.fetch(missing, PART, places, console, children)
        for wheel in missing:
            unpack(wheel, folder, places, console, children)
            wheels.discard([wheel], places)
        name_nccl(folder)
    console.status(PART, "")


def unpack(wheel: Wheel, folder: Path, places: Places, console: Console, children: Children) -> None:
    """Adds a wheel's files to what is there. Its own list comes last, without which nothing of it counts."""
    scratch = folder.with_name(folder.name + ".part")
    shutil.rmtree(scratch, ignore_errors=True)
    wheels.extract(wheel, PART, scratch, places, console, children)
    record = scratch / wheels.record_of(wheel)
    for path in sorted(scratch.rglob("*"), key=record.__eq__):
        if not path.is_dir():
            place = folder / path.relative_to(scratch)
            place.parent.mkdir(parents=True, exist_ok=True)
            path.replace(place)
    shutil.rmtree(scratch)


def name_nccl(folder: Path) -> None:
    link = folder / NCCL_LINK
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink() or os.readlink(link) != NCCL_TARGET:
        link.unlink(missing_ok=True)
        link.symlink_to(NCCL_TARGET)
    if not link.exists():
        raise SetupError(f"{link} leads nowhere: the wheel of NCCL has its library in another place", code=1)

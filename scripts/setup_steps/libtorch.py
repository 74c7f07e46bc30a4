"""libtorch in the cache: downloaded as wheels, unpacked whole, with a link directory for the build."""

from __future__ import annotations

import csv
import errno
import os
import shutil
import urllib.request
import zipfile
from pathlib import Path
from typing import Iterator

from .children import Children
from .console import Console, SetupError, megabytes
from .download import File, Refused, download, size_of, verify
from .index import Index
from .pins import LIBTORCH_DOWNLOAD, LIBTORCH_VERSION, LIBTORCH_WHEELS, Wheel
from .places import Places, locked, make_folder

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
                    fetch(places, console, children)
                    unpack(places, console, children)
                    shutil.rmtree(places.wheels)
        stamp(places.libtorch)
    point(places)
    console.status(PART, "")


def whole(folder: Path) -> bool:
    """Whether every file is there in the size that the wheels' own lists give it: a check of a tenth of a second."""
    lists = [folder / f"{distribution(wheel)}.dist-info" / "RECORD" for wheel in LIBTORCH_WHEELS]
    return all(path.exists() for path in lists) and all(
        size_of(folder / name) == size for path in lists for name, size in recorded(path)
    )


def bytes_left(places: Places) -> int:
    """How much of the wheels is still to be downloaded."""
    here = (places.wheels / wheel.file for wheel in LIBTORCH_WHEELS)
    return LIBTORCH_DOWNLOAD - sum(size_of(path) or size_of(path.with_name(path.name + ".part")) for path in here)


def distribution(wheel: Wheel) -> str:
    """`torch-2.13.0` of the file name: what its metadata folder is called."""
    return "-".join(wheel.file.split("-")[:2])


def recorded(path: Path) -> Iterator[tuple[str, int]]:
    """The files of a RECORD that have a size. Those above the folder are pip's own additions, scripts for a PATH."""
    with open(path, newline="", encoding="utf-8") as file:
        for name, _, size in csv.reader(file):
            if size and not name.startswith(".."):
                yield name, int(size)


def fetch(places: Places, console: Console, children: Children) -> None:
    """Downloads the wheels that are not there yet, each checked."""
    make_folder(places.wheels)
    missing = [wheel for wheel in LIBTORCH_WHEELS if not there(places, wheel)]
    if not missing:
        return
    console.status(PART, "asking the package index")
    index = Index(places, children)
    urls = index.locate(missing)
    opener = index.opener() if urls else None
    left = []
    for wheel in missing:
        url = urls.get(wheel.file)
        if opener is None or url is None or not received(wheel, url, opener, places, console, children):
            left.append(wheel)
    if left:
        console.say("mpt: this package index does not let files be fetched in parts, so pip fetches them in one piece")
        console.status(PART, f"pip downloads {megabytes(sum(wheel.size for wheel in left))}")
        index.download(left, places.wheels)
        for wheel in left:
            verify(places.wheels / wheel.file, as_file(wheel, places))


def there(places: Places, wheel: Wheel) -> bool:
    """Whether an earlier run has downloaded this wheel; a damaged one is deleted and fetched again."""
    path = places.wheels / wheel.file
    if not path.exists():
        return False
    try:
        verify(path, as_file(wheel, places))
    except SetupError:
        return False
    return True


def as_file(wheel: Wheel, places: Places, url: str = "") -> File:
    return File(url, places.wheels / wheel.file, wheel.size, wheel.sha256)


def received(
    wheel: Wheel,
    url: str,
    opener: urllib.request.OpenerDirector,
    places: Places,
    console: Console,
    children: Children,
) -> bool:
    """Downloads one wheel in a way that can be interrupted; false if the server wants more than a plain request."""
    before = sum(size_of(places.wheels / other.file) for other in LIBTORCH_WHEELS)

    def tell(done: int) -> None:
        console.status(PART, f"{megabytes(before + done)} of {megabytes(LIBTORCH_DOWNLOAD)}")

    try:
        download(as_file(wheel, places, url), opener, tell, children.check)
    except Refused:
        return False
    return True


def unpack(places: Places, console: Console, children: Children) -> None:
    """Unpacks the wheels beside their place and moves the whole there, so that no half-unpacked folder has its name."""
    scratch = places.libtorch.with_name(places.libtorch.name + ".part")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    for wheel in LIBTORCH_WHEELS:
        with zipfile.ZipFile(places.wheels / wheel.file) as archive:
            for member in archive.infolist():
                children.check()
                archive.extract(member, scratch)
                if member.file_size > 10_000_000:
                    console.status(PART, f"unpacking {Path(member.filename).name}")
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

"""Wheels of the package index: downloaded so that it can be interrupted, checked, and known by what they unpack to."""

from __future__ import annotations

import csv
import urllib.request
import zipfile
from pathlib import Path
from typing import Callable, Iterator, Sequence

from .children import Children
from .console import Console, SetupError, megabytes
from .download import File, Refused, download, size_of, verify
from .index import Index
from .pins import Wheel
from .places import Places, make_folder


def whole(folder: Path, wheels: Sequence[Wheel]) -> bool:
    """Whether every file is there in the size that the wheels' own lists give it: a check of a tenth of a second."""
    return not lacking(folder, wheels)


def lacking(folder: Path, wheels: Sequence[Wheel]) -> list[Wheel]:
    """The wheels that a folder does not hold whole."""
    return [wheel for wheel in wheels if not holds(folder, wheel)]


def holds(folder: Path, wheel: Wheel) -> bool:
    record = folder / record_of(wheel)
    return record.exists() and all(size_of(folder / name) == size for name, size in recorded(record))


def record_of(wheel: Wheel) -> str:
    """The list of a wheel's files, in the folder that is called like `torch-2.13.0` of the file name."""
    return f"{'-'.join(wheel.file.split('-')[:2])}.dist-info/RECORD"


def recorded(path: Path) -> Iterator[tuple[str, int]]:
    """The files of a RECORD that have a size. Those above the folder are pip's own additions, scripts for a PATH."""
    with open(path, newline="", encoding="utf-8") as file:
        for name, _, size in csv.reader(file):
            if size and not name.startswith(".."):
                yield name, int(size)


def total(wheels: Sequence[Wheel]) -> int:
    return sum(wheel.size for wheel in wheels)


def bytes_left(places: Places, wheels: Sequence[Wheel]) -> int:
    """How much of the wheels is still to be downloaded."""
    here = (places.wheels / wheel.file for wheel in wheels)
    return total(wheels) - sum(size_of(path) or size_of(path.with_name(path.name + ".part")) for path in here)


def fetch(wheels: Sequence[Wheel], part: str, places: Places, console: Console, children: Children) -> None:
    """Downloads the wheels that are not there yet, each checked."""
    make_folder(places.wheels)
    missing = [wheel for wheel in wheels if not there(places, wheel)]
    if not missing:
        return
    console.status(part, "asking the package index")
    index = Index(places, children)
    urls = index.locate(missing)
    opener = index.opener() if urls else None
    left = []
    for wheel in missing:
        url = urls.get(wheel.file)
        before = sum(size_of(places.wheels / other.file) for other in wheels)
        tell = progress(part, before, total(wheels), console)
        if opener is None or url is None or not received(as_file(wheel, places, url), opener, tell, children):
            left.append(wheel)
    if left:
        console.say("mpt: this package index does not let files be fetched in parts, so pip fetches them in one piece")
        console.status(part, f"pip downloads {megabytes(total(left))}")
        index.download(left, places.wheels)
        for wheel in left:
            verify(places.wheels / wheel.file, as_file(wheel, places))


def progress(part: str, before: int, of: int, console: Console) -> Callable[[int], None]:
    """Tells how far a download is that has others before it."""
    return lambda done: console.status(part, f"{megabytes(before + done)} of {megabytes(of)}")


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
    file: File, opener: urllib.request.OpenerDirector, tell: Callable[[int], None], children: Children
) -> bool:
    """Downloads one wheel in a way that can be interrupted; false if the server wants more than a plain request."""
    try:
        download(file, opener, tell, children.check)
    except Refused:
        return False
    return True


def extract(wheel: Wheel, part: str, folder: Path, places: Places, console: Console, children: Children) -> None:
    """Unpacks a wheel that was fetched."""
    with zipfile.ZipFile(places.wheels / wheel.file) as archive:
        for member in archive.infolist():
            children.check()
            archive.extract(member, folder)
            if member.file_size > 10_000_000:
                console.status(part, f"unpacking {Path(member.filename).name}")


def discard(wheels: Sequence[Wheel], places: Places) -> None:
    """Deletes wheels that are unpacked."""
    for wheel in wheels:
        (places.wheels / wheel.file).unlink(missing_ok=True)
    if places.wheels.is_dir() and not any(places.wheels.iterdir()):
        places.wheels.rmdir()

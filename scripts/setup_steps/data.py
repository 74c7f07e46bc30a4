"""Fashion-MNIST: four files in the cache, whichever source gives them, known by the checksums of their contents."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import urllib.request
import zlib
from pathlib import Path
from typing import Iterator

from .children import Children, Outcome
from .console import Console, SetupError
from .download import Broken, File, Refused, download
from .pins import DEBIAN_FOLDER, DEBIAN_PACKAGE, FASHION_MNIST, FASHION_MNIST_MIRRORS
from .places import Places, locked, make_folder

PART = "Fashion-MNIST"
STAMP = ".complete"

# A folder of the web or of this machine (file://) that holds the four files: asked instead of all other sources.
MIRROR_VARIABLE = "MPT_FASHION_MNIST_MIRROR"

APT_SECONDS = 300
APT_PATIENCE = ("-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=20", "-o", "Acquire::https::Timeout=20")


class Lacking(Exception):
    """A source that does not have the data set, and why."""


def ready(places: Places) -> bool:
    """Whether the four files are there and were found right."""
    return all((places.data / name).exists() for name in (STAMP, *FASHION_MNIST))


def prepare(places: Places, console: Console, children: Children) -> None:
    """Brings the data set into the cache from the nearest source that has it; files put there by hand count."""
    folder = places.data
    with locked(places, PART, console, children.check):
        if ready(places):
            return
        make_folder(folder)
        if any(fault(folder / name) for name in FASHION_MNIST):
            console.status(PART, "fetching")
            fetch(folder, children)
        (folder / STAMP).write_text("the four files have the pinned contents\n", encoding="ascii")
    console.status(PART, "")


def fetch(folder: Path, children: Children) -> None:
    """Asks the sources in turn and moves the files of the first that has them into the folder."""
    scratch = folder.with_name(folder.name + ".part")
    refusals = []
    for source in sources():
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        try:
            source.bring(scratch, children)
            faults = [wrong for wrong in (fault(scratch / name) for name in FASHION_MNIST) if wrong]
            if faults:
                raise Lacking(faults[0])
        except Lacking as why:
            refusals.append(f"{source.name}: {why}")
            continue
        for name in FASHION_MNIST:
            (scratch / name).replace(folder / name)
        shutil.rmtree(scratch)
        return
    shutil.rmtree(scratch, ignore_errors=True)
    raise SetupError(
        f"Fashion-MNIST could not be had: install the Debian package {DEBIAN_PACKAGE}, or put its four files "
        f"(*-ubyte.gz) into {folder}, or train on made-up images with --set data.source=synthetic\n"
        + "\n".join(f"  {refusal}" for refusal in refusals)
    )


class Installed:
    """The data set as a Debian package that is installed: linked to, not copied."""

    name = f"/{DEBIAN_FOLDER}"

    def bring(self, folder: Path, children: Children) -> None:
        home = Path(self.name)
        if not home.is_dir():
            raise Lacking("no such folder")
        for file in FASHION_MNIST:
            (folder / file).symlink_to(home / file)


class Package:
    """The Debian package, downloaded and unpacked without being installed: that needs no root."""

    name = f"apt-get download {DEBIAN_PACKAGE}"

    def bring(self, folder: Path, children: Children) -> None:
        if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
            raise Lacking("this system has no apt-get")
        outcome = self._apt(folder, children, "download", DEBIAN_PACKAGE)
        if outcome.code != 0:
            # The system's package lists are missing or old. Fresh ones go into a folder of our own: that needs no root
            # and leaves the system as it is.
            lists = folder / "lists"
            (lists / "partial").mkdir(parents=True)
            private = (
                "-o",
                f"Dir::State::Lists={lists}/",
                "-o",
                f"Dir::Cache={folder}/cache/",
                "-o",
                "APT::Sandbox::User=",
            )
            self._apt(folder, children, *private, "update")
            outcome = self._apt(folder, children, *private, "download", DEBIAN_PACKAGE)
        packages = list(folder.glob(f"{DEBIAN_PACKAGE}_*.deb"))
        if outcome.code != 0 or not packages:
            raise Lacking((outcome.lines or ["no answer"])[-1])
        outcome = children.run(["dpkg-deb", "--extract", str(packages[0]), str(folder)])
        if outcome.code != 0:
            raise Lacking((outcome.lines or ["dpkg-deb failed"])[-1])
        for file in FASHION_MNIST:
            if (folder / DEBIAN_FOLDER / file).exists():
                (folder / DEBIAN_FOLDER / file).rename(folder / file)

    @staticmethod
    def _apt(folder: Path, children: Children, *arguments: str) -> Outcome:
        command = ["apt-get", "--quiet=2", *APT_PATIENCE, *arguments]
        return children.run(command, folder=str(folder), limit=APT_SECONDS)


class Mirror:
    """A folder of the web."""

    def __init__(self, url: str) -> None:
        self.name = url
        self.url = url if url.endswith("/") else url + "/"

    def bring(self, folder: Path, children: Children) -> None:
        opener = urllib.request.build_opener()
        for name in FASHION_MNIST:
            try:
                download(File(self.url + name, folder / name), opener, lambda done: None, children.check, tries=2)
            except Broken as error:
                raise Lacking(f"no connection ({error.why})") from error
            except (Refused, ValueError) as error:
                raise Lacking(str(error)) from error


def sources() -> Iterator[Installed | Package | Mirror]:
    """The places to look in, the nearest first."""
    mirror = os.environ.get(MIRROR_VARIABLE)
    if mirror:
        yield Mirror(mirror)
        return
    yield Installed()
    yield Package()
    for url in FASHION_MNIST_MIRRORS:
        yield Mirror(url)


def fault(path: Path) -> str:
    """What is wrong with a file of the data set; empty if it holds exactly what it should."""
    digest = hashlib.sha256()
    try:
        with gzip.open(path, "rb") as file:
            for chunk in iter(lambda: file.read(1 << 20), b""):
                digest.update(chunk)
    except FileNotFoundError:
        return f"{path.name} is missing"
    except (OSError, EOFError, zlib.error) as error:
        return f"{path.name} cannot be read ({error})"
    return "" if digest.hexdigest() == FASHION_MNIST[path.name] else f"{path.name} has other contents"

"""Where everything lies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import Iterator, NamedTuple

from .console import Console, SetupError
from .pins import LIBTORCH_VERSION


class Places(NamedTuple):
    """The repository, the cache, and the folder that cargo builds in."""

    root: Path
    cache: Path
    target: Path

    @classmethod
    def from_environment(cls, root: Path) -> "Places":
        """XDG_CACHE_HOME counts only if it is absolute, as its specification says; CARGO_TARGET_DIR as for cargo."""
        cache = os.environ.get("XDG_CACHE_HOME", "")
        base = Path(cache) if os.path.isabs(cache) else Path.home() / ".cache"
        target = os.environ.get("CARGO_TARGET_DIR", "")
        return cls(root, base / "mpt", Path(os.path.abspath(target)) if target else root / "target")

    @property
    def libtorch(self) -> Path:
        """The unpacked wheels; `link` in it is what the build sees."""
        return self.cache / f"libtorch-{LIBTORCH_VERSION}"

    @property
    def wheels(self) -> Path:
        return self.cache / "wheels"

    @property
    def data(self) -> Path:
        return self.cache / "data" / "fashion-mnist"

    @property
    def link(self) -> Path:
        """The link to libtorch that .cargo/config.toml names."""
        return self.root / ".libtorch"

    @property
    def program(self) -> Path:
        return self.target / "release" / "mpt"

    @property
    def registry(self) -> Path:
        """Where cargo keeps the sources of crates."""
        return Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo") / "registry"


def existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    while not path.exists():
        path = path.parent
    return path


def make_folder(path: Path) -> None:
    """Makes a folder of the cache and sees that it can be written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(
            f"the cache folder {path} cannot be made ({error.strerror}): set XDG_CACHE_HOME to one that can be written"
        ) from error
    if not os.access(path, os.W_OK):
        raise SetupError(f"the cache folder {path} cannot be written: set XDG_CACHE_HOME to one that can")


@contextlib.contextmanager
def locked(places: Places, what: str, console: Console, check) -> Iterator[None]:
    """Holds the cache's lock on `what`, so that two set-ups at once do not write the same files.

    The lock ends with its process, so none is ever left behind.
    """
    make_folder(places.cache)
    with open(places.cache / f".{what}.lock", "w", encoding="ascii") as file:
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    console.say(f"mpt: another set-up is fetching {what}; waiting for it")
                    told = True
                check()
                time.sleep(0.3)
        yield

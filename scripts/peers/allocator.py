"""tcmalloc for the tuned programs.

glibc's malloc gives large blocks back to the system at once, so each step pays for their pages anew.
"""

from __future__ import annotations

import ctypes.util
import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from setup_steps.children import Children
from setup_steps.console import Console
from setup_steps.data import APT_PATIENCE
from setup_steps.places import Places

SONAME = "libtcmalloc_minimal.so.4"

# Debian's package, under both of its names. apt checks a file against its signed lists; a file that is known here must
# have our checksum as well.
PACKAGES = ("libtcmalloc-minimal4", "libtcmalloc-minimal4t64")
CHECKSUMS = {
    "libtcmalloc-minimal4_2.10-1_amd64.deb": "464aa2e804b0d48300ad71edfe525599deed8765db4af7a8d9de60326dc8e4c7",
}
APT_SECONDS = 60


def prepare(places: Places, console: Console, children: Children) -> str | None:
    """What LD_PRELOAD is to name: the cache's copy, fetched first if it can be, else the system's; none if neither."""
    kept = places.cache / "tcmalloc" / SONAME
    if not kept.exists():
        fetch(kept, children)
    for candidate in (str(kept) if kept.exists() else None, ctypes.util.find_library("tcmalloc_minimal")):
        if candidate and loads(candidate):
            return candidate
    console.say(
        "mpt: tcmalloc is not to be had (neither apt-get nor this system has a libtcmalloc_minimal that loads), so the "
        "tuned programs are left out"
    )
    return None


def fetch(kept: Path, children: Children) -> None:
    """Takes the library out of Debian's package, which needs no root; without apt or its lists nothing happens."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return
    with tempfile.TemporaryDirectory() as scratch:
        for package in PACKAGES:
            command = ["apt-get", *APT_PATIENCE, "download", package]
            children.run(command, folder=scratch, limit=APT_SECONDS)
            for file in Path(scratch).glob("*.deb"):
                wanted = CHECKSUMS.get(file.name)
                if wanted and hashlib.sha256(file.read_bytes()).hexdigest() != wanted:
                    return
                children.run(["dpkg-deb", "-x", str(file), scratch])
                for library in Path(scratch).glob(f"usr/lib/*/{SONAME}"):
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    part = kept.with_name(SONAME + ".part")
                    shutil.copyfile(library.resolve(), part)
                    part.replace(kept)
                    return


def loads(library: str) -> bool:
    """Whether a program that is told to load it really does: the loader only warns if it cannot."""
    outcome = subprocess.run(
        [sys.executable, "-c", "print('tcmalloc' in open('/proc/self/maps').read())"],
        env={"LD_PRELOAD": library},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    return outcome.stdout.strip() == "True"

"""The peers' Python: PyTorch and JAX in a virtual environment of the cache, pinned by checksums."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from setup_steps import machine
from setup_steps.children import Children
from setup_steps.console import Console, SetupError, megabytes
from setup_steps.pins import MB
from setup_steps.places import Places, locked, make_folder

PART = "peers"
STAMP = ".complete"
REQUIREMENTS = Path(__file__).resolve().parent / "requirements.txt"

# The requirements have the checksums of these Pythons' wheels.
PYTHONS = ((3, 11), (3, 12), (3, 13))

# A Python that has the libraries already, used as it is.
VARIABLE = "MPT_PEERS_PYTHON"

# PyTorch's wheel from the package index is the CUDA build, and will not be imported without CUDA's libraries. What the
# unpacked wheels take, and the largest wheel while it is being unpacked, as measured.
DISK = 5_900 * MB


def prepare(places: Places, console: Console, children: Children) -> Path:
    """The Python that runs the peers, installed first if it is not there."""
    given = os.environ.get(VARIABLE)
    if given:
        if not shutil.which(given):
            raise SetupError(f"{VARIABLE}={given} is no program")
        return Path(os.path.abspath(str(shutil.which(given))))
    if sys.version_info[:2] not in PYTHONS:
        known = ", ".join(f"{major}.{minor}" for major, minor in PYTHONS)
        raise SetupError(
            f"the peers are pinned for Python {known}, and this is {sys.version_info[0]}.{sys.version_info[1]}: "
            f"call scripts/compare-peers with one of those, or set {VARIABLE} to a Python that has PyTorch and JAX"
        )
    folder = home(places)
    if not (folder / STAMP).exists():
        with locked(places, PART, console, children.check):
            if not (folder / STAMP).exists():
                install(folder, console, children)
    return folder / "bin" / "python"


def home(places: Places) -> Path:
    """The virtual environment of these requirements and this Python; others have other names."""
    pins = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    return places.cache / f"peers-{pins}-python{sys.version_info[0]}.{sys.version_info[1]}"


def install(folder: Path, console: Console, children: Children) -> None:
    """Makes the environment with the pip that is here; the stamp comes last. An interrupted run goes on from there."""
    make_folder(folder.parent)
    lacks = machine.unfit() + machine.lacks_pip() + machine.lacks_disk({folder: DISK})
    if lacks:
        raise SetupError(f"this machine lacks {'; and '.join(lacks)}")
    console.say(f"mpt: installing PyTorch and JAX into {folder}: {megabytes(DISK)} of disk and some minutes")
    # Without a pip of its own: Debian's Python cannot make one before python3-venv is installed.
    command = [sys.executable, "-m", "venv", "--without-pip", str(folder)]
    outcome = children.run(command)
    if outcome.code != 0:
        raise SetupError(f"the virtual environment {folder} could not be made: {outcome.text}", code=1)
    outcome = children.run(
        [
            *(sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install"),
            *("--require-hashes", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--progress-bar=off"),
            f"--requirement={REQUIREMENTS}",
        ],
        on_line=lambda line: console.status(PART, line[:100]),
    )
    console.status(PART, "")
    if outcome.code != 0:
        raise SetupError(f"pip could not install the peers; it said last:\n{outcome.text}", code=1)
    (folder / STAMP).write_text(f"{REQUIREMENTS.name}\n", encoding="ascii")


def versions(python: Path) -> dict[str, str]:
    """What is installed there, as the libraries' own metadata say."""
    script = "from importlib.metadata import version as v; print(v('torch'), v('jax'), v('numpy'))"
    outcome = subprocess.run([str(python), "-c", script], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if outcome.returncode != 0:
        raise SetupError(f"{python} lacks PyTorch, JAX or NumPy: {outcome.stderr.strip().splitlines()[-1]}")
    return dict(zip(("torch", "jax", "numpy"), outcome.stdout.split()))

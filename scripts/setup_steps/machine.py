"""What the machine has, and what it lacks: each lack is a phrase with its remedy."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

from .console import megabytes
from .pins import LEAST_GLIBC
from .places import existing

CGROUP = Path("/sys/fs/cgroup")


def cores() -> int:
    """The cores this process may use: those it is bound to, or fewer if a container's quota says so."""
    bound = len(os.sched_getaffinity(0))
    quota = read(CGROUP / "cpu.max").split()
    if len(quota) == 2 and quota[0].isdigit():
        bound = min(bound, max(1, int(quota[0]) // int(quota[1])))
    return bound


def memory() -> int:
    """The bytes that can be had now, within a container's limit; 0 if the system does not tell."""
    match = re.search(r"^MemAvailable:\s+(\d+) kB", read(Path("/proc/meminfo")), re.MULTILINE)
    available = int(match.group(1)) * 1024 if match else 0
    limit, used = read(CGROUP / "memory.max").strip(), read(CGROUP / "memory.current").strip()
    if limit.isdigit() and used.isdigit():
        available = min(available, max(0, int(limit) - int(used)))
    return available


def free_disk(path: Path) -> int:
    return shutil.disk_usage(existing(path)).free


def read(path: Path) -> str:
    """A file's text, or nothing: what these files say only makes the estimates better."""
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""


def unfit() -> list[str]:
    """What rules this machine out altogether."""
    if platform.system() != "Linux" or platform.machine() not in ("x86_64", "AMD64"):
        return [f"an x86-64 Linux machine (this is {platform.system()} on {platform.machine()})"]
    name, version = platform.libc_ver()
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if name != "glibc" or numbers < LEAST_GLIBC:
        least = ".".join(str(number) for number in LEAST_GLIBC)
        return [f"the GNU C library {least} or newer, which libtorch needs (this is {name or 'another'} {version})"]
    return []


def lacks_pip() -> list[str]:
    outcome = subprocess.run([sys.executable, "-m", "pip", "--version"], stdin=subprocess.DEVNULL, capture_output=True)
    return [] if outcome.returncode == 0 else [f"pip for {sys.executable} (Debian: apt-get install python3-pip)"]


def lacks_compilers(manifest: Path) -> list[str]:
    """The tools of the build that are missing or too old for the manifest's `rust-version`."""
    lacks = []
    if not shutil.which(os.environ.get("CXX", "c++").split()[0]):
        lacks.append("a C++ compiler (Debian: apt-get install g++)")
    elif not shutil.which("cc"):
        lacks.append("a linker called cc (Debian: apt-get install gcc)")
    if not (shutil.which("cargo") and shutil.which("rustc")):
        return [*lacks, "Rust, that is cargo and rustc (install it with rustup)"]
    outcome = subprocess.run(
        ["rustc", "--version"], cwd=manifest.parent, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    has, needs = version(outcome.stdout), version(first(r'rust-version = "(.*)"', manifest.read_text(encoding="utf-8")))
    if outcome.returncode != 0:
        lacks.append(f"a rustc that runs (it says: {(outcome.stderr.strip() or 'nothing').splitlines()[-1]})")
    elif has < needs:
        lacks.append(f"Rust {dotted(needs)} or newer, for this is {dotted(has)} (`rustup update`)")
    return lacks


def lacks_disk(needs: dict[Path, int]) -> list[str]:
    """The file systems without room. What lies on the same one counts together."""
    together: dict[int, tuple[Path, int]] = {}
    for path, size in needs.items():
        device = existing(path).stat().st_dev
        first_path, sum_so_far = together.get(device, (path, 0))
        together[device] = (first_path, sum_so_far + size)
    return [
        f"disk space: {megabytes(size)} are needed on the file system of {path}, {megabytes(free_disk(path))} are free"
        for path, size in together.values()
        if size > free_disk(path)
    ]


def version(text: str) -> tuple[int, ...]:
    """The first two numbers: `rustc 1.95.0 (...)` is (1, 95)."""
    return tuple(int(number) for number in re.findall(r"\d+", text)[:2])


def dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(str(number) for number in numbers)


def first(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    return match.group(1) if match else ""

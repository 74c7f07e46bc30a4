"""What the machine has: driver, GPUs, NCCL, libtorch."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Mapping, NamedTuple, Sequence

from setup_steps import cuda, flavour, machine
from setup_steps.pins import CUDA_WHEELS, LIBTORCH_VERSION
from setup_steps.places import Places

PROBE = Path(__file__).with_name("probe.py")
# A driver that takes longer is broken; a healthy one that has slept takes some seconds.
PROBE_SECONDS = 60

# What changes how GPUs behave, and so belongs in a report.
TELLING = re.compile(r"(NCCL|CUDA|MPT|OMP|CUBLAS|CUDNN|PYTORCH|TORCH)_|LD_LIBRARY_PATH$")


class Gpu(NamedTuple):
    name: str
    memory: int  # bytes


class Found(NamedTuple):
    """What the driver and NCCL say of themselves."""

    lacks: str = ""  # what there would have to be for a GPU to be used; then nothing else is known of it
    cuda: str = ""  # the newest that the driver serves
    gpus: Sequence[Gpu] = ()
    nccl: str = ""
    nccl_path: str = ""


def look(environment: Mapping[str, str], places: Places) -> Found:
    """Asks in a process of its own, with the environment that mpt will have."""
    folders = [folder for folder in environment.get("LD_LIBRARY_PATH", "").split(":") if folder]
    files = [str(Path(folder) / "libnccl.so") for folder in folders] + [str(cuda.home(places) / cuda.NCCL_LINK)]
    try:
        told = subprocess.run(
            [sys.executable, "-B", str(PROBE), *files],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return Found(lacks=f"a driver that answers (it did not within {PROBE_SECONDS} s)")
    if told.returncode != 0:
        last = (told.stderr.strip().splitlines() or ["nothing"])[-1]
        return Found(lacks=f"a driver that works (asking it ended with exit code {told.returncode}: {last})")
    answer = json.loads(told.stdout)
    return Found(**{**answer, "gpus": [Gpu(**gpu) for gpu in answer.get("gpus", [])]})


def facts(found: Found, places: Places, environment: Mapping[str, str]) -> dict[str, str]:
    """What a report begins with."""
    complete = "with" if not cuda.lacking(places, CUDA_WHEELS) else "without"
    known = {
        "time": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "mpt": revision(places.root),
        "system": f"{platform.platform()}, {machine.cores()} cores, {machine.memory() / 2**30:.0f} GiB of memory free",
        "driver": machine.read(flavour.DRIVER_FILE).partition("\n")[0] or "its version is not told",
        "CUDA of the driver": found.cuda,
        **{f"GPU {number}": f"{gpu.name}, {gpu.memory / 2**30:.1f} GiB" for number, gpu in enumerate(found.gpus)},
        "NCCL": f"{found.nccl}, {found.nccl_path}" if found.nccl else "none was found",
        "libtorch": f"{LIBTORCH_VERSION} {complete} NVIDIA's libraries, {cuda.home(places)}",
    }
    return {**known, **{name: environment[name] for name in sorted(environment) if TELLING.match(name)}}


def revision(root: Path) -> str:
    """The commit, and whether files differ from it."""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    if not shutil.which("git"):
        return "unknown"
    told = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return told.stdout.strip() or "unknown"


def links() -> str:
    """How the GPUs are connected, in the words of the driver's own tool where it is installed."""
    tool = shutil.which("nvidia-smi")
    if not tool:
        return ""
    try:
        told = subprocess.run([tool, "topo", "-m"], capture_output=True, text=True, timeout=PROBE_SECONDS, env=plain())
    except subprocess.TimeoutExpired:
        return f"nvidia-smi did not answer within {PROBE_SECONDS} s"
    return told.stdout.strip()


def plain() -> dict[str, str]:
    return {**os.environ, "NO_COLOR": "1", "TERM": "dumb"}

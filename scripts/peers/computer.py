"""What the figures were measured on and with."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path

from setup_steps import machine


def describe(mpt: Path, versions: dict[str, str], tuning: dict[str, str]) -> dict:
    """The machine, the versions, and the environment that the tuned programs get."""
    processor = re.search(r"^model name\s*:\s*(.*)$", machine.read(Path("/proc/cpuinfo")), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s+(\d+) kB", machine.read(Path("/proc/meminfo")), re.MULTILINE)
    return {
        "processor": processor.group(1) if processor else platform.processor(),
        "cores": machine.cores(),
        "memory_bytes": int(memory.group(1)) * 1024 if memory else None,
        "system": f"{platform.system()} {platform.release()}",
        "load_before": os.getloadavg()[0],
        "mpt": revision(mpt),
        **versions,
        "tuning": tuning,
    }


def revision(mpt: Path) -> str:
    """The commit of the repository that the program lies in, which it was made from if it is up to date."""
    command = ["git", "-C", str(mpt.parent), "describe", "--always", "--dirty"]
    try:
        outcome = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except OSError:
        return str(mpt)
    return outcome.stdout.strip() or str(mpt)


def sentence(computer: dict) -> str:
    """One line for people."""
    memory = f", {computer['memory_bytes'] / 1e9:.0f} GB" if computer["memory_bytes"] else ""
    versions = ", ".join(f"{name} {computer[name]}" for name in ("mpt", "torch", "jax") if name in computer)
    return f"{computer['processor']}, {computer['cores']} cores{memory}; {versions}; load {computer['load_before']:.1f}"

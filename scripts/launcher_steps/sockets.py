"""Who listens at which port, as the kernel tells it for each process's network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Iterable

LISTENING = "0A"  # TCP_LISTEN of the kernel's tcp_states.h


def listening(processes: Iterable[int], program: str) -> list[int]:
    """The TCP ports at which those of the processes listen that run a program."""
    ports = []
    for process in processes:
        folder = Path(f"/proc/{process}")
        try:
            if (folder / "exe").resolve().name == program:
                held = {os.readlink(entry) for entry in (folder / "fd").iterdir()}
                ports += [port for port, socket in sockets(folder) if socket in held]
        except OSError:
            continue  # It has ended.
    return ports


def sockets(folder: Path) -> Iterable[tuple[int, str]]:
    """The listening sockets of a process's network: port, and what a process that holds it calls it."""
    for table in ("tcp", "tcp6"):
        for line in (folder / "net" / table).read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING:
                yield int(fields[1].rsplit(":", 1)[1], 16), f"socket:[{fields[9]}]"

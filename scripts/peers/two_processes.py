"""A program that runs as two processes of itself, as `torchrun` would start them, on one machine."""

import os
import subprocess
import sys
import tempfile
import time

PROCESSES = 2


def split() -> int:
    """In the processes that compute: their rank. In the one that was called, starts them and ends when they have ended.

    Call it before importing anything large: the process that only waits should not count with libraries of its own.
    """
    if "RANK" in os.environ:
        return int(os.environ["RANK"])
    with tempfile.TemporaryDirectory() as folder:
        # They meet in a file, which no other program on the machine can have taken, as it could a port.
        shared = {**os.environ, "WORLD_SIZE": str(PROCESSES), "MEETING": f"file://{folder}/meeting"}
        # All of them are on this machine, whatever its host name resolves to.
        shared.setdefault("GLOO_SOCKET_IFNAME", "lo")
        children = [
            subprocess.Popen([sys.executable, *sys.argv], env={**shared, "RANK": str(rank)})
            for rank in range(PROCESSES)
        ]
        try:
            sys.exit(wait(children))
        finally:
            for child in children:
                child.kill()
                child.wait()


def wait(children: list[subprocess.Popen]) -> int:
    """Waits until all have ended well, or one has not: the others would wait for it forever."""
    while True:
        codes = [child.poll() for child in children]
        failed = [code for code in codes if code]
        if failed or None not in codes:
            return abs(failed[0]) if failed else 0
        time.sleep(0.02)

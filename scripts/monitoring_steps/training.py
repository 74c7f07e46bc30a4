"""Runs of mpt that serve an endpoint: small ones that last until they are ended."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Sequence

from .processes import Process

START_SECONDS = 120
FREE_PORT = "127.0.0.1:0"
# An epoch of a second or so, with an evaluation and a checkpoint after each, on two CPU devices.
SMALL = (
    "--model=quick",
    "--gpus=2",
    "--device=cpu",
    "--set=data.source=synthetic",
    "--set=data.train_examples=2048",
    "--set=data.test_examples=512",
    "--batch-size=64",
    "--epochs=100000",
    "--max-time=10m",  # should nobody be left to end it
)


class Run(Process):
    """A training run, once its endpoint answers: `address` is where."""

    def __init__(self, name: str, program: Path, arguments: Sequence[str], folder: Path) -> None:
        command = [str(program), "train", f"--metrics-addr={FREE_PORT}", *arguments]
        super().__init__(name, command, folder, os.environ)
        try:
            self.address = self.wait_for(r"http://([^/\s,]+)", START_SECONDS).group(1)
        except BaseException:
            self.end()
            raise


def small(name: str, mode: str, program: Path, folder: Path) -> Run:
    """A small run in a mode, its files in a folder that must be new."""
    return Run(name, program, [f"--mode={mode}", *SMALL, f"--run-dir={folder}"], folder.parent)

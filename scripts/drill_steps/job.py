"""What is trained: a small network, with a checkpoint every few steps and an evaluation every second or so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

STEPS_PER_EPOCH = 40
EPOCHS = 3
BATCH = 16
# Steps from one checkpoint to the next; one more comes after each epoch.
INTERVAL = 7
SETTINGS = {
    "data.source": "synthetic",
    "data.image": "[1,12,12]",
    "data.train_examples": str(STEPS_PER_EPOCH * BATCH),
    "data.test_examples": "512",
    "data.flip": "true",
    "data.crop": "1",
    "model.dropout": "0.25",
    "train.batch_size": str(BATCH),
    "train.epochs": str(EPOCHS),
    "train.precision": "fp32",
    "checkpoint.every_steps": str(INTERVAL),
    "parallel.threads": "1",
    "parallel.timeout": "5s",
}


@dataclass(frozen=True)
class Form:
    """How the ranks of a run share the work, and what they are."""

    mode: str
    processes: bool
    # How often one run of it is killed.
    kills: int

    @property
    def name(self) -> str:
        return f"{self.mode}, {'processes' if self.processes else 'threads'}"


# In this order, again and again. Processes start and end more slowly.
FORMS = (
    Form("model-parallel", False, 12),
    Form("data-parallel", False, 12),
    Form("model-parallel", True, 4),
    Form("data-parallel", True, 4),
)


def command(program: Path, form: Form, run: Path) -> list[str]:
    """The command line that begins a run and, given again, goes on with it."""
    how = ["rehearse"] if form.processes else ["train", "--device", "cpu"]
    settings = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
    where = ["--run-dir", str(run), "--resume", "auto", "--log-format", "json"]
    return [str(program), *how, "--gpus", "2", "--mode", form.mode, "--recipe", "quick", *settings, *where]

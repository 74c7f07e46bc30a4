"""When a run is killed, and which of its processes."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from .job import EPOCHS, STEPS_PER_EPOCH, Form

START, TRAINING, CHECKPOINT, EVALUATION = PHASES = ("start-up", "training", "checkpoint", "evaluation")
# Of a hundred kills.
SHARES = (10, 45, 30, 15)

ONE, RANK, ALL = VICTIMS = ("the process that was started", "one rank", "all processes at once")


@dataclass(frozen=True)
class Kill:
    """One kill."""

    phase: str
    # It comes no earlier than after this step.
    step: int
    # When within the phase, as a share of how long that takes.
    share: float
    victim: str
    # Which rank, where one is killed.
    rank: int


def kills(form: Form, number: int, random: Random) -> list[Kill]:
    """The kills of one run, drawn over its whole length."""
    steps = sorted(random.randrange(EPOCHS * STEPS_PER_EPOCH) for _ in range(number))
    phases = random.choices(PHASES, SHARES, k=number)
    # Ranks that are threads of one process have its fate.
    victims = random.choices(VICTIMS, k=number) if form.processes else [ONE] * number
    return [
        Kill(phase, step, random.random(), victim, random.randrange(2))
        for phase, step, victim in zip(phases, steps, victims)
    ]

"""What of a run is written down: numbers that a wrong tensor would change, few enough to commit."""

from __future__ import annotations

from pathlib import Path

import numpy
import torch

from .jobs import Job, Plateau
from .philox import PROBE, Stream, pieces
from .training import Step, steps

# Values kept of each parameter.
SAMPLES = 8
# Vectors that each parameter is multiplied with.
PROJECTIONS = 4
# The second part of a probe's time: which of a layer's parameters.
ROLES = {"weight": 0, "bias": 1}


def exact(job: Job, models: Path) -> dict:
    """The losses; of the first step the activations and gradients; and the weights after the last step."""
    losses, activations, gradients = [], {}, {}
    for step in steps(job, models):
        losses.append(step.loss)
        if len(losses) == 1:
            activations = {
                name: {"output": norm(activation), "gradient": norm(activation.grad)}
                for name, activation in step.activations.items()
            }
            gradients = {name: described(job, step, name, value.grad) for name, value in parameters(step)}
    weights = {name: described(job, step, name, value) for name, value in parameters(step)}
    found = {
        name: {"indices": sampled(job, step, name).tolist(), "gradient": gradients[name], "weight": weights[name]}
        for name in weights
    }
    return {"job": job.written(), "losses": losses, "activations": activations, "parameters": found}


def curve(job: Job, models: Path) -> dict:
    """The losses alone."""
    return {"job": job.written(), "losses": [step.loss for step in steps(job, models)]}


def plateau(job: Plateau) -> dict:
    """The learning rate after each epoch."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=job.learning_rate)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=job.factor, patience=job.patience, threshold=job.threshold, eps=0.0
    )
    rates = []
    for value in job.values:
        scheduler.step(value)
        rates.append(optimizer.param_groups[0]["lr"])
    return {"job": job._asdict(), "rates": rates}


def parameters(step: Step) -> list[tuple[str, torch.Tensor]]:
    """Every parameter as `conv1.weight`."""
    return [(name.removeprefix("layers."), value) for name, value in step.network.named_parameters()]


def described(job: Job, step: Step, name: str, tensor: torch.Tensor) -> dict:
    """The 2-norm of a tensor, some of its values, and its products with vectors of random signs and sizes."""
    flat = tensor.detach().reshape(-1).numpy()
    projections = [0.0] * PROJECTIONS
    for number in range(PROJECTIONS):
        stream = probe(job, step, name, number)
        for first, count in pieces(len(flat)):
            vector = 2.0 * stream.uniform(first, count) - 1.0
            projections[number] += float(vector @ flat[first : first + count])
    samples = flat[sampled(job, step, name)].tolist()
    return {"norm": norm(tensor), "samples": samples, "projections": projections}


def sampled(job: Job, step: Step, name: str) -> numpy.ndarray:
    """Where samples are taken: everywhere in a small parameter, else where the stream after the projections says."""
    size = dict(parameters(step))[name].numel()
    if size <= SAMPLES:
        return numpy.arange(size)
    drawn = probe(job, step, name, PROJECTIONS).uniform(0, SAMPLES)
    return numpy.unique((drawn * size).astype(numpy.int64))


def probe(job: Job, step: Step, name: str, number: int) -> Stream:
    """The stream of src/random.rs's purpose `Probe`: layer, and time = 2 number + role."""
    layer, _, role = name.rpartition(".")
    return Stream(job.seed, PROBE, list(step.network.layers).index(layer), 2 * number + ROLES[role])


def norm(tensor: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor.detach().double()))

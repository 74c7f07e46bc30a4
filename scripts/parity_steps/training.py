"""Training as PyTorch does it: its cross-entropy, its autograd, its SGD."""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import Iterator, NamedTuple

import torch

from . import examples
from .jobs import Job
from .network import Network

TYPES = {"fp64": torch.float64, "fp32": torch.float32}


class Step(NamedTuple):
    """What a step leaves behind: the network with its gradients and, after the update, its weights."""

    loss: float
    activations: dict[str, torch.Tensor]  # by layer, each with its gradient
    network: Network


def steps(job: Job, models: Path) -> Iterator[Step]:
    """Trains step by step. What a step gives is overwritten by the next one."""
    network = Network(models / f"{job.model}.toml", job.activation, job.seed).to(TYPES[job.precision])
    optimizer = torch.optim.SGD(
        [{"params": [parameter], "name": name} for name, parameter in network.named_parameters()],
        lr=job.learning_rate,
        momentum=job.momentum,
    )
    for batch in examples.batches(job, network.classes):

        def masks(layer: int, count: int, features: int, probability: float) -> torch.Tensor:
            kept = examples.mask(job, layer, batch.step, count, features, probability)
            return torch.from_numpy(kept).to(TYPES[job.precision])

        activations = network(torch.from_numpy(batch.images).to(TYPES[job.precision]), masks)
        for activation in activations.values():
            activation.retain_grad()
        logits = list(activations.values())[-1]
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(batch.labels))
        optimizer.zero_grad()
        loss.backward()
        held = [event for event in job.timeline if event["epoch"] * job.steps_per_epoch <= batch.step]
        for group in optimizer.param_groups:
            tune(group, network.multipliers[group["name"]], held, job)
        optimizer.step()
        yield Step(loss.item(), activations, network)


def tune(group: dict, of_model: tuple[float, float], held: list[dict], job: Job) -> None:
    """Gives a parameter the rate and the decay that the model and the events have for it. A frozen one has no gradient."""
    name = group["name"].removeprefix("layers.")
    rate, decay = job.learning_rate * of_model[0], job.weight_decay * of_model[1]
    own = [event for event in held if fnmatch.fnmatchcase(name, event.get("parameters", "*"))]
    for by_name in (False, True):
        said = [event for event in own if ("parameters" in event) == by_name]
        rate *= next((event["lr_mult"] for event in reversed(said) if "lr_mult" in event), 1.0)
        decay *= next((event["decay_mult"] for event in reversed(said) if "decay_mult" in event), 1.0)
    group["lr"], group["weight_decay"] = rate, decay
    if any(event.get("frozen") for event in own):
        group["params"][0].grad = None

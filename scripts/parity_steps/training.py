"""Training as PyTorch does it: its cross-entropy, its autograd, its SGD."""

from __future__ import annotations

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
    groups = []
    for name, parameter in network.named_parameters():
        rate, decay = network.multipliers[name]
        groups.append({"params": [parameter], "lr": rate * job.learning_rate, "weight_decay": decay * job.weight_decay})
    optimizer = torch.optim.SGD(groups, momentum=job.momentum)
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
        optimizer.step()
        yield Step(loss.item(), activations, network)

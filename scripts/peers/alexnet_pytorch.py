"""The network as a person writes it in PyTorch, and what its programs have in common."""

import os
from typing import Callable, Sequence

import problem
import torch
from torch import nn

CORES = len(os.sched_getaffinity(0))


def alexnet(dropout: float, convs: Sequence[problem.Conv] = problem.CONVS) -> nn.Sequential:
    """The whole network with the problem's weights, in channels-last, which is the faster one on CPUs."""
    layers: list[nn.Module] = []
    for conv in convs:
        kernel = nn.Conv2d(conv.inputs, conv.outputs, conv.kernel, conv.stride, conv.padding, groups=conv.groups)
        layers += [kernel, nn.ReLU(inplace=True)]
        if conv.pooled:
            layers.append(nn.MaxPool2d(3, 2))
    layers.append(nn.Flatten())
    for linear in problem.LINEARS:
        layers.append(nn.Linear(linear.inputs, linear.outputs))
        if linear is not problem.LINEARS[-1]:
            layers += [nn.ReLU(inplace=True), nn.Dropout(dropout)]
    network = nn.Sequential(*layers)
    weighted = (layer for layer in network if hasattr(layer, "weight"))
    with torch.no_grad():
        for layer, (_, weight, bias) in zip(weighted, problem.weights(convs=convs)):
            layer.weight.copy_(torch.from_numpy(weight))
            layer.bias.copy_(torch.from_numpy(bias))
    return network.to(memory_format=torch.channels_last)


def batch(size: int, first: int = 0, last: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """The problem's batch, or the part of it from example `first` to `last`."""
    images, labels = problem.batch(size)
    chosen = torch.from_numpy(images[first:last].copy()).to(memory_format=torch.channels_last)
    return chosen, torch.from_numpy(labels[first:last].copy())


def training_step(
    network: nn.Module, images: torch.Tensor, labels: torch.Tensor, precision: str
) -> Callable[[], float]:
    """A step of SGD on these examples, which gives its loss: what `measure.steps` calls again and again."""
    optimizer = torch.optim.SGD(network.parameters(), lr=problem.LEARNING_RATE, fused=True)
    loss_of = nn.CrossEntropyLoss()

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = loss_of(network(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step

"""The network as a person writes it in PyTorch, and what its programs have in common."""

import os

import problem
import torch
from torch import nn

CORES = len(os.sched_getaffinity(0))


def alexnet(dropout: float) -> nn.Sequential:
    """The whole network with the problem's weights, in channels-last, which is the faster one on CPUs."""
    layers: list[nn.Module] = []
    for conv in problem.CONVS:
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
        for layer, (_, weight, bias) in zip(weighted, problem.weights()):
            layer.weight.copy_(torch.from_numpy(weight))
            layer.bias.copy_(torch.from_numpy(bias))
    return network.to(memory_format=torch.channels_last)


def batch(size: int, first: int = 0, last: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """The problem's batch, or the part of it from example `first` to `last`."""
    images, labels = problem.batch(size)
    chosen = torch.from_numpy(images[first:last].copy()).to(memory_format=torch.channels_last)
    return chosen, torch.from_numpy(labels[first:last].copy())


def autocast(precision: str) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")


def optimizer(network: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(network.parameters(), lr=problem.LEARNING_RATE, fused=True)

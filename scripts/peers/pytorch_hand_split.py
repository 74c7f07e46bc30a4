#!/usr/bin/env python3
"""AlexNet split by hand: two PyTorch processes, each with one tower, that meet before conv3 and the linear layers.

As on the two GPUs of 2012, each process holds half of the kernels of every layer and sees the whole batch. PyTorch has
no parallel style for convolutions, so the exchanges are autograd functions of this file. Between two processes the
least that can travel is one half each way; of what gloo offers (all_gather, reduce_scatter, all_to_all, send and
receive), send and receive were the fastest.
"""

import two_processes

RANK = two_processes.split()
OTHER = 1 - RANK

import alexnet_pytorch  # noqa: E402
import measure  # noqa: E402
import problem  # noqa: E402
import processes_pytorch  # noqa: E402
import torch  # noqa: E402
from torch import distributed, nn  # noqa: E402


def swap(sent: torch.Tensor) -> torch.Tensor:
    """Sends a tensor to the other process and returns the one that came from there."""
    if sent.dim() == 4:  # gloo sends plain memory, which a channels-last tensor has when its channels are named last
        return swap_plain(sent.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return swap_plain(sent)


def swap_plain(sent: torch.Tensor) -> torch.Tensor:
    sent = sent.contiguous()
    received = torch.empty_like(sent)
    work = distributed.isend(sent, OTHER), distributed.irecv(received, OTHER)
    for part in work:
        part.wait()
    return received


class Gather(torch.autograd.Function):
    """Both halves of the channels, from one's own; back, the sum of what both want of one's own half."""

    @staticmethod
    def forward(context, own: torch.Tensor) -> torch.Tensor:
        halves = (own, swap(own)) if RANK == 0 else (swap(own), own)
        return torch.cat(halves, dim=1)

    @staticmethod
    def backward(context, gradient: torch.Tensor) -> torch.Tensor:
        halves = gradient.chunk(2, dim=1)
        return halves[RANK] + swap(halves[OTHER])


class Sum(torch.autograd.Function):
    """The sum over both processes. Both go on with the same sum, so its gradient is already each summand's."""

    @staticmethod
    def forward(context, part: torch.Tensor) -> torch.Tensor:
        whole = part.clone()
        distributed.all_reduce(whole)
        return whole

    @staticmethod
    def backward(context, gradient: torch.Tensor) -> torch.Tensor:
        return gradient


class Exchange(nn.Module):
    def forward(self, own: torch.Tensor) -> torch.Tensor:
        return Gather.apply(own)


class Classifier(nn.Module):
    """The last layer, split by its inputs: the partial logits are so few that summing them costs less than a gather."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(self, own: torch.Tensor) -> torch.Tensor:
        return Sum.apply(nn.functional.linear(own, self.weight)) + self.bias


def half_network(dropout: float) -> nn.Sequential:
    """This process's half of every layer, with its half of the problem's weights."""
    layers: list[nn.Module] = []
    for conv in problem.CONVS:
        inputs = conv.inputs // conv.groups
        if conv.name == "conv3":
            layers.append(Exchange())
        kernel = nn.Conv2d(inputs, conv.outputs // 2, conv.kernel, conv.stride, conv.padding)
        layers += [kernel, nn.ReLU(inplace=True)]
        if conv.pooled:
            layers.append(nn.MaxPool2d(3, 2))
    layers.append(nn.Flatten())
    *hidden, last = problem.LINEARS
    for linear in hidden:
        layers += [Exchange(), nn.Linear(linear.inputs, linear.outputs // 2)]
        layers += [nn.ReLU(inplace=True), nn.Dropout(dropout)]
    layers.append(Classifier(last.inputs // 2, last.outputs))
    network = nn.Sequential(*layers)
    weighted = (layer for layer in network if hasattr(layer, "weight"))
    with torch.no_grad():
        for layer, (name, weight, bias) in zip(weighted, problem.weights()):
            by_inputs = name == last.name
            layer.weight.copy_(torch.from_numpy(weight).chunk(2, dim=1 if by_inputs else 0)[RANK])
            layer.bias.copy_(torch.from_numpy(bias) if by_inputs else torch.from_numpy(bias).chunk(2)[RANK])
    return network.to(memory_format=torch.channels_last)


def main() -> None:
    arguments = measure.parser(__doc__).parse_args()
    processes_pytorch.join(RANK)
    torch.manual_seed(RANK)  # The halves' dropout masks differ.
    network = half_network(arguments.dropout)
    images, labels = alexnet_pytorch.batch(arguments.batch_size)
    step = alexnet_pytorch.training_step(network, images, labels, arguments.precision)
    processes_pytorch.finish(arguments, *measure.steps(step, arguments))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""AlexNet in one PyTorch process with all the machine's threads.

torch.compile was tried and left out: on two cores its step took 1.4 times as long (PyTorch 2.13.0, bf16).
"""

import alexnet_pytorch
import measure
import torch
from torch import nn


def main() -> None:
    arguments = measure.parser(__doc__).parse_args()
    torch.set_num_threads(alexnet_pytorch.CORES)
    network = alexnet_pytorch.alexnet(arguments.dropout)
    images, labels = alexnet_pytorch.batch(arguments.batch_size)
    optimizer = alexnet_pytorch.optimizer(network)
    loss_of = nn.CrossEntropyLoss()

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        with alexnet_pytorch.autocast(arguments.precision):
            loss = loss_of(network(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    seconds, losses = measure.steps(step, arguments)
    measure.report(arguments, seconds, losses, measure.memory())


if __name__ == "__main__":
    main()

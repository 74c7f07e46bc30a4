#!/usr/bin/env python3
"""AlexNet in one PyTorch process with all the machine's threads.

torch.compile was tried and left out: on two cores its step took 1.4 times as long (PyTorch 2.13.0, bf16).
"""

import alexnet_pytorch
import measure
import torch


def main() -> None:
    arguments = measure.parser(__doc__).parse_args()
    torch.set_num_threads(alexnet_pytorch.CORES)
    network = alexnet_pytorch.alexnet(arguments.dropout)
    images, labels = alexnet_pytorch.batch(arguments.batch_size)
    step = alexnet_pytorch.training_step(network, images, labels, arguments.precision)
    seconds, losses = measure.steps(step, arguments)
    measure.report(arguments, seconds, losses, measure.memory())


if __name__ == "__main__":
    main()

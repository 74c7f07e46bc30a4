#!/usr/bin/env python3
"""AlexNet in one PyTorch process with all the machine's threads.

torch.compile was tried and left out: on two cores its step took 1.4 times as long (PyTorch 2.13.0, bf16).
"""

import alexnet_pytorch
import measure
import problem
import torch


def main() -> None:
    flags = measure.parser(__doc__)
    flags.add_argument("--dense", action="store_true", help="the d2l chapter's network, which has no towers")
    arguments = flags.parse_args()
    torch.set_num_threads(alexnet_pytorch.CORES)
    convs = problem.DENSE_CONVS if arguments.dense else problem.CONVS
    network = alexnet_pytorch.alexnet(arguments.dropout, convs)
    images, labels = alexnet_pytorch.batch(arguments.batch_size)
    step = alexnet_pytorch.training_step(network, images, labels, arguments.precision)
    seconds, losses = measure.steps(step, arguments)
    measure.report(arguments, seconds, losses, measure.memory())


if __name__ == "__main__":
    main()

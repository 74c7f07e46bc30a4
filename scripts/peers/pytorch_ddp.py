#!/usr/bin/env python3
"""AlexNet data-parallel: two PyTorch processes, each with half of the examples and of the cores, DDP over gloo.

Gradients travel in fp32 in either precision: gloo sums bf16 so slowly that DDP's bf16 hook made steps longer.
"""

import two_processes

RANK = two_processes.split()

import alexnet_pytorch  # noqa: E402
import measure  # noqa: E402
import processes_pytorch  # noqa: E402
from torch.nn.parallel import DistributedDataParallel  # noqa: E402


def main() -> None:
    arguments = measure.parser(__doc__).parse_args()
    processes_pytorch.join(RANK)
    share = arguments.batch_size // two_processes.PROCESSES
    images, labels = alexnet_pytorch.batch(arguments.batch_size, RANK * share, (RANK + 1) * share)
    network = DistributedDataParallel(
        alexnet_pytorch.alexnet(arguments.dropout), gradient_as_bucket_view=True, static_graph=True
    )
    step = alexnet_pytorch.training_step(network, images, labels, arguments.precision)
    processes_pytorch.finish(arguments, *measure.steps(step, arguments))


if __name__ == "__main__":
    main()

"""What every peer computes: the two-tower AlexNet of mpt's `alexnet.toml`, its first weights, and one batch.

Weights and examples come from NumPy, so that PyTorch and JAX start from the same numbers and their losses can be
compared.
"""

import math
from typing import Iterator, NamedTuple, Sequence

import numpy

IMAGE = (1, 224, 224)
CLASSES = 10
LEARNING_RATE = 0.01


class Conv(NamedTuple):
    name: str
    inputs: int
    outputs: int
    kernel: int
    stride: int
    padding: int
    groups: int
    pooled: bool  # followed by a max-pool of 3 with stride 2


class Linear(NamedTuple):
    name: str
    inputs: int
    outputs: int


CONVS = (
    Conv("conv1", 1, 96, 11, 4, 1, 1, True),
    Conv("conv2", 96, 256, 5, 1, 2, 2, True),
    Conv("conv3", 256, 384, 3, 1, 1, 1, False),
    Conv("conv4", 384, 384, 3, 1, 1, 2, False),
    Conv("conv5", 384, 256, 3, 1, 1, 2, True),
)
# Without towers: the d2l chapter's network, mpt's `alexnet-dense.toml`.
DENSE_CONVS = tuple(conv._replace(groups=1) for conv in CONVS)
LINEARS = (Linear("fc6", 6400, 4096), Linear("fc7", 4096, 4096), Linear("fc8", 4096, CLASSES))


def weights(seed: int = 0, convs: Sequence[Conv] = CONVS) -> Iterator[tuple[str, numpy.ndarray, numpy.ndarray]]:
    """Name, weight and bias of each layer in PyTorch's layout: Xavier-uniform, and uniform by the fan-in.

    One layer at a time, for a program that keeps a share of each must not have held the whole.
    """
    random = numpy.random.default_rng(seed)

    def uniform(shape: tuple[int, ...], bound: float) -> numpy.ndarray:
        values = random.random(shape, dtype=numpy.float32)
        values -= 0.5
        values *= 2 * bound
        return values

    for conv in convs:
        area = conv.kernel**2
        fan_in, fan_out = conv.inputs // conv.groups * area, conv.outputs * area
        shape = (conv.outputs, conv.inputs // conv.groups, conv.kernel, conv.kernel)
        yield conv.name, uniform(shape, math.sqrt(6 / (fan_in + fan_out))), uniform(shape[:1], 1 / math.sqrt(fan_in))
    for linear in LINEARS:
        bound = math.sqrt(6 / (linear.inputs + linear.outputs))
        shape = (linear.outputs, linear.inputs)
        yield linear.name, uniform(shape, bound), uniform(shape[:1], 1 / math.sqrt(linear.inputs))


def batch(size: int, seed: int = 1) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Random images in 0..1 and random labels: how long a step takes does not depend on what is in them."""
    random = numpy.random.default_rng(seed)
    return random.random((size, *IMAGE), dtype=numpy.float32), random.integers(0, CLASSES, size, dtype=numpy.int64)

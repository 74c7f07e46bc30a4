"""mpt's random numbers in numpy: a twin of src/random.rs, written from the layout that is documented there."""

from __future__ import annotations

from typing import Iterator

import numpy

# The purposes of src/random.rs.
WEIGHTS, BIASES, DROPOUT, SHUFFLE, AUGMENT, SYNTHETIC, PROBE = range(1, 8)

# Numbers that are made at once: few enough to stay in the processor's caches.
AT_ONCE = 1 << 18

LOW = numpy.uint64(0xFFFFFFFF)
HALF = numpy.uint64(32)


class Stream:
    """An endless sequence of draws, addressed by index."""

    def __init__(self, seed: int, purpose: int, layer: int = 0, time: int = 0) -> None:
        self.key = (seed & 0xFFFFFFFF, seed >> 32)
        self.counter = (time & 0xFFFFFFFF, purpose << 24 | layer, time >> 32)

    def words(self, first: int, count: int) -> numpy.ndarray:
        """The 32 random bits of draws `first` to `first + count - 1`, as 64-bit numbers."""
        block, lane = divmod(first, 4)
        blocks = numpy.arange(block, (first + count + 3) // 4, dtype=numpy.uint64)
        time_low, purpose_and_layer, time_high = self.counter
        counters = [
            blocks & LOW,
            numpy.full_like(blocks, time_low),
            numpy.full_like(blocks, purpose_and_layer),
            (blocks >> HALF) << numpy.uint64(16) | numpy.uint64(time_high),
        ]
        return numpy.stack(philox(counters, self.key), axis=1).reshape(-1)[lane : lane + count]

    def uniform(self, first: int, count: int) -> numpy.ndarray:
        """Draws in the open interval (0, 1)."""
        return (self.words(first, count) + 0.5) / 4294967296.0

    def normal(self, first: int, count: int) -> numpy.ndarray:
        """Draws of mean 0 and variance 1."""
        even = first - first % 2
        pairs = self.uniform(even, count + first - even + 1 & ~1).reshape(-1, 2)
        radius, angle = numpy.sqrt(-2.0 * numpy.log(pairs[:, 0])), 2.0 * numpy.pi * pairs[:, 1]
        drawn = numpy.stack([radius * numpy.cos(angle), radius * numpy.sin(angle)], axis=1).reshape(-1)
        return drawn[first - even : first - even + count]

    def permutation(self, size: int) -> numpy.ndarray:
        """The numbers below `size` in random order."""
        words = self.words(0, 2 * size)
        return numpy.argsort(words[::2] << HALF | words[1::2], kind="stable")


def philox(counters: list[numpy.ndarray], key: tuple[int, int]) -> list[numpy.ndarray]:
    """Philox4x32-10 of many counters: `counters[w]` holds word w of each, a 32-bit number kept in 64 bits."""
    c0, c1, c2, c3 = counters
    for turn in range(10):
        k0 = numpy.uint64(key[0] + turn * 0x9E3779B9 & 0xFFFFFFFF)
        k1 = numpy.uint64(key[1] + turn * 0xBB67AE85 & 0xFFFFFFFF)
        first, second = numpy.uint64(0xD2511F53) * c0, numpy.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = second >> HALF ^ c1 ^ k0, second & LOW, first >> HALF ^ c3 ^ k1, first & LOW
    return [c0, c1, c2, c3]


def pieces(count: int) -> Iterator[tuple[int, int]]:
    """First index and length of the parts in which many draws are made."""
    for first in range(0, count, AT_ONCE):
        yield first, min(AT_ONCE, count - first)

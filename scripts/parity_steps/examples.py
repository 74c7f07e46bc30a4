"""Examples and dropout masks as mpt draws them: a twin of src/data/synthetic.rs, loader.rs and batch.rs."""

from __future__ import annotations

from typing import Iterator, NamedTuple

import numpy

from .jobs import Job
from .philox import DROPOUT, SHUFFLE, SYNTHETIC, Stream

# Layers of the streams for SYNTHETIC: templates of classes, training examples, noise.
TEMPLATES, TRAIN, NOISE = 0, 1, 3
# Draws of an example before those of its pixels: the label and the variation.
PIXELS = 4
# The constants of src/data/synthetic.rs.
WAVES, HIGHEST_FREQUENCY, SHIFT, CONTRAST, NOISE_LEVEL = 3, 3, 0.08, 0.3, 0.15


class Batch(NamedTuple):
    """Images [N, C, H, W] in fp32, as the loader hands them out, and labels [N]."""

    step: int
    images: numpy.ndarray
    labels: numpy.ndarray


def batches(job: Job, classes: int) -> Iterator[Batch]:
    """One pass over the examples in the shuffled order of epoch 0."""
    order = Stream(job.seed, SHUFFLE).permutation(job.examples)
    read = {"noise": noise, "synthetic": synthetic}[job.source]
    for step, first in enumerate(range(0, job.examples, job.batch_size)):
        chosen = [read(job, classes, int(index)) for index in order[first : first + job.batch_size]]
        yield Batch(step, numpy.stack([image for image, _ in chosen]), numpy.array([label for _, label in chosen]))


def mask(job: Job, layer: int, step: int, examples: int, features: int, probability: float) -> numpy.ndarray:
    """1 where dropout keeps a feature and 0 where it drops it: [N, features]."""
    drawn = Stream(job.seed, DROPOUT, layer, step).uniform(0, examples * features)
    return (drawn >= probability).reshape(examples, features)


def noise(job: Job, classes: int, index: int) -> tuple[numpy.ndarray, int]:
    """An image of uniform pixels with a random label."""
    stream = Stream(job.source_seed, SYNTHETIC, NOISE, index)
    pixels = stream.uniform(PIXELS, int(numpy.prod(job.image))).astype(numpy.float32)
    return pixels.reshape(job.image), int(stream.uniform(0, 1)[0] * classes)


def synthetic(job: Job, classes: int, index: int) -> tuple[numpy.ndarray, int]:
    """A class's waves, shifted, in more or less contrast, under noise. Where mpt adds in fp32, so does this."""
    stream = Stream(job.source_seed, SYNTHETIC, TRAIN, index)
    label_draw, *shift_draws, contrast_draw = stream.uniform(0, PIXELS)
    label = int(label_draw * classes)
    down_shift, right_shift = (SHIFT * (2.0 * draw - 1.0) for draw in shift_draws)
    amplitude = CONTRAST * (0.5 + 0.5 * contrast_draw) / WAVES
    drawn = stream.uniform(PIXELS, int(numpy.prod(job.image)))
    pixels = (0.5 + NOISE_LEVEL * (2.0 * drawn - 1.0)).astype(numpy.float32).reshape(job.image)
    for channel, waves in zip(pixels, template(job, label)):
        for down, across, phase in waves:
            rows = angles(down, down_shift, phase, channel.shape[0])[:, None]
            columns = angles(across, right_shift, 0.0, channel.shape[1])[None, :]
            channel += single(amplitude * numpy.cos(rows)) * single(numpy.cos(columns)) - single(
                amplitude * numpy.sin(rows)
            ) * single(numpy.sin(columns))
    return pixels, label


def template(job: Job, label: int) -> list[list[tuple[float, float, float]]]:
    """For each channel, the waves of a class: periods down, periods across, phase."""
    channels = job.image[0]
    draws = Stream(job.source_seed, SYNTHETIC, TEMPLATES, label).uniform(0, 4 * channels * WAVES)
    waves = []
    for down, across, side, phase in draws.reshape(-1, 4):
        down, across = (numpy.floor(draw * (HIGHEST_FREQUENCY + 1)) for draw in (down, across))
        waves.append((max(down, 1.0), across if side < 0.5 else -across, phase))
    return [waves[first : first + WAVES] for first in range(0, len(waves), WAVES)]


def angles(periods: float, shift: float, phase: float, size: int) -> numpy.ndarray:
    """The wave's angle at each place of a line of pixels."""
    return 2.0 * numpy.pi * (periods * (numpy.arange(size) / size - shift) + phase)


def single(values: numpy.ndarray) -> numpy.ndarray:
    return values.astype(numpy.float32)

#!/usr/bin/env python3
"""One epoch of torchvision's ImageFolder through PyTorch's DataLoader, timed: what most programs train on.

The shorter side to 256, a random window of 224, half of the images mirrored, values from 0 to 1, minus a mean and divided
by a deviation: mpt is given the same to do.
"""

import argparse
import json
import os
import resource
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.io import ImageReadMode, decode_jpeg, read_file
from torchvision.transforms import v2

SIDE, WINDOW = 256, 224
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def as_installed(folder: Path) -> ImageFolder:
    """As torchvision's own training script has it: Pillow decodes and resizes."""
    steps = [
        transforms.Resize(SIDE),
        transforms.RandomCrop(WINDOW),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, DEVIATION),
    ]
    return ImageFolder(str(folder), transforms.Compose(steps))


def of_tensors(folder: Path) -> ImageFolder:
    """With torchvision's own decoder, and everything on tensors of bytes for as long as can be."""
    steps = [
        v2.Resize(SIDE, antialias=True),
        v2.RandomCrop(WINDOW),
        v2.RandomHorizontalFlip(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(MEAN, DEVIATION),
    ]

    def decoded(path: str) -> torch.Tensor:
        return decode_jpeg(read_file(path), mode=ImageReadMode.RGB)

    return ImageFolder(str(folder), v2.Compose(steps), loader=decoded)


def processor_seconds() -> float:
    """Of this process, and of its workers once they have ended."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in spent)


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--decoder", choices=("pillow", "tensors"), default="pillow")
    flags.add_argument("--workers", type=int, default=0)
    flags.add_argument("--batch-size", type=int, default=128)
    flags.add_argument("folder", type=Path)
    arguments = flags.parse_args()
    # Where workers read, each has a core; PyTorch gives each of them one thread.
    torch.set_num_threads(len(os.sched_getaffinity(0)) if arguments.workers == 0 else 1)
    torch.manual_seed(1)
    dataset = (as_installed if arguments.decoder == "pillow" else of_tensors)(arguments.folder / "train")
    images, total, began, used = 0, 0.0, time.perf_counter(), processor_seconds()
    loader = DataLoader(dataset, arguments.batch_size, shuffle=True, num_workers=arguments.workers)
    for pixels, labels in loader:
        images += len(labels)
        total += float(pixels[0, 0, 0, 0])
    seconds = time.perf_counter() - began
    line = {"images": images, "seconds": seconds, "processor_seconds": processor_seconds() - used, "sum": total}
    print(json.dumps({**line, "images_per_second": images / seconds}), flush=True)


if __name__ == "__main__":
    main()

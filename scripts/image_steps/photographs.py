#!/usr/bin/env python3
"""JPEG files like ImageNet's: of its usual size, of as many bytes, in a folder for each photograph that they are pieces of.

ImageNet itself may not be passed on. These are made from the colour photographs that scikit-image and scikit-learn bring:
pieces of them at random, half of them mirrored, brighter or darker, with a grain that makes up for the detail that a
larger photograph would have. The same numbers give the same pictures.
"""

import argparse
import json
from importlib.util import find_spec
from pathlib import Path

import numpy
from PIL import Image

# Where the photographs are, below the folder of a package. Nothing of the packages is run.
SHIPPED = {
    "skimage": [
        f"data/{name}" for name in ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")
    ],
    "sklearn": [f"datasets/images/{name}" for name in ("china.jpg", "flower.jpg")],
}
SIDES = 500, 375  # a third of the files stand upright
TESTED = 8  # one in so many is a test image besides
GRAIN = 11.0  # standard deviation, of 255


def shipped() -> dict[str, Image.Image]:
    """The photographs by their names."""
    found = {}
    for package, names in SHIPPED.items():
        (folder,) = find_spec(package).submodule_search_locations
        found.update({Path(name).stem: Image.open(Path(folder) / name).convert("RGB") for name in names})
    return found


def piece(photograph: Image.Image, draws: numpy.random.Generator, width: int, height: int) -> Image.Image:
    """A piece of a photograph, changed at random, of this size."""
    most = min(photograph.width / width, photograph.height / height)
    scale = most * draws.uniform(0.7, 1.0)
    across, down = scale * width, scale * height
    left, top = draws.uniform(0, photograph.width - across), draws.uniform(0, photograph.height - down)
    cut = photograph.resize((width, height), Image.Resampling.BICUBIC, (left, top, left + across, top + down))
    pixels = numpy.asarray(cut, dtype=numpy.float32)
    if draws.random() < 0.5:
        pixels = pixels[:, ::-1]
    pixels = pixels * draws.uniform(0.7, 1.2) + draws.normal(0, GRAIN, (height, width, 1))
    return Image.fromarray(numpy.clip(pixels, 0, 255).astype(numpy.uint8))


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--count", type=int, required=True)
    flags.add_argument("folder", type=Path)
    arguments = flags.parse_args()
    draws, photographs, size = numpy.random.default_rng(1), shipped(), 0
    names, made = list(photographs), 0
    # The names of folders and files are such that every reader of class folders lists them alike.
    for subset, count in (("train", arguments.count), ("val", max(arguments.count // TESTED, len(names)))):
        for number in range(count):
            name = names[number % len(names)]
            folder = arguments.folder / subset / name
            folder.mkdir(parents=True, exist_ok=True)
            width, height = SIDES if number % 3 else SIDES[::-1]
            cut = piece(photographs[name], draws, width, height)
            file = folder / f"{number:05}.jpg"
            cut.save(file, quality=int(draws.integers(90, 96)))
            size, made = size + file.stat().st_size, made + 1
    print(json.dumps({"files": made, "mean_bytes": size / made}))


if __name__ == "__main__":
    main()

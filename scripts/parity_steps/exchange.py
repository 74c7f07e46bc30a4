"""Weights to PyTorch and back: an nn.Sequential loads what `mpt export` writes, `mpt train --init-from` takes what PyTorch
saves, and each time both give the same logits for the same images."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import tomllib
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

import numpy
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from setup_steps.places import Places

from . import examples
from .jobs import Job
from .network import module_of

# How far logits may be apart in fp32, in the size of the largest one.
BOUND = 1e-5
EXAMPLES = 10
SEED = 31


class Shape(NamedTuple):
    """A shipped model that is a sequence, and the mesh that it is trained on."""

    model: str
    image: list[int]
    classes: int
    mesh: str


# Two towers (groups), pools of both kinds, images and flat features, and AlexNet itself.
SHAPES = [
    Shape("tiny", [2, 13, 13], 5, "1x3"),
    Shape("lenet", [1, 28, 28], 10, "2x1"),
    Shape("quick", [1, 28, 28], 10, "1x2"),
    Shape("alexnet", [1, 224, 224], 10, "1x2"),
]


def main(root: Path) -> int:
    """Tries every shape; gives the exit code."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    program = Places.from_environment(root).program
    if not program.exists():
        print(f"parity: {program} is not there: run scripts/setup", file=sys.stderr)
        return 2
    passed = []
    for shape in SHAPES:
        with tempfile.TemporaryDirectory(prefix="mpt-exchange-") as scratch:
            passed += [there(program, root, shape, Path(scratch)), *back(program, root, shape, Path(scratch))]
    print(f"{sum(passed)} passed, {len(passed) - sum(passed)} failed")
    return 0 if all(passed) else 1


def there(program: Path, root: Path, shape: Shape, scratch: Path) -> bool:
    """mpt trains and exports; PyTorch loads."""
    run, exported = scratch / "trained", scratch / "exported.safetensors"
    train(program, shape, run, "--steps=3")
    call(program, "export", str(run), f"--out={exported}")
    network = sequential(root, shape.model)
    network.load_state_dict(load_file(exported))
    return compare(f"{shape.model}: PyTorch loads what mpt exports", network, logits(program, run, shape), shape)


def back(program: Path, root: Path, shape: Shape, scratch: Path) -> list[bool]:
    """PyTorch makes weights of its own and saves them, under numbers and under names; mpt begins with them."""
    network = sequential(root, shape.model)
    passed = []
    for names in ("numbers", "names"):
        run, saved = scratch / names, scratch / f"{names}.safetensors"
        named = OrderedDict(zip(layer_names(root, shape.model), network)) if names == "names" else None
        save_file((nn.Sequential(named) if named else network).state_dict(), saved)
        # Without a learning rate a step leaves the weights as they began.
        train(program, shape, run, "--steps=1", "--learning-rate=0", f"--init-from={saved}")
        what = f"{shape.model}: mpt begins with what PyTorch saves under {names}"
        passed.append(compare(what, network, logits(program, run, shape), shape))
    return passed


def train(program: Path, shape: Shape, run: Path, *more: str) -> None:
    """A short run in fp32 on random images."""
    image = ",".join(str(side) for side in shape.image)
    data = ["data.source=noise", f"data.image=[{image}]", f"data.classes={shape.classes}", "data.train_examples=8"]
    data.append(f"data.test_examples={EXAMPLES}")
    given = [f"--model={shape.model}", "--batch-size=2", "--precision=fp32", f"--mesh={shape.mesh}", f"--seed={SEED}"]
    given += [f"--set={key}" for key in data]
    call(program, "train", *given, "--device=cpu", "--quiet", f"--run-dir={run}", *more)


def logits(program: Path, run: Path, shape: Shape) -> torch.Tensor:
    """What mpt gives for the test images, on the mesh of the shape."""
    file = run / "logits.safetensors"
    call(program, "eval", str(run), "--device=cpu", f"--mesh={shape.mesh}", f"--logits={file}")
    return load_file(file)["logits"]


def call(program: Path, *arguments: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MPT_")}
    command = [str(program), *arguments]
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"parity: mpt {' '.join(arguments)}: exit code {done.returncode}: {done.stderr}")


def layers(root: Path, model: str) -> list[dict]:
    """The layers of a model file but the loss."""
    path = root / "src" / "model" / "shipped" / f"{model}.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))["layers"][:-1]


def layer_names(root: Path, model: str) -> list[str]:
    return [layer["name"] for layer in layers(root, model)]


def sequential(root: Path, model: str) -> nn.Sequential:
    """The network as anyone would write it, with PyTorch's own initial weights."""
    path = root / "src" / "model" / "shipped" / f"{model}.toml"
    blank = torch.zeros(1, *tomllib.loads(path.read_text(encoding="utf-8"))["input"])
    network = nn.Sequential()
    for number, layer in enumerate(layers(root, model)):
        if layer["kind"] == "dropout":
            module: nn.Module = nn.Dropout(layer["probability"])
        else:
            module = module_of(layer, number, blank.shape[1]).float()
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.reset_parameters()
        network.append(module)
        with torch.no_grad():
            blank = module(blank)
    return network.eval()


def compare(what: str, network: nn.Sequential, found: torch.Tensor, shape: Shape) -> bool:
    """Whether mpt's logits for the test images are PyTorch's; says how far they are apart."""
    job = Job(shape.model, "", "fp32", SEED, "noise", SEED, shape.image, EXAMPLES, 2, 0.0, 0.0, 0.0)
    images = numpy.stack([examples.noise(job, shape.classes, index)[0] for index in range(EXAMPLES)])
    with torch.no_grad():
        expected = network(torch.from_numpy(images))
    if found.shape != expected.shape:
        print(f"parity: {what}: FAILED: logits of {list(found.shape)}, not {list(expected.shape)}")
        return False
    apart = float((found - expected).abs().max() / expected.abs().max())
    # Not a number is not below anything.
    equal = apart <= BOUND
    print(f"parity: {what}: logits {apart:.1e} apart{'' if equal else f': FAILED, bound {BOUND:.0e}'}", flush=True)
    return equal


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parents[2]))

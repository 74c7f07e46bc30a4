"""A model file as PyTorch would have it: its own modules, its own autograd. Nothing here is written after src/layers."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Callable

import numpy
import torch
from torch import nn
from torch.nn.utils import skip_init

from .philox import BIASES, WEIGHTS, Stream, pieces

# What a dropout layer is asked for: the mask of a layer for so many examples and features.
Masks = Callable[[int, int, int, float], torch.Tensor]

# Weights are made in double precision, as mpt draws them, whatever they are trained in.
DOUBLE = {"dtype": torch.float64}


class Dropout(nn.Module):
    """torch.nn.Dropout with a mask from outside."""

    def __init__(self, layer: int, probability: float) -> None:
        super().__init__()
        self.layer = layer
        self.probability = probability
        self.masks: Masks = lambda layer, examples, features, probability: torch.ones(examples, features)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        mask = self.masks(self.layer, len(input), input[0].numel(), self.probability)
        return input * mask.view_as(input) / (1.0 - self.probability)


class Add(nn.Module):
    """The sum of its inputs."""

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return torch.stack(inputs).sum(0)


class Concat(nn.Module):
    """Its inputs' channels one after the other."""

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return torch.cat(inputs, 1)


class LocalResponseNorm(nn.Module):
    """PyTorch's, in each group of channels by itself."""

    def __init__(self, groups: int, size: int, **function: float) -> None:
        super().__init__()
        self.groups = groups
        self.norm = nn.LocalResponseNorm(size, **function)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.norm(part) for part in input.chunk(self.groups, 1)], 1)


class SameMapNorm(nn.Module):
    """The same function of the squares around a pixel, in its channel; PyTorch has none."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.mean = nn.AvgPool2d(size, 1, size // 2)
        self.alpha, self.beta, self.k = alpha, beta, k

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return input / (self.k + self.alpha * self.mean(input.square())) ** self.beta


class RoundedUpConv2d(nn.Conv2d):
    """Behind the image and its padding come as many zeros as make a last window whole, if it begins on the image or before."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        behind = [overhang(size, self.kernel_size[0], self.stride[0], self.padding[0]) for size in input.shape[2:]]
        return super().forward(nn.functional.pad(input, (0, behind[1], 0, behind[0])))


def overhang(size: int, kernel: int, stride: int, padding: int) -> int:
    """As far as PyTorch's pools reach beyond an axis in ceil_mode."""
    windows = nn.MaxPool1d(kernel, stride, padding, ceil_mode=True)(torch.zeros(1, size)).shape[1]
    return max(0, (windows - 1) * stride + kernel - size - 2 * padding)


POOLS = {"max-pool": nn.MaxPool2d, "average-pool": nn.AvgPool2d}
SIMPLE = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "flatten": nn.Flatten,
    "add": Add,
    "concat": Concat,
}


class Network(nn.Module):
    """The layers of a model file but the loss, with the weights that mpt draws for a seed."""

    def __init__(self, path: Path, activation: str, seed: int) -> None:
        super().__init__()
        model = tomllib.loads(path.read_text(encoding="utf-8"))
        self.input = model["input"]
        self.inputs: dict[str, list[str]] = {}
        # By parameter, what the learning rate and the weight decay are multiplied with.
        self.multipliers: dict[str, tuple[float, float]] = {}
        self.layers = nn.ModuleDict()
        # One blank example goes through the layers as they are built and brings each the size of its input.
        blank = {"image": torch.zeros(1, *self.input, dtype=torch.float64)}
        before = "image"
        for number, layer in enumerate(model["layers"]):
            inputs = layer.get("inputs", [before])
            before = layer["name"]
            if layer["kind"] == "softmax-cross-entropy":
                break
            if activation and layer["kind"] in ("relu", "sigmoid", "tanh"):
                layer["kind"] = activation
            self.inputs[before] = inputs
            module = module_of(layer, number, blank[inputs[0]].shape[1])
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                initialise(module, layer, model, seed, number)
                for role in ("weight", "bias"):
                    keys = (f"{role}_lr_mult", f"{role}_decay_mult")
                    rate, decay = (layer.get(key, model.get(key, 1.0)) for key in keys)
                    self.multipliers[f"layers.{before}.{role}"] = (rate, decay)
            with torch.no_grad():
                blank[before] = module(*(blank[name] for name in inputs))
            self.layers[before] = module
        self.classes = blank[inputs[0]].shape[1]

    def forward(self, images: torch.Tensor, masks: Masks) -> dict[str, torch.Tensor]:
        """What each layer gives, by name; the last entry is the logits."""
        if list(images.shape[2:]) != self.input[1:]:
            images = nn.functional.interpolate(images, self.input[1:], mode="bilinear", align_corners=False)
        activations = {"image": images}
        for name, module in self.layers.items():
            if isinstance(module, Dropout):
                module.masks = masks
            activations[name] = module(*(activations[source] for source in self.inputs[name]))
        del activations["image"]
        return activations


def module_of(layer: dict, number: int, channels: int) -> nn.Module:
    """A layer with so many input channels or features."""
    kind, bias = layer["kind"], layer.get("bias", True)
    if kind == "linear":
        return skip_init(nn.Linear, channels, layer["out"], bias=bias, **DOUBLE)
    if kind == "conv":
        window = {"stride": layer.get("stride", 1), "padding": layer.get("padding", 0)}
        groups = layer.get("groups", 1)
        conv = RoundedUpConv2d if layer.get("ceil_mode") else nn.Conv2d
        return skip_init(
            conv, channels, layer["out"], layer["kernel"], **window, groups=groups, bias=bias, **DOUBLE
        )
    if kind == "dropout":
        return Dropout(number, layer["probability"])
    if kind in ("local-response-norm", "same-map-norm"):
        function = {key: layer[key] for key in ("alpha", "beta", "k") if key in layer}
        if kind == "same-map-norm":
            return SameMapNorm(layer["size"], **function)
        return LocalResponseNorm(layer.get("groups", 1), layer["size"], **function)
    if kind in POOLS:
        ceil_mode = layer.get("ceil_mode", False)
        return POOLS[kind](layer["kernel"], layer.get("stride"), layer.get("padding", 0), ceil_mode=ceil_mode)
    return SIMPLE[kind]()


def initialise(module: nn.Conv2d | nn.Linear, layer: dict, model: dict, seed: int, number: int) -> None:
    """Sets a layer's weights to what mpt draws, in the spread that PyTorch's count of inputs and outputs gives."""
    fans = nn.init._calculate_fan_in_and_fan_out(module.weight)
    group = module.weight[: len(module.weight) // layer.get("groups", 1)]
    fans_of_group = nn.init._calculate_fan_in_and_fan_out(group)
    for purpose, parameter, key in ((WEIGHTS, module.weight, "weight_init"), (BIASES, module.bias, "bias_init")):
        if parameter is None:
            continue
        stream, flat = Stream(seed, purpose, number), parameter.data.view(-1).numpy()
        for first, count in pieces(len(flat)):
            flat[first : first + count] = drawn(layer.get(key, model[key]), fans, fans_of_group, stream, first, count)


def drawn(
    initial: str | dict,
    fans: tuple[int, int],
    fans_of_group: tuple[int, int],
    stream: Stream,
    first: int,
    count: int,
) -> numpy.ndarray:
    """Initial values of a parameter, by the name or table in the model file."""
    fan_in, fan_out = fans
    if initial == "kaiming-normal":
        return math.sqrt(2.0 / fan_in) * stream.normal(first, count)
    if isinstance(initial, dict):
        if "normal" in initial:
            return initial["normal"] * stream.normal(first, count)
        return numpy.full(count, initial["constant"])
    bound = {
        "xavier-uniform": math.sqrt(6.0 / (fan_in + fan_out)),
        "xavier-uniform-per-group": math.sqrt(6.0 / sum(fans_of_group)),
        "kaiming-uniform": math.sqrt(6.0 / fan_in),
        "fan-in-uniform": 1.0 / math.sqrt(fan_in),
    }[initial]
    return bound * (2.0 * stream.uniform(first, count) - 1.0)

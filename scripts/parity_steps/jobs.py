"""What is trained: for every shipped model some exact steps, and for a few a longer curve as it is trained in earnest."""

from __future__ import annotations

from typing import NamedTuple


class Plateau(NamedTuple):
    """What torch.optim.lr_scheduler.ReduceLROnPlateau is asked, and told after each epoch."""

    precision: str
    learning_rate: float
    factor: float
    patience: int
    threshold: float
    values: list[float]


class Job(NamedTuple):
    """One training run; every field is written into its file, where tests/mpt/parity.rs reads it."""

    model: str
    activation: str  # instead of the model's own pointwise functions; none where it is empty
    precision: str  # fp64 or fp32
    seed: int  # of weights, dropout and shuffling
    source: str  # noise or synthetic
    source_seed: int  # another one than the seed, so that a mix-up shows
    image: list[int]  # channels, height, width as stored; enlarged to what the network reads
    examples: int  # one pass over them is made
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float
    timeline: list[dict] = []  # what changes on the way, as `schedule.events` of a recipe says it

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.examples // self.batch_size)

    def written(self) -> dict:
        """Every field, as the run's file has it; no timeline where there is none."""
        return {name: value for name, value in self._asdict().items() if value != []}


# Steps of an exact job; the last one has half a batch.
STEPS = 4
# Steps of a curve.
CURVE_STEPS = 50


def exact(model: str, image: list[int], batch_size: int, learning_rate: float, momentum: float = 0.9) -> Job:
    """Some steps in fp64 on noise, in which pooling finds no ties."""
    examples = STEPS * batch_size - batch_size // 2
    return Job(model, "", "fp64", 11, "noise", 12, image, examples, batch_size, learning_rate, momentum, 5e-4)


def curve(model: str, activation: str, precision: str, batch_size: int, learning_rate: float) -> Job:
    """Many steps on what can be learned, in the size of Fashion-MNIST."""
    examples = CURVE_STEPS * batch_size
    image = [1, 28, 28]
    return Job(model, activation, precision, 21, "synthetic", 22, image, examples, batch_size, learning_rate, 0.9, 5e-4)


# The learning rates are so high that the weights move, and so low that the loss falls: rounding then stays rounding.
EXACT = [
    exact("alexnet", [1, 224, 224], 4, 0.02),
    exact("alexnet-dense", [1, 28, 28], 4, 0.02),
    exact("lenet", [1, 28, 28], 8, 0.1),
    exact("quick", [1, 28, 28], 8, 0.005),
    exact("tiny", [2, 13, 13], 8, 0.1, momentum=0.0),  # without it, an update has no velocities
    exact("tiny-residual", [3, 9, 9], 8, 0.1),
    exact("tiny-concat", [1, 10, 10], 8, 0.1),
    exact("alexnet-2012-code", [3, 32, 32], 2, 0.01),
    exact("tiny-2012", [2, 20, 20], 8, 0.1),
]

# A pass over the examples is an epoch, which has four steps. An event holds from the first step on that begins at its time or
# later.
TIMELINES = [
    exact("tiny-2012", [2, 20, 20], 8, 0.1)._replace(
        timeline=[
            {"epoch": 0.0, "parameters": "*.bias", "lr_mult": 0.5, "decay_mult": 3.0},
            {"epoch": 0.25, "lr_mult": 0.3},
            {"epoch": 0.5, "parameters": "conv1.*", "frozen": True},
            {"epoch": 0.5, "parameters": "conv*.weight", "lr_mult": 2.0},
            {"epoch": 0.7, "lr_mult": 0.1, "decay_mult": 10.0},
        ]
    ),
]

# Over many steps only a smooth network can be compared in fp32: a ReLU or a maximum that rounding turns the other way
# changes the gradient at once, and the loss by 1e-3 some steps later, PyTorch's own as much as mpt's. So LeNet learns
# in fp32, with tanh because sigmoids would need an epoch to begin to learn, and a network of ReLU, maxima, groups and
# dropout learns in fp64, where nothing turns. AlexNet's curve would take minutes in fp64; its steps are above.
CURVES = [
    curve("lenet", "tanh", "fp32", 64, 0.02),
    curve("quick", "", "fp64", 16, 0.01),
]

# It gets better, a little better than the threshold asks, less than that, and worse.
PLATEAU = Plateau(
    "fp64",
    0.01,
    0.1,
    2,
    0.01,
    [0.9, 0.5, 0.49, 0.489, 0.4885, 0.488, 0.47, 0.48, 0.48, 0.48, 0.3, 0.3, 0.31, 0.3, 0.2999, 0.3, 0.3, 0.3, 0.1],
)

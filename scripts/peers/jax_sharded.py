#!/usr/bin/env python3
"""AlexNet in JAX over two host devices: one process, sharded arrays, and XLA puts the exchanges in.

--variant model splits weights and activations by channels, and every device sees the whole batch; --variant data splits
the batch. Weights are fp32, the computation has the precision asked for.

XLA partitions dense convolutions by feature on its own. A grouped convolution over two groups it runs as one slow call,
or, left whole, with exchanges that it does not need. So each is written out: as two convolutions where all channels are
on a device, and as a map over the devices (`shard_map`) where each device holds one group. Both were faster, and so
was NHWC than NCHW.
"""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
os.environ["JAX_PLATFORMS"] = "cpu"

from functools import partial, reduce  # noqa: E402

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import measure  # noqa: E402
import problem  # noqa: E402
from jax import lax  # noqa: E402
from jax.sharding import Mesh, NamedSharding, PartitionSpec  # noqa: E402

MESH = Mesh(jax.devices(), ("device",))
BY_CHANNEL = PartitionSpec(None, None, None, "device")


def sharding(*axes: str | None) -> NamedSharding:
    return NamedSharding(MESH, PartitionSpec(*axes))


def weights(variant: str) -> dict[str, tuple[jax.Array, jax.Array]]:
    """The problem's weights in JAX's layout: by output feature over the devices, or whole on each.

    The last layer is split by its input: its ten outputs are too few to share.
    """
    placed = {}
    for name, weight, bias in problem.weights():
        weight = weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T
        if variant == "data":
            places = sharding(), sharding()
        elif name == problem.LINEARS[-1].name:
            places = sharding("device", None), sharding()
        else:
            places = sharding(*[None] * (weight.ndim - 1), "device"), sharding("device")
        placed[name] = jax.device_put(weight, places[0]), jax.device_put(bias, places[1])
    return placed


def convolve(layer: problem.Conv, images: jax.Array, kernel: jax.Array) -> jax.Array:
    """A convolution that reads all the channels it is given."""
    return lax.conv_general_dilated(
        images,
        kernel,
        (layer.stride, layer.stride),
        [(layer.padding, layer.padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def grouped(layer: problem.Conv, images: jax.Array, kernel: jax.Array, variant: str) -> jax.Array:
    """A convolution in two groups."""
    if variant == "model":
        each = jax.shard_map(
            partial(convolve, layer), mesh=MESH, in_specs=(BY_CHANNEL, BY_CHANNEL), out_specs=BY_CHANNEL
        )
        return each(images, kernel)
    halves = zip(jnp.split(images, 2, axis=3), jnp.split(kernel, 2, axis=3))
    return jnp.concatenate([convolve(layer, *half) for half in halves], axis=3)


def max_pool(values: jax.Array) -> jax.Array:
    """Windows of 3 with stride 2, as maxima of slices: `lax.reduce_window` takes three times as long back."""

    def along(values: jax.Array, axis: int) -> jax.Array:
        last = values.shape[axis] - 2
        return reduce(jnp.maximum, (lax.slice_in_dim(values, at, last + at, 2, axis) for at in range(3)))

    return along(along(values, 1), 2)


def network(
    parameters: dict, images: jax.Array, key: jax.Array, variant: str, dropout: float, precision: jnp.dtype
) -> jax.Array:
    """The logits."""

    def split(values: jax.Array) -> jax.Array:
        """Says where activations lie."""
        axes = (None,) * (values.ndim - 1)
        return lax.with_sharding_constraint(
            values, sharding(*axes, "device") if variant == "model" else sharding("device", *axes)
        )

    parameters = jax.tree.map(lambda values: values.astype(precision), parameters)
    values = images.astype(precision)
    for layer in problem.CONVS:
        kernel, bias = parameters[layer.name]
        values = grouped(layer, values, kernel, variant) if layer.groups == 2 else convolve(layer, values, kernel)
        values = split(jax.nn.relu(values + bias))
        if layer.pooled:
            values = split(max_pool(values))
    values = values.transpose(0, 3, 1, 2).reshape(values.shape[0], -1)  # features in PyTorch's order
    *hidden, last = problem.LINEARS
    for layer in hidden:
        weight, bias = parameters[layer.name]
        values = split(jax.nn.relu(values @ weight + bias))
        if dropout > 0:
            key, own = jax.random.split(key)
            values = jnp.where(jax.random.bernoulli(own, 1 - dropout, values.shape), values / (1 - dropout), 0)
    weight, bias = parameters[last.name]
    return values @ weight + bias


def main() -> None:
    flags = measure.parser(__doc__)
    flags.add_argument("--variant", choices=("model", "data"), default="model")
    arguments = flags.parse_args()
    variant, dropout = arguments.variant, arguments.dropout
    precision = jnp.bfloat16 if arguments.precision == "bf16" else jnp.float32

    parameters = weights(variant)
    images, labels = problem.batch(arguments.batch_size)
    place = sharding("device") if variant == "data" else sharding()
    images, labels = jax.device_put(images.transpose(0, 2, 3, 1), place), jax.device_put(labels, place)

    def loss_of(parameters: dict, images: jax.Array, labels: jax.Array, key: jax.Array) -> jax.Array:
        logits = network(parameters, images, key, variant, dropout, precision).astype(jnp.float32)
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1).mean()

    @partial(jax.jit, donate_argnums=0)
    def update(parameters: dict, images: jax.Array, labels: jax.Array, key: jax.Array) -> tuple[dict, jax.Array]:
        loss, gradients = jax.value_and_grad(loss_of)(parameters, images, labels, key)
        return jax.tree.map(lambda own, by: own - problem.LEARNING_RATE * by, parameters, gradients), loss

    key = jax.random.key(0)

    def step() -> float:
        nonlocal parameters, key
        key, own = jax.random.split(key)
        parameters, loss = update(parameters, images, labels, own)
        jax.block_until_ready(parameters)
        return float(loss)

    seconds, losses = measure.steps(step, arguments)
    measure.report(arguments, seconds, losses, measure.memory())


if __name__ == "__main__":
    main()

"""What was tried to make SphereNet's layers faster, each against what XLA does by itself.

    python -m experiments.benchmarks.layers

For the four stages of SphereNet, float32: the 3×3 convolution, its two gradients, and the gradient
of PReLU, with XLA's defaults and with what `compilation.compiler_options` asks for; the weight
gradient as explicit matrix products; the convolution by Winograd's F(4×4, 3×3) and its rounding
error; eight convolutions under `jax.lax.scan`; and a residual unit rematerialised. What is slower
here is not in the library; the table says so. Then both gradients of MobileFaceNet's convolutions,
as XLA has them and as `models.convolution` has them on a CPU.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.benchmarks.machine import describe_machine, write_results
from experiments.benchmarks.measure import seconds
from experiments.benchmarks.winograd import winograd_convolution
from experiments.pages import RESULTS
from sphereface_jax.compilation import compiler_options
from sphereface_jax.models.convolution import convolve as own_convolution
from sphereface_jax.models.layers import prelu

STAGES = ((56, 48, 64), (28, 24, 128), (14, 12, 256), (7, 6, 512))
Function = Callable[..., Any]
MOBILE = {  # height and width, of the kernel too, input channels, output channels, groups
    "1×1, 56×56, 128 to 128": (56, 1, 128, 128, 1),
    "1×1, 28×28, 128 to 128": (28, 1, 128, 128, 1),
    "1×1, 14×14, 256 to 256": (14, 1, 256, 256, 1),
    "1×1, 7×7, 256 to 512": (7, 1, 256, 512, 1),
    "depthwise, 14×14, 256": (14, 3, 256, 256, 256),
    "two channels a group, 14×14, 128": (14, 3, 128, 128, 64),
}


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """3×3, stride 1, padded by one pixel."""
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def kernel_gradient(x: jax.Array, g: jax.Array) -> jax.Array:
    """As jax derives it."""
    like = jnp.zeros((3, 3, x.shape[-1], g.shape[-1]))
    return jax.linear_transpose(lambda kernel: convolve(x, kernel), like)(g)[0]


def image_gradient(kernel: jax.Array, g: jax.Array) -> jax.Array:
    """As jax derives it, of an image with as many channels as g has."""
    return jax.linear_transpose(lambda x: convolve(x, kernel), g)(g)[0]


def shifted(x: jax.Array) -> list[jax.Array]:
    """The nine views of x [B, H, W, C] that a 3×3 kernel sees."""
    _, height, width, _ = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]


def nine_products(x: jax.Array, g: jax.Array) -> jax.Array:
    """The kernel's gradient as a matrix product for each of its nine taps."""
    taps = [jnp.tensordot(view, g, ((0, 1, 2), (0, 1, 2))) for view in shifted(x)]
    return jnp.stack(taps).reshape(3, 3, x.shape[-1], -1)


def one_product(x: jax.Array, g: jax.Array) -> jax.Array:
    """The kernel's gradient as one matrix product of all views side by side (im2col)."""
    views = jnp.concatenate(shifted(x), -1)
    return jnp.tensordot(views, g, ((0, 1, 2), (0, 1, 2))).reshape(3, 3, x.shape[-1], -1)


def prelu_gradient(activation: Function) -> Function:
    """Both gradients of a PReLU."""
    return lambda x, slope, g: jax.vjp(activation, x, slope)[1](g)


def plain_prelu(x: jax.Array, slope: jax.Array) -> jax.Array:
    """PReLU whose gradient jax derives."""
    return jnp.where(x > 0, x, slope * x)


def unrolled(x: jax.Array, kernels: jax.Array) -> jax.Array:
    """One convolution after another."""
    for kernel in kernels:
        x = convolve(x, kernel)
    return x


def scanned(x: jax.Array, kernels: jax.Array) -> jax.Array:
    """The same in a loop that is compiled once."""
    return jax.lax.scan(lambda x, kernel: (convolve(x, kernel), None), x, kernels)[0]


def unit(x: jax.Array, kernels: jax.Array, slope: jax.Array) -> jax.Array:
    """A residual unit."""
    inner = prelu(convolve(x, kernels[0]), slope)
    return x + prelu(convolve(inner, kernels[1]), slope)


def units(apply: Function) -> Function:
    """The gradient of four units' sum of squares."""

    def loss(kernels: jax.Array, x: jax.Array, slope: jax.Array) -> jax.Array:
        for pair in kernels:
            x = apply(x, pair, slope)
        return jnp.square(x).sum()

    return jax.grad(loss)


def measure(function: Function, *arguments: jax.Array, default: bool = False) -> dict[str, float]:
    """Best time of a few calls in milliseconds, with XLA's defaults or our options."""
    options = None if default else compiler_options()
    compiled = jax.jit(function, compiler_options=options).lower(*arguments).compile()
    jax.block_until_ready(compiled(*arguments))
    times: list[float] = []
    while len(times) < 5 and (not times or times[0] <= 2):
        times.append(seconds(lambda: jax.block_until_ready(compiled(*arguments)))[1])
    memory = compiled.memory_analysis()
    return {
        "ms": round(1e3 * min(times), 2),
        "temporaries_mib": round(memory.temp_size_in_bytes / 2**20, 1),
    }


def measure_stage(batch: int, height: int, width: int, channels: int) -> dict[str, Any]:
    """All of a stage: times, and GFLOP/s of what is a convolution."""
    keys = iter(jax.random.split(jax.random.key(0), 3))
    x, g = (jax.random.normal(next(keys), (batch, height, width, channels)) for _ in range(2))
    kernel = 0.01 * jax.random.normal(next(keys), (3, 3, channels, channels))
    slope = jnp.full((channels,), 0.25)
    found = {}
    for kind in ("default", "own"):
        default = kind == "default"
        found[f"forward, {kind}"] = measure(convolve, x, kernel, default=default)
        found[f"image gradient, {kind}"] = measure(image_gradient, kernel, g, default=default)
        found[f"kernel gradient, {kind}"] = measure(kernel_gradient, x, g, default=default)
    found["kernel gradient, nine products"] = measure(nine_products, x, g)
    found["kernel gradient, one product"] = measure(one_product, x, g)
    found["forward, Winograd"] = measure(winograd_convolution, x, kernel)
    flops = 2 * batch * height * width * 9 * channels**2
    for row in found.values():
        row["gflops"] = round(flops / row["ms"] / 1e6)
    exact, quick = convolve(x, kernel), winograd_convolution(x, kernel)
    error = np.abs(exact - quick).max() / np.abs(exact).max()
    found["forward, Winograd"]["relative_error"] = float(f"{error:.1e}")
    found["PReLU gradient, jax"] = measure(prelu_gradient(plain_prelu), x, slope, g)
    found["PReLU gradient, own"] = measure(prelu_gradient(prelu), x, slope, g)
    return found


def measure_loops(batch: int, height: int, width: int, channels: int) -> dict[str, Any]:
    """Scan and rematerialisation, at a stage's size."""
    x = jax.random.normal(jax.random.key(0), (batch, height, width, channels))
    kernels = 0.01 * jax.random.normal(jax.random.key(1), (8, 3, 3, channels, channels))
    pairs = kernels.reshape(4, 2, 3, 3, channels, channels)
    slope = jnp.full((channels,), 0.25)

    def gradient(function: Function) -> Function:
        return jax.grad(lambda kernels, x: jnp.square(function(x, kernels)).sum())

    return {
        "gradient of 8 convolutions, unrolled": measure(gradient(unrolled), kernels, x),
        "gradient of 8 convolutions, scanned": measure(gradient(scanned), kernels, x),
        "gradient of 4 units": measure(units(unit), pairs, x, slope),
        "gradient of 4 units, rematerialised": measure(
            units(jax.checkpoint(unit)), pairs, x, slope
        ),
    }


def measure_mobile(
    batch: int, size: int, window: int, inputs: int, outputs: int, groups: int
) -> dict[str, Any]:
    """Both gradients of a convolution of stride 1."""
    keys = iter(jax.random.split(jax.random.key(0), 3))
    x, g = (
        jax.random.normal(next(keys), (batch, size, size, count)) for count in (inputs, outputs)
    )
    kernel = jax.random.normal(next(keys), (window, window, inputs // groups, outputs))

    def gradients(convolution: Function) -> Function:
        convolution = functools.partial(
            convolution,
            window_strides=(1, 1),
            padding=((window // 2, window // 2),) * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )
        return lambda x, kernel, g: jax.vjp(convolution, x, kernel)[1](g)

    return {
        "XLA": measure(gradients(jax.lax.conv_general_dilated), x, kernel, g),
        "own": measure(gradients(own_convolution), x, kernel, g),
    }


def main(batch: int = 32, scale: int = 1, out: Path | None = None) -> None:
    """Measures and writes everything.

    Args:
      batch: images.
      scale: divides all sizes, for a quick trial.
      out: results file, experiments/results/layers.json by default.
    """
    machine = describe_machine()
    stages = {}
    for size in STAGES:
        stage = tuple(max(1, length // scale) for length in size)
        name = "×".join(map(str, stage))
        stages[name] = measure_stage(batch, *stage)
        for row, found in stages[name].items():
            print(f"{name:12} {row:34} {found}", flush=True)
    loops = measure_loops(batch, *(max(1, length // scale) for length in STAGES[2]))
    for row, found in loops.items():
        print(f"{row:40} {found}", flush=True)
    mobile = {}
    for name, (size, window, *channels, groups) in MOBILE.items():
        channels = [max(2, count // scale) for count in channels]
        mobile[name] = measure_mobile(
            batch, max(3, size // scale), window, *channels, max(1, groups // scale)
        )
        print(f"{name:40} {mobile[name]}", flush=True)
    write_results(
        out or RESULTS / "layers.json",
        {
            "benchmark": "layers",
            "batch": batch,
            "stages": stages,
            "loops": loops,
            "mobile": mobile,
            "machine": machine,
        },
    )


if __name__ == "__main__":
    tyro.cli(main)

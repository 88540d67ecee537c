"""Convolutions of one pixel, and in groups of few channels, which XLA does not make fast on a CPU.

A depthwise convolution, one channel per group, takes a few products per number; XLA's CPU backend
takes tens of times as long for them, its gradients longer still. Here it is the sum of shifted
images, each times a pixel of the kernel, which XLA fuses into one loop. The kernel's gradient goes
through the images row by row: a sum as XLA derives it is not vectorised.

The kernel's gradient of a 1×1 convolution is a product of two tall matrices, which XLA takes as a
convolution with a kernel of the image's size, slower where the image is large. Here it is two
products side by side.

`experiments.benchmarks.layers` measures them.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

MOST_INPUTS = 4  # channels of a group; a dense convolution of more is not beaten by products
POINT = ((1, 1), (1, 1), ((0, 0), (0, 0)))  # kernel, strides and padding of a 1×1 convolution


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    *,
    feature_group_count: int = 1,
    **options: Any,
) -> jax.Array:
    """`jax.lax.conv_general_dilated` for `nnx.Conv`, with another program where a CPU runs it.

    The platform is the one that is compiled for, which need not be the one at hand. Values and
    gradients are equal to rounding. What is neither 1×1 at stride 1 nor in groups of at most four
    channels is left as it is, and so are dilated convolutions.

    Args:
      x: [B, H, W, C].
      kernel: [h, w, C / groups, O].
      window_strides: of height and width.
      padding: pixels before and after each.
      feature_group_count: how many groups.
      **options: further ones of `jax.lax.conv_general_dilated`.

    Returns:
      [B, H', W', O].
    """

    def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            x, kernel, window_strides, padding, feature_group_count=feature_group_count, **options
        )

    def plain_gradients(x: jax.Array, kernel: jax.Array, g: jax.Array) -> tuple[jax.Array, ...]:
        return jax.vjp(plain, x, kernel)[1](g)

    def point_gradients(x: jax.Array, kernel: jax.Array, g: jax.Array) -> tuple[jax.Array, ...]:
        return plain_gradients(x, kernel, g)[0], _point_kernel_gradient(x, g).astype(kernel.dtype)

    dilations = {*options.get("lhs_dilation", (1,)), *options.get("rhs_dilation", (1,))}
    if isinstance(padding, str) or dilations != {1}:
        return plain(x, kernel)
    strides, pads = tuple(window_strides), tuple((before, after) for before, after in padding)
    if feature_group_count > 1 and kernel.shape[2] <= MOST_INPUTS:
        products = _Products(strides, pads)
        on_cpu, gradients_on_cpu = products.convolve, products.gradients
    elif feature_group_count == 1 and (kernel.shape[:2], strides, pads) == POINT:
        on_cpu, gradients_on_cpu = plain, point_gradients
    else:
        return plain(x, kernel)

    @jax.custom_vjp
    def ours(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.platform_dependent(x, kernel, cpu=on_cpu, default=plain)

    def forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        return ours(x, kernel), (x, kernel)

    def backward(saved: tuple[jax.Array, ...], g: jax.Array) -> tuple[jax.Array, ...]:
        return jax.lax.platform_dependent(*saved, g, cpu=gradients_on_cpu, default=plain_gradients)

    ours.defvjp(forward, backward)
    return ours(x, kernel)


def _point_kernel_gradient(x: jax.Array, g: jax.Array) -> jax.Array:
    """[1, 1, C, O], in float32 at least, of x [B, H, W, C] and g [B, H, W, O]."""
    parts = 2 - x.shape[0] % 2  # XLA is slower at one product of all rows
    rows, g_rows = (a.reshape(parts, -1, a.shape[-1]) for a in (x, g))
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    return jnp.einsum("pnc,pno->pco", rows, g_rows, preferred_element_type=dtype).sum(0)[None, None]


@dataclasses.dataclass(frozen=True)
class _Products:
    """A grouped convolution as a sum of shifted images times the pixels of the kernel."""

    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]

    def convolve(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """[B, H', W', O] of x [B, H, W, C] and kernel [h, w, C / groups, O]."""
        images, shape = self._images(x, kernel.shape), kernel.shape
        kernel = kernel.astype(images[0].dtype)
        size = images[0].shape[1:3]
        if size == shape[:2]:
            parts = [
                (image * kernel[:, :, number]).sum((1, 2), keepdims=True)
                for number, image in enumerate(images)
            ]
        else:
            height, width = (
                (size[axis] - shape[axis]) // self.strides[axis] + 1 for axis in range(2)
            )
            parts = [
                self._window(image, row, column, height, width) * kernel[row, column, number]
                for number, image in enumerate(images)
                for row in range(shape[0])
                for column in range(shape[1])
            ]
        return _alone(functools.reduce(jnp.add, parts).astype(x.dtype))

    def gradients(self, x: jax.Array, kernel: jax.Array, g: jax.Array) -> tuple[jax.Array, ...]:
        """Those of x and of the kernel, for the gradient g [B, H', W', O] of the result."""
        g = _alone(g)
        of_kernel = self._kernel_gradient(x, g, kernel.shape).astype(kernel.dtype)
        return _alone(self._image_gradient(x, kernel, g)), of_kernel

    def _image_gradient(self, x: jax.Array, kernel: jax.Array, g: jax.Array) -> jax.Array:
        """At stride 1 a convolution with the turned kernel, whose loop pads nothing inside it."""
        height, width, inputs, outputs = kernel.shape
        padding = tuple(
            (size - 1 - before, size - 1 - after)
            for size, (before, after) in zip((height, width), self.padding, strict=True)
        )
        if self.strides != (1, 1) or g.shape[1:3] == (1, 1) or min(map(min, padding)) < 0:
            (gradient,) = jax.linear_transpose(lambda x: self.convolve(x, kernel), x)(g)
            return gradient
        groups = x.shape[-1] // inputs
        turned = kernel[::-1, ::-1].reshape(height, width, inputs, groups, outputs // groups)
        turned = turned.transpose(0, 1, 4, 3, 2).reshape(height, width, -1, x.shape[-1])
        return _Products(self.strides, padding).convolve(g, turned).astype(x.dtype)

    def _kernel_gradient(self, x: jax.Array, g: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        images = self._images(x, shape)
        g = g.astype(images[0].dtype)
        if images[0].shape[1:3] == shape[:2]:
            return jnp.stack([(image * g).sum(0) for image in images], 2)
        batch, height, width, channels = g.shape

        def add_row(step: jax.Array, sums: list[jax.Array]) -> list[jax.Array]:
            number, row = step // height, step % height
            g_row = jax.lax.dynamic_slice(g, (number, row, 0, 0), (1, 1, width, channels))
            start = (number, row * self.strides[0], 0, 0)
            seen = [
                jax.lax.dynamic_slice(image, start, (1, shape[0], *image.shape[2:]))
                for image in images
            ]
            products = [
                self._window(rows, kernel_row, column, 1, width) * g_row
                for rows in seen
                for kernel_row in range(shape[0])
                for column in range(shape[1])
            ]
            return [before + product for before, product in zip(sums, products, strict=True)]

        zeros = [jnp.zeros((1, 1, width, channels), g.dtype)] * math.prod(shape[:3])
        sums = jnp.stack(jax.lax.fori_loop(0, batch * height, add_row, zeros)).sum((1, 2, 3))
        return jnp.moveaxis(sums.reshape(shape[2], *shape[:2], channels), 0, 2)

    def _images(self, x: jax.Array, shape: tuple[int, ...]) -> list[jax.Array]:
        """Padded, in float32 at least: what every output sees of each input of its group."""
        x = _alone(jnp.pad(x, ((0, 0), *self.padding, (0, 0))))
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        inputs, outputs = shape[2:]
        if inputs == 1 and x.shape[-1] == outputs:
            return [x]
        repeats = outputs * inputs // x.shape[-1]
        return [jnp.repeat(x[..., number::inputs], repeats, axis=-1) for number in range(inputs)]

    def _window(
        self, image: jax.Array, row: int, column: int, height: int, width: int
    ) -> jax.Array:
        """What the kernel's pixel at `row` and `column` sees."""
        down, right = self.strides
        rows = slice(row, row + down * (height - 1) + 1, down)
        return image[:, rows, column : column + right * (width - 1) + 1 : right]


def _alone(x: jax.Array) -> jax.Array:
    """Keeps XLA from computing x, or what it comes from, once for every pixel of a kernel."""
    return jax.lax.optimization_barrier(x)

"""The layers that the backbones share, in the terms of the files that their weights come from."""

import functools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from sphereface_jax.models.convolution import convolve

# Caffe's "xavier" is uniform with variance 1/fan_in, which is not Glorot's.
caffe_xavier = jax.nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
kaiming_fan_out = jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal")
torch_linear = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


@jax.custom_vjp
def prelu(x: jax.Array, slope: jax.Array) -> jax.Array:
    """max(x, 0) + slope · min(x, 0).

    On a CPU the gradient of the slope is summed over rows first and within them afterwards: XLA's
    own order takes 2 to 6 times as long there (`experiments.benchmarks.layers`).

    Args:
      x: [B, H, W, C].
      slope: [C], cast to the dtype of x.

    Returns:
      [B, H, W, C].
    """
    return jnp.where(x > 0, x, slope.astype(x.dtype) * x)


def _prelu_forward(x: jax.Array, slope: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    return prelu(x, slope), (x, slope)


def _prelu_backward(saved: tuple[jax.Array, ...], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, slope = saved
    return (
        jnp.where(x > 0, g, slope.astype(g.dtype) * g),
        _channel_sums(g * jnp.minimum(x, 0), slope.dtype),
    )


def _channel_sums(x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Sums over all dimensions but the last; on a CPU over rows first, within them afterwards."""

    def by_rows(x: jax.Array) -> jax.Array:
        rows = x.reshape(-1, x.shape[-2] * x.shape[-1])
        row = jax.lax.optimization_barrier(rows.sum(0, dtype=dtype))
        return row.reshape(x.shape[-2:]).sum(0)

    def at_once(x: jax.Array) -> jax.Array:
        return x.sum(range(x.ndim - 1), dtype=dtype)

    return jax.lax.platform_dependent(x, cpu=by_rows, default=at_once)


prelu.defvjp(_prelu_forward, _prelu_backward)


class PReLU(nnx.Module):
    """max(x, 0) + slope · min(x, 0), with one trained slope a channel, 0.25 at the start."""

    def __init__(self, channels: int, *, dtype: jnp.dtype):
        self.slope = nnx.Param(jnp.full((channels,), 0.25, jnp.float32))
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        return prelu(x.astype(self.dtype), self.slope[...])


class Constant(nnx.Variable):
    """A weight that no optimiser changes; a checkpoint has it with the network's other state."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def batch_normalized(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalises x by the mean and variance of its batch, and returns these too.

    The sums are taken as in `prelu`, and so are those of the gradients: 6 to 9 times as fast on a
    CPU as XLA's own order. No gradient goes through the mean and variance that are returned.

    Args:
      x: [..., C], at least two dimensions.
      scale: γ [C].
      bias: β [C].
      epsilon: added to the variance.

    Returns:
      γ (x − mean) / √(variance + ε) + β, the mean [C] and the variance [C], in float32.
    """
    return _batch_normalized_forward(x, scale, bias, epsilon)[0]


def _batch_normalized_forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], tuple[jax.Array, ...]]:
    wide = x.astype(jnp.float32)
    count = x.size // x.shape[-1]
    mean = _channel_sums(wide, jnp.float32) / count
    squares = _channel_sums(jnp.square(wide), jnp.float32) / count
    variance = jnp.maximum(squares - jnp.square(mean), 0)
    inverse = jax.lax.rsqrt(variance + epsilon)
    y = (wide - mean) * (inverse * scale) + bias
    return (y, mean, variance), (x, scale, mean, inverse)


def _batch_normalized_backward(
    epsilon: float, saved: tuple[jax.Array, ...], gradients: tuple[jax.Array, ...]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, scale, mean, inverse = saved
    # Alone, so that XLA does not compute g for each sum that it is in.
    g, count = jax.lax.optimization_barrier(gradients[0]), x.size // x.shape[-1]
    centred = x.astype(jnp.float32) - mean
    of_bias = _channel_sums(g, jnp.float32)
    of_scale = inverse * _channel_sums(g * centred, jnp.float32)
    inner = g - of_bias / count - centred * (inverse * of_scale / count)
    return (scale * inverse * inner).astype(x.dtype), of_scale, of_bias


batch_normalized.defvjp(_batch_normalized_forward, _batch_normalized_backward)


class BatchNorm(nnx.BatchNorm):
    """Batch normalisation with PyTorch's constants, computed in float32.

    Training normalises by the statistics of the whole batch, over all devices that it is sharded
    over, and moves the running ones a tenth of the way to them; the running variance is that of
    the batch, not PyTorch's B/(B − 1) times that.

    Args:
      channels: of the last dimension.
      train_scale: whether γ is trained, or a constant 1.
      train_bias: whether β is trained, or a constant 0.
      epsilon: added to the variance.
      dtype: of the result.
      rngs: unused keys.
    """

    def __init__(
        self,
        channels: int,
        *,
        train_scale: bool = True,
        train_bias: bool = True,
        epsilon: float = 1e-5,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        super().__init__(channels, momentum=0.9, epsilon=epsilon, dtype=jnp.float32, rngs=rngs)
        if not train_scale:
            self.scale = Constant(jnp.ones((channels,), jnp.float32))  # type: ignore[assignment]
        if not train_bias:
            self.bias = Constant(jnp.zeros((channels,), jnp.float32))  # type: ignore[assignment]
        self.result_dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]
        if self.use_running_average:
            return super().__call__(x).astype(self.result_dtype)
        assert self.scale is not None
        assert self.bias is not None
        y, *found = batch_normalized(x, self.scale[...], self.bias[...], self.epsilon)
        for running, batch in zip((self.mean, self.var), found, strict=True):
            kept = self.momentum * running[...] + (1 - self.momentum) * batch
            running[...] = jax.lax.stop_gradient(kept)
        return y.astype(self.result_dtype)


class Bias(nnx.Module):
    """x + bias: what is left of a normalisation that was folded into the layer before it.

    Args:
      channels: of the last dimension.
      after_bias: the layer before has a bias itself, and this does nothing.
      epsilon: of the normalisation whose place it takes.
      dtype: of the result.
    """

    def __init__(
        self,
        channels: int,
        *,
        after_bias: bool = False,
        epsilon: float = 1e-5,
        dtype: jnp.dtype,
    ):
        self.epsilon = epsilon
        self.bias = None if after_bias else nnx.Param(jnp.zeros((channels,), jnp.float32))
        self.channels = channels
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        return x if self.bias is None else x + self.bias[...].astype(self.dtype)


def normalization(
    channels: int,
    *,
    folded: bool,
    after_bias: bool = False,
    train_scale: bool = True,
    train_bias: bool = True,
    epsilon: float = 1e-5,
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
) -> BatchNorm | Bias:
    """The normalisation after a convolution or a linear layer, or what folding leaves of it.

    Args:
      channels: of the last dimension.
      folded: whether the weights already hold the normalisation, and only its bias is left.
      after_bias: the layer before has a bias itself; where folded, nothing is left then.
      train_scale: whether the scale is trained; else it stays 1. Of no effect where folded.
      train_bias: whether the bias is trained; else it stays 0. Of no effect where folded.
      epsilon: added to the variance.
      dtype: of the result.
      rngs: for `BatchNorm`.

    Returns:
      The layer.
    """
    if folded:
        return Bias(channels, after_bias=after_bias, epsilon=epsilon, dtype=dtype)
    return BatchNorm(
        channels,
        train_scale=train_scale,
        train_bias=train_bias,
        epsilon=epsilon,
        dtype=dtype,
        rngs=rngs,
    )


def convolution(
    in_channels: int,
    out_channels: int,
    *,
    kernel: int | tuple[int, int] = 3,
    stride: int = 1,
    padding: int = 1,
    groups: int = 1,
    use_bias: bool = False,
    kernel_init: jax.nn.initializers.Initializer,
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """A convolution padded as in Caffe and PyTorch: by `padding` pixels on every side.

    Args:
      in_channels: a multiple of `groups`.
      out_channels: a multiple of `groups`.
      kernel: height and width, or one number for both.
      stride: in both directions.
      padding: pixels of zeros on every side.
      groups: into how many independent parts the channels are cut.
      use_bias: whether a bias is added.
      kernel_init: how the kernel starts.
      dtype: that it computes in.
      rngs: for `kernel_init`.

    Returns:
      The layer, from [B, H, W, in_channels] to [B, H′, W′, out_channels].
    """
    size = (kernel, kernel) if isinstance(kernel, int) else kernel
    return nnx.Conv(
        in_channels,
        out_channels,
        kernel_size=size,
        strides=stride,
        padding=padding,
        feature_group_count=groups,
        use_bias=use_bias,
        kernel_init=kernel_init,
        dtype=dtype,
        conv_general_dilated=convolve,
        rngs=rngs,
    )


def run_units(units: Iterable[nnx.Module], x: jax.Array, *, remat: bool) -> jax.Array:
    """Runs an array through units one after another.

    With `remat` the backward pass keeps what goes into each unit and computes what is in it anew.
    Values, gradients and statistics stay the same to rounding: these are gathered once.

    Args:
      units: each maps one array to one array.
      x: what the first is given.
      remat: whether to compute anew what is inside a unit.

    Returns:
      What the last returns.
    """
    call = nnx.remat(_call) if remat else _call
    for unit in units:
        x = call(unit, x)
    return x


def _call(unit: Any, x: jax.Array) -> jax.Array:
    return unit(x)


def halved(image_size: tuple[int, int], times: int) -> tuple[int, int]:
    """Height and width after `times` layers of stride 2.

    Args:
      image_size: height and width in pixels.
      times: how many layers.

    Returns:
      Height and width, rounded up at each.
    """
    height, width = image_size
    for _ in range(times):
        height, width = -(-height // 2), -(-width // 2)
    return height, width

r"""SphereNet: the plain residual network of the SphereFace paper.

Four stages of 64, 128, 256 and 512 channels. A stage opens with one 3×3 convolution of stride 2,
which halves the image, and goes on with residual units

    x ← x + PReLU(conv(PReLU(conv(x)))),

two activations and then the sum, with none after it; no batch normalisation and no projection.
What is left of the image (7×6 of 112×96) is flattened into one linear layer, whose output is the
embedding, without activation: its length is the scale of the angular softmax.

Depth counts convolutions: 4 + 2 × (units), so that SphereNet-20 has 20 and one linear layer.

References:
  Liu et al., SphereFace: Deep Hypersphere Embedding for Face Recognition, CVPR 2017.
  https://arxiv.org/abs/1704.08063
  Initialisers and biases from the authors' Caffe model, sphereface_model.prototxt.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

UNITS = {
    4: (0, 0, 0, 0),
    10: (0, 1, 2, 0),
    20: (1, 2, 4, 1),
    36: (2, 4, 8, 2),
    64: (3, 8, 16, 3),
}
"""Residual units a stage, by depth."""

# Caffe's "xavier" is uniform with variance 1/fan_in, which is not Glorot's.
caffe_xavier = jax.nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
unit_normal = jax.nn.initializers.normal(0.01)


class PReLU(nnx.Module):
    """max(x, 0) + slope · min(x, 0), with one trained slope a channel, 0.25 at the start."""

    def __init__(self, channels: int, *, dtype: jnp.dtype):
        self.slope = nnx.Param(jnp.full((channels,), 0.25, jnp.float32))
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.where(x > 0, x, self.slope[...].astype(self.dtype) * x)


def conv3x3(
    in_channels: int,
    out_channels: int,
    *,
    stride: int,
    use_bias: bool,
    kernel_init: jax.nn.initializers.Initializer,
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """A 3×3 convolution padded by one pixel on each side, as in Caffe."""
    return nnx.Conv(
        in_channels,
        out_channels,
        kernel_size=(3, 3),
        strides=stride,
        padding=1,
        use_bias=use_bias,
        kernel_init=kernel_init,
        dtype=dtype,
        rngs=rngs,
    )


class ResidualUnit(nnx.Module):
    """x + PReLU(conv(PReLU(conv(x)))), both convolutions 3×3 without bias."""

    def __init__(self, channels: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        # The authors give these biases the constant 0 and no learning rate: there are none.
        convolution = functools.partial(
            conv3x3,
            channels,
            channels,
            stride=1,
            use_bias=False,
            kernel_init=unit_normal,
            dtype=dtype,
            rngs=rngs,
        )
        self.conv1 = convolution()
        self.prelu1 = PReLU(channels, dtype=dtype)
        self.conv2 = convolution()
        self.prelu2 = PReLU(channels, dtype=dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.prelu2(self.conv2(self.prelu1(self.conv1(x))))


class Stage(nnx.Module):
    """A convolution of stride 2 with PReLU, then residual units."""

    def __init__(
        self, in_channels: int, channels: int, units: int, *, dtype: jnp.dtype, rngs: nnx.Rngs
    ):
        self.conv = conv3x3(
            in_channels,
            channels,
            stride=2,
            use_bias=True,
            kernel_init=caffe_xavier,
            dtype=dtype,
            rngs=rngs,
        )
        self.prelu = PReLU(channels, dtype=dtype)
        self.units = nnx.List(ResidualUnit(channels, dtype=dtype, rngs=rngs) for _ in range(units))

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.prelu(self.conv(x))
        for unit in self.units:
            x = unit(x)
        return x


class SphereNet(nnx.Module):
    """Maps face images [B, H, W, 3] to embeddings [B, embedding_dim].

    Args:
      depth: 4, 10, 20, 36 or 64.
      embedding_dim: the length of an embedding, 512 in the paper.
      image_size: height and width in pixels, (112, 96) in the paper.
      channels: of the four stages; smaller ones make a smaller network for tests and tutorials.
      dtype: of the computation; parameters are float32 and embeddings come back as float32.
      rngs: the keys of the initialisers.

    Raises:
      ValueError: the depth is none of those of the paper.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> small = {"image_size": (32, 32), "channels": (4, 4, 8, 8)}
      >>> model = nnx.jit(lambda: SphereNet(4, **small, rngs=nnx.Rngs(0)))()
      >>> nnx.jit(SphereNet.__call__)(model, jnp.zeros([2, 32, 32, 3])).shape
      (2, 512)
    """

    def __init__(
        self,
        depth: int,
        *,
        embedding_dim: int = 512,
        image_size: tuple[int, int] = (112, 96),
        channels: Sequence[int] = (64, 128, 256, 512),
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if depth not in UNITS:
            raise ValueError(f"depth: expected one of {sorted(UNITS)}, got {depth}")
        inputs = (3, *channels[:-1])
        self.stages = nnx.List(
            Stage(*plan, dtype=dtype, rngs=rngs)
            for plan in zip(inputs, channels, UNITS[depth], strict=True)
        )
        height, width = image_size
        for _ in channels:
            height, width = -(-height // 2), -(-width // 2)
        self.embedding = nnx.Linear(
            height * width * channels[-1],
            embedding_dim,
            kernel_init=caffe_xavier,
            dtype=dtype,
            rngs=rngs,
        )
        self.dtype = dtype

    def __call__(self, images: jax.Array) -> jax.Array:
        x = images.astype(self.dtype)
        for stage in self.stages:
            x = stage(x)
        return self.embedding(x.reshape(x.shape[0], -1)).astype(jnp.float32)

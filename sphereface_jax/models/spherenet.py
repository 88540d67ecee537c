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
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from sphereface_jax.models.layers import PReLU, caffe_xavier, convolution, halved, run_units

UNITS = {
    4: (0, 0, 0, 0),
    10: (0, 1, 2, 0),
    20: (1, 2, 4, 1),
    36: (2, 4, 8, 2),
    64: (3, 8, 16, 3),
}
"""Residual units a stage, by depth."""

unit_normal = jax.nn.initializers.normal(0.01)


class ResidualUnit(nnx.Module):
    """x + PReLU(conv(PReLU(conv(x)))), both convolutions 3×3."""

    def __init__(self, channels: int, *, use_bias: bool, dtype: jnp.dtype, rngs: nnx.Rngs):
        unit_convolution = functools.partial(
            convolution,
            channels,
            channels,
            use_bias=use_bias,
            kernel_init=unit_normal,
            dtype=dtype,
            rngs=rngs,
        )
        self.conv1 = unit_convolution()
        self.prelu1 = PReLU(channels, dtype=dtype)
        self.conv2 = unit_convolution()
        self.prelu2 = PReLU(channels, dtype=dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.prelu2(self.conv2(self.prelu1(self.conv1(x))))


class Stage(nnx.Module):
    """A convolution of stride 2 with PReLU, then residual units."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        units: int,
        *,
        residual_bias: bool,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        self.conv = convolution(
            in_channels,
            channels,
            stride=2,
            use_bias=True,
            kernel_init=caffe_xavier,
            dtype=dtype,
            rngs=rngs,
        )
        self.prelu = PReLU(channels, dtype=dtype)
        self.units = nnx.List(
            ResidualUnit(channels, use_bias=residual_bias, dtype=dtype, rngs=rngs)
            for _ in range(units)
        )

    def __call__(self, x: jax.Array, *, remat: bool = False) -> jax.Array:
        x = self.prelu(self.conv(x))
        return run_units(self.units, x, remat=remat)


class SphereNet(nnx.Module):
    """Maps face images [B, H, W, 3] to embeddings [B, embedding_dim].

    Args:
      depth: 4, 10, 20, 36 or 64.
      embedding_dim: the length of an embedding, 512 in the paper.
      image_size: height and width in pixels, (112, 96) in the paper.
      channels: of the four stages; smaller ones make a smaller network for tests and tutorials.
      residual_bias: trained biases in the residual convolutions too, as in clcarwin's sphere20a.
        The authors give them the constant 0 and no learning rate: they are left out.
      remat: computes each unit anew in the backward pass instead of keeping what is in it.
      dtype: of the computation; parameters are float32 and embeddings come back as float32.
      rngs: the keys of the initialisers.

    Raises:
      ValueError: the depth is not one of the paper's.

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
        residual_bias: bool = False,
        remat: bool = False,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if depth not in UNITS:
            raise ValueError(f"depth: expected one of {sorted(UNITS)}, got {depth}")
        inputs = (3, *channels[:-1])
        self.stages = nnx.List(
            Stage(*plan, residual_bias=residual_bias, dtype=dtype, rngs=rngs)
            for plan in zip(inputs, channels, UNITS[depth], strict=True)
        )
        self.feature_shape = (*halved(image_size, len(channels)), channels[-1])
        self.embedding = nnx.Linear(
            math.prod(self.feature_shape),
            embedding_dim,
            kernel_init=caffe_xavier,
            dtype=dtype,
            rngs=rngs,
        )
        self.remat = remat
        self.dtype = dtype

    def __call__(self, images: jax.Array) -> jax.Array:
        x = images.astype(self.dtype)
        for stage in self.stages:
            x = stage(x, remat=self.remat)
        return self.embedding(x.reshape(x.shape[0], -1)).astype(jnp.float32)

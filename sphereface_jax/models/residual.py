"""What SphereNet and SFNet share: four stages of 3×3 convolutions with residual units.

A stage opens with one convolution of stride 2, which halves the image, and goes on with residual
units of two convolutions each. What is left of the image is flattened into one linear layer, whose
output is the embedding. The networks differ in initialisers and biases, in the activation and
whether it comes before the sum or after it, and in batch normalisation: a `Style`.
"""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from sphereface_jax.models.layers import (
    BatchNorm,
    Bias,
    PReLU,
    convolution,
    halved,
    normalization,
    run_units,
)

UNITS = {
    4: (0, 0, 0, 0),
    10: (0, 1, 2, 0),
    20: (1, 2, 4, 1),
    36: (2, 4, 8, 2),
    64: (3, 8, 16, 3),
}
"""Residual units a stage, by depth."""


@dataclasses.dataclass(frozen=True)
class Style:
    """How the layers of a residual network are made.

    Attributes:
      opening_init: draws the kernels of the convolutions that open a stage.
      unit_init: those of the residual units.
      embedding_init: that of the last layer.
      opening_bias: whether the first have biases.
      unit_bias: whether the second have.
      prelu: PReLU in place of ReLU.
      activate_before_sum: a unit activates what it adds, not the sum.
      batch_norm: normalise after every convolution and after the last layer.
      folded: biases stand in the place of these normalisations.
      dtype: of the computation.
    """

    opening_init: jax.nn.initializers.Initializer
    unit_init: jax.nn.initializers.Initializer
    embedding_init: jax.nn.initializers.Initializer
    opening_bias: bool
    unit_bias: bool
    prelu: bool
    activate_before_sum: bool
    batch_norm: bool = False
    folded: bool = False
    dtype: jnp.dtype = jnp.float32

    def layer(
        self, in_channels: int, channels: int, *, stride: int, rngs: nnx.Rngs
    ) -> tuple[nnx.Conv, BatchNorm | Bias | None, PReLU | None]:
        """Makes a 3×3 convolution and what follows it, None for what this style lacks.

        Args:
          in_channels: that it reads.
          channels: that it makes.
          stride: 2 opens a stage.
          rngs: the keys of the initialisers.

        Returns:
          The convolution, its normalisation and its PReLU.
        """
        opens = stride == 2
        conv = convolution(
            in_channels,
            channels,
            stride=stride,
            use_bias=self.opening_bias if opens else self.unit_bias,
            kernel_init=self.opening_init if opens else self.unit_init,
            dtype=self.dtype,
            rngs=rngs,
        )
        norm = self.norm(channels, rngs=rngs)
        return conv, norm, PReLU(channels, dtype=self.dtype) if self.prelu else None

    def norm(
        self, channels: int, *, after_bias: bool = False, rngs: nnx.Rngs
    ) -> BatchNorm | Bias | None:
        """Makes a normalisation, if this style has any.

        Args:
          channels: that it normalises.
          after_bias: of a layer with a bias.
          rngs: the keys of the initialisers.

        Returns:
          It, or the bias that it is folded into, or None.
        """
        if not self.batch_norm:
            return None
        return normalization(
            channels, folded=self.folded, after_bias=after_bias, dtype=self.dtype, rngs=rngs
        )


class ResidualUnit(nnx.Module):
    """Two 3×3 convolutions and the sum."""

    def __init__(self, channels: int, style: Style, *, rngs: nnx.Rngs):
        self.conv1, self.norm1, self.prelu1 = style.layer(channels, channels, stride=1, rngs=rngs)
        self.conv2, self.norm2, self.prelu2 = style.layer(channels, channels, stride=1, rngs=rngs)
        self.activate_before_sum = style.activate_before_sum

    def __call__(self, x: jax.Array) -> jax.Array:
        inner = _activated(self.prelu1, _normalized(self.norm1, self.conv1(x)))
        inner = _normalized(self.norm2, self.conv2(inner))
        if self.activate_before_sum:
            return x + _activated(self.prelu2, inner)
        return _activated(self.prelu2, x + inner)


class Stage(nnx.Module):
    """A convolution that halves the image, and residual units."""

    def __init__(
        self, in_channels: int, channels: int, units: int, style: Style, *, rngs: nnx.Rngs
    ):
        self.conv, self.norm, self.prelu = style.layer(in_channels, channels, stride=2, rngs=rngs)
        self.units = nnx.List(ResidualUnit(channels, style, rngs=rngs) for _ in range(units))

    def __call__(self, x: jax.Array, *, remat: bool = False) -> jax.Array:
        x = _activated(self.prelu, _normalized(self.norm, self.conv(x)))
        return run_units(self.units, x, remat=remat)


class ResidualNet(nnx.Module):
    """Maps face images [B, H, W, 3] to embeddings [B, embedding_dim]."""

    def __init__(
        self,
        depth: int,
        style: Style,
        *,
        embedding_dim: int,
        image_size: tuple[int, int],
        channels: Sequence[int],
        remat: bool,
        rngs: nnx.Rngs,
    ):
        if depth not in UNITS:
            raise ValueError(f"depth: expected one of {sorted(UNITS)}, got {depth}")
        plans = zip((3, *channels[:-1]), channels, UNITS[depth], strict=True)
        self.stages = nnx.List(Stage(*plan, style, rngs=rngs) for plan in plans)
        self.feature_shape = (*halved(image_size, len(channels)), channels[-1])
        self.embedding = nnx.Linear(
            math.prod(self.feature_shape),
            embedding_dim,
            kernel_init=style.embedding_init,
            dtype=style.dtype,
            rngs=rngs,
        )
        self.norm = style.norm(embedding_dim, after_bias=True, rngs=rngs)
        self.remat = remat
        self.dtype = style.dtype

    def __call__(self, images: jax.Array) -> jax.Array:
        x = images.astype(self.dtype)
        for stage in self.stages:
            x = stage(x, remat=self.remat)
        x = self.embedding(x.reshape(x.shape[0], -1))
        return _normalized(self.norm, x).astype(jnp.float32)


def _normalized(norm: BatchNorm | Bias | None, x: jax.Array) -> jax.Array:
    return x if norm is None else norm(x)


def _activated(prelu: PReLU | None, x: jax.Array) -> jax.Array:
    return nnx.relu(x) if prelu is None else prelu(x)

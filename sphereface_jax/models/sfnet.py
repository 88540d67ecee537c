r"""SFNet: SphereNet as OpenSphere has it, with ReLU, with or without batch normalisation.

The plan of channels and units is SphereNet's. A unit is

    x ← ReLU(x + norm(conv(ReLU(norm(conv(x)))))),

and in the older variant, which OpenSphere calls deprecated and whose published VGGFace2 recipes
use it, x ← x + ReLU(conv(ReLU(conv(x)))). With normalisation the convolutions have no bias, and
the embedding is normalised too.

Biases start at 0; PyTorch draws them.

References:
  OpenSphere, model/backbone/sfnet.py and sfnet_deprecated.py.
  https://github.com/ydwen/opensphere
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from sphereface_jax.models.layers import (
    BatchNorm,
    Bias,
    convolution,
    halved,
    kaiming_fan_out,
    normalization,
    run_units,
    torch_linear,
)
from sphereface_jax.models.spherenet import UNITS

xavier_normal = jax.nn.initializers.glorot_normal()


class SFUnit(nnx.Module):
    """Two 3×3 convolutions and the sum; ReLU after the sum, or before it."""

    def __init__(
        self,
        channels: int,
        *,
        batch_norm: bool,
        folded: bool,
        relu_before_sum: bool,
        kernel_init: jax.nn.initializers.Initializer,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        conv = functools.partial(
            convolution,
            channels,
            channels,
            use_bias=not batch_norm,
            kernel_init=kernel_init,
            dtype=dtype,
            rngs=rngs,
        )
        norm = functools.partial(normalization, channels, folded=folded, dtype=dtype, rngs=rngs)
        self.conv1 = conv()
        self.norm1 = norm() if batch_norm else None
        self.conv2 = conv()
        self.norm2 = norm() if batch_norm else None
        self.relu_before_sum = relu_before_sum

    def __call__(self, x: jax.Array) -> jax.Array:
        inner = nnx.relu(_normalized(self.norm1, self.conv1(x)))
        inner = _normalized(self.norm2, self.conv2(inner))
        return x + nnx.relu(inner) if self.relu_before_sum else nnx.relu(x + inner)


class SFStage(nnx.Module):
    """A convolution of stride 2 with ReLU, then units."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        units: int,
        *,
        batch_norm: bool,
        folded: bool,
        relu_before_sum: bool,
        kernel_init: jax.nn.initializers.Initializer,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        self.conv = convolution(
            in_channels,
            channels,
            stride=2,
            use_bias=not batch_norm,
            kernel_init=kernel_init,
            dtype=dtype,
            rngs=rngs,
        )
        norm = functools.partial(normalization, channels, folded=folded, dtype=dtype, rngs=rngs)
        self.norm = norm() if batch_norm else None
        unit = functools.partial(
            SFUnit,
            channels,
            batch_norm=batch_norm,
            folded=folded,
            relu_before_sum=relu_before_sum,
            kernel_init=kernel_init,
            dtype=dtype,
            rngs=rngs,
        )
        self.units = nnx.List(unit() for _ in range(units))

    def __call__(self, x: jax.Array, *, remat: bool = False) -> jax.Array:
        x = nnx.relu(_normalized(self.norm, self.conv(x)))
        return run_units(self.units, x, remat=remat)


class SFNet(nnx.Module):
    """Maps face images [B, H, W, 3] to embeddings [B, embedding_dim].

    Args:
      depth: 4, 10, 20, 36 or 64.
      batch_norm: normalise after every convolution and after the last layer.
      deprecated: OpenSphere's older variant, with ReLU before the sum; has no normalisation.
      embedding_dim: the length of an embedding.
      image_size: height and width in pixels, (112, 112) in OpenSphere.
      channels: of the four stages.
      folded: the normalisations are folded into the layers before them, and biases stand in their
        place.
      remat: computes each unit anew in the backward pass instead of keeping what is in it.
      dtype: of the computation; parameters are float32 and embeddings come back as float32.
      rngs: the keys of the initialisers.

    Raises:
      ValueError: another depth, both variants at once, or no normalisation to fold.
    """

    def __init__(
        self,
        depth: int,
        *,
        batch_norm: bool = False,
        deprecated: bool = False,
        embedding_dim: int = 512,
        image_size: tuple[int, int] = (112, 112),
        channels: Sequence[int] = (64, 128, 256, 512),
        folded: bool = False,
        remat: bool = False,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if depth not in UNITS:
            raise ValueError(f"depth: expected one of {sorted(UNITS)}, got {depth}")
        if batch_norm and deprecated:
            raise ValueError("batch_norm: the deprecated variant has none")
        if folded and not batch_norm:
            raise ValueError("folded: expected a network with normalisation, got one without")
        inputs = (3, *channels[:-1])
        self.stages = nnx.List(
            SFStage(
                *plan,
                batch_norm=batch_norm,
                folded=folded,
                relu_before_sum=deprecated,
                kernel_init=xavier_normal if deprecated else kaiming_fan_out,
                dtype=dtype,
                rngs=rngs,
            )
            for plan in zip(inputs, channels, UNITS[depth], strict=True)
        )
        self.feature_shape = (*halved(image_size, len(channels)), channels[-1])
        self.embedding = nnx.Linear(
            math.prod(self.feature_shape),
            embedding_dim,
            kernel_init=torch_linear,
            dtype=dtype,
            rngs=rngs,
        )
        norm = functools.partial(normalization, folded=folded, dtype=dtype, rngs=rngs)
        self.norm = norm(embedding_dim, after_bias=True) if batch_norm else None
        self.deprecated = deprecated
        self.remat = remat
        self.dtype = dtype

    def __call__(self, images: jax.Array) -> jax.Array:
        x = images.astype(self.dtype)
        for stage in self.stages:
            x = stage(x, remat=self.remat)
        x = self.embedding(x.reshape(x.shape[0], -1))
        return _normalized(self.norm, x).astype(jnp.float32)


def _normalized(norm: BatchNorm | Bias | None, x: jax.Array) -> jax.Array:
    return x if norm is None else norm(x)

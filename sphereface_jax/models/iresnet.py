r"""IResNet: the residual network of ArcFace and of most face recognition since.

A stem of one 3×3 convolution at full resolution, four stages of units

    x ← shortcut(x) + norm(conv(PReLU(norm(conv(norm(x)))))),

of which the first of each stage halves the image in its second convolution and has a 1×1
convolution with normalisation for shortcut; normalisation before and after the last, linear layer.
No activation follows a sum. Dropout, 0 in the source's configs, is left out.

AdaFace's plan, `ir`, differs in two things. Where a unit of stride 2 keeps the number of channels,
as the first one does, its shortcut takes every second pixel and has no weights; and the last
normalisation has neither scale nor bias. Its dropout of 0.4 before the linear layer is left out.

References:
  Deng et al., ArcFace: Additive Angular Margin Loss for Deep Face Recognition, CVPR 2019.
  https://arxiv.org/abs/1801.07698
  InsightFace, recognition/arcface_torch/backbones/iresnet.py.
  Kim et al., AdaFace: Quality Adaptive Margin for Face Recognition, CVPR 2022.
  https://arxiv.org/abs/2204.00964; mk-minchul/AdaFace, net.py.
"""

import functools
import math
from collections.abc import Callable, Sequence

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
    torch_linear,
)

UNITS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 14, 3),
    100: (3, 13, 30, 3),
    200: (6, 26, 60, 6),
}
"""Residual units a stage, by depth."""

wide_normal = jax.nn.initializers.normal(0.1)


class Shortcut(nnx.Module):
    """A 1×1 convolution of stride 2 with normalisation, made as those of its unit are."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        conv: Callable[..., nnx.Conv],
        norm: Callable[..., BatchNorm | Bias],
    ):
        self.conv = conv(in_channels, channels, kernel=1, stride=2, padding=0)
        self.norm = norm(channels)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.norm(self.conv(x))


class Subsample(nnx.Module):
    """Every second pixel of every second row."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return x[:, ::2, ::2]


class IResUnit(nnx.Module):
    """shortcut(x) + norm(conv(PReLU(norm(conv(norm(x))))))."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int,
        ir: bool,
        folded: bool,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        conv = functools.partial(convolution, kernel_init=wide_normal, dtype=dtype, rngs=rngs)
        norm = functools.partial(normalization, folded=folded, dtype=dtype, rngs=rngs)
        self.norm1 = BatchNorm(in_channels, dtype=dtype, rngs=rngs)
        self.conv1 = conv(in_channels, channels)
        self.norm2 = norm(channels)
        self.prelu = PReLU(channels, dtype=dtype)
        self.conv2 = conv(channels, channels, stride=stride)
        self.norm3 = norm(channels)
        shortcut: Shortcut | Subsample | None = None
        if stride > 1:
            shortcut = (
                Subsample()
                if ir and in_channels == channels
                else Shortcut(in_channels, channels, conv=conv, norm=norm)
            )
        self.shortcut = shortcut

    def __call__(self, x: jax.Array) -> jax.Array:
        inner = self.prelu(self.norm2(self.conv1(self.norm1(x))))
        inner = self.norm3(self.conv2(inner))
        return inner + (x if self.shortcut is None else self.shortcut(x))


class IResNet(nnx.Module):
    """Maps face images [B, H, W, 3] to embeddings [B, embedding_dim].

    Args:
      depth: 18, 34, 50, 100 or 200.
      ir: AdaFace's plan in place of InsightFace's.
      embedding_dim: the length of an embedding.
      image_size: height and width in pixels, (112, 112) in InsightFace.
      channels: of the four stages; the stem has as many as the first.
      folded: the normalisations after a layer are folded into it, and biases stand in their place;
        those before a convolution stay.
      remat: computes each unit anew in the backward pass instead of keeping what is in it.
      dtype: of the computation; parameters are float32 and embeddings come back as float32.
      rngs: the keys of the initialisers.

    Raises:
      ValueError: another depth.
    """

    def __init__(
        self,
        depth: int,
        *,
        ir: bool = False,
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
        norm = functools.partial(normalization, folded=folded, dtype=dtype, rngs=rngs)
        self.conv = convolution(3, channels[0], kernel_init=wide_normal, dtype=dtype, rngs=rngs)
        self.norm1 = norm(channels[0])
        self.prelu = PReLU(channels[0], dtype=dtype)
        inputs = (channels[0], *channels[:-1])
        unit = functools.partial(IResUnit, ir=ir, folded=folded, dtype=dtype, rngs=rngs)
        self.stages = nnx.List(
            nnx.List(
                [
                    unit(before, width, stride=2),
                    *(unit(width, width, stride=1) for _ in range(count - 1)),
                ]
            )
            for before, width, count in zip(inputs, channels, UNITS[depth], strict=True)
        )
        self.norm2 = BatchNorm(channels[-1], dtype=dtype, rngs=rngs)
        self.feature_shape = (*halved(image_size, len(channels)), channels[-1])
        self.embedding = nnx.Linear(
            math.prod(self.feature_shape),
            embedding_dim,
            kernel_init=torch_linear,
            dtype=dtype,
            rngs=rngs,
        )
        self.norm3 = norm(embedding_dim, train_scale=False, train_bias=not ir, after_bias=True)
        self.ir = ir
        self.remat = remat
        self.dtype = dtype

    def __call__(self, images: jax.Array) -> jax.Array:
        x = self.prelu(self.norm1(self.conv(images.astype(self.dtype))))
        for stage in self.stages:
            x = run_units(stage, x, remat=self.remat)
        x = self.norm2(x)
        return self.norm3(self.embedding(x.reshape(x.shape[0], -1))).astype(jnp.float32)

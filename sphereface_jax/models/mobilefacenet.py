r"""MobileFaceNet: depthwise bottlenecks for phones, in the paper's width and InsightFace's two.

A bottleneck is a 1×1 convolution up, a 3×3 depthwise one and a linear 1×1 one down, each with
normalisation, the first two with PReLU; those of stride 1 are residual. What is left of the image,
7×7 of 112×112, meets one depthwise kernel of that size (global depthwise convolution), then a
linear layer without bias, then normalisation.

What varies is the width between the bottlenecks: the paper's 64 and 128 channels, doubled in
InsightFace's network, doubled again in its large one, which is deeper too. The bottlenecks' inner
widths are the same in all. InsightFace's second layer is meant to be depthwise but is grouped by 64
at 128 channels, that is two channels a group; so it is here, for the sake of its weights. foamliu's
has the paper's width, ReLU6 in place of PReLU, a pointwise layer after the second, depthwise one,
and a bias in the last.

References:
  Chen et al., MobileFaceNets: Efficient CNNs for Accurate Real-Time Face Verification on Mobile
  Devices, CCBR 2018. https://arxiv.org/abs/1804.07573
  InsightFace, recognition/arcface_torch/backbones/mobilefacenet.py, get_mbf and get_mbf_large.
  foamliu/MobileFaceNet, mobilefacenet.py.
"""

import functools
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from sphereface_jax.models.layers import (
    PReLU,
    convolution,
    halved,
    kaiming_fan_out,
    normalization,
    run_units,
)

Activation = Literal["prelu", "relu", "relu6", "none"]


class ConvNorm(nnx.Module):
    """A convolution without bias, normalisation, and an activation."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        kernel: int | tuple[int, int] = 1,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        activation: Activation = "prelu",
        folded: bool = False,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        self.conv = convolution(
            in_channels,
            channels,
            kernel=kernel,
            stride=stride,
            padding=padding,
            groups=groups,
            kernel_init=kaiming_fan_out,
            dtype=dtype,
            rngs=rngs,
        )
        self.norm = normalization(channels, folded=folded, dtype=dtype, rngs=rngs)
        self.prelu = PReLU(channels, dtype=dtype) if activation == "prelu" else None
        self.activation = activation

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.norm(self.conv(x))
        if self.prelu is not None:
            return self.prelu(x)
        if self.activation == "relu":
            return nnx.relu(x)
        return nnx.relu6(x) if self.activation == "relu6" else x


class Bottleneck(nnx.Module):
    """1×1 up, 3×3 depthwise, linear 1×1 down; residual where it keeps the size."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        expanded: int,
        *,
        stride: int,
        activation: Activation,
        folded: bool,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        layer = functools.partial(
            ConvNorm, activation=activation, folded=folded, dtype=dtype, rngs=rngs
        )
        self.expand = layer(in_channels, expanded)
        self.depthwise = layer(
            expanded, expanded, kernel=3, stride=stride, padding=1, groups=expanded
        )
        self.project = layer(expanded, channels, activation="none")
        self.residual = stride == 1

    def __call__(self, x: jax.Array) -> jax.Array:
        inner = self.project(self.depthwise(self.expand(x)))
        return x + inner if self.residual else inner


class MobileFaceNet(nnx.Module):
    """Maps face images [B, H, W, 3] to embeddings [B, embedding_dim].

    Args:
      scale: width between the bottlenecks, in multiples of the paper's.
      activation: after the convolutions that have one.
      separable: the second layer is a depthwise convolution and a 1×1 one, each with ReLU.
      embedding_bias: whether the linear layer has a bias.
      residual: bottlenecks that keep the resolution, at the first one and after each of stride 2; 0
        at the first stands for one grouped convolution.
      embedding_dim: the length of an embedding.
      image_size: height and width in pixels, (112, 112) in InsightFace.
      channels: groups of the second layer; inner channels of the bottlenecks at the first and
        second resolution; at the third and fourth; of the widest and of the last convolution.
      folded: the normalisations are folded into the layers before them, and biases stand in their
        place.
      remat: computes each bottleneck anew in the backward pass instead of keeping what is in it.
      dtype: of the computation; parameters are float32 and embeddings come back as float32.
      rngs: the keys of the initialisers.
    """

    def __init__(
        self,
        *,
        scale: int = 2,
        residual: tuple[int, int, int, int] = (0, 4, 6, 2),
        activation: Activation = "prelu",
        separable: bool = False,
        embedding_bias: bool = False,
        embedding_dim: int = 512,
        image_size: tuple[int, int] = (112, 112),
        channels: Sequence[int] = (64, 128, 256, 512),
        folded: bool = False,
        remat: bool = False,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        groups, *inner, widest = channels
        # What lies between the bottlenecks; InsightFace's is as wide as what lies in them.
        narrow, wide = (scale * width // 2 for width in inner)
        layer = functools.partial(
            ConvNorm, activation=activation, folded=folded, dtype=dtype, rngs=rngs
        )
        bottleneck = functools.partial(
            Bottleneck, activation=activation, folded=folded, dtype=dtype, rngs=rngs
        )
        self.stem = layer(3, narrow, kernel=3, stride=2, padding=1)
        first, *others = residual
        second = functools.partial(layer, narrow, narrow, kernel=3, padding=1)
        if separable:
            second = functools.partial(second, activation="relu")
            groups = narrow
        self.grouped = None if first else second(groups=groups)
        self.pointwise = layer(narrow, narrow, activation="relu") if separable else None
        self.first = nnx.List(bottleneck(narrow, narrow, inner[0], stride=1) for _ in range(first))
        # Input, output, inner channels at stride 2, inner channels at stride 1.
        plans = (
            (narrow, narrow, inner[0], inner[0]),
            (narrow, wide, inner[1], inner[1]),
            (wide, wide, widest, inner[1]),
        )
        self.stages = nnx.List(
            nnx.List(
                [
                    bottleneck(before, after, halving, stride=2),
                    *(bottleneck(after, after, keeping, stride=1) for _ in range(count)),
                ]
            )
            for (before, after, halving, keeping), count in zip(plans, others, strict=True)
        )
        self.separate = layer(wide, widest)
        remaining = halved(image_size, 4)
        self.pool = layer(widest, widest, kernel=remaining, groups=widest, activation="none")
        self.feature_shape = (1, 1, widest)
        self.embedding = nnx.Linear(
            widest,
            embedding_dim,
            use_bias=embedding_bias,
            kernel_init=kaiming_fan_out,
            dtype=dtype,
            rngs=rngs,
        )
        self.norm = normalization(
            embedding_dim, folded=folded, after_bias=embedding_bias, dtype=dtype, rngs=rngs
        )
        self.remat = remat
        self.dtype = dtype

    def __call__(self, images: jax.Array) -> jax.Array:
        x = self.stem(images.astype(self.dtype))
        if self.grouped is not None:
            x = self.grouped(x)
        if self.pointwise is not None:
            x = self.pointwise(x)
        for stage in (self.first, *self.stages):
            x = run_units(stage, x, remat=self.remat)
        x = self.pool(self.separate(x))
        return self.norm(self.embedding(x.reshape(x.shape[0], -1))).astype(jnp.float32)

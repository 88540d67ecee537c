r"""The vision transformer of InsightFace: a face as 12×12 patches of 9×9 pixels.

Each patch becomes a token by one linear map, and gets a trained position. Blocks of

    x ← x + attention(norm(x)),    x ← x + linear(ReLU6(linear(norm(x))))

with eight heads and a fourfold inner width; then normalisation, and all tokens side by side go
through a linear layer, batch normalisation, another linear layer and batch normalisation. There is
no class token. Pixels that fill no patch, four at the right and at the bottom of 112, are not seen.

The sums, the normalisations and the attention between q, k and v are float32 whatever the dtype, as
in the source; the linear layers compute in it.

Two things that the source does in training alone are left out: it skips branches of a block at
random (stochastic depth, up to 0.1), and it keeps a tenth of the tokens from the blocks and puts
one trained token in their place. That token is kept, so that weights go back whole, but nothing
reads it.

References:
  Dosovitskiy et al., An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale,
  ICLR 2021. https://arxiv.org/abs/2010.11929
  InsightFace, recognition/arcface_torch/backbones/vit.py.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from sphereface_jax.models.layers import (
    Constant,
    convolution,
    normalization,
    run_units,
    torch_linear,
)

HEADS, PATCH, HEAD_EPSILON = 8, 9, 2e-5

small_normal = jax.nn.initializers.normal(0.02)


class Attention(nnx.Module):
    """softmax(q kᵀ / √d) v in eight heads, between two linear layers."""

    def __init__(self, width: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        linear = functools.partial(nnx.Linear, kernel_init=small_normal, dtype=dtype, rngs=rngs)
        self.qkv = linear(width, 3 * width, use_bias=False)
        self.project = linear(width, width)

    def __call__(self, x: jax.Array) -> jax.Array:
        batch, tokens, width = x.shape
        heads = self.qkv(x).reshape(batch, tokens, 3, HEADS, width // HEADS)
        q, k, v = jnp.moveaxis(heads.astype(jnp.float32), 2, 0)
        similarity = jnp.einsum("bqhd,bkhd->bhqk", q, k) * (width // HEADS) ** -0.5
        mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(similarity), v)
        return self.project(mixed.reshape(batch, tokens, width))


class Block(nnx.Module):
    """Attention, then two linear layers with ReLU6 between them; each normalised and residual."""

    def __init__(self, width: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        linear = functools.partial(nnx.Linear, kernel_init=small_normal, dtype=dtype, rngs=rngs)
        self.norm1 = layer_norm(width, rngs=rngs)
        self.attention = Attention(width, dtype=dtype, rngs=rngs)
        self.norm2 = layer_norm(width, rngs=rngs)
        self.expand = linear(width, 4 * width)
        self.project = linear(4 * width, width)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attention(self.norm1(x)).astype(jnp.float32)
        inner = jax.nn.relu6(self.expand(self.norm2(x)))
        return x + self.project(inner).astype(jnp.float32)


class VisionTransformer(nnx.Module):
    """Maps face images [B, H, W, 3] to embeddings [B, embedding_dim].

    Args:
      depth: blocks.
      width: of a token, in multiples of the last of `channels`.
      embedding_dim: the length of an embedding.
      image_size: height and width in pixels, (112, 112) in InsightFace.
      channels: the last one alone counts.
      folded: the two batch normalisations are folded into the linear layers before them, and biases
        stand in their place.
      remat: computes each block anew in the backward pass instead of keeping what is in it.
      dtype: of the linear layers; parameters are float32 and embeddings come back as float32.
      rngs: the keys of the initialisers.

    Raises:
      ValueError: an image without a patch, or a width that eight heads cannot share.
    """

    def __init__(
        self,
        depth: int,
        *,
        width: float = 1.0,
        embedding_dim: int = 512,
        image_size: tuple[int, int] = (112, 112),
        channels: Sequence[int] = (64, 128, 256, 512),
        folded: bool = False,
        remat: bool = False,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        size = int(width * channels[-1])
        if size < HEADS or size % HEADS:
            raise ValueError(
                f"channels: expected a token's width, {width:g} times the last, to be a multiple "
                f"of {HEADS}, got {size}"
            )
        rows, columns = (side // PATCH for side in image_size)
        if not rows * columns:
            raise ValueError(f"image_size: expected at least {PATCH}×{PATCH}, got {image_size}")
        tokens = rows * columns
        linear = functools.partial(
            nnx.Linear, use_bias=False, kernel_init=small_normal, dtype=dtype, rngs=rngs
        )
        norm = functools.partial(
            normalization, folded=folded, epsilon=HEAD_EPSILON, dtype=dtype, rngs=rngs
        )
        self.patches = convolution(
            3,
            size,
            kernel=PATCH,
            stride=PATCH,
            padding=0,
            use_bias=True,
            kernel_init=torch_linear,
            dtype=dtype,
            rngs=rngs,
        )
        self.positions = nnx.Param(small_normal(rngs.params(), (1, tokens, size)))
        self.mask_token = Constant(small_normal(rngs.params(), (1, 1, size)))
        self.blocks = nnx.List(Block(size, dtype=dtype, rngs=rngs) for _ in range(depth))
        self.norm = layer_norm(size, rngs=rngs)
        self.reduce = linear(tokens * size, size)
        self.reduce_norm = norm(size)
        self.embedding = linear(size, embedding_dim)
        self.embedding_norm = norm(embedding_dim)
        self.feature_shape = None  # no linear layer reads an image
        self.remat = remat
        self.dtype = dtype

    def __call__(self, images: jax.Array) -> jax.Array:
        x = self.patches(images.astype(self.dtype)).astype(jnp.float32)
        x = x.reshape(x.shape[0], -1, x.shape[-1]) + self.positions[...]
        x = self.norm(run_units(self.blocks, x, remat=self.remat))
        x = self.reduce_norm(self.reduce(x.reshape(x.shape[0], -1)))
        return self.embedding_norm(self.embedding(x)).astype(jnp.float32)


def layer_norm(width: int, *, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Normalises each token by its own mean and variance, in float32, with PyTorch's constant.

    Args:
      width: of a token.
      rngs: for the scale and bias.

    Returns:
      The layer.
    """
    return nnx.LayerNorm(width, epsilon=1e-5, dtype=jnp.float32, use_fast_variance=False, rngs=rngs)

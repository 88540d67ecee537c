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

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from sphereface_jax.models.layers import kaiming_fan_out, torch_linear
from sphereface_jax.models.residual import ResidualNet, Style

xavier_normal = jax.nn.initializers.glorot_normal()


class SFNet(ResidualNet):
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
        if batch_norm and deprecated:
            raise ValueError("batch_norm: the deprecated variant has none")
        if folded and not batch_norm:
            raise ValueError("folded: expected a network with normalisation, got one without")
        kernel_init = xavier_normal if deprecated else kaiming_fan_out
        style = Style(
            opening_init=kernel_init,
            unit_init=kernel_init,
            embedding_init=torch_linear,
            opening_bias=not batch_norm,
            unit_bias=not batch_norm,
            prelu=False,
            activate_before_sum=deprecated,
            batch_norm=batch_norm,
            folded=folded,
            dtype=dtype,
        )
        super().__init__(
            depth,
            style,
            embedding_dim=embedding_dim,
            image_size=image_size,
            channels=channels,
            remat=remat,
            rngs=rngs,
        )
        self.deprecated = deprecated

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

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from sphereface_jax.models.layers import caffe_xavier
from sphereface_jax.models.residual import ResidualNet, Style

unit_normal = jax.nn.initializers.normal(0.01)


class SphereNet(ResidualNet):
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
        style = Style(
            opening_init=caffe_xavier,
            unit_init=unit_normal,
            embedding_init=caffe_xavier,
            opening_bias=True,
            unit_bias=residual_bias,
            prelu=True,
            activate_before_sum=True,
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

"""A trained network as StableHLO: one portable file for any XLA, through jax.export."""

import importlib.util

import jax
import jax.numpy as jnp
from flax import nnx

from sphereface_jax.data.transforms import PerChannel, normalize_pixels

PLATFORMS = ("cpu", "cuda", "tpu")


def stablehlo_bytes(
    model: nnx.Module,
    *,
    image_size: tuple[int, int],
    color_order: str,
    pixel_mean: PerChannel,
    pixel_divisor: PerChannel,
    normalize: bool = False,
) -> bytes:
    """Exports a network as the artifact that `jax.export.deserialize` turns back into a function.

    The function maps uint8 RGB faces [N, H, W, 3], of the network's size and any N, to embeddings
    float32 [N, D]; weights and preprocessing are inside.

    Args:
      model: the network.
      image_size: height and width that it takes.
      color_order: that it takes.
      pixel_mean: of its preprocessing.
      pixel_divisor: of it too.
      normalize: scale the embeddings to unit length.

    Returns:
      The artifact, for every one of `PLATFORMS`.

    Raises:
      FileNotFoundError: the package flatbuffers, which jax.export writes with, is not installed.
    """
    if importlib.util.find_spec("flatbuffers") is None:
        raise FileNotFoundError(
            'StableHLO files need the package flatbuffers; `pip install ".[onnx]"` in the folder '
            "of this project brings it"
        )
    graph, state = nnx.split(model)

    def embed(images: jax.Array) -> jax.Array:
        network = nnx.merge(graph, state)
        network.eval()
        images = images[..., ::-1] if color_order == "bgr" else images
        embeddings = network(normalize_pixels(images, mean=pixel_mean, divisor=pixel_divisor))
        if normalize:
            embeddings /= jnp.linalg.norm(embeddings, axis=1, keepdims=True)
        return embeddings

    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *image_size, 3), jnp.uint8)
    return bytes(jax.export.export(jax.jit(embed), platforms=PLATFORMS)(images).serialize())

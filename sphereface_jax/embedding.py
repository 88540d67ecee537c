"""From images to embeddings with a trained network: batches of one shape, mirror images beside."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sphereface_jax.data.pipeline import ImageSequence, ordered_batches
from sphereface_jax.data.transforms import FaceTransform, normalize_pixels


@functools.partial(jax.jit, static_argnums=0)
def embed(
    graph: nnx.GraphDef, params: nnx.State, model_state: nnx.State, images: jax.Array
) -> jax.Array:
    """Returns the embeddings of images and of their mirror images, float32 [B, 2, D].

    Args:
      graph: the network's static part, of `nnx.split`.
      params: its weights.
      model_state: its other variables.
      images: uint8 [B, H, W, 3], cropped and in the network's colour order.
    """
    model = nnx.merge(graph, params, model_state)
    both = jnp.stack([images, images[:, :, ::-1]], axis=1)
    flat = model(normalize_pixels(both.reshape(-1, *images.shape[1:])))
    return flat.reshape(len(images), 2, -1)


def embed_images(
    apply: Callable[[np.ndarray], jax.Array],
    source: ImageSequence,
    *,
    transform: FaceTransform,
    batch_size: int = 64,
    advance: Callable[[int], None] = lambda count: None,
) -> np.ndarray:
    """Returns the embeddings of N images and of their mirror images, float32 [N, 2, D].

    The last batch is padded, so that `apply` compiles once; the next batch is decoded while the
    device works on this one.

    Args:
      apply: images uint8 [B, H, W, 3] to embeddings [B, 2, D], as `embed` does.
      source: the images.
      transform: crop and colour order.
      batch_size: images at a time.
      advance: called with the number of images done since the last call.

    Raises:
      ValueError: an image cannot be read or has the wrong size; it is named.
    """
    done: list[np.ndarray] = []
    waiting: tuple[jax.Array, np.ndarray] | None = None

    def collect() -> None:
        if waiting is not None:
            embeddings, valid = waiting
            done.append(np.asarray(embeddings)[valid])
            advance(int(valid.sum()))

    for batch in ordered_batches(source, batch_size, transform=transform):
        embeddings = apply(batch["image"])
        collect()
        waiting = embeddings, batch["valid"]
    collect()
    return np.concatenate(done)

"""From images to embeddings with a trained network: batches of one shape, mirror images beside."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sphereface_jax.compilation import compiler_options, run_arithmetic
from sphereface_jax.data.images import UnreadableImage
from sphereface_jax.data.pipeline import OnError, ordered_batches
from sphereface_jax.data.source import ImageSequence, ImageView
from sphereface_jax.data.transforms import FaceTransform, PerChannel, normalize_pixels


@functools.cache
def _compiled() -> Callable[..., jax.Array]:
    return jax.jit(
        _embed,
        static_argnums=0,
        static_argnames=("pixel_mean", "pixel_divisor", "mirror"),
        compiler_options=compiler_options(),
    )


@run_arithmetic()
def embed(
    graph: nnx.GraphDef,
    params: nnx.State,
    model_state: nnx.State,
    images: jax.Array,
    *,
    pixel_mean: PerChannel = 127.5,
    pixel_divisor: PerChannel = 128.0,
    mirror: bool = True,
) -> jax.Array:
    """Embeds images and their mirror images.

    Batch normalisation, where the network has it, uses the statistics that training gathered.

    Args:
      graph: the network's static part, of `nnx.split`.
      params: its weights.
      model_state: its other variables.
      images: uint8 [B, H, W, 3], cropped and in the network's colour order.
      pixel_mean: what is subtracted from a pixel, a number or one a channel.
      pixel_divisor: what it is divided by then, likewise.
      mirror: whether to embed the mirror images.

    Returns:
      float32 [B, 2, D], or [B, 1, D] without mirror images.
    """
    return _compiled()(
        graph,
        params,
        model_state,
        images,
        pixel_mean=pixel_mean,
        pixel_divisor=pixel_divisor,
        mirror=mirror,
    )


def _embed(
    graph: nnx.GraphDef,
    params: nnx.State,
    model_state: nnx.State,
    images: jax.Array,
    *,
    pixel_mean: PerChannel,
    pixel_divisor: PerChannel,
    mirror: bool,
) -> jax.Array:
    model = nnx.merge(graph, params, model_state)
    model.eval()
    views = jnp.stack([images, images[:, :, ::-1]] if mirror else [images], axis=1)
    faces = views.reshape(-1, *images.shape[1:])
    pixels = normalize_pixels(faces, mean=pixel_mean, divisor=pixel_divisor)
    return model(pixels).reshape(*views.shape[:2], -1)


def embed_images(
    apply: Callable[[np.ndarray], jax.Array],
    source: ImageSequence,
    *,
    transform: FaceTransform,
    batch_size: int = 64,
    on_error: OnError = "raise",
    advance: Callable[[int], None] = lambda count: None,
) -> np.ndarray:
    """Embeds the images of a source and their mirror images.

    The last batch is padded, so that `apply` compiles once; the next batch is decoded while the
    device works on this one.

    Args:
      apply: images uint8 [B, H, W, 3] to embeddings [B, 2, D], as `embed` does.
      source: the images.
      transform: crop and colour order.
      batch_size: images at a time.
      on_error: `raise` on an unreadable image, or `skip`: it has no row.
      advance: called with the number of images done since the last call.

    Returns:
      float32 [N, 2, D], N being the images that could be read.

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

    for batch in ordered_batches(source, batch_size, transform=transform, on_error=on_error):
        embeddings = apply(batch["image"])
        collect()
        waiting = embeddings, batch["valid"]
    collect()
    return np.concatenate(done)


class NotedErrors(ImageView):
    """An `ImageSequence` that notes which of its images cannot be read, and why, as they are read.

    Args:
      source: the images.
      errors: filled with the number of each such image and the error's message.
    """

    def __init__(self, source: ImageSequence, errors: dict[int, str]):
        super().__init__(source)
        self._errors = errors

    def __getitem__(self, index: int) -> dict[str, Any]:
        try:
            return super().__getitem__(index)
        except UnreadableImage as error:
            self._errors[index] = str(error)
            raise


def batch_plan(count: int, batch_size: int) -> list[tuple[range, int]]:
    """Cuts images into parts, each of batches of one size, so that little is padded.

    Whole batches, then batches of 8 for the rest; a single image goes alone. However many counts
    a network meets, it meets three sizes at most.

    Args:
      count: of the images.
      batch_size: the largest.

    Returns:
      For each part its images and the size of its batches; the last batch may need padding.

    Example:
      >>> batch_plan(100, 64)
      [(range(0, 64), 64), (range(64, 100), 8)]
    """
    if count == 1:
        return [(range(1), 1)]
    small = min(8, batch_size)
    whole = count // batch_size * batch_size
    if count - whole > batch_size - small:
        whole = count
    parts = [(range(whole), batch_size), (range(whole, count), small)]
    return [(images, size) for images, size in parts if images]

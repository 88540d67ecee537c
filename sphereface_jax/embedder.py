"""A trained network that turns face images into embeddings, read from a run's folder."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from sphereface_jax.data.aligner import AlignedImages, FaceAligner
from sphereface_jax.data.images import ImagePaths
from sphereface_jax.data.pipeline import ImageSequence
from sphereface_jax.data.vectors import FaceVectors
from sphereface_jax.embedding import embed, embed_images
from sphereface_jax.training.input import face_transform
from sphereface_jax.training.saved_run import SavedRun, load_run


class FaceEmbedder:
    """Embeds images with the newest weights of a run, prepared as that run's config says.

    Args:
      run: a trained network.
      batch_size: images at a time.
      aligner: aligns each image first; without it the images must be aligned.

    Example:
      >>> embedder = FaceEmbedder.from_run(Path("runs/quickstart"))  # doctest: +SKIP
      >>> embedder.embed_paths(["a.jpg", "b.jpg"]).embeddings.shape  # doctest: +SKIP
      (2, 128)
    """

    def __init__(self, run: SavedRun, *, batch_size: int = 64, aligner: FaceAligner | None = None):
        self.run = run
        self._aligner = aligner
        self._transform = face_transform(run.config.data)
        self._batch_size = batch_size
        self._apply = functools.partial(
            embed,
            run.graph,
            run.params,
            run.model_state,
            pixel_divisor=run.config.data.pixel_divisor,
        )

    @classmethod
    def from_run(
        cls, path: Path, *, batch_size: int = 64, aligner: FaceAligner | None = None
    ) -> Self:
        """Reads the newest checkpoint of a run.

        Raises:
          FileNotFoundError: the folder holds no run, or the run has no checkpoint yet.
        """
        return cls(load_run(path), batch_size=batch_size, aligner=aligner)

    def embed_source(
        self, source: ImageSequence, *, advance: Callable[[int], None] = lambda count: None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the embeddings [N, D] of images and those of their mirror images.

        Raises:
          ValueError: an image cannot be read or has the wrong size; it is named.
        """
        both = embed_images(
            self._apply,
            source if self._aligner is None else AlignedImages(source, self._aligner),
            transform=self._transform,
            batch_size=min(self._batch_size, len(source)),
            advance=advance,
        )
        return both[:, 0], both[:, 1]

    def embed_paths(
        self,
        paths: Sequence[str | Path],
        *,
        advance: Callable[[int], None] = lambda count: None,
    ) -> FaceVectors:
        """Returns the embeddings of image files."""
        embeddings, mirrored = self.embed_source(ImagePaths(paths), advance=advance)
        return FaceVectors([Path(path).as_posix() for path in paths], embeddings, mirrored)

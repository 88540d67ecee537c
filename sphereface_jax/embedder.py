"""A trained network that turns face images into embeddings, read from a run's folder."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from sphereface_jax.data.images import ImagePaths, is_image_path
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

    Example:
      >>> embedder = FaceEmbedder.from_run(Path("runs/quickstart"))  # doctest: +SKIP
      >>> embedder.embed_paths(["a.jpg", "b.jpg"]).embeddings.shape  # doctest: +SKIP
      (2, 128)
    """

    def __init__(self, run: SavedRun, *, batch_size: int = 64):
        self.run = run
        self._transform = face_transform(run.config.data)
        self._batch_size = batch_size
        self._apply = functools.partial(embed, run.graph, run.params, run.model_state)

    @classmethod
    def from_run(cls, path: Path, *, batch_size: int = 64) -> Self:
        """Reads the newest checkpoint of a run.

        Raises:
          FileNotFoundError: the folder holds no run, or the run has no checkpoint yet.
        """
        return cls(load_run(path), batch_size=batch_size)

    def embed_source(
        self, source: ImageSequence, *, advance: Callable[[int], None] = lambda count: None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the embeddings [N, D] of images and those of their mirror images.

        Raises:
          ValueError: an image cannot be read or has the wrong size; it is named.
        """
        both = embed_images(
            self._apply,
            source,
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


def find_faces(directory: Path) -> list[Path]:
    """Returns every image under a folder, at any depth, in sorted order.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: it holds no image.
    """
    if not directory.is_dir():
        raise FileNotFoundError(f"{directory}: expected a folder of images, found none")
    found = sorted(path for path in directory.rglob("*") if is_image_path(path.name))
    if not found:
        raise ValueError(f"{directory}: expected images (.jpg, .png, ...), found none")
    return found

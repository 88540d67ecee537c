"""Stored embeddings: an .npz file with a path and a vector an image.

paths       text [N]; a path's last two parts name identity and image
embeddings  float [N, D]
mirrored    float [N, D], of the mirror images; optional, `sphereface embed` writes it
"""

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np


@dataclass(frozen=True)
class FaceVectors:
    """Embeddings of N images.

    Attributes:
      paths: of the images, with forward slashes.
      embeddings: float [N, D].
      mirrored: float [N, D], of the mirror images, or None.
    """

    paths: list[str]
    embeddings: np.ndarray
    mirrored: np.ndarray | None = None

    def features(self) -> np.ndarray:
        """Returns what the authors compare: an image's vector and its mirror image's, joined.

        [N, 2D] where there are mirror images, the vectors as they are where not.
        """
        if self.mirrored is None:
            return self.embeddings
        return np.concatenate([self.embeddings, self.mirrored], axis=1)

    def rows(self) -> dict[str, int]:
        """Returns the row of each image by its name `identity/image`, without suffix."""
        return {image_name(path): row for row, path in enumerate(self.paths)}


def image_name(path: str) -> str:
    """Returns `identity/image` without suffix: the last two parts of a path.

    Example:
      >>> image_name("lfw/Ann_Lee/Ann_Lee_0001.jpg")
      'Ann_Lee/Ann_Lee_0001'
    """
    parts = PurePosixPath(path).with_suffix("").parts
    return "/".join(parts[-2:])


def save_vectors(path: Path, vectors: FaceVectors) -> None:
    """Writes an .npz file, atomically."""
    arrays: dict[str, Any] = {
        "paths": np.array(vectors.paths, dtype=str),
        "embeddings": vectors.embeddings,
    }
    if vectors.mirrored is not None:
        arrays["mirrored"] = vectors.mirrored
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            np.savez(file, **arrays)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_vectors(path: Path) -> FaceVectors:
    """Reads an .npz file; nothing in it is unpickled.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no .npz file, lacks an array, or the arrays do not fit together.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected an .npz file of embeddings, found none")
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {
                name: file[name]
                for name in ("paths", "embeddings", "mirrored")
                if name in getattr(file, "files", ())
            }
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: expected an .npz file of plain arrays, got {error}") from None
    for name in ("paths", "embeddings"):
        if name not in arrays:
            raise ValueError(f"{path}: expected an array {name!r}, found {sorted(arrays)}")
    paths, embeddings = arrays["paths"], arrays["embeddings"]
    if embeddings.ndim != 2 or paths.shape != embeddings.shape[:1]:
        raise ValueError(
            f"{path}: expected paths [N] and embeddings [N, D], "
            f"got {list(paths.shape)} and {list(embeddings.shape)}"
        )
    mirrored = arrays.get("mirrored")
    if mirrored is not None and mirrored.shape != embeddings.shape:
        raise ValueError(
            f"{path}: expected mirrored of shape {list(embeddings.shape)}, "
            f"got {list(mirrored.shape)}"
        )
    return FaceVectors([str(name) for name in paths], embeddings, mirrored)

"""Stored embeddings: an .npz file with one path and one vector per image.

paths       text [N]; a path's last two parts name identity and image
embeddings  float [N, D]
mirrored    float [N, D], of the mirror images; optional, `sphereface embed` writes it
"""

import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sphereface_jax._checks import expect
from sphereface_jax.data.files import atomic_file
from sphereface_jax.data.text import existing_file

_SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,3}$")


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

    def features(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Returns what the authors compare: an image's vector and its mirror image's, joined.

        Args:
          rows: [M] integers, which images; all of them by default.

        Returns:
          [M, 2D] where there are mirror images, the vectors [M, D] as they are where not.
        """
        both = [self.embeddings] if self.mirrored is None else [self.embeddings, self.mirrored]
        if rows is not None:
            both = [part[rows] for part in both]
        return both[0] if len(both) == 1 else np.concatenate(both, axis=1)

    @property
    def flip(self) -> str:
        """What `features` does with the mirror images, "concatenated" or "none"."""
        return "none" if self.mirrored is None else "concatenated"

    def find_rows(self, names: Sequence[str]) -> np.ndarray:
        """Finds images by name: by as many of the last parts of their path as the name has.

        A suffix such as `.jpg` says nothing: `Ann/Ann_0001` is found as `lfw/Ann/Ann_0001.png`.

        Returns:
          int64 [M], the row of each name, -1 for those that are missing.

        Raises:
          ValueError: a name is the ending of two paths.
        """
        rows = np.full(len(names), -1, np.int64)
        wanted = [without_suffix(name) for name in names]
        depths = np.array([name.count("/") + 1 for name in wanted], np.int64)
        for depth in np.unique(depths).tolist():
            row_of: dict[str, int] = {}
            twice = set()
            for row, path in enumerate(self.paths):
                ending = path_ending(path, depth)
                if row_of.setdefault(ending, row) != row:
                    twice.add(ending)
            for place in np.flatnonzero(depths == depth).tolist():
                rows[place] = row_of.get(wanted[place], -1)
                if wanted[place] in twice:
                    raise ValueError(
                        f"vectors: expected one image {names[place]!r}, found several paths that "
                        f"end so, {self.paths[rows[place]]!r} the first"
                    )
        return rows


def path_ending(path: str, depth: int) -> str:
    """The last parts of a path, the last of them without suffix.

    Args:
      path: with "/" between its parts.
      depth: how many parts to keep, at least 1.

    Returns:
      The ending, or all of a path of fewer parts.

    Example:
      >>> path_ending("lfw/Ann_Lee/Ann_Lee_0001.jpg", 2)
      'Ann_Lee/Ann_Lee_0001'
    """
    return "/".join(without_suffix(path).rsplit("/", depth)[-depth:])


def identity_of(path: str) -> str:
    """The person whom an image shows: the last but one part of its path, "" where it has none.

    Example:
      >>> identity_of("lfw/Ann_Lee/Ann_Lee_0001.jpg")
      'Ann_Lee'
    """
    return path.rpartition("/")[0].rpartition("/")[2]


def without_suffix(name: str) -> str:
    """A file's name without a suffix of two to four letters or digits, the first a letter.

    Example:
      >>> without_suffix("Dr. Who/Dr. Who_0001"), without_suffix("Dr. Who/Dr. Who_0001.jpeg")
      ('Dr. Who/Dr. Who_0001', 'Dr. Who/Dr. Who_0001')
    """
    return _SUFFIX.sub("", name)


def save_vectors(path: Path, vectors: FaceVectors) -> None:
    """Writes an .npz file, atomically.

    Args:
      path: the file, replaced if it is there.
      vectors: what to write: paths, embeddings, and those of the mirror images if there are any.
    """
    arrays: dict[str, Any] = {
        "paths": np.array(vectors.paths, dtype=str),
        "embeddings": vectors.embeddings,
    }
    if vectors.mirrored is not None:
        arrays["mirrored"] = vectors.mirrored
    with atomic_file(path) as file:
        np.savez(file, **arrays)


def load_vectors(path: Path) -> FaceVectors:
    """Reads an .npz file; nothing in it is unpickled.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is not an .npz file, lacks an array, or the arrays do not fit together.
    """
    opened = existing_file(path, "an .npz file of embeddings").open("rb")
    try:
        with opened, np.load(opened, allow_pickle=False) as file:
            arrays = {
                name: file[name]
                for name in ("paths", "embeddings", "mirrored")
                if name in getattr(file, "files", ())
            }
    except (ValueError, OSError, EOFError, TypeError, zipfile.BadZipFile):
        # What NumPy says here advises to unpickle the file; a plain .npy array is a TypeError.
        raise ValueError(
            f"{path}: expected an .npz file of plain arrays, as `sphereface embed` writes it, "
            "found another or a damaged one"
        ) from None
    for name in ("paths", "embeddings"):
        expect(name in arrays, path, f"an array {name!r}", sorted(arrays))
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
    return FaceVectors([str(name).replace("\\", "/") for name in paths], embeddings, mirrored)

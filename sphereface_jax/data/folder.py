"""A folder of identities: `DIR/<identity>/*.jpg`, the layout that face data sets share."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from sphereface_jax.data.fingerprint import with_file_sizes
from sphereface_jax.data.images import IMAGE_SUFFIXES, is_image_path, read_bytes, read_image
from sphereface_jax.data.text import existing_folder


class ImageFolder:
    """A face source over `DIR/<identity>/<image>`.

    Identities are the sub-folders that hold an image, sorted, and so are the images within one.
    Hidden files, other files, and folders deeper down are not looked at.

    Args:
      directory: the folder of identities.

    Raises:
      FileNotFoundError: no such folder.
      ValueError: no identity with an image in it, or two whose names differ by case only.
    """

    def __init__(self, directory: str | os.PathLike[str]):
        self.directory = existing_folder(directory, "a folder of identities")
        with os.scandir(self.directory) as entries:
            names = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
        files = {name: _images_in(self.directory / name) for name in names}
        self.identities = tuple(name for name in names if files[name])
        if not self.identities:
            loose = len(_images_in(self.directory))
            raise ValueError(
                f"{self.directory}: no identities; expected <identity>/<image> below it, images "
                f"ending in {', '.join(IMAGE_SUFFIXES)}, found {len(names)} folders without images "
                f"and {loose} images in no folder; give each person a folder"
            )
        check_identities(self.identities, str(self.directory))
        self._files = [file for name in self.identities for file in files[name]]
        self.labels = np.repeat(
            np.arange(len(self.identities), dtype=np.int32),
            [len(files[name]) for name in self.identities],
        )

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": read_image(self.describe(index)), "label": int(self.labels[index])}

    def read_encoded(self, index: int) -> bytes:
        """The bytes of image `index` as they are on disk."""
        return read_bytes(self.describe(index))

    def describe(self, index: int) -> str:
        """The path of image `index`."""
        identity = self.identities[self.labels[index]]
        return os.path.join(self.directory, identity, self._files[index])

    def contents(self) -> list[str]:
        """Name and size of every image; the size of every k-th where there are very many."""
        names = [self.identities[label] for label in self.labels.tolist()]
        lines = [f"{name}/{file}" for name, file in zip(names, self._files, strict=True)]
        return with_file_sizes(lines, self.describe)


def check_identities(identities: tuple[str, ...], where: str) -> None:
    """Refuses names that differ by case only: on some file systems they are one folder.

    Raises:
      ValueError: naming the first two that collide.
    """
    seen: dict[str, str] = {}
    for name in identities:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise ValueError(
                f"{where}: the identities {other!r} and {name!r} differ by case only; "
                "rename one, or merge them if they are one person"
            )


def _images_in(directory: Path) -> list[str]:
    with os.scandir(directory) as entries:
        return sorted(e.name for e in entries if is_image_path(e.name) and e.is_file())

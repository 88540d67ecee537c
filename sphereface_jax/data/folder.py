"""A folder of identities: `DIR/<identity>/*.jpg`, the layout that face data sets share."""

import os

import numpy as np

from sphereface_jax.data.finder import PassedOver, walk_images
from sphereface_jax.data.source import EncodedFaces, with_file_sizes
from sphereface_jax.data.text import existing_folder


class ImageFolder(EncodedFaces):
    """A face source over `DIR/<identity>/<image>`.

    Identities are the sub-folders that hold an image, sorted, and so are the images within one.
    `data/finder.py` tells what is an image; folders deeper down are not looked at.

    Args:
      directory: the folder of identities.

    Attributes:
      passed_over: what lies there and is not used, with the reason; hidden files apart.

    Raises:
      FileNotFoundError: no such folder.
      ValueError: no identity with an image in it, or two whose names differ by case only.
    """

    def __init__(self, directory: str | os.PathLike[str]):
        found = walk_images(existing_folder(directory, "a folder of identities"), depth=2)
        self.directory = found.directory
        named = [name.split(os.sep) for name in found.names]
        loose = [PassedOver(each[0], "in no identity's folder") for each in named if len(each) == 1]
        faces = [each for each in named if len(each) == 2]
        self.identities = tuple(dict.fromkeys(identity for identity, _ in faces))
        empty = sorted(set(found.folders).difference(self.identities))
        self.passed_over = [
            *found.passed_over,
            *loose,
            *(PassedOver(name, "a folder without images") for name in empty),
        ]
        if not self.identities:
            raise ValueError(
                f"{self.directory}: no identities; expected <identity>/<image> below it, found "
                f"{len(empty)} folders without images and {len(loose)} images in no folder; give "
                "each person a folder"
                + "".join(f"; {path}: {why}" for path, why in found.passed_over[:3])
            )
        check_identities(self.identities, str(self.directory))
        self._files = [file for _, file in faces]
        label = {name: number for number, name in enumerate(self.identities)}
        self.labels = np.array([label[identity] for identity, _ in faces], np.int32)

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

    Args:
      identities: folders' names.
      where: what to call their place in an error.

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

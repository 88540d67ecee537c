"""MegaFace's published lists: which images are probes, which distractors, which of them are wrong.

The development kit names images in JSON: `{"path": [...], "id": [...]}` for FaceScrub and FGNet,
`{"path": [...]}` for distractors (`megaface_features_list.json_1000000_1`: a million, set 1).
InsightFace published lists of wrong images: in `facescrub_noises.txt` file names, in
`megaface_noises.txt` paths, behind a number and a tab in some copies; `#` opens a comment.
Features lie one a file, as OpenCV writes a matrix: four int32 (rows, columns, bytes a number, type
5 for float32), then the numbers.
"""

import dataclasses
import json
import os
import re
from collections.abc import Collection
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from sphereface_jax._checks import expect
from sphereface_jax.data.text import existing_file, existing_folder, read_lines
from sphereface_jax.data.vectors import FaceVectors

_FLOAT32 = 5
_FEATURE = re.compile(r"(?P<image>.+\.(?:jpe?g|png))(?:_[^/]*)?\.bin$", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class MegafaceList:
    """Images of a MegaFace list.

    Attributes:
      paths: [N] below the set's folder, with forward slashes.
      identities: [N] who each shows, or None in a list of distractors.
    """

    paths: tuple[str, ...]
    identities: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def without(self, wrong: Collection[str]) -> "MegafaceList":
        """The images that `wrong` names neither by path nor by file name.

        InsightFace keeps wrong probes and replaces their features by their person's mean, and
        pushes wrong distractors out of reach; leaving them out needs no features.
        """
        keep = [
            index
            for index, path in enumerate(self.paths)
            if path not in wrong and PurePosixPath(path).name not in wrong
        ]
        identities = self.identities
        return MegafaceList(
            tuple(self.paths[index] for index in keep),
            None if identities is None else tuple(identities[index] for index in keep),
        )


def read_megaface_list(path: str | os.PathLike[str]) -> MegafaceList:
    """Reads a JSON list of the development kit.

    Raises:
      FileNotFoundError: no such file.
      ValueError: no such JSON, no images, a path that leaves its folder, or identities of another
        number than images.
    """
    try:
        content = json.loads(existing_file(path, "a MegaFace list").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON, found something else: {error}") from None
    paths = _strings(content, "path", path)
    expect(paths, path, "images under 'path'", "none")
    for name in paths:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ValueError(f"{path}: expected paths below a folder, found {name!r}")
    if "id" not in content:
        return MegafaceList(paths)
    identities = _strings(content, "id", path)
    expect(
        len(identities) == len(paths), path, f"{len(paths)} identities as paths", len(identities)
    )
    return MegafaceList(paths, identities)


def read_megaface_noises(path: str | os.PathLike[str]) -> frozenset[str]:
    """Reads a list of wrong images: paths or file names, as `MegafaceList.without` takes them.

    Raises:
      FileNotFoundError: no such file.
      ValueError: no text in UTF-8.
    """
    lines = [line.strip() for line in read_lines(path, "a list of wrong images")]
    return frozenset(line.split("\t")[-1] for line in lines if line and not line.startswith("#"))


def read_megaface_feature(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads one feature file.

    Returns:
      [D] float32.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not a matrix of float32, or cut short.
    """
    data = existing_file(path, "a feature file").read_bytes()
    header = np.frombuffer(data[:16], "<i4") if len(data) >= 16 else np.zeros(4, np.int32)
    rows, columns, size, kind = header.tolist()
    expected = 16 + 4 * rows * columns
    if kind != _FLOAT32 or size not in (4, 4 * columns) or min(rows, columns) < 1:
        raise ValueError(
            f"{path}: expected the header of a float32 matrix, found {header.tolist()}"
        )
    expect(len(data) == expected, path, f"{expected} bytes by its header", len(data))
    return np.frombuffer(data, "<f4", offset=16).astype(np.float32)


def read_megaface_features(directory: str | os.PathLike[str]) -> FaceVectors:
    """Reads all feature files under a folder, IMAGE.bin or IMAGE_MODEL.bin for an image's path.

    Returns:
      Their vectors, called by the images' paths below the folder.

    Raises:
      FileNotFoundError: no such folder.
      ValueError: no such files, a damaged one, or features of different lengths.
    """
    root = existing_folder(directory, "a folder of feature files")
    files = sorted(
        os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names
    )
    images = {
        path: _FEATURE.match(os.path.relpath(path, root).replace(os.sep, "/")) for path in files
    }
    found = {path: match["image"] for path, match in images.items() if match}
    expect(found, root, "feature files such as IMAGE.jpg_MODEL.bin", "none")
    features: list[np.ndarray] = []
    for path in found:
        features.append(read_megaface_feature(path))
        if len(features[-1]) != len(features[0]):
            raise ValueError(
                f"{path}: expected {len(features[0])} numbers as in the first file, found "
                f"{len(features[-1])}"
            )
    return FaceVectors(list(found.values()), np.stack(features))


def _strings(content: Any, key: str, path: str | os.PathLike[str]) -> tuple[str, ...]:
    values = content.get(key) if isinstance(content, dict) else None
    if not isinstance(values, list) or not all(isinstance(v, str | int) for v in values):
        raise ValueError(f"{path}: expected a list of names under {key!r}, found none")
    return tuple(map(str, values))

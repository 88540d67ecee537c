"""Landmark files: an image's name and five points a line, in the layouts that data sets use.

- tabs or blanks, as LFW's and CASIA's lists: `name x1 y1 ... x5 y5`, or a label after the name;
- CelebA's `list_landmarks_celeba.txt`: the same below a line with the count and a line of titles;
- CSV: the same with commas, with or without a line of titles.

The points are left eye, right eye, nose, left and right corner of the mouth.
"""

import os
import re
from pathlib import PurePosixPath

import numpy as np

from sphereface_jax._checks import expect
from sphereface_jax.data.text import read_lines

_NUMBERS = 10
_TITLE_LINES = 2  # no more lines than these may open a file without being landmarks


def read_landmarks(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads a landmark file.

    Returns:
      float64 [5, 2], x then y, for each image name as it stands in the file.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a line that is not a name and five points, or a name given twice; names the line.
    """
    landmarks: dict[str, np.ndarray] = {}
    for number, line in enumerate(read_lines(path, "a landmark file"), start=1):
        parsed = _parse(line)
        if parsed is None:
            if line.strip() and (landmarks or number > _TITLE_LINES):
                raise ValueError(
                    f"{path}:{number}: expected an image's name and {_NUMBERS} numbers, found "
                    f"{line[:60]!r}"
                )
            continue
        name, points = parsed
        expect(name not in landmarks, f"{path}:{number}", "every image once", f"{name!r} again")
        landmarks[name] = points
    if not landmarks:
        raise ValueError(f"{path}: expected lines of an image's name and {_NUMBERS} numbers")
    return landmarks


def landmarks_of(
    landmarks: dict[str, np.ndarray], path: str | os.PathLike[str]
) -> np.ndarray | None:
    """The points of an image by its path.

    Args:
      landmarks: points by the names that a landmark file gives, as `read_landmarks` returns them.
      path: of the image, absolute or not.

    Returns:
      The points under the longest ending of the path that the file names, or None.
    """
    parts = PurePosixPath(os.fspath(path).replace(os.sep, "/")).parts
    for start in range(len(parts)):
        if (points := landmarks.get("/".join(parts[start:]))) is not None:
            return points
    return None


def _parse(line: str) -> tuple[str, np.ndarray] | None:
    separator = "," if "," in line else "\t" if "\t" in line else None
    if separator:
        fields = [field.strip() for field in line.split(separator)]
    else:
        fields = re.split(r"\s+", line.strip())
    if len(fields) not in (_NUMBERS + 1, _NUMBERS + 2) or not fields[0]:
        return None
    try:
        points = np.array([float(field) for field in fields[-_NUMBERS:]]).reshape(5, 2)
    except ValueError:
        return None
    return (fields[0], points) if np.isfinite(points).all() else None

"""YouTube Faces: its list of 5,000 video pairs, and the frames of its videos.

`splits.txt` (and `splits_corrected.txt`) is a table with commas and a header: the number of the
split first, then columns named `first name` and `second name`, videos as `Name/0`, and `is same`.
The frames of a video are the images in its folder, `frame_images_DB/Name/0/` or
`aligned_images_DB/Name/0/`.

Reference: Wolf, Hassner and Maoz, "Face Recognition in Unconstrained Videos with Matched Background
Similarity", CVPR 2011.
"""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sphereface_jax._checks import expect
from sphereface_jax.data.finder import walk_images
from sphereface_jax.data.lfw_list import NamedPairs, check_sides
from sphereface_jax.data.text import existing_folder, is_whole, read_lines

_COLUMNS = ("first name", "second name", "is same")


def read_ytf_splits(path: str | os.PathLike[str]) -> NamedPairs:
    """Reads the list of video pairs.

    Raises:
      FileNotFoundError: no such file.
      ValueError: no such header, or a line that is not a pair; names the line.
    """
    text = read_lines(path, "YouTube Faces' list of splits")
    try:
        lines = [[field.strip() for field in line] for line in csv.reader(text)]
    except csv.Error as error:
        raise ValueError(f"{path}: expected a table with commas ({error})") from None
    header = [name.lower() for name in lines[0]] if lines else []
    expect(set(_COLUMNS) <= set(header), f"{path}:1", f"columns {', '.join(_COLUMNS)}", header)
    columns = [0, *(header.index(name) for name in _COLUMNS)]
    rows = [
        _parse(line, columns, f"{path}:{number}")
        for number, line in enumerate(lines[1:], start=2)
        if any(line)
    ]
    expect(rows, path, "video pairs below the header", "none")
    folds, left, right, is_same = zip(*rows, strict=True)
    return NamedPairs(left, right, np.array(is_same, bool), np.array(folds, np.int32))


def find_frames(
    videos: Sequence[str], directory: str | os.PathLike[str]
) -> tuple[list[Path], list[str]]:
    """Finds the frames of videos below a folder, every image in `DIRECTORY/Name/0/`.

    Args:
      videos: their names, such as `Name/0`.
      directory: where the folders `Name` are.

    Returns:
      The paths of the frames, video by video, sorted within each, and the videos without any.

    Raises:
      FileNotFoundError: no such folder.
    """
    root = existing_folder(directory, "a folder of videos' frames")
    paths: list[Path] = []
    missing = []
    for video in videos:
        folder = root / video
        found = walk_images(folder, depth=1).paths if folder.is_dir() else []
        paths += found
        if not found:
            missing.append(video)
    return paths, missing


def _parse(line: list[str], columns: list[int], where: str) -> tuple[int, str, str, bool]:
    expect(len(line) > max(columns), where, f"{max(columns) + 1} fields or more", len(line))
    split, left, right, same = (line[column] for column in columns)
    expect(is_whole(split), where, "the number of a split first", repr(split[:60]))
    for video in (left, right):
        parts = video.split("/")
        if len(parts) != 2 or not all(parts) or set(parts) & {".", ".."} or "\\" in video:
            raise ValueError(f"{where}: expected a video as Name/0, found {video[:60]!r}")
    check_sides(left, right, where)
    expect(same in ("0", "1"), where, "0 or 1 under 'is same'", repr(same[:60]))
    return int(split), left, right, same == "1"

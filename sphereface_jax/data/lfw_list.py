"""Verification pairs: LFW's text format, and where their images lie.

A pairs file opens with `folds<TAB>pairs` (or the number of pairs alone), which is per fold and per
kind: LFW's `10 300` announces ten folds of 300 same and 300 different pairs. A line of three fields
`Name 1 4` is two images of one person, a line of four `Name 3 Other 2` one image each of two. A
further field, which is not a number, names the group that both people belong to.

Reference: Huang et al., "Labeled Faces in the Wild", 2007.
"""

import bisect
import dataclasses
import functools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from sphereface_jax._checks import expect
from sphereface_jax.data.finder import walk_images
from sphereface_jax.data.images import IMAGE_SUFFIXES
from sphereface_jax.data.text import existing_folder, is_whole, read_lines


@dataclasses.dataclass(frozen=True)
class NamedPairs:
    """Pairs of images, or of videos, by name, P of them.

    Attributes:
      left: the first image of each pair, as `Name/Name_0001`, or the first video, as `Name/0`.
      right: the second.
      is_same: bool [P], whether both show one person.
      folds: int32 [P], as the file numbers them, or from 0; all 0 in a file without folds.
      groups: [P] the group of each pair, "" where the file gives none; () if it never does.
    """

    left: tuple[str, ...]
    right: tuple[str, ...]
    is_same: np.ndarray
    folds: np.ndarray
    groups: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.left)

    @property
    def names(self) -> tuple[str, ...]:
        """Every image or video that a pair needs, once, sorted."""
        return tuple(sorted({*self.left, *self.right}))


def read_pairs(path: str | os.PathLike[str]) -> NamedPairs:
    """Reads a pairs file in LFW's format; fields separated by tabs, or by other white space.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a line that is not a pair, or a header that announces another number of pairs;
        names the file, the line, and what was expected and found.
    """
    lines = read_lines(path, "a pairs file")
    folds, per_kind = _parse_header(lines[0] if lines else "", path)
    rows = [
        _parse_pair(line, f"{path}:{number}")
        for number, line in enumerate(lines[1:], start=2)
        if line.strip()
    ]
    if len(rows) != folds * 2 * per_kind:
        raise ValueError(
            f"{path}:1: the header announces {folds} x 2 x {per_kind} = {folds * 2 * per_kind} "
            f"pairs, found {len(rows)}; is the file cut short?"
        )
    left, right, is_same, groups = zip(*rows, strict=True)
    return NamedPairs(
        left,
        right,
        np.array(is_same, bool),
        np.repeat(np.arange(folds, dtype=np.int32), 2 * per_kind),
        groups if any(groups) else (),
    )


def read_groups(path: str | os.PathLike[str]) -> dict[str, str]:
    """Reads a list of people and their groups, `Name<TAB>group` per line.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a line of another form, a person in two groups, or no lines.
    """
    groups: dict[str, str] = {}
    for number, line in enumerate(read_lines(path, "a list of people and groups"), start=1):
        if not line.strip():
            continue
        fields = [field.strip() for field in line.split("\t")] if "\t" in line else line.split()
        if len(fields) != 2 or not all(fields):
            raise ValueError(f"{path}:{number}: expected 'Name<TAB>group', found {line[:60]!r}")
        if groups.setdefault(fields[0], fields[1]) != fields[1]:
            raise ValueError(
                f"{path}:{number}: expected one group for {fields[0]}, found "
                f"{groups[fields[0]]!r} and {fields[1]!r}"
            )
    expect(groups, path, "people and their groups", "none")
    return groups


def find_images(
    names: Sequence[str], directory: str | os.PathLike[str]
) -> tuple[dict[str, Path], list[str]]:
    """Finds each image `Name/Name_0001` under a folder, with any image suffix.

    Args:
      names: such as `Name/Name_0001`, without suffix.
      directory: where the folders `Name` are.

    Returns:
      The path of each image found, and the names of those missing.

    Raises:
      FileNotFoundError: no such folder.
    """
    directory = existing_folder(directory, "a folder of images")
    suffixes = [*IMAGE_SUFFIXES, *(suffix.upper() for suffix in IMAGE_SUFFIXES)]
    found: dict[str, Path] = {}
    listed = functools.cache(_images_by_stem)
    for name in names:
        candidates = (directory / f"{name}{suffix}" for suffix in suffixes)
        path = next((path for path in candidates if path.is_file()), None)
        path = path or listed((directory / name).parent).get(os.path.basename(name))
        if path is not None:
            found[name] = path
    return found, [name for name in names if name not in found]


def differ_in_case(names: Iterable[str], others: Iterable[str]) -> tuple[str, str] | None:
    """The first of some names that another differs from in the case of its letters alone.

    Args:
      names: looked at in their order.
      others: what each is compared with.

    Returns:
      The name and the other, or None.

    Example:
      >>> differ_in_case(["Ann/Ann_0001"], ["ann/Ann_0001", "bob/bob_0001"])
      ('Ann/Ann_0001', 'ann/Ann_0001')
    """
    folded = {other.casefold(): other for other in others}
    alike = ((name, folded.get(name.casefold())) for name in names)
    return next(((name, other) for name, other in alike if other not in (None, name)), None)


def go_on(names: Iterable[str], others: Iterable[str]) -> tuple[str, str] | None:
    """The first of some names that another goes on from, as `Ann_0001_0` does from `Ann_0001`.

    Args:
      names: looked at in their order.
      others: what each is compared with.

    Returns:
      The name and the other, or None.

    Example:
      >>> go_on(["Ann/Ann_0002", "Ann/Ann_0001"], ["Ann/Ann_0001_0", "Ann/Ann_00011"])
      ('Ann/Ann_0001', 'Ann/Ann_0001_0')
    """
    ordered = sorted(others)
    for name in names:
        for end in "_-.":
            place = bisect.bisect_left(ordered, name + end)
            if place < len(ordered) and ordered[place].startswith(name + end):
                return name, ordered[place]
    return None


def _images_by_stem(folder: Path) -> dict[str, Path]:
    """The images of a folder by their names without suffix, whatever the suffix is."""
    if not folder.is_dir():
        return {}
    images = walk_images(folder, depth=1).paths[::-1]
    return {path.stem: path for path in images} | {path.name: path for path in images}


def check_sides(left: str, right: str, where: str) -> None:
    """Refuses a pair of one thing, whose cosine is 1 whatever the network.

    Args:
      left: the name of one side.
      right: the name of the other.
      where: what to call the line in an error.

    Raises:
      ValueError: the sides are one.
    """
    expect(left != right, where, "a pair", f"{left} twice; put another in its place")


def _parse_header(line: str, path: str | os.PathLike[str]) -> tuple[int, int]:
    fields = line.split()
    numbers = [int(field) for field in fields if is_whole(field)]
    if len(numbers) != len(fields) or len(numbers) not in (1, 2) or not all(numbers):
        raise ValueError(
            f"{path}:1: expected a header 'folds<TAB>pairs' (LFW: 10 300) or 'pairs', "
            f"found {line[:60]!r}"
        )
    return (1, numbers[0]) if len(numbers) == 1 else (numbers[0], numbers[1])


def _parse_pair(line: str, where: str) -> tuple[str, str, bool, str]:
    fields = [field.strip() for field in line.split("\t")] if "\t" in line else line.split()
    group = ""
    if len(fields) in (4, 5) and not is_whole(fields[-1]):
        group = fields.pop()
    is_same = len(fields) == 3
    if is_same:
        fields.insert(2, fields[0])
    if len(fields) == 4:
        left = _image_name(fields[0], fields[1], where)
        right = _image_name(fields[2], fields[3], where)
        check_sides(left, right, where)
        return left, right, is_same, group
    raise ValueError(
        f"{where}: expected 3 fields (same person) or 4 (different), found {len(fields)}: "
        f"{line[:60]!r}; where a name has spaces, part the fields by tabs"
    )


def _image_name(name: str, number: str, where: str) -> str:
    if not name or name in (".", "..") or set(name) & set("/\\\0"):
        raise ValueError(f"{where}: expected a person's name, found {name!r}")
    if not is_whole(number):
        raise ValueError(
            f"{where}: expected the number of an image, found {number!r}; where a name has spaces, "
            "part the fields by tabs"
        )
    return f"{name}/{name}_{int(number):04d}"

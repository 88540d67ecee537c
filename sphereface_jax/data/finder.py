"""Which files of a folder are images: one rule for every command, and a list of what it leaves out.

A usual suffix is believed. Any other file, and one without a suffix, is an image if its first bytes
are those of a format that can be decoded. What is passed over is returned with the reason. Hidden
files and folders (a dot in front) are not looked at, nor what `align` leaves beside crops.

Links are followed, to files and to folders, and each folder is read once: real folders under their
own names first, so that a link back into the tree, or a second link to one folder, ends there.
"""

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from sphereface_jax.data.image_header import START, image_format
from sphereface_jax.data.images import IMAGE_SUFFIXES, why_undecodable
from sphereface_jax.data.text import existing_folder, first_ten

_BOOKKEEPING = frozenset({"alignment.json", "skipped.tsv"})


class PassedOver(NamedTuple):
    """A file, a folder or a link that is not used: its path, and why."""

    path: str
    why: str


class FoundImages(NamedTuple):
    """The images and the folders below a folder, as paths from there, sorted; and the rest."""

    directory: Path
    names: list[str]
    folders: list[str]
    passed_over: list[PassedOver]

    @property
    def paths(self) -> list[Path]:
        """The images' paths, the folder's before them."""
        return [self.directory / name for name in self.names]


def why_no_image(name: str, read_start: Callable[[int], bytes]) -> str | None:
    """Why a file is not an image, or None if it is one.

    Args:
      name: the file's name or path.
      read_start: returns its first N bytes; called only where the suffix is unknown.

    Returns:
      A phrase for the user, or None.
    """
    if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
        return None
    kind = image_format(read_start(START))
    return "no image" if kind is None else why_undecodable(kind)


def is_hidden(path: str) -> bool:
    """Whether any part of a path starts with a dot, `.` and `..` apart."""
    return any(part.startswith(".") and part.strip(".") for part in path.split("/"))


def walk_images(directory: str | os.PathLike[str], *, depth: int | None = None) -> FoundImages:
    """Finds the images below a folder, none perhaps.

    Args:
      directory: the folder.
      depth: how many folders down to look, 1 for the folder alone; all of them by default.

    Returns:
      The images, the folders and what was passed over, each sorted by path.

    Raises:
      FileNotFoundError: no such folder.
      PermissionError: a folder below it may not be read.
    """
    root = existing_folder(directory, "a folder of images")
    search = _Search(str(root), depth)
    return FoundImages(
        root,
        sorted(search.images, key=lambda path: path.split(os.sep)),
        sorted(search.folders),
        sorted(search.passed_over, key=lambda each: each.path.split(os.sep)),
    )


def find_images_below(directory: str | os.PathLike[str]) -> FoundImages:
    """Finds the images at any depth below a folder, one at least.

    Raises:
      FileNotFoundError: no such folder.
      PermissionError: a folder below it may not be read.
      ValueError: there is no image in it.
    """
    found = walk_images(directory)
    if not found.names:
        lines = describe_passed_over(found.passed_over)[:2]
        raise ValueError(
            f"{directory}: expected images, found none" + "".join(f"; {line}" for line in lines)
        )
    return found


class _Search:
    """One search: every folder that it reads, by its identity on the disk, under one name."""

    def __init__(self, root: str, depth: int | None):
        self._root, self._depth = root, depth
        self._read: dict[tuple[int, int], str] = {}
        self._links: list[str] = []
        self.images: list[str] = []
        self.folders: list[str] = []
        self.passed_over: list[PassedOver] = []
        self._enter("")
        while self._links:
            self._links.sort()
            self._enter(self._links.pop(0))

    def _enter(self, start: str) -> None:
        waiting = [start]
        while waiting:
            folder = waiting.pop()
            place = os.stat(os.path.join(self._root, folder))
            other = self._read.setdefault((place.st_dev, place.st_ino), folder)
            if other != folder:
                self._pass(folder, f"the same folder as {other or self._root}")
            elif self._depth is not None and folder.count(os.sep) + bool(folder) >= self._depth:
                self._pass(folder, "a folder deeper than is looked")
            else:
                self.folders += [folder] * bool(folder)
                waiting += self._list(folder)

    def _list(self, folder: str) -> list[str]:
        """Takes up the files of a folder and its links; returns its own folders."""
        folders: list[str] = []
        with os.scandir(os.path.join(self._root, folder)) as entries:
            for entry in entries:
                path = os.path.join(folder, entry.name)
                if entry.name.startswith(".") or entry.name in _BOOKKEEPING:
                    continue
                try:
                    is_folder, is_file = entry.is_dir(), entry.is_file()
                except OSError:  # a link to itself
                    is_folder = is_file = False
                if is_folder:
                    (self._links if entry.is_symlink() else folders).append(path)
                elif not is_file:
                    self._pass(path, _why_no_file(entry))
                elif why := why_no_image(entry.name, functools.partial(_read_start, entry.path)):
                    self._pass(path, why)
                else:
                    self.images.append(path)
        return folders

    def _pass(self, path: str, why: str) -> None:
        self.passed_over.append(PassedOver(path, why))


def _why_no_file(entry: os.DirEntry[str]) -> str:
    return "a link to nothing, or in a circle" if entry.is_symlink() else "no file"


def _read_start(path: str, count: int) -> bytes:
    with open(path, "rb") as file:
        return file.read(count)


def describe_passed_over(passed_over: Sequence[PassedOver]) -> list[str]:
    """What was passed over for a terminal: how many and why, then the first ten of them."""
    if not passed_over:
        return []
    return [
        f"passed over {len(passed_over):,} that are not images or cannot be read as such:",
        *first_ten(f"  {path}: {why}" for path, why in passed_over),
    ]


def passed_over_table(passed_over: Iterable[tuple[str, str]]) -> bytes:
    """A line `path<TAB>reason` for each; a name that is not UTF-8 keeps its bytes."""
    lines = (f"{path.replace(chr(10), '?')}\t{why}\n" for path, why in passed_over)
    return "".join(lines).encode("utf-8", "surrogateescape")

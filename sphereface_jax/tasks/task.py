"""What a task is: images to embed, and protocols that score their vectors.

A benchmark publishes lists; a protocol is a pure function of embeddings. A task stands between: it
knows which images its lists name and where they lie, finds their rows among vectors, whoever made
these, and hands each protocol what it takes.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sphereface_jax.data.lfw_list import differ_in_case, go_on
from sphereface_jax.data.source import ImageSequence
from sphereface_jax.data.text import existing_folder
from sphereface_jax.data.vectors import FaceVectors
from sphereface_jax.evaluation.calibration import OperatingPoint
from sphereface_jax.evaluation.pairs import Pairs
from sphereface_jax.evaluation.results import Result


@dataclasses.dataclass(frozen=True)
class Missing:
    """What a task asked for and did not get.

    Attributes:
      names: of the images, or whatever `unit` says.
      total: how many were asked for.
      unit: what they are.
      folder: where they were looked for; None for vectors.
      hint: how one of them is there after all, or nothing.
    """

    names: Sequence[str] = ()
    total: int = 0
    unit: str = "images"
    folder: Path | None = None
    hint: str = ""


@dataclasses.dataclass(frozen=True)
class FaceImages:
    """Images to embed for a task.

    Attributes:
      names: [N], what their vectors are to be called, for `FaceVectors.find_rows`.
      source: the N images.
      missing: what was not found.
    """

    names: Sequence[str]
    source: ImageSequence
    missing: Missing = Missing()


@dataclasses.dataclass(frozen=True, eq=False)
class TestedPairs:
    """The pairs that a task's verification protocols decide, for statistics beside their results.

    Attributes:
      pairs: P pairs.
      kept: bool [L], which of the listed pairs these are.
      people: [N] the person on each row that the pairs name, or None where nobody knows.
      groups: the group of each pair, where the list has a column of groups.
    """

    pairs: Pairs
    kept: np.ndarray
    people: Sequence[str] | None = None
    groups: Sequence[str] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Matched:
    """A task with vectors: ready to be scored.

    Attributes:
      scorers: what gives the result of each protocol, by its name.
      used: for each unit, such as pairs, how many are scored and how many are listed.
      missing: what has no vector.
      tested: the pairs of verification protocols, where the task has any.
      operating_point: from a highest false accept rate, or None for the best accuracy, to the
        cosine threshold of a pair of images; where the task can choose one.
      facts: what else to write down beside each result.
    """

    scorers: Mapping[str, Callable[[], Result]]
    used: Mapping[str, tuple[int, int]]
    missing: Missing = Missing()
    tested: TestedPairs | None = None
    operating_point: Callable[[float | None], OperatingPoint] | None = None
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Task(Protocol):
    """A benchmark: its lists are read, its images not yet.

    Attributes:
      title: what to call it, the name of a list or pack.
      prefix: what its protocols' names begin with in a table; empty where they need no prefix.
      protocols: the names of the protocols that its lists allow.
    """

    title: str
    prefix: str
    protocols: tuple[str, ...]

    def find_images(self) -> FaceImages:
        """Finds the images to embed.

        Raises:
          FileNotFoundError: a folder is not there.
          ValueError: the task was given no folder of images.
        """
        ...

    def match(self, vectors: FaceVectors) -> Matched:
        """Finds the vectors of the task's images by their names.

        Raises:
          ValueError: a name stands for several vectors, or too few are there to score anything.
        """
        ...


def require_folder(images: Path | None, title: str) -> Path:
    """Returns the folder of a task's images.

    Args:
      images: the folder, or None where none was given.
      title: what to call the task in an error.

    Returns:
      The folder.

    Raises:
      ValueError: none was given.
      FileNotFoundError: it is not there.
    """
    if images is None:
        raise ValueError(f"images: expected the folder of the images of {title}, got none")
    return existing_folder(images, f"a folder of images of {title}")


def existing_files(paths: Mapping[str, Path]) -> tuple[dict[str, Path], list[str]]:
    """Files by name: those that are there, and the names of the others."""
    found = {name: path for name, path in paths.items() if path.is_file()}
    return found, [name for name in paths if name not in found]


def name_hint(missing: Sequence[str], there: Iterable[str]) -> str:
    """Says which of the missing names is there in letters of another case, or with more behind.

    Args:
      missing: names of a list that nothing goes by.
      there: the names that there are.

    Returns:
      The end of an error's sentence, "" where there is nothing to say.
    """
    others = list(there)
    if found := differ_in_case(missing, others):
        return f"; {found[0]!r} is there as {found[1]!r}: upper and lower case must agree"
    if found := go_on(missing, others):
        return f"; {found[0]!r} may be there as {found[1]!r}: give it the name that the list has"
    return ""


def missing_names(names: Sequence[str], rows: np.ndarray, unit: str = "images") -> Missing:
    """The names whose row is -1.

    Args:
      names: N of them.
      rows: [N], −1 for a name that has none.
      unit: what the names stand for.

    Returns:
      These names, and N.
    """
    gone = [name for name, row in zip(names, rows, strict=True) if row < 0]
    return Missing(gone, len(names), unit)

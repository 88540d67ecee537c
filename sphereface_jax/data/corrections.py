"""Corrections of a set of faces: what to drop, move, merge and split, as a table in a file.

`sphereface clean` writes it, anybody may strike lines out of it, and `sphereface prepare --apply`
reads it. A line is about one image, or about a whole identity for a merge:

- drop: the image goes;
- move: the image becomes one of the identity `to`;
- split: likewise, of a new identity `to`;
- merge: all images of the identity become ones of `to`.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sphereface_jax._checks import require
from sphereface_jax.data.files import write_atomically
from sphereface_jax.data.source import FaceSource, Relabelled
from sphereface_jax.data.text import read_lines
from sphereface_jax.data.vectors import path_ending

ACTIONS = ("drop", "move", "split", "merge")


class Correction(NamedTuple):
    """A line of the table; the numbers and the note are evidence and change nothing.

    Attributes:
      action: one of `ACTIONS`.
      identity: the name as it is.
      to: the name to be, empty for a drop.
      image: as the source describes it, empty for a merge.
      confidence: from 0 to 1.
      own_cosine: with the identity as it is.
      other_cosine: with the nearest other, or the other part.
      note: in words.
    """

    action: str
    identity: str
    to: str = ""
    image: str = ""
    confidence: str = ""
    own_cosine: str = ""
    other_cosine: str = ""
    note: str = ""


def write_corrections(path: Path, corrections: Sequence[Correction]) -> None:
    """Writes the table as CSV, atomically.

    Args:
      path: the file, replaced if it is there.
      corrections: the lines, in their order.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Correction._fields)
    writer.writerows(corrections)
    write_atomically(path, text.getvalue().encode("utf-8", "surrogateescape"))


def read_corrections(path: Path) -> list[Correction]:
    """Reads the table; the columns from the fifth on may be missing.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a malformed line; it is named.
    """
    lines = read_lines(path, "a list of corrections; `sphereface clean` writes one")
    table = csv.reader(lines)
    heading = next(table, [])
    needed = list(Correction._fields[:4])
    if heading[:4] != needed:
        raise ValueError(
            f"{path}:1: expected the columns {','.join(needed)}, got {','.join(heading)[:80]!r}"
        )
    found = []
    for row in table:
        if not row:
            continue
        where = f"{path}:{table.line_num}"
        require(4 <= len(row) <= len(Correction._fields), where, "4 to 8 columns", len(row))
        line = Correction(*row)
        require(line.action in ACTIONS, where, f"one of {', '.join(ACTIONS)}", repr(row[0][:40]))
        for name in ("identity", *["to"] * (line.action != "drop")):
            require(getattr(line, name), where, f"a name as {name} of a {line.action}", "none")
        if (line.image == "") != (line.action == "merge"):
            raise ValueError(
                f"{where}: expected an image for a {line.action}, and none for a merge"
                if line.action != "merge"
                else f"{where}: expected no image for a merge, got {line.image[:80]!r}"
            )
        found.append(line)
    return found


def corrected(source: FaceSource, corrections: Sequence[Correction]) -> Relabelled:
    """A source with its labels put right; whoever has no image left is gone.

    Args:
      source: the faces that the corrections are about; an image is found by its description, or
        by the last two parts of its path where the folder lies elsewhere now.
      corrections: in any order. Images go to whoever their target is merged with.

    Returns:
      The same images, but those dropped, under new labels from 0 on.

    Raises:
      ValueError: an identity or an image that the source does not have, or an image of another
        identity than the correction says.
    """
    known = {name: label for label, name in enumerate(source.identities)}
    names = [str(name) for name in source.identities]
    for line in corrections:
        targets = [line.identity] if line.action in ("drop", "split") else [line.identity, line.to]
        for name in targets:
            if name not in known:
                raise ValueError(
                    f"expected identities of this set, such as {names[0]!r}, got {name!r}"
                )
    merged = list(range(len(names)))
    for line in corrections:
        if line.action == "merge":
            old, new = merged[known[line.identity]], merged[known[line.to]]
            merged = [new if label == old else label for label in merged]
    labels = np.array(merged, np.int64)[source.labels]
    stays = np.ones(len(labels), bool)
    about = [line for line in corrections if line.action != "merge"]
    for line, row in zip(about, _rows(source, about), strict=True):
        if names[source.labels[row]] != line.identity:
            raise ValueError(
                f"expected {line.image} to be of {line.identity!r}, as the list says, "
                f"it is of {names[source.labels[row]]!r}"
            )
        if line.action == "drop":
            stays[row] = False
        elif line.to in known:
            labels[row] = merged[known[line.to]]
        else:
            known[line.to] = len(names)
            merged.append(len(names))
            names.append(line.to)
            labels[row] = known[line.to]
    indices = np.flatnonzero(stays)
    if not len(indices):
        raise ValueError("expected to keep an image, all are dropped")
    kept, new_labels = np.unique(labels[indices], return_inverse=True)
    identities = tuple(names[label] for label in kept.tolist())
    return Relabelled(source, indices, new_labels.astype(np.int32), identities)


def _rows(source: FaceSource, corrections: Sequence[Correction]) -> list[int]:
    """Which image of the source each correction is about."""
    described = [source.describe(index) for index in range(len(source))] if corrections else []
    whole = {name: row for row, name in enumerate(described)}
    ends: dict[str, int] = {}
    for row, name in enumerate(described):
        end = path_ending(name.replace("\\", "/"), 2)
        ends[end] = -2 if end in ends else row
    rows = []
    for line in corrections:
        row = whole.get(line.image, -1)
        if row < 0:
            row = ends.get(path_ending(line.image.replace("\\", "/"), 2), -1)
        if row < 0:
            found = "none" if row == -1 else "several that end so"
            raise ValueError(f"expected the image {line.image!r} in this set, found {found}")
        rows.append(row)
    return rows

"""What `sphereface prepare` does: any faces into a TFDS data set; who is in two sets."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from sphereface_jax._console import counting, say, say_found
from sphereface_jax.data.aligner import face_aligner
from sphereface_jax.data.corrections import ACTIONS, corrected, read_corrections
from sphereface_jax.data.files import write_json
from sphereface_jax.data.open import open_source
from sphereface_jax.data.overlap import find_overlap
from sphereface_jax.data.packs import read_pack
from sphereface_jax.data.prepare import prepare
from sphereface_jax.data.source import ImageSequence, exclude_identities


def prepare_faces(
    source: str,
    out: Path,
    *,
    name: str,
    split: str,
    exclude: Sequence[str],
    align: bool,
    landmarks: Path | None,
    apply: Path | None = None,
    console: Console,
) -> None:
    """Writes a data set and prints what it holds.

    Args:
      source: a folder, archive, RecordIO set or list file, or a data set's name.
      out: TFDS's data folder.
      name: of the data set.
      split: of the data set.
      exclude: names of identities to leave out.
      align: whether to detect and align each face first.
      landmarks: a file of five points an image to align by; None: those that are detected, if
        `align`.
      apply: a table of corrections to carry out before `exclude`, or None.
      console: where to print.

    Raises:
      FileNotFoundError: there is nothing of that name.
      ValueError: it is not a set of faces, or another data set is in its place.
    """
    faces = open_source(source)
    say_found(console, faces)
    described_as: dict[str, Any] = {"source": Path(source).name, "exclude": list(exclude)}
    if apply is not None:
        corrections = read_corrections(apply)
        try:
            faces = corrected(faces, corrections)
        except ValueError as error:
            raise ValueError(f"{apply}: {error}") from None
        described_as["apply"] = hashlib.sha256(repr(corrections).encode()).hexdigest()[:16]
        counts = Counter(line.action for line in corrections)
        say(console, ", ".join(f"{counts[action]:,} of {action}" for action in ACTIONS))
    if exclude:
        faces = exclude_identities(faces, exclude)
    aligner = face_aligner(landmarks=landmarks) if align or landmarks else None
    described_as["points_from"] = None if aligner is None else aligner.points_from
    with counting(console, "preparing", "images", len(faces)) as advance:
        summary = prepare(
            faces,
            out,
            described_as=described_as,
            name=name,
            split=split,
            aligner=aligner,
            advance=advance,
        )
    for line in summary.lines():
        say(console, line)


def check_overlap(source: str, evaluation: str, out: Path, *, console: Console) -> None:
    """Prints which names and pictures two sets share, and writes all of them to OUT/overlap.json.

    Args:
      source: the training set, as `prepare_faces` takes it.
      evaluation: the set to look for in it, or a pack.
      out: an existing folder, or one to make.
      console: where to print.

    Raises:
      FileNotFoundError: there is nothing of such a name.
      ValueError: it is not a set of faces.
    """
    faces, others = open_source(source), open_evaluation(evaluation)
    with counting(console, "comparing", "images", len(faces) + len(others)) as advance:
        report = find_overlap(faces, others, advance=advance)
    for line in report.lines():
        say(console, line)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "overlap.json", report.to_json())


def open_evaluation(spec: str) -> ImageSequence:
    """Opens a verification pack or any face source."""
    if Path(spec).suffix == ".bin":
        return read_pack(spec)
    return open_source(spec)

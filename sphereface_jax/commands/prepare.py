"""What `sphereface prepare` does: any faces into a TFDS data set; who is in two sets."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console

from sphereface_jax._console import counting, say, say_found
from sphereface_jax.commands.face_options import PrepareOptions
from sphereface_jax.data.aligner import face_aligner
from sphereface_jax.data.corrections import ACTIONS, corrected, read_corrections
from sphereface_jax.data.files import write_json
from sphereface_jax.data.open import open_source
from sphereface_jax.data.overlap import find_overlap
from sphereface_jax.data.packs import read_pack
from sphereface_jax.data.prepare import prepare
from sphereface_jax.data.source import ImageSequence, exclude_identities


def prepare_faces(options: PrepareOptions, *, console: Console) -> None:
    """Writes a data set and prints what it holds, and who is in another set too if one is named.

    Args:
      options: what to make of which faces.
      console: where to print.

    Raises:
      FileNotFoundError: there is nothing of that name.
      ValueError: it is not a set of faces, or another data set is in its place.
    """
    if options.check_overlap is not None:
        # A wrong name is said now, not after hours of writing.
        open_evaluation(options.check_overlap)
    faces = open_source(options.source)
    say_found(console, faces)
    described_as: dict[str, Any] = {
        "source": Path(options.source).name,
        "exclude": list(options.exclude),
    }
    if options.apply is not None:
        corrections = read_corrections(options.apply)
        try:
            faces = corrected(faces, corrections)
        except ValueError as error:
            raise ValueError(f"{options.apply}: {error}") from None
        described_as["apply"] = hashlib.sha256(repr(corrections).encode()).hexdigest()[:16]
        counts = Counter(line.action for line in corrections)
        say(console, ", ".join(f"{counts[action]:,} of {action}" for action in ACTIONS))
    if options.exclude:
        faces = exclude_identities(faces, options.exclude)
    is_aligned = options.align or options.landmarks is not None
    aligner = face_aligner(landmarks=options.landmarks) if is_aligned else None
    described_as["points_from"] = None if aligner is None else aligner.points_from
    with counting(console, "preparing", "images", len(faces)) as advance:
        summary = prepare(
            faces,
            options.out,
            described_as=described_as,
            name=options.name,
            split=options.split,
            aligner=aligner,
            advance=advance,
        )
    for line in summary.lines():
        say(console, line)
    if options.check_overlap is not None:
        check_overlap(options.source, options.check_overlap, options.out, console=console)


def check_overlap(source: str, evaluation: str, out: Path, *, console: Console) -> None:
    """Prints which names and pictures two sets share, and writes all of them to OUT/overlap.json.

    Args:
      source: the training set, as `PrepareOptions` has it.
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

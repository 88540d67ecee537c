"""Same person or not: the operating point of a run, and the decision at it.

RUN/calibration.json holds a threshold, the error rates measured at it, the pairs that they were
measured on, and the step whose weights were measured.
"""

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from sphereface_jax._checks import require
from sphereface_jax._console import say
from sphereface_jax.commands.face_options import CompareOptions
from sphereface_jax.commands.likelihood import describe_evidence, read_likelihood
from sphereface_jax.data.aligner import face_aligner
from sphereface_jax.data.files import read_json_if_there, write_json
from sphereface_jax.embedder import FaceEmbedder
from sphereface_jax.evaluation.calibration import OperatingPoint, describe_rate

_FILE = "calibration.json"
_FIELDS = (
    "threshold",
    "false_accept_rate",
    "false_reject_rate",
    "num_same",
    "num_different",
    "pairs",
    "step",
)


def store_calibration(
    run: Path, point: OperatingPoint, *, pairs: str, step: int, max_far: float | None = None
) -> None:
    """Writes the operating point of a run, in place of any that is there.

    Args:
      run: the run's folder.
      point: the threshold and its error rates.
      pairs: what the pairs are called that it was measured on.
      step: of the weights that it was measured with.
      max_far: the false accept rate that it was chosen for; None for the best accuracy.
    """
    write_json(run / _FILE, point.to_json() | {"pairs": pairs, "step": step, "max_far": max_far})


def read_calibration(run: Path) -> dict[str, Any] | None:
    """Reads the operating point of a run, or None where it has none.

    Raises:
      ValueError: the file is damaged.
    """
    path = run / _FILE
    point = read_json_if_there(path)
    if point is None:
        return None
    if not isinstance(point, dict) or not set(_FIELDS) <= set(point):
        raise ValueError(
            f"{path}: expected {', '.join(_FIELDS)}; delete it, and "
            "`sphereface evaluate` will write it again"
        )
    return point


def describe_calibration(point: dict[str, Any]) -> str:
    """Says an operating point in a few words."""
    return (
        f"threshold {point['threshold']:.4f} (measured on {point['pairs']}: "
        f"false accepts {describe_rate(point['false_accept_rate'], point['num_different'])}, "
        f"false rejects {describe_rate(point['false_reject_rate'], point['num_same'])})"
    )


def calibrate(
    run: Path,
    point: OperatingPoint,
    *,
    pairs: str,
    step: int,
    max_far: float | None,
    replace: bool,
) -> str:
    """Stores an operating point with a run that has none; returns a line on the one it has.

    Args:
      run: the run's folder.
      point: as in `store_calibration`, and so `pairs`, `step` and `max_far`.
      pairs: what the pairs are called.
      step: of the weights.
      max_far: what it was chosen for.
      replace: also in place of one that is there.

    Returns:
      The line, with the file it is about.
    """
    stored = None if replace else read_calibration(run)
    if stored is not None:
        said = f"{describe_calibration(stored)} stays; --recalibrate replaces it"
    else:
        store_calibration(run, point, pairs=pairs, step=step, max_far=max_far)
        stored = point.to_json() | {"pairs": pairs}
        said = f"{describe_calibration(stored)} is what `sphereface compare` uses"
    return f"{run / _FILE}: {said}"


def compare_faces(options: CompareOptions, *, console: Console) -> None:
    """Prints cosine, angle, same or different at the run's operating point, and what that is worth.

    Args:
      options: the run, the faces, and what to say of them.
      console: where to print.

    Raises:
      FileNotFoundError: there is no run.
      ValueError: an image cannot be read or has the wrong size, or an option is out of range; it is
        named.
    """
    run, gallery_size, min_length = options.run, options.gallery_size, options.min_length
    require(gallery_size is None or gallery_size >= 1, "--gallery-size", "at least 1", gallery_size)
    require(min_length >= 0, "--min-length", "at least 0", min_length)
    embedder = FaceEmbedder.from_run(run, aligner=face_aligner() if options.align else None)
    faces = [options.first, options.second]
    vectors, lengths = embedder.embed(faces, flip="concatenated", lengths=True)
    left, right = vectors.astype(np.float64)
    cosine = float(np.clip(left @ right, -1, 1))
    line = f"cosine {cosine:.4f}, angle {np.degrees(np.arccos(cosine)):.1f}°"
    short = [
        f"{path} has length {length:.3f}"
        for path, length in zip(faces, lengths.tolist(), strict=True)
        if length < min_length
    ]
    if short:
        say(console, f"{line}: not decided, for {' and '.join(short)}, below {min_length:g}")
        return
    point = read_calibration(run)
    if point is None:
        line += "; no threshold yet: `sphereface evaluate RUN --pairs FILE --images DIR` sets it"
    else:
        verdict = "same person" if cosine > point["threshold"] else "different people"
        line += f": {verdict} at {describe_calibration(point)}"
        line += _if_outdated(point["step"], embedder.run.step)
    say(console, line)
    evidence = read_likelihood(run)
    if evidence is None:
        if point is not None or gallery_size is not None:
            say(
                console,
                "no likelihood ratio yet: `sphereface evaluate RUN --pairs FILE --images DIR "
                "--recalibrate` measures it where the pairs name their people",
            )
        return
    lines = describe_evidence(evidence, cosine, gallery_size=gallery_size)
    for text in [*lines[:-1], lines[-1] + _if_outdated(int(evidence.step), embedder.run.step)]:
        say(console, text)


def _if_outdated(measured: int, now: int) -> str:
    if measured == now:
        return ""
    return (
        f"; it is of step {measured} and the run is at {now}: "
        "`sphereface evaluate --recalibrate` measures it again"
    )

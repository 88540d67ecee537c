"""What `sphereface evaluate` and `compare` do: vectors of a run or a file, protocols, a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from sphereface_jax.data.aligner import face_aligner
from sphereface_jax.data.pairs import NamedPairs, find_images, read_pairs
from sphereface_jax.data.vectors import FaceVectors, load_vectors
from sphereface_jax.embedder import FaceEmbedder
from sphereface_jax.evaluation.calibration import OperatingPoint
from sphereface_jax.evaluation.verification import VerificationResult
from sphereface_jax.scoring import calibrate, match_pairs, score, to_json
from sphereface_jax.training.reporting import counting
from sphereface_jax.training.run_folder import read_json, write_json

CALIBRATION = "calibration.json"


@dataclass(frozen=True)
class Options:
    """How to evaluate.

    Attributes:
      protocols: names of the protocols; every one where it is empty.
      json_out: where to write the numbers, or None.
      allow_missing: leave out the pairs whose images are missing.
    """

    protocols: Sequence[str] = ()
    json_out: Path | None = None
    allow_missing: bool = False


def evaluate_run(
    run: Path,
    pairs_file: Path,
    images: Path,
    options: Options,
    *,
    console: Console,
) -> None:
    """Embeds the images of a pairs list with a run and scores every protocol.

    The operating point for `compare` is stored with the run, where it has none yet.

    Raises:
      FileNotFoundError: a file or folder is missing, or an image of the list.
      ValueError: a file is damaged.
    """
    named = read_pairs(pairs_file)
    found, missing = find_images(named.names, images)
    _refuse_missing(missing, named, pairs_file, images, options)
    embedder = FaceEmbedder.from_run(run)
    with counting(console, "embedding", "images", len(found)) as advance:
        vectors = embedder.embed_paths(list(found.values()), advance=advance)
    vectors = FaceVectors(list(found), vectors.embeddings, vectors.mirrored)
    _score(vectors, named, pairs_file, options, console)
    pairs, _ = match_pairs(named, vectors)
    if not (run / CALIBRATION).exists():
        store_calibration(run, calibrate(vectors, pairs), pairs_file.name)
        console.print(f"{run / CALIBRATION}: the threshold that `sphereface compare` uses")


def evaluate_vectors(
    embeddings: Path,
    pairs_file: Path,
    options: Options,
    *,
    console: Console,
) -> None:
    """Scores stored vectors on a pairs list by every protocol.

    Raises:
      FileNotFoundError: a file is missing, or an image of the list.
      ValueError: a file is damaged.
    """
    named = read_pairs(pairs_file)
    vectors = load_vectors(embeddings)
    _, missing = match_pairs(named, vectors)
    _refuse_missing(missing, named, pairs_file, embeddings, options)
    _score(vectors, named, pairs_file, options, console)


def _refuse_missing(
    missing: list[str], named: NamedPairs, pairs_file: Path, where: Path, options: Options
) -> None:
    if missing and not options.allow_missing:
        listed = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise FileNotFoundError(
            f"{where}: {len(missing)} of the {len(named.names)} images that {pairs_file} needs are "
            f"missing ({listed}); add them, or leave their pairs out with --allow-missing"
        )


def _score(
    vectors: FaceVectors,
    named: NamedPairs,
    pairs_file: Path,
    options: Options,
    console: Console,
) -> None:
    pairs, missing = match_pairs(named, vectors)
    left_out = len(named) - len(pairs)
    if left_out:
        console.print(
            f"warning: {left_out} of {len(named)} pairs are left out, for {len(missing)} missing "
            "images",
            style="yellow",
        )
    results = score(vectors, pairs, options.protocols)
    print_results(results, console, title=f"{pairs_file.name}: {len(pairs):,} pairs")
    if options.json_out is not None:
        report = to_json(results, pairs=pairs_file.name, pairs_left_out=left_out)
        write_json(options.json_out, report)


def print_results(results: dict[str, VerificationResult], console: Console, *, title: str) -> None:
    """Prints one table with a line a protocol."""
    fars = list(next(iter(results.values())).tar_at_far)
    table = Table(
        title=f"{title}; TAR at FAR", title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0)
    )
    for heading in ("protocol", "accuracy", "AUC", "EER", *fars):
        table.add_column(heading, no_wrap=True)
    for name, result in results.items():
        table.add_row(
            name,
            _accuracy(result),
            f"{result.auc:.4f}",
            f"{result.equal_error_rate:.2%}",
            *(f"{result.tar_at_far[far]:.1%}" for far in fars),
        )
    console.print(table)
    if any(result.optimistic for result in results.values()):
        console.print(
            "* optimistic: the threshold is chosen on the very pairs that it is scored on"
        )


def _accuracy(result: VerificationResult) -> str:
    spread = "" if result.accuracy_std is None else f" ± {result.accuracy_std:.2%}"
    return f"{result.accuracy_10_fold:.2%}{spread}" + "*" * result.optimistic


def store_calibration(run: Path, point: OperatingPoint, source: str) -> None:
    """Writes the operating point of a run, and which pairs it was measured on."""
    write_json(run / CALIBRATION, point.to_json() | {"pairs": source})


def read_calibration(run: Path) -> dict[str, Any] | None:
    """Reads the operating point of a run, or None where it has none."""
    path = run / CALIBRATION
    return read_json(path) if path.is_file() else None


def compare_faces(run: Path, first: Path, second: Path, *, align: bool, console: Console) -> None:
    """Prints cosine, angle, and same or different at the run's operating point.

    Raises:
      FileNotFoundError: there is no run.
      ValueError: an image cannot be read or has the wrong size; it is named.
    """
    embedder = FaceEmbedder.from_run(run, aligner=face_aligner() if align else None)
    features = embedder.embed_paths([first, second]).features()
    left, right = features.astype(np.float64)
    cosine = float(np.clip(left @ right / np.linalg.norm(left) / np.linalg.norm(right), -1, 1))
    line = f"cosine {cosine:.4f}, angle {np.degrees(np.arccos(cosine)):.1f}°"
    point = read_calibration(run)
    if point is None:
        line += "; no threshold yet: `sphereface evaluate RUN --pairs FILE --images DIR` sets it"
    else:
        verdict = "same person" if cosine > point["threshold"] else "different people"
        line += (
            f": {verdict} at threshold {point['threshold']:.4f} (measured on {point['pairs']}: "
            f"false accepts {point['false_accept_rate']:.2%}, "
            f"false rejects {point['false_reject_rate']:.2%})"
        )
    console.print(line, highlight=False)

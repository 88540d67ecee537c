"""What `sphereface prepare` does: any faces into a TFDS data set; who is in two sets."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from sphereface_jax.data.aligner import face_aligner
from sphereface_jax.data.overlap import find_overlap
from sphereface_jax.data.packs import read_pack
from sphereface_jax.data.prepare import PrepareSummary, prepare
from sphereface_jax.data.sources import ImageSequence, open_source, without_identities
from sphereface_jax.training.reporting import counting
from sphereface_jax.training.run_folder import write_json


def prepare_faces(
    source: str,
    out: Path,
    *,
    name: str,
    split: str,
    without: Sequence[str],
    align: bool,
    landmarks: Path | None,
    console: Console,
) -> None:
    """Writes a data set and prints what it holds.

    Raises:
      FileNotFoundError: there is nothing of that name.
      ValueError: it is no set of faces, or another data set is in its place.
    """
    faces = open_source(source)
    if without:
        faces = without_identities(faces, without)
    aligner = face_aligner(landmarks=landmarks) if align or landmarks else None
    points = None if aligner is None else "detected" if landmarks is None else landmarks.name
    described_as = {"source": Path(source).name, "without": list(without), "aligned_by": points}
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
    _print_summary(summary, console)


def _print_summary(summary: PrepareSummary, console: Console) -> None:
    fewest, median, most = summary.images_per_identity
    sizes = ", ".join(f"{count:,} of {size}" for size, count in summary.sizes.items())
    console.print(
        f"{summary.directory}: {summary.images:,} images of {summary.identities:,} identities "
        f"({fewest} to {most} each, median {median:g}); {sizes}; {len(summary.skipped):,} skipped",
        highlight=False,
    )
    for skipped, why in summary.skipped[:10]:
        console.print(f"  {skipped}: {why}", highlight=False)


def check_overlap(source: str, evaluation: str, out: Path, *, console: Console) -> None:
    """Prints which names and pictures two sets share, and writes all of them to OUT/overlap.json.

    Raises:
      FileNotFoundError: there is nothing of such a name.
      ValueError: it is no set of faces.
    """
    faces, others = open_source(source), open_evaluation(evaluation)
    with counting(console, "comparing", "images", len(faces) + len(others)) as advance:
        report = find_overlap(faces, others, advance=advance)
    for line in report.lines():
        console.print(line, highlight=False)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "overlap.json", report.to_json())


def open_evaluation(spec: str) -> ImageSequence:
    """Opens a verification pack or any face source."""
    if Path(spec).suffix == ".bin":
        return read_pack(spec)
    return open_source(spec)

"""Enrolling people, and asking who among them a picture shows."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from sphereface_jax._console import counting, say, warn
from sphereface_jax.commands.bridge import load_bridge
from sphereface_jax.commands.likelihood import read_likelihood
from sphereface_jax.commands.reference_options import EnrollOptions, IdentifyOptions
from sphereface_jax.data.aligner import face_aligner
from sphereface_jax.data.files import require_writable_folder
from sphereface_jax.data.finder import find_images_below
from sphereface_jax.data.vectors import identity_of
from sphereface_jax.embedder import FaceEmbedder
from sphereface_jax.evaluation.calibration import TooFewPairsError
from sphereface_jax.evaluation.rates import Strangers
from sphereface_jax.references import ReferenceSet, run_fingerprint
from sphereface_jax.training.config import check_options


def enroll(options: EnrollOptions, *, console: Console) -> None:
    """Enrolls the people of a folder `<Name>/<image>` in a reference set, or removes people.

    Args:
      options: what to do.
      console: where to print.

    Raises:
      FileNotFoundError: there is no run, no such folder or set, or no folder to write into.
      ValueError: options that do not go together, a set of another network's vectors, a picture
        that cannot be read or has the wrong size, none that is good enough, or somebody to remove
        who is not enrolled; then nothing is written.
    """
    options.check()
    require_writable_folder(options.gallery)
    if options.remove:
        _remove(options.gallery, options.remove, console)
        return
    assert options.run is not None
    assert options.directory is not None
    gallery, run, directory = options.gallery, options.run, options.directory
    paths = find_images_below(directory).paths
    names = [identity_of(path.relative_to(directory).as_posix()) for path in paths]
    for path, name in zip(paths, names, strict=True):
        if not name:
            raise ValueError(f"{path}: expected pictures as {directory}/<Name>/<image>")
    embedder = FaceEmbedder.from_run(run, aligner=face_aligner() if options.align else None)
    fingerprint = run_fingerprint(embedder.run)
    people = (
        ReferenceSet.load(gallery)
        if gallery.exists()
        else ReferenceSet(fingerprint, run=str(run.resolve()))
    )
    people.check_network(fingerprint, str(run))
    with counting(console, "embedding", "images", len(paths)) as advance:
        features = embedder.embed_paths(paths, advance=advance).features()
    good = np.linalg.norm(features, axis=1) >= options.min_length
    rows: dict[str, list[int]] = {name: [] for name in names}
    for row in np.flatnonzero(good).tolist():
        rows[names[row]].append(row)
    left_out = [name for name, chosen in rows.items() if not chosen]
    if len(left_out) == len(rows):
        raise ValueError(
            f"--min-length: expected a picture of length {options.min_length:g} or more, found none"
        )
    for name, chosen in rows.items():
        if chosen:
            people.enroll(name, features[chosen])
    people.save(gallery)
    if left_out:
        warn(
            console,
            f"not enrolled, every picture below {options.min_length:g}: {', '.join(left_out)}",
        )
    say(
        console,
        f"{gallery}: {len(rows) - len(left_out):,} people enrolled by {good.sum():,} of "
        f"{len(paths):,} pictures, {len(people):,} in all",
    )


def _remove(gallery: Path, names: Sequence[str], console: Console) -> None:
    people = ReferenceSet.load(gallery)
    for name in names:
        people.remove(name)
    people.save(gallery)
    say(console, f"{gallery}: {', '.join(names)} removed, {len(people):,} people left")


def identify(options: IdentifyOptions, *, console: Console) -> None:
    """Says for each picture who of the enrolled people it shows, or that it shows nobody.

    Args:
      options: what to do.
      console: where to print.

    Raises:
      FileNotFoundError: a file or a run is missing.
      ValueError: an option out of range, vectors of different networks, nobody enrolled, no
        calibration for the rate, or a picture that cannot be read or has the wrong size.
    """
    check_options(options)
    gallery, threshold, wanted = options.gallery, options.threshold, options.one_false_hit_in
    people = ReferenceSet.load(gallery)
    if not len(people):
        raise ValueError(f"{gallery}: expected enrolled people, found none")
    link = None if options.bridge is None else load_bridge(options.bridge)
    folder = options.run or Path(people.run if link is None else link.new_name)
    embedder = FaceEmbedder.from_run(folder, aligner=face_aligner() if options.align else None)
    fingerprint = run_fingerprint(embedder.run)
    if link is not None:
        link.check(people.fingerprint, fingerprint, path=options.bridge)
        mapped = link.map(people.vectors)
        people = people.mapped(mapped, fingerprint, str(folder))
    people.check_network(fingerprint, str(folder))
    if threshold is None:
        strangers = _strangers(folder) if link is None else Strangers(link.highest)
        threshold = _threshold(strangers, wanted, len(people))
        basis = (
            f"at one false hit in {wanted:,g} searches of {len(people):,} people, "
            f"measured on {len(strangers.highest):,} people"
        )
    else:
        basis = f"among {len(people):,} people"
    vectors, lengths = embedder.embed(list(options.images), flip="concatenated", lengths=True)
    answers = people.identify(vectors, threshold=threshold)
    for path, found, length in zip(options.images, answers, lengths.tolist(), strict=True):
        if length < options.min_length:
            answer = f"not searched, its length {length:.3f} is below {options.min_length:g}"
        elif found:
            answer = f"{found[0].name}, cosine {found[0].cosine:.4f}"
        else:
            answer = "nobody"
        say(console, f"{path}: {answer} (threshold {threshold:.4f}, {basis})")


def _strangers(run: Path) -> Strangers:
    evidence = read_likelihood(run)
    if evidence is None:
        raise ValueError(
            f"{run}: expected likelihood.npz to know how strangers score, found none; `sphereface "
            "evaluate RUN --pairs FILE --images DIR --recalibrate` makes it, or give --threshold"
        )
    return Strangers(evidence.highest)


def _threshold(strangers: Strangers, one_false_hit_in: float, gallery_size: int) -> float:
    try:
        return strangers.threshold(1 / one_false_hit_in, gallery_size)
    except TooFewPairsError as error:
        raise TooFewPairsError(
            str(error).replace("false_hit_rate", f"--one-false-hit-in {one_false_hit_in:g}")
        ) from None

"""What `sphereface clean` does: looks for wrong labels in a set of faces, and shows what it found.

Nothing is changed. clean.csv says what to do with which image, clean.html shows it;
`sphereface prepare --apply clean.csv` writes the cleaned set.
"""

import functools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from rich.console import Console

from sphereface_jax._console import counting, say, warn
from sphereface_jax.commands.face_options import CleanOptions
from sphereface_jax.data.corrections import Correction, write_corrections
from sphereface_jax.data.files import write_atomically
from sphereface_jax.data.images import UnreadableImage
from sphereface_jax.data.open import open_source
from sphereface_jax.data.source import FaceSource
from sphereface_jax.data.text import first_ten
from sphereface_jax.data.vectors import load_vectors, path_ending
from sphereface_jax.embedder import FaceEmbedder
from sphereface_jax.evaluation.label_noise import Finding, LabelNoise, agreed, find_noise
from sphereface_jax.losses.margin_loss import nearest
from sphereface_jax.reports.label_page import Card, Part, render_labels
from sphereface_jax.training.input import open_training_data
from sphereface_jax.training.run_folder import read_config

TABLE, PAGE = "clean.csv", "clean.html"
_MOST_CARDS, _EXAMPLES, _CLASS_BLOCK = 150, 4, 4096
_LEADS = {
    "merge": (
        "To merge",
        "Two names whose images coincide as two halves of one identity do.",
    ),
    "move": ("To move", "Images nearer to another identity than to their own."),
    "split": ("To split", "Clusters as unlike the rest of their identity as strangers are."),
    "drop": (
        "To drop",
        "Images that are like nobody here: other people, bad crops, no faces; or copies.",
    ),
}


def clean(options: CleanOptions, *, console: Console) -> list[Correction]:
    """Looks for labels that lie, and writes OUT/clean.csv and OUT/clean.html.

    Args:
      options: whose vectors judge which labels.
      console: where to print.

    Returns:
      What was written.

    Raises:
      FileNotFoundError: there is no run, file or folder of that name.
      ValueError: vectors without --data or --out, images without vectors, or vectors that cannot
        judge the labels; then nothing is written.
    """
    run, data, confidence = options.run, options.data, options.confidence
    is_run = run.is_dir()
    for option, value in (("--data", data), ("--out", options.out)):
        if not is_run and value is None:
            raise ValueError(f"{option}: expected it beside a file of vectors, {run}, got none")
    folder = options.out or run
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: expected a folder to write into; create it first")
    if not 0 < confidence <= 1:
        raise ValueError(f"--confidence: expected a number in (0, 1], got {confidence:g}")
    source = open_training_data(read_config(run))[0] if data is None else open_source(data)
    rows, vectors = _vectors(run, source, console)
    others = None
    if options.agree_with is not None:
        other_rows, others = _vectors(options.agree_with, source, console)
        common = np.intersect1d(rows, other_rows)
        vectors, others = (
            each[np.searchsorted(held, common)]
            for each, held in ((vectors, rows), (others, other_rows))
        )
        rows = common
    labels = np.asarray(source.labels, np.int64)[rows]
    noise = _look(vectors, labels, confidence)
    findings, opinion = noise.findings, ""
    if others is not None:
        findings = agreed(findings, _look(others, labels, confidence).findings)
        agreement = f"{len(findings):,} of {len(noise.findings):,} findings"
        opinion = f"{options.agree_with} agrees with {agreement}"
    lines = [line for each in findings for line in _corrections(each, source, rows)]
    summary = _summary(noise, findings, len(source.identities))
    summary += [opinion] if opinion else []
    page = render_labels(
        f"{run.name}: {data or 'its training set'}",
        summary,
        [
            _part(action, findings, noise, source, rows, labels)
            for action in ("merge", "move", "split", "drop")
        ],
    )
    write_corrections(folder / TABLE, lines)
    write_atomically(folder / PAGE, page)
    for line in summary:
        say(console, line)
    say(console, f"{folder / TABLE}: {len(lines):,} lines; strike out what is not so, then")
    say(console, f"  sphereface prepare SOURCE --out DIR --apply {folder / TABLE}")
    say(console, f"{folder / PAGE}: the same in pictures (local: it shows faces)")
    return lines


def _look(vectors: np.ndarray, labels: np.ndarray, confidence: float) -> LabelNoise:
    """Findings by one network, all classes looked at, on all devices."""
    devices = jax.device_count()
    mesh = jax.make_mesh((1, devices), ("data", "model")) if devices > 1 else None
    look = functools.partial(nearest, class_block=_CLASS_BLOCK, mesh=mesh)
    return find_noise(vectors, labels, nearest=look, confidence=confidence)


def _vectors(path: Path, source: FaceSource, console: Console) -> tuple[np.ndarray, np.ndarray]:
    """Which images have vectors [M], ascending, and the vectors [M, D]."""
    if not path.is_dir():
        stored = load_vectors(path)
        names = [source.describe(index).replace("\\", "/") for index in range(len(source))]
        ends = [path_ending(name, 2) for name in names]
        found = stored.find_rows(ends)
        rows = np.flatnonzero(found >= 0)
        if not len(rows):
            raise ValueError(
                f"{path}: expected vectors of the images of this set, such as {ends[0]!r}, found "
                f"none, the first is of {stored.paths[0]!r}"
            )
        if len(rows) < len(ends):
            warn(console, f"{path}: {len(ends) - len(rows):,} of {len(ends):,} images have none")
        return rows, stored.features(found[rows])
    errors: dict[int, str] = {}
    embedder = FaceEmbedder.from_run(path)
    with counting(console, f"embedding by {path.name}", "images", len(source)) as advance:
        embedded = embedder.embed_source(source, errors=errors, advance=advance)
    for line in first_ten(f"left out: {errors[index]}" for index in sorted(errors)):
        warn(console, line)
    rows = np.setdiff1d(np.arange(len(source)), sorted(errors))
    return rows, np.concatenate(embedded, axis=1)


def _corrections(found: Finding, source: FaceSource, rows: np.ndarray) -> list[Correction]:
    """The lines of a finding."""
    names = source.identities
    to = names[found.target] if found.target >= 0 else ""
    note = ""
    if found.action == "split":
        to = f"{names[found.identity]}_apart_{found.images[0]}"
    elif found.copy_of >= 0:
        note, to = f"a copy of {source.describe(int(rows[found.copy_of]))}, of {to}", ""
    line = Correction(
        action=found.action,
        identity=names[found.identity],
        to="" if found.action == "drop" else to,
        confidence=f"{found.confidence:.4f}",
        own_cosine=f"{found.own_cosine:.4f}",
        other_cosine=f"{found.other_cosine:.4f}",
        note=note,
    )
    if found.action == "merge":
        return [line]
    return [line._replace(image=source.describe(int(rows[row]))) for row in found.images]


def _summary(noise: LabelNoise, findings: Sequence[Finding], identities: int) -> list[str]:
    counts, images = Counter(each.action for each in findings), len(noise.labels)
    apart = sum(len(each.images) for each in findings if each.action == "split")
    return [
        f"{images:,} images of {identities:,} identities; mean cosine within one person "
        f"{noise.same:.3f}, between two {noise.different:.3f}; about {noise.wrong:.2%} of the "
        "labels are wrong",
        f"drop {counts['drop']:,} images, move {counts['move']:,}, merge {counts['merge']:,} pairs "
        f"of identities, split {counts['split']:,} identities ({apart:,} images)",
    ]


def _part(
    action: str,
    findings: Sequence[Finding],
    noise: LabelNoise,
    source: FaceSource,
    rows: np.ndarray,
    labels: np.ndarray,
) -> Part:
    """The findings of a kind in pictures, the surest first."""
    chosen = [each for each in findings if each.action == action]
    chosen.sort(key=lambda each: -each.confidence)
    names, outside = source.identities, {row for each in findings for row in each.images}

    def examples(identity: int) -> list[np.ndarray]:
        """Images of an identity that nothing is said about, the nearest to its core first."""
        own = np.flatnonzero(labels == identity)
        own = own[np.argsort(-np.nan_to_num(noise.own_cosine[own], nan=-1), kind="stable")]
        return _read(source, rows[[row for row in own.tolist() if row not in outside]])

    cards = []
    for each in chosen[:_MOST_CARDS]:
        groups = [(names[each.identity], examples(each.identity))]
        numbers = f"own cosine {each.own_cosine:.2f}, other {each.other_cosine:.2f}"
        if each.images:
            shown = _read(source, rows[list(each.images)])
            groups.insert(0, (f"to {action}: {len(each.images)}", shown))
        if each.target >= 0:
            groups.append((names[each.target], examples(each.target)))
        about = [source.describe(int(rows[row])) for row in each.images[:1]]
        if each.copy_of >= 0:
            about.append(f"a copy of {source.describe(int(rows[each.copy_of]))}")
        caption = ", ".join([f"confidence {each.confidence:.2f}", numbers, *about])
        cards.append(Card(caption, groups))
    return Part(action, *_LEADS[action], cards, len(chosen))


def _read(source: FaceSource, indices: np.ndarray) -> list[np.ndarray]:
    """The first few images that can be read."""
    images: list[np.ndarray] = []
    for index in indices.tolist():
        if len(images) == _EXAMPLES:
            break
        try:
            images.append(source[index]["image"])
        except UnreadableImage:
            continue
    return images

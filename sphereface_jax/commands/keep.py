"""What a run keeps for its report: made while embeddings are at hand, stored in RUN/evidence.

`reports/stored.py` says what the files hold. They are derived: the next evaluation writes them
anew, and a run without them has a report that says what is missing.
"""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import cv2
import numpy as np
from rich.console import Console

from sphereface_jax._console import counting
from sphereface_jax.data.files import atomic_file, file_name
from sphereface_jax.data.images import UnreadableImage, encode_jpeg
from sphereface_jax.data.source import FaceSource, ImageSequence
from sphereface_jax.data.vectors import FaceVectors, identity_of
from sphereface_jax.evaluation.pairs import Pairs, paired_cosines
from sphereface_jax.evaluation.verification import VerificationResult
from sphereface_jax.reports.stored import (
    SPHERE_PEOPLE,
    Pictures,
    StoredPairs,
    StoredPeople,
    choose_shown,
    from_arrays,
    hardest_pairs,
    measure_people,
    measure_prototypes,
    to_arrays,
)
from sphereface_jax.training.config import TrainConfig

if TYPE_CHECKING:
    from sphereface_jax.training.run_folder import SavedRun

PICTURE_SIDE = 96
TRAINING_PEOPLE, TRAINING_IMAGES = 64, 20
TRAINING, PROTOTYPES = "training", "prototypes"
Stored = TypeVar("Stored")


def store(run: Path, name: str, stored: object) -> None:
    """Writes data for the report of a run, in place of earlier ones of that name.

    Args:
      run: the run's folder.
      name: of the data; the file is called by it.
      stored: a dataclass of `reports.stored`.
    """
    write_arrays(run / "evidence" / f"{file_name(name)}.npz", stored)


def write_arrays(path: Path, stored: object) -> None:
    """Writes data for a report as an .npz file, in place of any that is there.

    Args:
      path: the file.
      stored: a dataclass of `reports.stored`.
    """
    arrays: dict[str, Any] = to_arrays(stored)
    with atomic_file(path) as file:
        np.savez_compressed(file, **arrays)


def load_stored(run: Path, cls: type[Stored], pattern: str) -> dict[str, Stored]:
    """Reads the data of a run whose names fit a pattern; nothing is unpickled.

    Args:
      run: the run's folder.
      cls: a dataclass of `reports.stored`.
      pattern: of names, such as `pairs-*`.

    Returns:
      The data by name, sorted.

    Raises:
      ValueError: a file is damaged or something else; it is named.
    """
    return {
        path.stem: read_arrays(path, cls)
        for path in sorted((run / "evidence").glob(f"{pattern}.npz"))
    }


def read_arrays(path: Path, cls: type[Stored]) -> Stored:
    """Reads one .npz file of data for a report; nothing is unpickled.

    Args:
      path: the file.
      cls: a dataclass of `reports.stored`.

    Returns:
      The data.

    Raises:
      ValueError: the file is damaged or something else; it is named.
    """
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return from_arrays(cls, {name: file[name] for name in file.files})
    except (
        ValueError,
        OSError,
        EOFError,
        TypeError,
        AttributeError,
        zipfile.BadZipFile,
    ) as error:
        raise ValueError(
            f"{path}: expected a report's data, got {error}; delete it, and the next "
            "`sphereface evaluate` writes it again"
        ) from error


def keep_pairs(
    run: Path,
    title: str,
    pairs: Pairs,
    results: Mapping[str, VerificationResult],
    *,
    step: int,
    vectors: FaceVectors | None = None,
    images: Mapping[str, tuple[ImageSequence, int]] | None = None,
) -> None:
    """Keeps the scores of a list of pairs, and its hardest pairs in pictures.

    Args:
      run: the run's folder.
      title: of the list.
      pairs: P pairs.
      results: by protocol, on these pairs.
      step: of the weights.
      vectors: whose rows the pairs name; None where they are not pairs of single images.
      images: where the image of each vector's path is, for those that are at hand.
    """
    scores = {name: result.scores.astype(np.float32) for name, result in results.items()}
    if vectors is None:
        cosine, hardest, names = next(iter(results.values())).scores, np.empty(0, np.int64), []
    else:
        cosine = paired_cosines(vectors.features(), pairs)
        hardest = hardest_pairs(cosine, pairs.is_same)
        rows = np.stack([pairs.left[hardest], pairs.right[hardest]], axis=1).ravel()
        names = [vectors.paths[row] for row in rows.tolist()]
    stored = StoredPairs(
        title=np.array(title),
        step=np.array(step),
        is_same=pairs.is_same,
        cosine=cosine.astype(np.float32),
        scores=scores,
        hardest=hardest,
        names=np.array(names, dtype=str),
        pictures=take_pictures(names, images or {}),
    )
    store(run, f"pairs-{title}", stored)


def keep_people(
    run: Path,
    title: str,
    vectors: FaceVectors,
    *,
    step: int,
    images: Mapping[str, tuple[ImageSequence, int]] | None = None,
) -> None:
    """Keeps how people look on the hypersphere, where the paths of their images name people.

    Args:
      run: the run's folder.
      title: of the set.
      vectors: of the images.
      step: of the weights.
      images: as in `keep_pairs`.
    """
    people = [identity_of(path) for path in vectors.paths]
    if "" in people:
        return
    first_path = dict(zip(reversed(people), reversed(vectors.paths), strict=True))
    names = np.array(people, dtype=str)
    faces = {}
    for name in choose_shown(names).tolist():
        pictures = take_pictures([first_path[name]], images or {})
        if len(pictures):
            faces[name] = pictures[0]
    stored = measure_people(vectors.embeddings, people, title=title, step=step, pictures=faces)
    if stored is not None:
        store(run, f"people-{title}", stored)


def keep_prototypes(run: "SavedRun") -> None:
    """Keeps how the prototypes of a run spread, where it has any."""
    prototypes = np.asarray(run.prototypes[: run.num_classes])
    stored = measure_prototypes(prototypes.reshape(-1, prototypes.shape[-1]), step=run.step)
    if stored is not None:
        store(run.path, PROTOTYPES, stored)


def keep_training(config: TrainConfig, console: Console) -> None:
    """Embeds some of the faces that a run learnt, and keeps them and its prototypes.

    Up to 64 people with 20 images each: those with the most images, so that the sphere has eight
    people worth showing. What is there of the same step already stays.

    Args:
      config: of the run, which has a checkpoint.
      console: where to show progress.
    """
    from sphereface_jax.embedder import FaceEmbedder, GivenImages
    from sphereface_jax.training.input import open_training_data

    embedder = FaceEmbedder.from_run(config.out.expanduser())
    run = embedder.run
    kept = load_stored(run.path, StoredPeople, TRAINING).values()
    if [int(each.step) for each in kept] == [run.step]:
        return
    source, _ = open_training_data(config)
    chosen = choose_shown(source.labels, TRAINING_PEOPLE)
    images, labels = _read_some(source, chosen, skip=config.data.on_error == "skip")
    if not images:
        return
    with counting(console, "embedding for the report", "images", len(images)) as advance:
        embeddings, _ = embedder.embed_source(GivenImages(images), advance=advance)
    stored = measure_people(
        embeddings,
        [source.identities[label] for label in labels],
        title="training",
        step=run.step,
        prototypes=_named_prototypes(run, source, chosen),
        pictures={
            source.identities[label]: picture(images[labels.index(label)])
            for label in set(labels).intersection(chosen[:SPHERE_PEOPLE].tolist())
        },
    )
    if stored is not None:
        store(run.path, TRAINING, stored)
    keep_prototypes(run)


def _read_some(
    source: FaceSource, chosen: np.ndarray, *, skip: bool
) -> tuple[list[np.ndarray], list[int]]:
    """Some images of each of the chosen labels, and their labels; `skip` leaves unreadable out."""
    images, labels = [], []
    for label in chosen.tolist():
        for index in np.flatnonzero(source.labels == label)[:TRAINING_IMAGES].tolist():
            try:
                images.append(source[index]["image"])
            except UnreadableImage:
                if not skip:
                    raise
            else:
                labels.append(label)
    return images, labels


def _named_prototypes(
    run: "SavedRun", source: FaceSource, labels: np.ndarray
) -> dict[str, np.ndarray]:
    """The prototypes of people, by name; none where a person has several."""
    prototypes = np.asarray(run.prototypes)
    if prototypes.ndim != 2:
        return {}
    return {source.identities[label]: prototypes[label] for label in labels.tolist()}


def take_pictures(
    names: Sequence[str], images: Mapping[str, tuple[ImageSequence, int]]
) -> Pictures:
    """Small pictures of images by name; none at all where one is not at hand.

    Args:
      names: N images, in the order wanted.
      images: by name, the source that has the image and its number there.

    Returns:
      N pictures, or none at all where an image is not at hand.
    """
    if not all(name in images for name in names):
        return Pictures.of([])
    encoded = []
    for name in names:
        source, index = images[name]
        encoded.append(picture(source[index]["image"]))
    return Pictures.of(encoded)


def picture(image: np.ndarray) -> bytes:
    """A uint8 [H, W, 3] RGB image as JPEG of at most 96 pixels a side."""
    height, width = image.shape[:2]
    scale = min(1.0, PICTURE_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return encode_jpeg(cv2.resize(image, size, interpolation=cv2.INTER_AREA), quality=85)

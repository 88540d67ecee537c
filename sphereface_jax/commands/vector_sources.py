"""Where a task's vectors come from: a file that holds them, or a run that embeds its images."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from sphereface_jax._console import counting, warn
from sphereface_jax.data.megaface import read_megaface_features
from sphereface_jax.data.text import first_ten
from sphereface_jax.data.vectors import FaceVectors, load_vectors
from sphereface_jax.tasks.task import FaceImages, Missing, Task


class StoredVectors:
    """An .npz file of embeddings, or a folder of MegaFace's feature files, the same for every task.

    Args:
      path: the file or folder.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is damaged or something else.
    """

    def __init__(self, path: Path):
        self.name = str(path)
        self.vectors = read_megaface_features(path) if path.is_dir() else load_vectors(path)

    def vectors_for(self, tasks: Sequence[Task], *, allow_missing: bool) -> list[FaceVectors]:
        """Returns the file's vectors; what they lack a task finds when it matches them.

        Args:
          tasks: what they are for.
          allow_missing: of no effect.

        Returns:
          The same for each task.
        """
        del allow_missing
        return [self.vectors] * len(tasks)


class RunVectors:
    """A run that embeds the images of tasks.

    Args:
      path: the run's folder.
      console: where to show progress.
      align: detect and align each face first.

    Raises:
      FileNotFoundError: the folder holds no run, the run has no checkpoint yet, or the detector is
        not installed.
    """

    def __init__(self, path: Path, console: Console, *, align: bool = False):
        # Stored vectors need no network, nor the second that importing it takes.
        from sphereface_jax.data.aligner import face_aligner
        from sphereface_jax.embedder import FaceEmbedder

        self.name = str(path)
        self._console = console
        self._embedder = FaceEmbedder.from_run(path, aligner=face_aligner() if align else None)
        self.run = self._embedder.run

    def vectors_for(self, tasks: Sequence[Task], *, allow_missing: bool) -> list[FaceVectors]:
        """Embeds the images of each task, once if they are among another's.

        Args:
          tasks: what the vectors are for.
          allow_missing: whether images may be missing.

        Returns:
          One per task, of all its images that there are.

        Raises:
          FileNotFoundError: a folder or an image is missing.
          ValueError: an image cannot be read, and that is not allowed, or has the wrong size; it
            is named.
        """
        wanted = [task.find_images() for task in tasks]
        for task, images in zip(tasks, wanted, strict=True):
            refuse_missing(images.missing, task.title, allow_missing=allow_missing)
        embedded: dict[int, FaceVectors] = {}
        for number in sorted(range(len(wanted)), key=lambda number: -len(wanted[number].names)):
            names = set(wanted[number].names)
            covering = (done for done in embedded.values() if names.issubset(done.paths))
            embedded[number] = next(covering, None) or self._embed(wanted[number], allow_missing)
        return [embedded[number] for number in range(len(wanted))]

    def _embed(self, images: FaceImages, allow_missing: bool) -> FaceVectors:
        errors: dict[int, str] | None = {} if allow_missing else None
        with counting(self._console, "embedding", "images", len(images.names)) as advance:
            embeddings, mirrored = self._embedder.embed_source(
                images.source, errors=errors, advance=advance
            )
        unreadable = errors or {}
        for line in first_ten(f"left out: {unreadable[i]}" for i in sorted(unreadable)):
            warn(self._console, line)
        names = [name for i, name in enumerate(images.names) if i not in unreadable]
        return FaceVectors(names, embeddings, mirrored)


VectorSource = StoredVectors | RunVectors


def refuse_missing(missing: Missing, title: str, *, allow_missing: bool) -> None:
    """Lists what is missing, unless that is allowed and something is there.

    Args:
      missing: what a task has no vector for.
      title: of the task.
      allow_missing: whether some may be missing.

    Raises:
      FileNotFoundError: it is not allowed, or everything is missing.
    """
    count = len(missing.names)
    if not count or (allow_missing and count < missing.total):
        return
    listed = ", ".join(missing.names[:10]) + (", ..." if count > 10 else "")
    place = "" if missing.folder is None else f" in {missing.folder}"
    advice = "add them, or leave out what needs them with --allow-missing"
    if count == missing.total:
        advice = "is that the right place, and are its names those of the list?"
    raise FileNotFoundError(
        f"{title}: {count:,} of the {missing.total:,} {missing.unit} it needs are missing "
        f"({listed}){place}; {advice}{missing.hint}"
    )

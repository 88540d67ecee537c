"""MegaFace's first challenge: a probe set, and up to a million distractors."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sphereface_jax.data.images import ImagePaths
from sphereface_jax.data.megaface import MegafaceList, read_megaface_list, read_megaface_noises
from sphereface_jax.data.vectors import FaceVectors
from sphereface_jax.evaluation.identification import megaface
from sphereface_jax.tasks.task import (
    FaceImages,
    Matched,
    Missing,
    existing_files,
    missing_names,
    require_folder,
)


class MegafaceTask:
    """The lists of the development kit.

    Args:
      probes: JSON list of the probes and who they are.
      distractors: JSON list of the distractors.
      images: folder that the probes' paths start from.
      distractor_images: folder that the distractors' paths start from; `images` by default.
      wrong_probes: list of probes to leave out.
      wrong_distractors: list of distractors to leave out.
      progress: called during the search with the comparisons done and those there are.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a file is not what it should be, or both lists name an image.
    """

    title = "megaface"
    prefix = ""
    protocols: tuple[str, ...] = ("megaface",)

    def __init__(
        self,
        probes: Path,
        distractors: Path,
        *,
        images: Path | None = None,
        distractor_images: Path | None = None,
        wrong_probes: Path | None = None,
        wrong_distractors: Path | None = None,
        progress: Callable[[int, int], None] | None = None,
    ):
        self._probes = _read_list(probes, wrong_probes)
        self._distractors = _read_list(distractors, wrong_distractors)
        if self._probes.identities is None:
            raise ValueError(f"{probes}: expected who the probes are under 'id', found nothing")
        if both := set(self._probes.paths).intersection(self._distractors.paths):
            raise ValueError(
                f"{distractors}: expected other images than {probes}, found {min(both)!r} in both"
            )
        self._folders = images, distractor_images or images
        self._progress = progress

    def find_images(self) -> FaceImages:
        """Finds the images of both lists."""
        lists = self._probes, self._distractors
        folders = [require_folder(folder, self.title) for folder in self._folders]
        paths = {
            name: folder / name
            for folder, listed in zip(folders, lists, strict=True)
            for name in listed.paths
        }
        found, missing = existing_files(paths)
        return FaceImages(
            list(found), ImagePaths(list(found.values())), Missing(missing, len(paths))
        )

    def match(self, vectors: FaceVectors) -> Matched:
        """Finds the vectors of both lists by their paths."""
        names = [*self._probes.paths, *self._distractors.paths]
        rows = vectors.find_rows(names)
        probe_rows, distractor_rows = np.split(rows, [len(self._probes)])
        is_there = probe_rows >= 0
        kept = distractor_rows[distractor_rows >= 0]
        if not is_there.any() or not len(kept):
            raise ValueError(f"{self.title}: expected probes and distractors, found none of one")
        return Matched(
            scorers={
                "megaface": functools.partial(
                    megaface,
                    vectors.features(probe_rows[is_there]),
                    np.array(self._probes.identities)[is_there],
                    vectors.features(kept),
                    progress=self._progress,
                )
            },
            used={
                "probes": (int(is_there.sum()), len(self._probes)),
                "distractors": (len(kept), len(self._distractors)),
            },
            missing=missing_names(names, rows),
            facts={"flip": vectors.flip},
        )


def _read_list(path: Path, wrong: Path | None) -> MegafaceList:
    listed = read_megaface_list(path)
    return listed if wrong is None else listed.without(read_megaface_noises(wrong))

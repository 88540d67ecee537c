"""IJB-B and IJB-C: verification of and search among templates, from a folder of published files.

The folder is InsightFace's `meta` (`ijbc_face_tid_mid.txt`, `ijbc_template_pair_label.txt`, ...) or
one that holds NIST's tables beside `*_face_tid_mid.txt`; what it has decides which protocols there
are. Loose crops are aligned by the landmarks of `*_name_5pts_score.txt`, whose detector scores
weigh the images of a template, as InsightFace does it; without that file every image counts alike.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from sphereface_jax.data.aligner import FaceAligner
from sphereface_jax.data.ijb import IjbSubjects
from sphereface_jax.data.ijb_folder import read_ijb
from sphereface_jax.data.images import ImagePaths
from sphereface_jax.data.source import ImageView
from sphereface_jax.data.vectors import FaceVectors
from sphereface_jax.evaluation.results import Result
from sphereface_jax.evaluation.templates import (
    Templates,
    ijb_1n,
    ijb_1n_insightface,
    ijb_11,
    pool_templates,
)
from sphereface_jax.tasks.task import (
    FaceImages,
    Matched,
    Missing,
    existing_files,
    missing_names,
    require_folder,
)


class IjbTask:
    """IJB-B or IJB-C, 1:1 and 1:N.

    Args:
      folder: of the benchmark's files.
      images: folder of the loose crops.

    Raises:
      FileNotFoundError: no such folder, or it has no `*_face_tid_mid.txt`.
      ValueError: a file is not what it should be, or there is nothing to score.
    """

    prefix = ""

    def __init__(self, folder: Path, images: Path | None = None):
        self._lists, self._images = read_ijb(folder), images
        self.title = self._lists.title
        self.protocols = (
            *(("ijb_11",) if self._lists.pairs is not None else ()),
            *(("ijb_1n", "ijb_1n_insightface") if self._lists.galleries else ()),
        )
        if not self.protocols:
            raise ValueError(
                f"{folder}: expected *_template_pair_label.txt, or *_1N_gallery_*.csv and "
                "*_1N_probe_mixed.csv, found neither"
            )

    def find_images(self) -> FaceImages:
        """Finds the loose crops, to be aligned by their landmarks."""
        folder = require_folder(self._images, self.title)
        faces = self._lists.faces
        if faces is None:
            raise FileNotFoundError(
                f"{self.title}: expected {self.title}_name_5pts_score.txt, whose landmarks the "
                "loose crops are aligned by, found none"
            )
        landmarks = dict(zip(faces.names, faces.landmarks, strict=True))
        found, missing = existing_files({name: folder / name for name in landmarks})
        crops = ImagePaths(list(found.values()))
        return FaceImages(
            list(found),
            ImageView(crops, change=FaceAligner(landmarks=landmarks)),
            Missing(missing, len(landmarks), folder=folder),
        )

    def match(self, vectors: FaceVectors) -> Matched:
        """Finds the vectors of the crops by file name; a template without any is left out."""
        listed, faces, pairs = self._lists.templates, self._lists.faces, self._lists.pairs
        rows = vectors.find_rows(listed.names)
        there = rows >= 0
        if not there.any():
            raise ValueError(f"{self.title}: none of the {len(rows)} images has a vector")

        @functools.cache
        def templates() -> Templates:
            return pool_templates(
                vectors.embeddings[rows[there]],
                listed.template_ids[there],
                listed.media_ids[there],
                mirrored=None if vectors.mirrored is None else vectors.mirrored[rows[there]],
                quality=None if faces is None else faces.scores[there],
            )

        known = np.unique(listed.template_ids[there])
        used = {
            "templates": (len(known), len(np.unique(listed.template_ids))),
            "images": (int(there.sum()), len(rows)),
        }
        scorers: dict[str, Callable[[], Result]] = {}
        if pairs is not None:
            kept = np.isin(pairs.left_ids, known) & np.isin(pairs.right_ids, known)
            used["template pairs"] = int(kept.sum()), len(kept)
            sides = pairs.left_ids[kept], pairs.right_ids[kept], pairs.is_same[kept]
            scorers["ijb_11"] = lambda: ijb_11(templates(), *sides)
        if self._lists.probes is not None and self._lists.galleries:
            probes, galleries = _search(self._lists.probes, self._lists.galleries, known)
            used["probes"] = len(probes[0]), len(self._lists.probes.subjects)
            scorers["ijb_1n"] = lambda: ijb_1n(templates(), probes, galleries)
            scorers["ijb_1n_insightface"] = lambda: ijb_1n_insightface(
                templates(), probes, galleries
            )
        return Matched(
            scorers=scorers,
            used=used,
            missing=missing_names(listed.names, rows),
            facts={
                "flip": "none" if vectors.mirrored is None else "summed",
                "quality": "none" if faces is None else "detector score",
            },
        )


def _search(
    probes: IjbSubjects, galleries: Sequence[IjbSubjects], known: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray], list[tuple[np.ndarray, np.ndarray]]]:
    """Probes and galleries as (ids, subjects), without templates that have no vector.

    A probe whose mate is gone from its gallery goes too: it would be counted as unmated.
    """
    kept = [np.isin(gallery.template_ids, known) for gallery in galleries]
    lost = np.concatenate(
        [gallery.subjects[~keep] for gallery, keep in zip(galleries, kept, strict=True)]
    )
    mated = np.isin(probes.template_ids, known) & ~np.isin(probes.subjects, lost)
    return (probes.template_ids[mated], probes.subjects[mated]), [
        (gallery.template_ids[keep], gallery.subjects[keep])
        for gallery, keep in zip(galleries, kept, strict=True)
    ]

"""Verification of video pairs: YouTube Faces."""

import functools
from pathlib import Path

import numpy as np

from sphereface_jax.data.images import ImagePaths
from sphereface_jax.data.vectors import FaceVectors
from sphereface_jax.data.ytf import find_frames, read_ytf_splits
from sphereface_jax.evaluation.videos import VIDEO_PROTOCOLS
from sphereface_jax.tasks.pair_list import keep_whole_pairs, number_pairs
from sphereface_jax.tasks.task import (
    FaceImages,
    Matched,
    Missing,
    TestedPairs,
    missing_names,
    require_folder,
)


class VideosTask:
    """YouTube Faces' list of video pairs, by the average and by the best frame.

    Args:
      path: the list of splits.
      images: folder of the frames, <Name>/<video>/<frame>.jpg.

    Raises:
      FileNotFoundError: no such file.
      ValueError: it is not such a list, or has one split only.
    """

    prefix = ""
    protocols = tuple(VIDEO_PROTOCOLS)

    def __init__(self, path: Path, images: Path | None = None):
        self.title = path.name
        named = read_ytf_splits(path)
        self._videos, self._images = named.names, images
        self._pairs = number_pairs(named)
        if len(np.unique(self._pairs.folds)) < 2:
            raise ValueError(f"{path}: expected two splits or more to choose thresholds on")

    def find_images(self) -> FaceImages:
        """Finds every frame of the videos."""
        folder = require_folder(self._images, self.title)
        paths, missing = find_frames(self._videos, folder)
        return FaceImages(
            [path.relative_to(folder).as_posix() for path in paths],
            ImagePaths(paths),
            Missing(missing, len(self._videos), "videos", folder),
        )

    def match(self, vectors: FaceVectors) -> Matched:
        """Finds the frames of each video by their paths, which end in Name/video/frame."""
        number_of = {video: number for number, video in enumerate(self._videos)}
        of_row = np.array(
            [number_of.get("/".join(path.split("/")[-3:-1]), -1) for path in vectors.paths],
            np.int64,
        )
        rows = np.flatnonzero(of_row >= 0)
        places = np.arange(len(self._videos))
        places[~np.isin(places, of_row)] = -1
        pairs, kept = keep_whole_pairs(self._pairs, places, self.title)
        frames = vectors.embeddings[rows]
        mirrored = None if vectors.mirrored is None else vectors.mirrored[rows]
        return Matched(
            scorers={
                name: functools.partial(protocol, frames, of_row[rows], pairs, mirrored=mirrored)
                for name, protocol in VIDEO_PROTOCOLS.items()
            },
            used={"video pairs": (len(pairs), len(self._pairs)), "frames": (len(rows), len(rows))},
            missing=missing_names(self._videos, places, "videos"),
            tested=TestedPairs(pairs, kept, [video.split("/")[0] for video in self._videos]),
        )

"""Verification of video pairs, as on YouTube Faces: many frames, one answer.

| protocol         | a pair of videos is compared by                              |
|------------------|--------------------------------------------------------------|
| `ytf_average`    | the averages of their frames' embeddings, the SphereFace way |
| `ytf_best_frame` | the most alike of all their pairs of frames                  |

Averages then go through `lfw_authors`, centring and all; best-frame cosines are taken as they are,
with thresholds chosen in the same way.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sphereface_jax.evaluation.pairs import Pairs, check_mirrored, sorted_places, unit_rows
from sphereface_jax.evaluation.pooling import group_means
from sphereface_jax.evaluation.verification import VerificationResult, lfw_authors, verify_scores

_FRAMES_PER_BLOCK = 1024


def ytf_average(
    embeddings: ArrayLike,
    video_of_frame: ArrayLike,
    pairs: Pairs,
    *,
    mirrored: ArrayLike | None = None,
) -> VerificationResult:
    """Averages the frames of each video, then verifies as `lfw_authors` does.

    Args:
      embeddings: [N, D], of the frames, lengths kept.
      video_of_frame: [N] integers, the number of each frame's video.
      pairs: P pairs of videos by number, with their folds.
      mirrored: [N, D], the embeddings of the mirrored frames, or None.

    Returns:
      A `VerificationResult`.

    Raises:
      ValueError: as `lfw_authors`; for a number of frames that differs, or a video without frames.
    """
    frames, mirror_frames = check_mirrored(embeddings, mirrored)
    video, videos = _check_videos(video_of_frame, len(frames), pairs)
    averages = group_means(frames, video)
    mirror_averages = None if mirror_frames is None else group_means(mirror_frames, video)
    return lfw_authors(averages, videos, mirrored=mirror_averages)


def ytf_best_frame(
    embeddings: ArrayLike,
    video_of_frame: ArrayLike,
    pairs: Pairs,
    *,
    mirrored: ArrayLike | None = None,
) -> VerificationResult:
    """Verifies by the highest cosine between any frame of one video and any of the other.

    Args:
      embeddings: [N, D], of the frames.
      video_of_frame: [N] integers, the number of each frame's video.
      pairs: P pairs of videos by number, with their folds.
      mirrored: [N, D], the embeddings of the mirrored frames, put after the frames' own.

    Returns:
      A `VerificationResult`.

    Raises:
      ValueError: for embeddings that are not finite or are zero, a number of frames that differs,
        a video without frames, fewer than two folds, or no same or no different pairs.
    """
    frames, mirror_frames = check_mirrored(embeddings, mirrored)
    video, videos = _check_videos(video_of_frame, len(frames), pairs)
    rows_of_video = np.split(np.argsort(video, kind="stable"), np.cumsum(np.bincount(video))[:-1])

    def features(number: int) -> NDArray[np.float64]:
        rows = rows_of_video[number]
        if mirror_frames is None:
            return unit_rows(frames[rows])
        return unit_rows(np.concatenate([frames[rows], mirror_frames[rows]], axis=1))

    cosines = [
        _highest_product(features(left), features(right))
        for left, right in zip(videos.left, videos.right, strict=True)
    ]
    flip = "none" if mirrored is None else "concatenated"
    return verify_scores(np.clip(cosines, -1.0, 1.0), videos, flip=flip)


VIDEO_PROTOCOLS: dict[str, Callable[..., VerificationResult]] = {
    "ytf_average": ytf_average,
    "ytf_best_frame": ytf_best_frame,
}


def _check_videos(
    video_of_frame: ArrayLike, num_frames: int, pairs: Pairs
) -> tuple[NDArray[np.int64], Pairs]:
    """Each frame's video by its place among those that have frames, and the pairs of places."""
    of_frame = np.asarray(video_of_frame)
    if of_frame.shape != (num_frames,) or not np.issubdtype(of_frame.dtype, np.integer):
        found = f"{of_frame.dtype} {list(of_frame.shape)}"
        raise ValueError(f"video_of_frame: expected integers of shape [{num_frames}], got {found}")
    numbers, video = np.unique(of_frame, return_inverse=True)
    places = []
    for side in (pairs.left, pairs.right):
        place = sorted_places(numbers, side)
        if (place < 0).any():
            raise ValueError(
                f"pairs: expected videos with frames, video {side[place < 0][0]} has none"
            )
        places.append(place)
    return video, Pairs(*places, is_same=pairs.is_same, folds=pairs.folds)


def _highest_product(first: NDArray, second: NDArray) -> float:
    """The largest entry of first @ second.T, in blocks of rows."""
    return max(
        float((first[start : start + _FRAMES_PER_BLOCK] @ second.T).max())
        for start in range(0, len(first), _FRAMES_PER_BLOCK)
    )

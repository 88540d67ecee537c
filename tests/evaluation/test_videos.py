"""Video pairs: averages and best frames against plain loops."""

import numpy as np
import pytest

from sphereface_jax.evaluation import videos as videos_module
from sphereface_jax.evaluation.pairs import Pairs
from sphereface_jax.evaluation.verification import best_threshold, lfw_authors
from sphereface_jax.evaluation.videos import VIDEO_PROTOCOLS, ytf_average, ytf_best_frame


def clips(seed: int = 0) -> tuple[np.ndarray, np.ndarray, Pairs]:
    """60 videos of 30 people, of 1 to 9 frames in mixed order; numbers with gaps."""
    rng = np.random.default_rng(seed)
    length = rng.integers(1, 10, 60)
    video = rng.permutation(np.repeat(10 * np.arange(60), length))
    centres = rng.normal(size=(30, 8))
    frames = centres[video // 20] + 0.9 * rng.normal(size=(len(video), 8))
    left = rng.integers(0, 60, 200)
    right = np.where(np.arange(200) % 2, left ^ 1, rng.integers(0, 60, 200))
    pairs = Pairs(
        10 * left, 10 * right, is_same=left // 2 == right // 2, folds=np.arange(200) // 20
    )
    return frames, video, pairs


def test_averages_are_verified_as_on_lfw() -> None:
    frames, video, pairs = clips()
    averages = np.zeros((600, 8)) + 1e-3  # rows of no video are not asked for
    for number in np.unique(video):
        averages[number] = frames[video == number].mean(axis=0)
    used = np.unique(video)
    place = np.searchsorted(used, [pairs.left, pairs.right])
    expected = lfw_authors(averages[used], Pairs(*place, is_same=pairs.is_same, folds=pairs.folds))
    result = ytf_average(frames, video, pairs)
    np.testing.assert_allclose(result.scores, expected.scores)
    assert result.accuracy_10_fold == expected.accuracy_10_fold
    assert 0.6 < result.accuracy_10_fold < 1


def test_the_best_frame_is_the_highest_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(videos_module, "_FRAMES_PER_BLOCK", 2)
    frames, video, pairs = clips()
    unit = frames / np.linalg.norm(frames, axis=1, keepdims=True)
    expected = np.array(
        [
            (unit[video == left] @ unit[video == right].T).max()
            for left, right in zip(pairs.left, pairs.right, strict=True)
        ]
    )
    result = ytf_best_frame(frames, video, pairs)
    np.testing.assert_allclose(result.scores, expected)
    others = pairs.folds != 3
    threshold = best_threshold(expected[others], pairs.is_same[others])
    own = ~others
    right_side = np.where(pairs.is_same, expected > threshold, expected < threshold)
    assert result.fold_accuracies[3] == right_side[own].mean()


@pytest.mark.parametrize("name", VIDEO_PROTOCOLS)
def test_mirrored_frames_come_after_their_own(name: str) -> None:
    frames, video, pairs = clips()
    mirrored = frames + 0.3 * np.random.default_rng(1).normal(size=frames.shape)
    result = VIDEO_PROTOCOLS[name](frames, video, pairs, mirrored=mirrored)
    joined = VIDEO_PROTOCOLS[name](np.concatenate([frames, mirrored], axis=1), video, pairs)
    np.testing.assert_allclose(result.scores, joined.scores)
    assert (result.flip, joined.flip) == ("concatenated", "none")


@pytest.mark.parametrize("name", VIDEO_PROTOCOLS)
def test_videos_that_cannot_be_compared_are_named(name: str) -> None:
    frames, video, pairs = clips()
    run = VIDEO_PROTOCOLS[name]
    with pytest.raises(ValueError, match=r"video_of_frame: expected integers of shape \["):
        run(frames, video[1:], pairs)
    with pytest.raises(ValueError, match="pairs: expected videos with frames, video 0 has none"):
        run(frames, np.where(video == 0, 10, video), Pairs([0], [10], is_same=[True], folds=[0]))
    with pytest.raises(ValueError, match="mirrored: expected shape"):
        run(frames, video, pairs, mirrored=frames[:, :4])

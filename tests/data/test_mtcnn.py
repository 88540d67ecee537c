"""The parts of MTCNN that need no weights, and what it says without them."""

import importlib.util

import numpy as np
import pytest

from sphereface_jax.data import mtcnn


def test_suppress_keeps_the_surest_of_overlapping_boxes() -> None:
    boxes = np.array(
        [
            [0.0, 0, 10, 10, 0.8],
            [1.0, 0, 11, 10, 0.9],  # 9/11 of the union with the first
            [20.0, 0, 30, 10, 0.7],
            [22.0, 2, 26, 6, 0.6],  # inside the third: 16 % of the union, all of the smaller
        ]
    )
    assert mtcnn.suppress(boxes, 0.5).tolist() == [1, 2, 3]
    assert mtcnn.suppress(boxes, 0.9).tolist() == [1, 0, 2, 3]
    assert mtcnn.suppress(boxes, 0.5, by_smaller=True).tolist() == [1, 2]
    assert mtcnn.suppress(np.empty((0, 5)), 0.5).tolist() == []


def test_convolution_and_pooling() -> None:
    rng = np.random.default_rng(0)
    x, kernel, bias = rng.random((2, 6, 7, 3)), rng.random((2, 3, 3, 4)), rng.random(4)
    result = mtcnn._conv(x, kernel, bias)
    assert result.shape == (2, 5, 5, 4)
    expected = np.einsum("hwc,hwco->o", x[1, 3:5, 2:5], kernel) + bias
    np.testing.assert_allclose(result[1, 3, 2], expected)
    pooled = mtcnn._max_pool(x, 3)
    assert pooled.shape == (2, 3, 3, 3)
    np.testing.assert_array_equal(pooled[0, 2, 2], x[0, 4:, 4:].max(axis=(0, 1)))
    np.testing.assert_array_equal(pooled[1, 0, 1], x[1, :3, 2:5].max(axis=(0, 1)))


def test_crops_are_black_outside_the_image() -> None:
    image = np.full((20, 20, 3), 200, np.uint8)
    boxes = np.array([[-10.0, -10, 10, 10, 1], [30.0, 30, 40, 40, 1], [5.0, 5, 5, 5, 1]])
    crops = mtcnn._crops(image, boxes, 24) * 128 + 127.5
    assert crops[0, 0, 0, 0] == 0
    assert crops[0, -1, -1, 0] == 200
    assert not crops[1].any()
    assert (crops[2] == 200).all()


def test_missing_and_other_weights_are_named(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"pip install '\.\[detect\]'"):
        mtcnn.load_weights("pnet")
    (tmp_path / "mtcnn" / "assets" / "weights").mkdir(parents=True)
    (tmp_path / "mtcnn" / "assets" / "weights" / "pnet.lz4").write_bytes(b"other")
    spec = importlib.machinery.ModuleSpec("mtcnn", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path / "mtcnn")]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(ValueError, match=r"pnet\.lz4: expected the weights of mtcnn 1\.0\.0"):
        mtcnn.load_weights("pnet")

"""MTCNN, the detector of the SphereFace authors, in NumPy with the weights of PyPI's `mtcnn` wheel.

Three small networks in a cascade: P-Net slides over a pyramid of the image and proposes boxes,
R-Net rejects most of them, O-Net refines the rest and finds five points. That wheel runs them in
TensorFlow; here it only lends its weights (`pip install ".[detect]"` brings it and lz4,
no framework), and they are loaded only if their bytes are the released ones.

Reference: Zhang et al., "Joint Face Detection and Alignment using Multi-task Cascaded Convolutional
Networks", IEEE Signal Processing Letters 2016. Settings: wy1iu/sphereface, face_detect_demo.m.
"""

import hashlib
import importlib.util
import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sphereface_jax.data.alignment import Detection

_SHA256 = {
    "pnet": "ea6b0c3e685ebee3165326ad6484acc95f2ef78f1c94fbf40a55704fa989f7b5",
    "rnet": "cb00e6460f3c98b0bfafaba3c0a0ded4bdf6e62cee7174d969e8670d7e757fee",
    "onet": "94f6ea2f4cf985275ee958cdd762d17b6009348a4fb9d8c6be39ba73ffd22ca3",
}
_CELL, _STRIDE = 12, 2  # P-Net's window and step
_CHUNK = 256  # candidates that R-Net and O-Net see at once


class MtcnnDetector:
    """A `FaceDetector`; the defaults are the SphereFace authors'.

    Making one limits NumPy's BLAS to one thread in this process: the products here are so small
    that its threads cost more than they save, up to fifteen times on a busy machine. Call `detect`
    from several threads instead.

    Args:
      min_size: the smallest face looked for, in pixels.
      factor: the step of the image pyramid.
      thresholds: least confidence after P-Net, R-Net and O-Net.

    Raises:
      FileNotFoundError: the extra `detect` is not installed.
      ValueError: the installed weights are not those of mtcnn 1.0.0.
    """

    def __init__(
        self,
        min_size: int = 20,
        factor: float = 0.85,
        thresholds: tuple[float, float, float] = (0.6, 0.7, 0.9),
    ):
        self._min_size, self._factor, self._thresholds = min_size, factor, thresholds
        self._pnet, self._rnet, self._onet = (load_weights(name) for name in _SHA256)
        importlib.import_module("threadpoolctl").threadpool_limits(1, user_api="blas")

    def detect(self, image: np.ndarray) -> list[Detection]:
        """The faces in a uint8 [H, W, 3] RGB image, the surest first."""
        boxes = self._propose(image)
        boxes = self._refine(image, boxes)
        return self._output(image, boxes)

    def _propose(self, image: np.ndarray) -> np.ndarray:
        """P-Net's boxes, float [N, 5]: left, top, right, bottom, score; squares."""
        found = [np.empty((0, 5))]
        scale = _CELL / self._min_size
        while min(image.shape[:2]) * scale >= _CELL:
            size = [int(np.ceil(side * scale)) for side in image.shape[1::-1]]
            scaled = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            offsets, scores = _run_pnet(self._pnet, _normalised(scaled[None]))
            rows, columns = np.nonzero(scores[0] > self._thresholds[0])
            corner = _STRIDE * np.stack([columns, rows], axis=1)
            cells = np.concatenate([corner, corner + _CELL], axis=1) / scale
            boxes = np.column_stack([cells, scores[0, rows, columns]])
            kept = suppress(boxes, 0.5)
            found.append(_moved(boxes, offsets[0, rows, columns])[kept])
            scale *= self._factor
        boxes = np.concatenate(found)
        return _squares(boxes[suppress(boxes, 0.7)])

    def _refine(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        offsets, scores = _in_chunks(_run_rnet, self._rnet, _crops(image, boxes, 24), (4, 0))
        boxes = _moved(np.column_stack([boxes[:, :4], scores]), offsets)
        boxes = boxes[scores > self._thresholds[1]]
        return _squares(boxes[suppress(boxes, 0.7)])

    def _output(self, image: np.ndarray, boxes: np.ndarray) -> list[Detection]:
        crops = _crops(image, boxes, 48)
        offsets, points, scores = _in_chunks(_run_onet, self._onet, crops, (4, 10, 0))
        corner, side = boxes[:, None, :2], (boxes[:, None, 2:4] - boxes[:, None, :2])
        landmarks = corner + side * points.reshape(-1, 2, 5).swapaxes(1, 2)
        boxes = _moved(np.column_stack([boxes[:, :4], scores]), offsets)
        sure = scores > self._thresholds[2]
        boxes, landmarks = boxes[sure], landmarks[sure]
        kept = suppress(boxes, 0.7, by_smaller=True)
        return [Detection(boxes[i, :4], float(boxes[i, 4]), landmarks[i]) for i in kept]


def load_weights(name: str) -> list[np.ndarray]:
    """The weights of one network out of the `mtcnn` wheel, without importing it.

    Raises:
      FileNotFoundError: the extra `detect` is not installed.
      ValueError: the file is not the released one.
    """
    package = importlib.util.find_spec("mtcnn")
    if package is None or not package.submodule_search_locations:
        raise FileNotFoundError(
            "the face detector needs the weights in PyPI's mtcnn, which is not installed; "
            "`pip install '.[detect]'` in the folder of this project brings them"
        )
    path = Path(package.submodule_search_locations[0]) / "assets" / "weights" / f"{name}.lz4"
    data = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(data).hexdigest() != _SHA256[name]:
        raise ValueError(
            f"{path}: expected the weights of mtcnn 1.0.0, found others; pip install mtcnn==1.0.0"
        )
    return importlib.import_module("joblib").load(io.BytesIO(data))  # a pickle, of known bytes


def suppress(boxes: np.ndarray, overlap: float, *, by_smaller: bool = False) -> np.ndarray:
    """Indices of the boxes that overlap no surer one by more than a fraction of their union.

    Args:
      boxes: float [N, 5]: left, top, right, bottom, score.
      overlap: the fraction that is too much.
      by_smaller: measure it on the smaller of the two boxes instead of their union.

    Returns:
      int [M], the surest first.
    """
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order = np.argsort(-boxes[:, 4], kind="stable")
    kept = []
    while order.size:
        best, order = order[0], order[1:]
        kept.append(best)
        low = np.maximum(boxes[best, :2], boxes[order, :2])
        high = np.minimum(boxes[best, 2:4], boxes[order, 2:4])
        shared = np.prod(np.maximum(0, high - low), axis=1)
        union = areas[best] + areas[order] - shared
        whole = np.minimum(areas[best], areas[order]) if by_smaller else union
        order = order[shared <= overlap * whole]
    return np.array(kept, np.int64)


def _run_pnet(weights: list[np.ndarray], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x = _max_pool(_conv_prelu(x, weights[0:3]), 2)
    x = _conv_prelu(_conv_prelu(x, weights[3:6]), weights[6:9])
    return _conv(x, *weights[9:11]), _face_probability(_conv(x, *weights[11:13]))


def _run_rnet(weights: list[np.ndarray], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x = _max_pool(_conv_prelu(x, weights[0:3]), 3)
    x = _max_pool(_conv_prelu(x, weights[3:6]), 3)
    x = _dense_prelu(_flat(_conv_prelu(x, weights[6:9])), weights[9:12])
    return x @ weights[12] + weights[13], _face_probability(x @ weights[14] + weights[15])


def _run_onet(weights: list[np.ndarray], x: np.ndarray) -> tuple[np.ndarray, ...]:
    x = _max_pool(_conv_prelu(x, weights[0:3]), 3)
    x = _max_pool(_conv_prelu(x, weights[3:6]), 3)
    x = _max_pool(_conv_prelu(x, weights[6:9]), 2)
    x = _dense_prelu(_flat(_conv_prelu(x, weights[9:12])), weights[12:15])
    offsets, points = x @ weights[15] + weights[16], x @ weights[17] + weights[18]
    return offsets, points, _face_probability(x @ weights[19] + weights[20])


def _in_chunks(
    network: Any, weights: list[np.ndarray], crops: np.ndarray, widths: tuple[int, ...]
) -> list[np.ndarray]:
    """Runs a network over many crops; `widths` are of its outputs, for when there are no crops."""
    if not len(crops):
        return [np.empty((0, width) if width else 0, np.float32) for width in widths]
    parts = [network(weights, crops[i : i + _CHUNK]) for i in range(0, len(crops), _CHUNK)]
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


def _conv(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    height, width, channels, outputs = kernel.shape
    windows = np.lib.stride_tricks.sliding_window_view(x, (height, width), axis=(1, 2))
    shape = windows.shape[:3]
    columns = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, height * width * channels)
    return (columns @ kernel.reshape(-1, outputs) + bias).reshape(*shape, outputs)


def _conv_prelu(x: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    kernel, bias, slope = weights
    return _prelu(_conv(x, kernel, bias), slope)


def _dense_prelu(x: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    kernel, bias, slope = weights
    return _prelu(x @ kernel + bias, slope)


def _prelu(x: np.ndarray, slope: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0) + slope * np.minimum(x, 0)


def _max_pool(x: np.ndarray, window: int) -> np.ndarray:
    """Stride 2; a last window that leaves the image counts, as in Caffe."""
    pads = [-(side - window) % 2 for side in x.shape[1:3]]
    x = np.pad(x, ((0, 0), (0, pads[0]), (0, pads[1]), (0, 0)), constant_values=-np.inf)
    rows = (x.shape[1] - window) // 2 + 1
    columns = (x.shape[2] - window) // 2 + 1
    parts = [
        x[:, i : i + 2 * rows - 1 : 2, j : j + 2 * columns - 1 : 2]
        for i in range(window)
        for j in range(window)
    ]
    return np.maximum.reduce(parts)


def _flat(x: np.ndarray) -> np.ndarray:
    """Columns before rows, as in the networks' Matlab origin."""
    return x.swapaxes(1, 2).reshape(len(x), -1)


def _face_probability(logits: np.ndarray) -> np.ndarray:
    """The second of two softmax classes."""
    return 1 / (1 + np.exp(logits[..., 0] - logits[..., 1]))


def _normalised(images: np.ndarray) -> np.ndarray:
    return (images.astype(np.float32) - 127.5) / 128


def _moved(boxes: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Adds a network's corrections, which are in units of the box's sides."""
    sides = np.tile(boxes[:, 2:4] - boxes[:, :2], 2)
    return np.column_stack([boxes[:, :4] + offsets * sides, boxes[:, 4]])


def _squares(boxes: np.ndarray) -> np.ndarray:
    """Grows the shorter side, the centre staying where it is."""
    centres = (boxes[:, :2] + boxes[:, 2:4]) / 2
    half = (boxes[:, 2:4] - boxes[:, :2]).max(axis=1, keepdims=True) / 2
    return np.column_stack([centres - half, centres + half, boxes[:, 4]])


def _crops(image: np.ndarray, boxes: np.ndarray, side: int) -> np.ndarray:
    """The boxes cut out and scaled, float32 [N, side, side, 3]; black outside the image."""
    crops = np.zeros((len(boxes), side, side, 3), np.uint8)
    for crop, (left, top, right, bottom, _) in zip(crops, boxes, strict=True):
        left, top = round(left), round(top)
        right, bottom = max(round(right), left + 1), max(round(bottom), top + 1)
        inside = image[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
        canvas = np.zeros((bottom - top, right - left, 3), np.uint8)
        y, x = max(-top, 0), max(-left, 0)
        canvas[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
        crop[:] = cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA)
    return _normalised(crops)

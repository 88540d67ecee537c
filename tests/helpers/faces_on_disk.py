"""Small files and image folders for the data tests."""

from pathlib import Path

import cv2
import numpy as np


def make_face(seed: int, height: int = 112, width: int = 112) -> np.ndarray:
    """A smooth random uint8 RGB picture, so that JPEG keeps it nearly as it is."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


def write_text(path: Path, text: str) -> Path:
    """Writes UTF-8 and returns the path."""
    path.write_text(text, encoding="utf-8")
    return path


def write_image(path: Path, image: np.ndarray) -> None:
    """Writes an RGB or grey image in the format that its suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    # OpenCV 5 crashes on a path that is not UTF-8, so it does not get to see it.
    path.write_bytes(cv2.imencode(path.suffix, stored)[1].tobytes())


def make_folder(directory: Path, counts: dict[str, int], suffix: str = ".png") -> Path:
    """`DIR/<identity>/NNNN<suffix>`, `counts[identity]` images each."""
    seed = 0
    for identity, count in counts.items():
        for number in range(count):
            write_image(directory / identity / f"{number:04d}{suffix}", make_face(seed))
            seed += 1
    return directory

"""Figures: what is drawn, that a file is whole or absent, and that pyplot stays out of it."""

import subprocess
import sys
import textwrap
from pathlib import Path

import cv2
import numpy as np
import pytest

from sphereface_jax.reports.figures import (
    plot_angle_distributions,
    plot_roc,
    plot_training_curves,
)

ROWS = [
    {"step": step, "loss": 9.0 - step / 100, "annealing_lambda": 1000 / (1 + step), "accuracy": 0.5}
    for step in range(0, 100, 10)
]


def read_png(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path))
    assert picture is not None, f"{path} is not a picture"
    return picture


def blue_pixels(path: Path) -> int:
    """How many pixels are near the first colour, #0072B2."""
    return int((np.abs(read_png(path).astype(int) - (0xB2, 0x72, 0x00)).max(axis=2) < 40).sum())


def test_training_curves_draw_the_panels_that_rows_have(tmp_path: Path) -> None:
    plot_training_curves(ROWS, tmp_path / "three.png")
    plot_training_curves([{"step": 1, "loss": 2.0}, {"note": "no step"}], tmp_path / "one.png")
    assert read_png(tmp_path / "three.png").shape[1] == 3 * read_png(tmp_path / "one.png").shape[1]
    assert blue_pixels(tmp_path / "three.png") > 500
    assert blue_pixels(tmp_path / "one.png") > 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.png", "three.png"]


def test_training_curves_need_something_to_draw(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="metrics: expected rows with step and one of loss"):
        plot_training_curves([{"step": 1}], tmp_path / "none.png")
    assert not list(tmp_path.iterdir())


def test_angle_distributions(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    is_same = np.arange(200) < 100
    cosine = np.clip(0.6 * is_same + 0.2 * rng.normal(size=200), -1, 1)
    plot_angle_distributions(cosine, is_same, tmp_path / "angles.png", threshold=0.3)
    assert blue_pixels(tmp_path / "angles.png") > 500
    with pytest.raises(ValueError, match="found no different pairs"):
        plot_angle_distributions(cosine[:100], is_same[:100], tmp_path / "none.png")


def test_angles_that_are_all_equal_still_draw(tmp_path: Path) -> None:
    plot_angle_distributions([0.5, 0.5], [True, False], tmp_path / "angles.png")
    assert blue_pixels(tmp_path / "angles.png") > 100


def test_roc(tmp_path: Path) -> None:
    far = np.array([0, 0.001, 0.01, 0.1, 1])
    plot_roc({"a": (far, far**0.2), "b": (far, far**0.5)}, tmp_path / "roc.png")
    assert blue_pixels(tmp_path / "roc.png") > 500
    with pytest.raises(ValueError, match="curves: expected at least one"):
        plot_roc({}, tmp_path / "none.png")
    with pytest.raises(ValueError, match=r"curves\['a'\]: expected far and tar"):
        plot_roc({"a": (far, far[1:])}, tmp_path / "none.png")


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(OSError, match=r"taken\.png"):
        plot_training_curves(ROWS, tmp_path / "taken.png")
    assert [path.name for path in tmp_path.iterdir()] == ["taken.png"]


def test_pyplot_is_not_imported() -> None:
    program = (
        "import sys, sphereface_jax.reports.figures; print('matplotlib.pyplot' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"

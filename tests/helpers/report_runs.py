"""Runs to report on: trained for a moment, tested on synthetic people."""

from pathlib import Path

import cv2
from command import call
from tiny_run import quiet, tiny_config

from sphereface_jax.data.synthetic import SyntheticFaces
from sphereface_jax.training.loop import train

PEOPLE, VIEWS = 10, 4


def train_run(out: Path, **changes: object) -> Path:
    """Trains a tiny run and returns its folder."""
    train(tiny_config(out, **changes), console=quiet())
    return out


def write_test_faces(directory: Path) -> Path:
    """Writes people whom no run learnt, and pairs.txt of two folds beside them."""
    source = SyntheticFaces(PEOPLE, VIEWS, image_size=(24, 16), first_identity=500)
    for index in range(len(source)):
        person, view = divmod(index, VIEWS)
        path = directory / f"P{person}" / f"P{person}_{view + 1:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), source[index]["image"][:, :, ::-1])
    half = PEOPLE // 2
    lines = [f"2\t{half}"]
    for people in (range(half), range(half, PEOPLE)):
        lines += [f"P{person}\t1\t2" for person in people]
        lines += [f"P{person}\t3\tP{(person + 1) % PEOPLE}\t4" for person in people]
    (directory / "pairs.txt").write_text("\n".join(lines) + "\n")
    return directory


def evaluate_run(run: Path, faces: Path) -> None:
    """Scores a run on pairs and people, as a user would."""
    assert call("evaluate", run, "--pairs", faces / "pairs.txt", "--images", faces) == 0
    assert call("evaluate", run, "--images", faces) == 0

"""Geometry measures: arrangements whose angles are known."""

import json

import numpy as np
import pytest
from on_paper import at_degrees

from sphereface_jax.evaluation.geometry_measures import (
    angle_statistics,
    angular_fisher_score,
    prototype_spread,
)

# Two classes about 0° and 90°, each with images 10° to either side; all together about 45°.
FOUR, LABELS = at_degrees(-10, 10, 80, 100), ["a", "a", "b", "b"]


def test_the_angular_fisher_score_on_paper() -> None:
    within = 4 * (1 - np.cos(np.radians(10)))
    between = 4 * (1 - np.cos(np.radians(45)))
    assert angular_fisher_score(FOUR, LABELS) == pytest.approx(within / between, rel=1e-12)


def test_the_angular_fisher_score_is_of_the_embeddings_as_they_are() -> None:
    # Three times the length draws the mean of a class, and that of all, towards the long ones.
    lengths = np.array([3.0, 1.0, 1.0, 1.0])
    rows = FOUR * lengths[:, None]
    means = [rows[:2].mean(axis=0), rows[2:].mean(axis=0)]

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    within = sum(1 - cosine(row, means[i // 2]) for i, row in enumerate(rows))
    between = sum(2 * (1 - cosine(mean, rows.mean(axis=0))) for mean in means)
    assert angular_fisher_score(rows, LABELS) == pytest.approx(within / between, rel=1e-12)
    assert within / between != pytest.approx(angular_fisher_score(FOUR, LABELS), rel=1e-2)


def test_a_tighter_and_wider_arrangement_scores_lower() -> None:
    rng = np.random.default_rng(0)
    centres, labels = rng.normal(size=(20, 16)), np.repeat(np.arange(20), 5)
    noise = rng.normal(size=(100, 16))
    scores = [angular_fisher_score(centres[labels] + s * noise, labels) for s in (0.1, 0.5, 1.0)]
    assert scores == sorted(scores)


def test_classes_of_one_direction_have_an_infinite_score() -> None:
    assert angular_fisher_score([[1.0, 0], [2, 0], [3, 0]], [0, 1, 1]) == np.inf


def test_angle_statistics_on_paper() -> None:
    three = at_degrees(-10, 10, 80, 100, 180)
    found = angle_statistics(three * [[2], [1], [1], [5], [1]], [0, 0, 1, 1, 2])
    assert found.intra_class_mean == pytest.approx(8.0)
    assert found.intra_class_std == pytest.approx(4.0)
    assert found.intra_class_max == pytest.approx(10.0)
    assert found.inter_class_nearest_mean == pytest.approx(90.0, abs=1e-4)
    assert found.inter_class_nearest_min == pytest.approx(90.0, abs=1e-4)
    # Cosines 0, 0 and -1.
    assert found.inter_class_mean == pytest.approx(np.degrees(np.arccos(-1 / 3)))
    assert (found.num_classes, found.num_embeddings) == (3, 5)
    assert json.loads(json.dumps(found.to_json()))["num_classes"] == 3


def test_the_simplex_is_spread_as_wide_as_can_be() -> None:
    simplex = np.eye(5) - 0.2
    found = prototype_spread(3 * simplex)
    widest = np.degrees(np.arccos(-1 / 4))
    assert found.nearest_mean == pytest.approx(widest, abs=1e-4)
    assert found.nearest_min == pytest.approx(widest, abs=1e-4)
    assert found.mean == pytest.approx(widest)
    assert found.num_prototypes == 5


def test_the_spread_is_that_of_brute_force() -> None:
    prototypes = np.random.default_rng(0).normal(size=(300, 8))
    unit = prototypes / np.linalg.norm(prototypes, axis=1, keepdims=True)
    cosine = unit @ unit.T
    off = ~np.eye(300, dtype=bool)
    nearest = np.degrees(np.arccos(np.where(off, cosine, -1).max(axis=1)))
    found = prototype_spread(prototypes)
    assert found.nearest_mean == pytest.approx(nearest.mean(), abs=1e-3)
    assert found.nearest_min == pytest.approx(nearest.min(), abs=1e-2)
    assert found.mean == pytest.approx(np.degrees(np.arccos(cosine[off].mean())), abs=1e-9)


@pytest.mark.parametrize(
    ("embeddings", "labels", "message"),
    [
        (FOUR, [0, 0, 1], r"labels: expected shape \[4\], got \[3\]"),
        (FOUR, [7, 7, 7, 7], "labels: expected two classes or more, found one"),
        ([[1.0, 0], [-1, 0], [0, 1]], [0, 0, 1], "class means: expected nonzero rows, row 0"),
        ([[1.0, 0], [-1, 0]], [0, 1], "embeddings: expected a mean with a direction"),
        ([[1.0, 0], [0, 0]], [0, 1], "embeddings: expected nonzero rows, row 1"),
    ],
)
def test_what_has_no_geometry_is_named(embeddings: list, labels: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        angular_fisher_score(embeddings, labels)


def test_one_prototype_has_no_spread() -> None:
    with pytest.raises(ValueError, match=r"prototypes: expected shape \[N, D\] with N >= 2"):
        prototype_spread([[1.0, 0.0]])

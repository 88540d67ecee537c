"""Synthetic faces are pure functions of (seed, identity, view), and their pairs are fair."""

import hashlib
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sphereface_jax.data.face_renderer import person_parameters, render_face
from sphereface_jax.data.face_shape import (
    EXPRESSION,
    IDENTITY_SHAPE,
    SHAPE,
    WHERE,
    _outlines,
    face_points,
    project,
)
from sphereface_jax.data.synthetic import SyntheticFaces
from sphereface_jax.evaluation.draw_pairs import verification_pairs

SMALL = (28, 24)


def digest(source: SyntheticFaces) -> list[str]:
    return [hashlib.sha256(source[i]["image"].tobytes()).hexdigest() for i in range(len(source))]


@pytest.mark.parametrize("size", [(112, 96), (112, 112), (56, 48), (8, 8), (33, 57)])
def test_an_image_is_rgb_bytes_of_the_size_asked_for(size: tuple[int, int]) -> None:
    image = render_face(0, 3, 1, size)
    assert image.shape == (*size, 3)
    assert image.dtype == np.uint8
    assert image.std() > 5


def test_the_same_arguments_give_the_same_bytes_in_any_thread_and_order() -> None:
    expected = digest(SyntheticFaces(12, 4, seed=5, image_size=SMALL))
    source = pickle.loads(pickle.dumps(SyntheticFaces(12, 4, seed=5, image_size=SMALL)))
    order = np.random.default_rng(0).permutation(len(source)).tolist()
    with ThreadPoolExecutor(8) as pool:
        images = pool.map(lambda i: source[i]["image"].tobytes(), order * 4)
        found = [hashlib.sha256(image).hexdigest() for image in images]
    assert found == [expected[i] for i in order * 4]
    assert len(set(expected)) == len(expected)


def test_seed_identity_and_view_each_change_the_image() -> None:
    corner = 1 << 31
    keys = [
        (0, 0, 0),
        (1, 0, 0),
        (0, 1, 0),
        (0, 0, 1),
        (0, corner, 0),
        (0, 0, corner),
        (corner, 0, 0),
    ]
    assert len({render_face(*key, SMALL).tobytes() for key in keys}) == len(keys)


def test_numpy_integers_name_the_same_images() -> None:
    key = (7, 1 << 20, 3)
    numpy_key = [np.int64(value) for value in key]
    np.testing.assert_array_equal(render_face(*key, SMALL), render_face(*numpy_key, SMALL))


def test_half_the_resolution_shows_the_same_face() -> None:
    errors = {}
    for view in (0, 1):
        large = render_face(0, 8, view, (112, 96)).reshape(14, 8, 12, 8, 3).mean((1, 3))
        small = render_face(0, 8, 0, (56, 48)).reshape(14, 4, 12, 4, 3).mean((1, 3))
        errors[view] = np.abs(large - small).mean()
    assert errors[0] < 4 < 20 < errors[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 0, 0), "seed: expected an integer in .* got -1"),
        ((0, 1 << 64, 0), "identity: expected"),
        ((0, 0, -2), "view: expected"),
        ((0, 0, 0, (7, 96)), "image_size: expected at least"),
    ],
)
def test_a_renderer_out_of_range_says_so(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render_face(*arguments)


def test_labels_count_identities_from_zero() -> None:
    source = SyntheticFaces(3, 4, seed=2, image_size=SMALL, first_identity=1000)
    assert len(source) == 12
    assert source.labels.dtype == np.int32
    assert source.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert [source[i]["label"] for i in range(12)] == source.labels.tolist()
    assert list(source.identities) == [f"synthetic_{n:06d}" for n in (1000, 1001, 1002)]
    assert list(source.identities[1:]) == ["synthetic_001001", "synthetic_001002"]
    assert source.describe(6) == "synthetic_001001, view 2, seed 2"
    np.testing.assert_array_equal(source[6]["image"], render_face(2, 1001, 2, SMALL))
    for index in (-1, 12):
        with pytest.raises(IndexError, match="of 12 synthetic faces"):
            source[index]


def test_ranges_of_identities_meet_but_do_not_overlap() -> None:
    whole = SyntheticFaces(6, 2, image_size=SMALL)
    head = SyntheticFaces(4, 2, image_size=SMALL)
    tail = SyntheticFaces(2, 2, image_size=SMALL, first_identity=4)
    assert digest(whole) == digest(head) + digest(tail)
    assert not set(head.identities) & set(tail.identities)


def test_two_thousand_million_identities_cost_nothing() -> None:
    source = SyntheticFaces(1 << 31, 1 << 20, image_size=SMALL)
    assert len(source) == 1 << 51
    assert source[len(source) - 1]["label"] == (1 << 31) - 1
    assert source.identities[-1] == "synthetic_2147483647"
    assert repr(source).startswith("SyntheticFaces(num_identities=2147483648, views_per_identity=")


@pytest.mark.parametrize(
    ("counts", "first", "message"),
    [
        ((0, 5), 0, "num_identities: expected at least 1, got 0"),
        ((5, 0), 0, "views_per_identity: expected at least 1, got 0"),
        ((5, 5), -1, r"first_identity: .* got \[-1, 4\)"),
        ((2, 5), (1 << 31) - 1, "first_identity: expected identities within"),
    ],
)
def test_an_impossible_source_says_so(counts: tuple[int, int], first: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SyntheticFaces(*counts, first_identity=first)


def test_a_source_that_cannot_be_painted_says_so_at_once() -> None:
    with pytest.raises(ValueError, match="seed: expected an integer"):
        SyntheticFaces(2, 2, seed=-1)
    with pytest.raises(ValueError, match="image_size: expected at least"):
        SyntheticFaces(2, 2, image_size=(4, 4))


def test_raw_pixels_hardly_tell_people_apart() -> None:
    """Even the best threshold on the pairs themselves leaves more than a fifth of them wrong."""
    source = SyntheticFaces(200, 4, image_size=SMALL, first_identity=5000)
    left, right, is_same, _ = verification_pairs(source.labels, pairs_per_fold=100)
    pixels = np.stack([source[i]["image"].ravel() for i in range(len(source))]).astype(np.float64)
    pixels -= pixels.mean(0)
    pixels /= np.linalg.norm(pixels, axis=1, keepdims=True)
    by_cosine = is_same[np.argsort((pixels[left] * pixels[right]).sum(1))]
    right_if_cut_here = np.cumsum(~by_cosine) + by_cosine.sum() - np.cumsum(by_cosine)
    assert 0.6 < right_if_cut_here.max() / len(is_same) < 0.8


def test_the_matrix_product_is_the_formulas() -> None:
    low, high = np.array(list(SHAPE.values())).T
    values = low + (high - low) * np.random.default_rng(0).random(len(SHAPE))
    points = face_points(values)
    for name, curve in _outlines(values).items():
        np.testing.assert_allclose(points[WHERE[name]][:, :2], curve[:, :2], atol=1e-9)


def test_a_pose_is_a_rotation() -> None:
    points = np.random.default_rng(0).normal(size=(20, 3))
    still = {"yaw": 0.0, "pitch": 0.0, "roll": 0.0, "scale": 2.0, "centre": (1.0, -3.0)}
    np.testing.assert_allclose(project(points, **still), 2.0 * points[:, :2] + (1.0, -3.0))
    # A point ahead of the origin moves right with yaw and up with pitch, as sin(angle).
    ahead = np.array([[0.0, 0.0, 1.0]])
    turned = project(ahead, **{**still, "yaw": 0.3, "pitch": 0.2, "scale": 1.0, "centre": (0, 0)})
    np.testing.assert_allclose(turned[0], [np.sin(0.3), -np.sin(0.2) * np.cos(0.3)])


def test_people_differ_more_than_expressions() -> None:
    """The nearest neighbour of a face's outlines, under another expression, is the same person."""
    low, high = np.array(list(EXPRESSION.values())).T
    rng = np.random.default_rng(0)
    shapes = [person_parameters(0, i)[: len(IDENTITY_SHAPE)] for i in range(100)]
    first, second = (
        np.stack(
            [
                face_points(
                    np.concatenate([shape, low + (high - low) * rng.random(len(EXPRESSION))])
                ).ravel()
                for shape in shapes
            ]
        )
        for _ in range(2)
    )
    nearest = [((second - face) ** 2).sum(-1).argmin() for face in first]
    assert np.mean(nearest == np.arange(len(shapes))) > 0.99


def test_identity_parameters_are_independent() -> None:
    people = np.stack([person_parameters(0, i) for i in range(2000)])
    correlation = np.corrcoef(people.T) - np.eye(people.shape[1])
    assert np.abs(correlation).max() < 0.12


def assert_fair(labels: np.ndarray, pairs: tuple[np.ndarray, ...]) -> None:
    left, right, is_same, fold = pairs
    np.testing.assert_array_equal(is_same, labels[left] == labels[right])
    assert not (left == right).any()
    unordered = np.sort(np.stack([left, right]), axis=0)
    assert len(np.unique(unordered, axis=1).T) == len(left)
    people = [set(labels[left[fold == k]]) | set(labels[right[fold == k]]) for k in np.unique(fold)]
    assert sum(map(len, people)) == len(set.union(*people))
    sizes, same = np.bincount(fold), np.bincount(fold, weights=is_same)
    assert (sizes == sizes[0]).all()
    np.testing.assert_array_equal(2 * same, sizes)


def test_pairs_are_balanced_distinct_and_apart() -> None:
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(400) * 7 - 50, 6))
    pairs = verification_pairs(labels, pairs_per_fold=600)
    assert [len(part) for part in pairs] == [6000] * 4
    assert np.bincount(pairs[3]).tolist() == [600] * 10
    assert_fair(labels, pairs)
    # 300 same pairs over the 40 people of a fold: seven or eight of each, as evenly as it goes.
    left, _, is_same, _ = pairs
    counts = np.unique(labels[left[is_same]], return_counts=True)[1]
    assert (counts.min(), counts.max(), len(counts)) == (7, 8, 400)


def test_pairs_depend_on_the_seed_alone() -> None:
    labels = np.repeat(np.arange(60), 5)
    first, again, other = (verification_pairs(labels, pairs_per_fold=40, seed=s) for s in (3, 3, 4))
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert (first[0] != other[0]).any()


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 7), min_size=8, max_size=30),
    half=st.integers(1, 30),
    num_folds=st.integers(2, 4),
)
def test_few_images_give_fewer_pairs_or_one_clear_line(
    counts: list[int], half: int, num_folds: int
) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    several = sum(count > 1 for count in counts)
    if several < num_folds:
        with pytest.raises(ValueError, match=f"got {several} and {len(counts)}"):
            verification_pairs(labels, pairs_per_fold=2 * half, num_folds=num_folds)
        return
    pairs = verification_pairs(labels, pairs_per_fold=2 * half, num_folds=num_folds)
    assert_fair(labels, pairs)
    assert 2 <= len(pairs[0]) // num_folds <= 2 * half


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.zeros((3, 2), np.int32)}, r"labels: expected integers of shape \[N\]"),
        ({"labels": np.zeros(3)}, "labels: .* got float64"),
        ({"pairs_per_fold": 3}, "pairs_per_fold: expected an even number"),
        ({"num_folds": 1}, "num_folds: expected at least 2, got 1"),
        (
            {"num_folds": 30},
            "need 30 identities with two images or more and 60 .* lower num_folds to 20",
        ),
        ({"labels": np.arange(100)}, "got 0 and 100; add identities or images"),
    ],
)
def test_impossible_pairs_say_so(changes: dict, message: str) -> None:
    arguments = {"labels": np.repeat(np.arange(40), 3), "pairs_per_fold": 10, "num_folds": 10}
    with pytest.raises(ValueError, match=message):
        verification_pairs(**(arguments | changes))

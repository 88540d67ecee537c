"""Augmentations: what each does to pixels, and that none touches what another draws."""

import numpy as np
import pytest
from faces_on_disk import make_face

from sphereface_jax.data import augment
from sphereface_jax.data.transforms import FaceTransform, example_draws

FACE = make_face(0, 112, 96)
NAMES = ["crop", "low_resolution", "blur", "photometric", "cutout"]
FUNCTIONS = {
    "crop": augment.crop_resize,
    "low_resolution": augment.low_resolution,
    "blur": augment.blur,
    "photometric": augment.photometric,
    "cutout": augment.cutout,
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("view", [FACE, FACE[:, ::-1], FACE[4:40, 3:20]])
@pytest.mark.parametrize("level", [0.0, 0.5, 1 - 2**-53])
def test_shape_and_input_are_kept(name: str, view: np.ndarray, level: float) -> None:
    before = view.copy()
    result = FUNCTIONS[name](view, [level] * 8)
    assert result.shape == view.shape
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(view, before)


def test_crop_resize_cuts_a_part_out_and_fills_the_image_with_it() -> None:
    own_aspect = np.log(96 / 112 / (3 / 4)) / np.log(16 / 9)
    np.testing.assert_array_equal(augment.crop_resize(FACE, [1.0, own_aspect, 0.5, 0.5]), FACE)
    corner = augment.crop_resize(FACE, [0.0, 0.5, 0.0, 0.0])
    side = FACE[: round(np.sqrt(0.2 * 112 * 96)), : round(np.sqrt(0.2 * 112 * 96))]
    np.testing.assert_array_equal(corner[0, 0], side[0, 0])
    assert np.abs(corner[-1, -1].astype(int) - side[-1, -1]).max() <= 1


def test_low_resolution_loses_detail() -> None:
    noise = np.random.default_rng(0).integers(0, 256, FACE.shape, np.uint8)
    spread = [augment.low_resolution(noise, [f, 0.5, 0.3]).std() for f in (0.0, 0.4, 0.999)]
    assert spread[0] < 0.35 * noise.std()
    assert spread[0] < spread[1] < spread[2]


def test_photometric_scales_brightness_contrast_and_saturation() -> None:
    np.testing.assert_array_equal(augment.photometric(FACE, [0.5, 0.5, 0.5]), FACE)
    dark = augment.photometric(FACE, [0.0, 0.5, 0.5])
    np.testing.assert_allclose(dark, FACE / 2, atol=1)
    flat = augment.photometric(FACE, [0.5, 0.0, 0.5])
    assert flat.std() == pytest.approx(FACE.std() / 2, rel=0.05)
    dull = augment.photometric(FACE, [0.5, 0.5, 0.0]).astype(int)
    colour = np.ptp(FACE.astype(int), axis=2)
    np.testing.assert_allclose(np.ptp(dull, axis=2), colour / 2, atol=1)


def test_blur_smooths() -> None:
    noise = np.random.default_rng(0).integers(0, 256, FACE.shape, np.uint8)
    assert augment.blur(noise, [1.0]).std() < augment.blur(noise, [0.1]).std() < noise.std()


def test_cutout_paints_one_grey_rectangle() -> None:
    white = np.full((112, 96, 3), 255, np.uint8)
    for draws in np.random.default_rng(1).random((50, 4)):
        painted = (augment.cutout(white, draws) == 128).all(axis=2)
        rows, columns = np.flatnonzero(painted.any(1)), np.flatnonzero(painted.any(0))
        assert painted[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert painted.sum() == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        assert 0.015 < painted.mean() < 0.26


def test_each_follows_its_probability() -> None:
    draws = example_draws(seed=3, first=0, count=2000)
    for name in NAMES:
        transform = FaceTransform(mirror=0, color_order="rgb", **{name: 0.2})
        changed = [(transform(FACE, row) != FACE).any() for row in draws.tolist()]
        assert np.mean(changed) == pytest.approx(0.2, abs=0.03), name


def test_one_switched_on_leaves_the_others_as_they_were() -> None:
    draws = example_draws(seed=3, first=0, count=200).tolist()
    alone = FaceTransform(mirror=0, color_order="rgb", cutout=0.5)
    beside = FaceTransform(mirror=0, color_order="rgb", cutout=0.5, blur=0.5)
    for row in draws:
        if row[12] >= 0.5:
            np.testing.assert_array_equal(alone(FACE, row), beside(FACE, row))


@pytest.mark.parametrize("name", NAMES)
def test_probabilities_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected a probability"):
        FaceTransform(**{name: -0.1})

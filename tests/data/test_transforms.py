"""Transforms: crops, augmentation by example index, colour order, normalisation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from faces_on_disk import make_face

from sphereface_jax.data.transforms import (
    DRAWS,
    FaceTransform,
    WrongImageSize,
    example_draws,
    normalize_pixels,
)

PLAIN = FaceTransform(color_order="rgb")


def draws(mirror: float = 0.9, x: float = 0.5, y: float = 0.5) -> list[float]:
    return [mirror, x, y, *[0.0] * (DRAWS - 3)]


def test_draws_depend_on_seed_and_index_alone() -> None:
    whole = example_draws(seed=3, first=0, count=100)
    assert whole.shape == (100, DRAWS)
    np.testing.assert_array_equal(example_draws(3, 41, 7), whole[41:48])
    np.testing.assert_array_equal(example_draws(3, 99, 1), whole[99:])
    assert (example_draws(4, 0, 100) != whole).mean() > 0.99
    assert len(np.unique(whole)) == whole.size
    assert 0 <= whole.min() < 0.01 < 0.99 < whole.max() < 1
    assert example_draws(2**63, 10**12, 2).shape == (2, DRAWS)


def test_the_centre_crop_is_columns_8_to_104() -> None:
    face = make_face(0)
    np.testing.assert_array_equal(PLAIN(face), face[:, 8:104])
    np.testing.assert_array_equal(PLAIN(face[:, 8:104]), face[:, 8:104])
    np.testing.assert_array_equal(
        FaceTransform(image_size=(112, 112), color_order="rgb")(face), face
    )


def test_colour_order() -> None:
    face = make_face(0)
    np.testing.assert_array_equal(FaceTransform()(face), face[:, 8:104, ::-1])


def test_mirror_flips_left_and_right_at_its_probability() -> None:
    face = make_face(0)
    np.testing.assert_array_equal(PLAIN(face, draws(mirror=0.49)), face[:, 8:104][:, ::-1])
    np.testing.assert_array_equal(PLAIN(face, draws(mirror=0.51)), face[:, 8:104])
    never = FaceTransform(mirror=0, color_order="rgb")
    np.testing.assert_array_equal(never(face, draws(mirror=0.0)), face[:, 8:104])


@pytest.mark.parametrize(
    ("x", "y", "dx", "dy"), [(0, 0, -2, -2), (0.99, 0.5, 2, 0), (0.3, 0.7, -1, 1)]
)
def test_shift_moves_the_window_and_repeats_the_edge(x, y, dx, dy) -> None:
    face = make_face(0)
    shifting = FaceTransform(shift=2, color_order="rgb")
    padded = np.pad(face, ((2, 2), (0, 0), (0, 0)), mode="edge")
    expected = padded[2 + dy : 114 + dy, 8 + dx : 104 + dx]
    np.testing.assert_array_equal(shifting(face, draws(x=x, y=y)), expected)
    narrow = np.pad(face[:, 8:104], ((2, 2), (2, 2), (0, 0)), mode="edge")
    expected = narrow[2 + dy : 114 + dy, 2 + dx : 98 + dx]
    np.testing.assert_array_equal(shifting(face[:, 8:104], draws(x=x, y=y)), expected)


def test_shifts_are_spread_evenly() -> None:
    column = np.arange(112, dtype=np.uint8)
    ramp = np.broadcast_to(column[None, :, None], (112, 112, 3)).copy()
    shifting = FaceTransform(shift=2, mirror=0)
    rows = example_draws(0, 0, 2000)
    moved = [int(shifting(ramp, row)[0, 0, 0]) - 8 for row in rows]
    values, counts = np.unique(moved, return_counts=True)
    assert values.tolist() == [-2, -1, 0, 1, 2]
    assert counts.min() > 330


@pytest.mark.parametrize("color_order", ["rgb", "bgr"])
@pytest.mark.parametrize("mirror", [0.0, 1.0])
def test_the_result_is_written_into_a_row_of_a_batch(color_order, mirror) -> None:
    transform = FaceTransform(color_order=color_order, mirror=mirror, shift=2)
    batch = np.zeros((3, 112, 96, 3), np.uint8)
    row = batch[1]
    assert transform(make_face(0), draws(x=0.1), row) is row
    np.testing.assert_array_equal(batch[1], transform(make_face(0), draws(x=0.1)))
    assert not batch[[0, 2]].any()
    transform(make_face(1), None, batch[2])
    np.testing.assert_array_equal(batch[2], transform(make_face(1)))


@pytest.mark.parametrize("shape", [(250, 250), (112, 120), (96, 112), (1, 1)])
def test_another_size_is_refused_unless_resizing_is_asked_for(shape) -> None:
    face = make_face(0, *shape)
    with pytest.raises(WrongImageSize, match=f"112x96 or 112x112 pixels, found {shape[0]}x"):
        PLAIN(face)
    assert FaceTransform(resize=True)(face).shape == (112, 96, 3)
    with pytest.raises(WrongImageSize, match="a face of 128x128 pixels, found"):
        FaceTransform(image_size=(128, 128))(face)


def test_resizing_keeps_the_aspect_and_the_middle() -> None:
    face = make_face(0)
    doubled = face.repeat(2, axis=0).repeat(2, axis=1)
    resized = FaceTransform(resize=True, color_order="rgb")(doubled)
    np.testing.assert_array_equal(resized, face[:, 8:104])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"color_order": "gray"}, "color_order"),
        ({"mirror": 1.5}, "mirror"),
        ({"shift": -1}, "shift: expected 0 to 47 pixels, got -1"),
        ({"shift": 48}, "shift: expected 0 to 47 pixels, got 48"),
    ],
)
def test_options_are_checked(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        FaceTransform(**options)


@pytest.mark.parametrize("wrap", [jax.jit, lambda f: f])
def test_normalize_pixels(wrap) -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    result = wrap(normalize_pixels)(pixels)
    assert result.dtype == jnp.float32
    np.testing.assert_array_equal(result, (pixels.astype(np.float64) - 127.5) / 128)
    assert normalize_pixels(pixels, jnp.bfloat16).dtype == jnp.bfloat16


def test_normalize_pixels_wants_pixels() -> None:
    with pytest.raises(ValueError, match="images: expected uint8"):
        normalize_pixels(np.zeros((1, 2, 2, 3), np.float32))

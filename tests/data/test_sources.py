"""Face sources: what they hold, and what they say about data that is not as it should be."""

import os
from pathlib import Path

import numpy as np
import pytest
from faces_on_disk import make_face, make_folder, write_image

from sphereface_jax.data.folder import ImageFolder
from sphereface_jax.data.images import UnreadableImage, decode_image
from sphereface_jax.data.open import open_source
from sphereface_jax.data.source import (
    FaceSource,
    Subset,
    encoded_image,
    exclude_identities,
    split_identities,
)
from sphereface_jax.data.synthetic import SyntheticFaces


def test_an_image_folder_is_sorted_and_labelled_without_decoding(tmp_path: Path) -> None:
    make_folder(tmp_path, {"bob": 2, "ann": 1, "cat": 3})
    (tmp_path / "bob" / "0000.png").write_bytes(b"not decoded on opening")
    (tmp_path / "notes.txt").write_text("not an identity")
    (tmp_path / "empty").mkdir()
    (tmp_path / ".cache").mkdir()
    source = open_source(str(tmp_path))
    assert isinstance(source, FaceSource)
    assert source.identities == ("ann", "bob", "cat")
    assert source.labels.dtype == np.int32
    assert source.labels.tolist() == [0, 1, 1, 2, 2, 2]
    assert len(source) == 6
    assert source.describe(1) == str(tmp_path / "bob" / "0000.png")


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".PNG", ".webp", ".jpg", ".jpeg"])
def test_images_come_as_rgb(tmp_path: Path, suffix: str) -> None:
    image = np.zeros((112, 112, 3), np.uint8)
    image[..., 0] = 200
    image[..., 2] = 40
    write_image(tmp_path / "ann" / f"0{suffix}", image)
    example = ImageFolder(tmp_path)[0]
    assert example["label"] == 0
    assert example["image"].dtype == np.uint8
    np.testing.assert_allclose(example["image"].astype(int), image, atol=4)


def test_grey_images_get_three_channels(tmp_path: Path) -> None:
    grey = make_face(3)[..., 0]
    write_image(tmp_path / "ann" / "0.pgm", grey)
    np.testing.assert_array_equal(
        ImageFolder(tmp_path)[0]["image"], np.repeat(grey[..., None], 3, axis=2)
    )


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    make_folder(tmp_path, {"ann": 4}, ".jpg")
    paths = sorted((tmp_path / "ann").iterdir())
    paths[0].write_bytes(b"")
    paths[1].write_bytes(paths[1].read_bytes()[:-200])
    paths[2].write_bytes(b"\xff\xd8\xff" + bytes(500))
    source = ImageFolder(tmp_path)
    paths[3].unlink()
    for index, reason in enumerate(["empty", "truncated", "truncated", "cannot be read"]):
        with pytest.raises(UnreadableImage, match=reason) as caught:
            source[index]
        assert str(caught.value).startswith(f"{paths[index]}: ")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("prepare", "error", "message"),
    [
        (lambda d: None, FileNotFoundError, "no such file or folder"),
        (lambda d: d.mkdir(), ValueError, "no identities"),
        (lambda d: (d / "a").mkdir(parents=True), ValueError, "1 folders without images"),
        (
            lambda d: write_image(d / "ann.png", make_face(0)),
            ValueError,
            "1 images in no folder; give each person a folder",
        ),
        (lambda d: make_folder(d, {"Ann": 1, "ann": 1}), ValueError, "'Ann' and 'ann' differ by"),
    ],
)
def test_a_bad_folder_gives_one_line(tmp_path: Path, prepare, error, message) -> None:
    directory = tmp_path / "faces"
    prepare(directory)
    if message.startswith("'Ann'") and len(os.listdir(directory)) < 2:
        pytest.skip("this file system does not tell case apart")
    with pytest.raises(error, match=message) as caught:
        open_source(str(directory))
    assert str(directory) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_subset_keeps_label_order_and_relabels(tmp_path: Path) -> None:
    source = ImageFolder(make_folder(tmp_path, {"ann": 1, "bob": 2, "cat": 3}))
    subset = Subset(source, ["cat", "ann"])
    assert subset.identities == ("ann", "cat")
    assert subset.labels.tolist() == [0, 1, 1, 1]
    assert subset.labels.dtype == np.int32
    assert subset.describe(1) == source.describe(3)
    np.testing.assert_array_equal(subset[1]["image"], source[3]["image"])
    assert subset[1]["label"] == 1
    assert Subset(subset, ["cat"]).describe(0) == source.describe(3)
    with pytest.raises(ValueError, match="unknown identities \\['dan'\\]"):
        Subset(source, ["dan"])
    with pytest.raises(ValueError, match="empty list"):
        Subset(source, [])


def test_identities_are_left_out_by_name(tmp_path: Path) -> None:
    source = ImageFolder(make_folder(tmp_path, {"ann": 1, "bob": 2, "cat": 1}))
    kept = exclude_identities(source, ["bob"])
    assert kept.identities == ("ann", "cat")
    assert kept.labels.tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"exclude: .* such as 'ann', got \['dan'\]"):
        exclude_identities(source, ["dan", "bob"])


def test_encoded_images_are_the_stored_bytes_or_png(tmp_path: Path) -> None:
    source = ImageFolder(make_folder(tmp_path, {"ann": 1}, ".jpg"))
    stored = Path(source.describe(0)).read_bytes()
    assert encoded_image(source, 0) == stored
    assert encoded_image(Subset(source, ["ann"]), 0) == stored
    faces = SyntheticFaces(1, 1)
    np.testing.assert_array_equal(decode_image(encoded_image(faces, 0), "x"), faces[0]["image"])


def test_split_identities_parts_people(tmp_path: Path) -> None:
    source = ImageFolder(make_folder(tmp_path, {f"p{i}": 1 + i % 2 for i in range(10)}))
    train, held_out = split_identities(source, 0.3, seed=5)
    assert len(held_out.identities) == 3
    assert sorted((*train.identities, *held_out.identities)) == list(source.identities)
    assert len(train) + len(held_out) == len(source)
    again, _ = split_identities(source, 0.3, seed=5)
    other, _ = split_identities(source, 0.3, seed=6)
    assert train.identities == again.identities != other.identities
    assert len(split_identities(source, 0.01, seed=5)[1].identities) == 2


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0, 0.95])
def test_split_identities_refuses_a_bad_fraction(tmp_path: Path, fraction: float) -> None:
    source = ImageFolder(make_folder(tmp_path, {f"p{i}": 1 for i in range(4)}))
    with pytest.raises(ValueError, match="fraction"):
        split_identities(source, fraction, seed=0)


def test_open_source_says_which_options_are_for_synthetic_faces(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="synthetic faces only"):
        open_source(str(tmp_path), num_identities=3)


def test_real_faces_open(shared_data: Path) -> None:
    source = open_source(str(shared_data / "train"))
    assert (len(source), len(source.identities)) == (9132, 283)
    assert source[0]["image"].shape == (112, 112, 3)

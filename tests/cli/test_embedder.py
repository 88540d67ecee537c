"""FaceEmbedder: every kind of image gives the same unit vectors, in few compilations."""

import dataclasses
import functools
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
from faces_on_disk import make_face, write_image
from tiny_run import quiet, tiny_config

from sphereface_jax import embedder as module
from sphereface_jax import embedding
from sphereface_jax.data.aligner import FaceAligner
from sphereface_jax.data.alignment import NoFace
from sphereface_jax.data.images import read_image
from sphereface_jax.embedder import FaceEmbedder
from sphereface_jax.embedding import batch_plan
from sphereface_jax.training.loop import train
from sphereface_jax.training.run_folder import load_run

SIZE = (24, 16)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny_config(tmp_path_factory.mktemp("runs") / "run", steps=1)
    train(config, console=quiet())
    return config.out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faces")
    for index in range(3):
        write_image(folder / "person" / f"{index}.png", make_face(index, *SIZE))
    return folder


def test_every_kind_of_image_gives_the_same_vectors(run: Path, folder: Path) -> None:
    pil = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    embedder = FaceEmbedder.from_run(run)
    paths = sorted((folder / "person").iterdir())
    arrays = [read_image(path) for path in paths]
    expected = embedder.embed(folder)
    chex.assert_shape(expected, (3, 8))
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, rtol=1e-6)
    kinds = (paths, [str(path) for path in paths], arrays, np.stack(arrays))
    for images in (*kinds, [pil.open(path) for path in paths]):
        np.testing.assert_array_equal(embedder.embed(images), expected)
    for image in (paths[1], arrays[1], pil.open(paths[1])):
        np.testing.assert_allclose(embedder.embed(image), expected[1:2], atol=1e-6)


def test_an_embedding_that_is_no_number_is_refused(run: Path, folder: Path) -> None:
    saved = load_run(run)
    broken = dataclasses.replace(saved, params=jax.tree.map(lambda x: x * np.nan, saved.params))
    with pytest.raises(ValueError, match=r"0.png: expected a finite .* of 3 of 3 images; the wei"):
        FaceEmbedder(broken).embed(folder)


def test_a_picture_of_pil_is_seen_as_its_file_is(run: Path, tmp_path: Path) -> None:
    pil = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    embedder, face = FaceEmbedder.from_run(run), pil.fromarray(make_face(5, *SIZE))
    for orientation, turned in ((6, face.rotate(90, expand=True)), (3, face.rotate(180))):
        exif = pil.Exif()
        exif[0x112] = orientation
        turned.save(tmp_path / f"{orientation}.png", exif=exif)
    grey = (make_face(5, *SIZE)[..., 0].astype(np.uint16) << 8) + 7
    pil.fromarray(grey).save(tmp_path / "16.png")
    for path in sorted(tmp_path.iterdir()):
        np.testing.assert_allclose(embedder.embed(pil.open(path)), embedder.embed(path), atol=1e-6)


def test_flip_averages_with_the_mirror_image_or_joins_it(run: Path) -> None:
    embedder = FaceEmbedder.from_run(run)
    face = make_face(3, *SIZE)
    once, flipped, joined = (
        embedder.embed([face, face[:, ::-1]], flip=flip)
        for flip in ("none", "averaged", "concatenated")
    )
    np.testing.assert_allclose(flipped[0], flipped[1], atol=1e-6)
    assert not np.allclose(once[0], once[1])
    vectors, mirrored = embedder.embed_source(module.GivenImages([face]))
    mean = vectors[0] + mirrored[0]
    np.testing.assert_allclose(flipped[0], mean / np.linalg.norm(mean), atol=1e-6)
    both = np.concatenate([vectors[0], mirrored[0]])
    np.testing.assert_allclose(joined[0], both / np.linalg.norm(both), atol=1e-6)
    np.testing.assert_allclose(joined[1], np.roll(joined[0], 8), atol=1e-6)
    with pytest.raises(ValueError, match=r"flip: expected one of 'none', 'averaged', .* got True"):
        embedder.embed(face, flip=True)


def test_any_number_of_images_compiles_at_most_three_times(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "_embed", chex.assert_max_traces(embedding._embed, n=3))
    compiled = functools.cache(embedding._compiled.__wrapped__)
    monkeypatch.setattr(embedding, "_compiled", compiled)
    embedder = FaceEmbedder.from_run(run, batch_size=16)
    faces = np.stack([make_face(index, *SIZE) for index in range(19)])
    everything = embedder.embed(faces)
    for count in (1, 2, 5, 8, 9, 16, 17):
        np.testing.assert_allclose(embedder.embed(faces[:count]), everything[:count], atol=1e-5)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "at least one image"),
        (np.zeros((24, 16, 3)), r"image 0: expected RGB pixels uint8 \[H, W, 3\], got float64"),
        (np.zeros((24, 16), np.uint8), r"got uint8 \[24, 16\]"),
        (np.zeros((30, 16, 3), np.uint8), "image 0: expected a face of 24x16"),
        (["no.png"], r"no\.png"),
    ],
)
def test_what_is_no_image_is_named(run: Path, images, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FaceEmbedder.from_run(run).embed(images)


def test_an_image_without_a_face_is_named(run: Path, folder: Path) -> None:
    class Blind:
        def detect(self, image: np.ndarray) -> list:
            return []

    with pytest.raises(NoFace, match=r"0\.png: no face found"):
        FaceEmbedder.from_run(run, aligner=FaceAligner(detector=Blind())).embed(
            folder / "person" / "0.png"
        )


@pytest.mark.parametrize("batch_size", [1, 4, 16, 64])
def test_a_plan_covers_every_image_once_and_pads_little(batch_size: int) -> None:
    sizes = set()
    for count in range(1, 200):
        plan = batch_plan(count, batch_size)
        assert [index for images, _ in plan for index in images] == list(range(count))
        assert sum(-(-len(images) // size) * size for images, size in plan) < count + 8
        sizes |= {size for _, size in plan}
    assert len(sizes) <= 3

"""Alignment: the transform, landmark files, choosing a face, folders of crops, the detector."""

import importlib.util
import json
import os
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from faces_on_disk import make_face, make_folder, write_image

from sphereface_jax.data.aligner import FaceAligner, align_folder, face_aligner
from sphereface_jax.data.alignment import (
    REFERENCE_POINTS,
    Detection,
    NoFace,
    align_face,
    check_face,
    choose_face,
    reference_points,
    similarity_transform,
)
from sphereface_jax.data.images import ImagePaths, read_image
from sphereface_jax.data.landmarks import landmarks_of, read_landmarks
from sphereface_jax.data.source import ImageView

POINTS = np.array([[60.0, 70], [90, 69], [75, 85], [64, 100], [88, 101]])


def face_at(x: float, y: float) -> Detection:
    return Detection(
        np.array([x - 10, y - 10, x + 10, y + 10]), 0.99, POINTS + np.array([x - 75, y - 85])
    )


def test_reference_points() -> None:
    np.testing.assert_array_equal(reference_points((112, 96)), REFERENCE_POINTS)
    np.testing.assert_allclose(reference_points((112, 112))[:, 0], REFERENCE_POINTS[:, 0] + 8)
    np.testing.assert_array_equal(reference_points((112, 112))[:, 1], REFERENCE_POINTS[:, 1])
    with pytest.raises(ValueError, match="image_size: expected"):
        reference_points((96, 112))


@pytest.mark.parametrize(("scale", "angle", "move"), [(1, 0, (0, 0)), (0.4, 2.5, (30, -7))])
def test_the_transform_undoes_a_similarity(scale, angle, move) -> None:
    rotation = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = REFERENCE_POINTS @ rotation.T + move
    transform = similarity_transform(moved, REFERENCE_POINTS)
    np.testing.assert_allclose(moved @ transform[:, :2].T + transform[:, 2], REFERENCE_POINTS)


def test_the_transform_is_least_squares_and_never_a_reflection() -> None:
    rng = np.random.default_rng(0)
    targets = REFERENCE_POINTS + rng.normal(0, 3, (5, 2))
    transform = similarity_transform(POINTS, targets)

    def error(a: float, b: float, x: float, y: float) -> float:
        mapped = POINTS @ np.array([[a, b], [-b, a]]) + [x, y]
        return float(((mapped - targets) ** 2).sum())

    (a, _, x), (b, _, y) = transform
    best = error(a, b, x, y)
    for step in rng.normal(0, 1e-3, (20, 4)):
        assert error(*(np.array([a, b, x, y]) + step)) > best
    mirrored = REFERENCE_POINTS * [-1, 1]
    assert np.linalg.det(similarity_transform(mirrored, REFERENCE_POINTS)[:, :2]) > 0


@pytest.mark.parametrize("points", [np.zeros((5, 2)), np.full((5, 2), np.nan)])
def test_degenerate_landmarks_are_refused(points) -> None:
    with pytest.raises(ValueError, match="landmarks: expected five distinct points"):
        similarity_transform(points, REFERENCE_POINTS)


@pytest.mark.parametrize("size", [(112, 96), (112, 112)])
@pytest.mark.parametrize("which", range(5))
def test_align_face_brings_the_points_to_the_reference(size, which) -> None:
    image = np.zeros((150, 150, 3), np.uint8)
    cv2.circle(image, POINTS[which].astype(int).tolist(), 2, (255, 255, 255), -1)
    aligned = align_face(image, POINTS, size)
    assert aligned.shape == (*size, 3)
    seen = np.argwhere(aligned[..., 0] > 127).mean(axis=0)[::-1]
    assert np.linalg.norm(seen - reference_points(size)[which]) < 4


def test_112x96_is_the_middle_of_112x112() -> None:
    face = make_face(0, 150, 150)
    wide, narrow = align_face(face, POINTS, (112, 112)), align_face(face, POINTS, (112, 96))
    np.testing.assert_allclose(wide[:, 8:104].astype(int), narrow, atol=2)


def test_of_several_faces_the_one_nearest_the_centre() -> None:
    faces = [face_at(20, 20), face_at(80, 60), face_at(120, 100)]
    assert choose_face(faces, (150, 150)) is faces[1]
    assert choose_face(faces, (40, 40)) is faces[0]
    with pytest.raises(NoFace, match="no face found"):
        choose_face([], (150, 150))


NUMBERS = " ".join(str(int(v)) for v in POINTS.ravel())
TITLES = "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y lm_x lm_y rm_x rm_y"


@pytest.mark.parametrize(
    "text",
    [
        f"ann/1.jpg {NUMBERS}\nbob/2.jpg   {NUMBERS}\n",
        f"ann/1.jpg\t{NUMBERS}\nbob/2.jpg\t{NUMBERS}".replace(" ", "\t"),
        f"ann/1.jpg\t0\t{NUMBERS}\nbob/2.jpg\t1\t{NUMBERS}".replace(" ", "\t"),
        f"2\n{TITLES}\nann/1.jpg  {NUMBERS}\nbob/2.jpg  {NUMBERS}\n",
        f"image_id {TITLES}\nann/1.jpg {NUMBERS}\nbob/2.jpg {NUMBERS}".replace(" ", ","),
    ],
)
def test_landmark_files(tmp_path: Path, text: str) -> None:
    (tmp_path / "points.txt").write_text(text)
    landmarks = read_landmarks(tmp_path / "points.txt")
    assert list(landmarks) == ["ann/1.jpg", "bob/2.jpg"]
    np.testing.assert_array_equal(landmarks["bob/2.jpg"], POINTS)
    assert landmarks_of(landmarks, "/data/ann/1.jpg") is landmarks["ann/1.jpg"]
    assert landmarks_of(landmarks, "1.jpg") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected lines of an image's name and 10 numbers"),
        ("1\n2\n3\n", ":3: expected an image's name and 10 numbers, found '3'"),
        (f"a.jpg {NUMBERS}\nb.jpg 1 2 3\n", ":2: expected an image's name"),
        (f"a.jpg {NUMBERS}\nb.jpg {NUMBERS} 1 2\n", ":2: expected an image's name"),
        (f"a.jpg {NUMBERS}\nb.jpg {NUMBERS[:-3]}nan\n", ":2: expected an image's name"),
        (f"a.jpg {NUMBERS}\na.jpg {NUMBERS}\n", ":2: expected every image once, found 'a.jpg'"),
    ],
)
def test_a_bad_landmark_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "points.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_landmarks(path)
    assert str(caught.value).startswith(str(path))


def test_other_bad_landmark_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected a landmark file, found none"):
        read_landmarks(tmp_path / "none")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="UTF-8"):
        read_landmarks(tmp_path / "bytes")


class CentreDetector:
    """Finds one face in the middle of bright images."""

    def detect(self, image):
        return [face_at(75, 85)] if image.mean() > 20 else []


DETECTING = FaceAligner(detector=CentreDetector())


def raw_folder(directory: Path) -> Path:
    make_folder(directory, {"ann": 2, "bob": 1})
    write_image(directory / "bob" / "dark.png", np.zeros((150, 150, 3), np.uint8))
    (directory / "bob" / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    return directory


def test_align_folder_writes_crops_lists_what_it_skips_and_goes_on(tmp_path: Path) -> None:
    raw, out = raw_folder(tmp_path / "raw"), tmp_path / "out"
    counted = []
    summary = align_folder(raw, out, DETECTING, advance=counted.append)
    assert (summary.aligned, summary.kept, sum(counted)) == (3, 0, 5)
    names = [name for name, _ in summary.skipped]
    assert names == ["bob/dark.png", "bob/torn.jpg"]
    assert "dark.png: no face found" in summary.skipped[0][1]
    assert summary.lines()[:2] == ["aligned 3 images, found 0 aligned before", "left out: 2"]
    assert (out / "skipped.tsv").read_text().splitlines()[0].startswith("bob/dark.png\t")
    crop = read_image(out / "ann" / "0001.jpg")
    expected = align_face(make_face(1), POINTS, (112, 112))
    assert np.abs(crop.astype(int) - expected).mean() < 3

    (out / "ann" / "0001.jpg").unlink()
    before = (out / "ann" / "0000.jpg").stat().st_mtime_ns
    summary = align_folder(raw, out, DETECTING)
    assert (summary.aligned, summary.kept, len(summary.skipped)) == (1, 2, 2)
    assert (out / "ann" / "0000.jpg").stat().st_mtime_ns == before
    assert not list(out.rglob("*.tmp"))


def test_align_folder_by_landmarks(tmp_path: Path) -> None:
    raw = make_folder(tmp_path / "raw", {"ann": 1, "bob": 1})
    numbers = "\t".join(map(str, POINTS.ravel()))
    (tmp_path / "points.txt").write_text(f"bob/0000.png\t{numbers}\n")
    aligner = face_aligner((112, 96), tmp_path / "points.txt")
    summary = align_folder(raw, tmp_path / "out", aligner)
    assert summary.skipped == [("ann/0000.png", "ann/0000.png: not in the landmark file")]
    assert read_image(tmp_path / "out/bob/0000.jpg").shape == (112, 96, 3)
    assert json.loads((tmp_path / "out/alignment.json").read_text()) == {
        "size": [112, 96],
        "points": f"points.txt (CRC {zlib.crc32((tmp_path / 'points.txt').read_bytes()):08x})",
    }
    with pytest.raises(ValueError, match=r"found crops made with .*points\.txt"):
        align_folder(raw, tmp_path / "out", DETECTING)


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda raw: make_folder(raw, {"ann": 0}) and raw.mkdir(), "expected images, found none"),
        (lambda raw: write_image(raw / "a.png", np.zeros((9, 9, 3), np.uint8)), "align none of 1"),
        (
            lambda raw: [write_image(raw / f"a{s}", make_face(0)) for s in (".png", ".bmp")],
            r"expected one image for each crop a\.jpg",
        ),
    ],
)
def test_align_folder_gives_one_line(tmp_path: Path, prepare, message) -> None:
    prepare(tmp_path / "raw")
    with pytest.raises(ValueError, match=message) as caught:
        align_folder(tmp_path / "raw", tmp_path / "out", DETECTING)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("angle", range(0, 360, 45))
@pytest.mark.parametrize("turn", [0.0, 60.0, 90.0])
def test_a_face_of_any_pose_passes(angle: float, turn: float) -> None:
    face = POINTS - POINTS.mean(axis=0)
    profile = face * [np.cos(np.radians(turn)), 1] + [8 * np.sin(np.radians(turn)), 0] * (
        np.arange(5)[:, None] == 2
    )
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    check_face(profile @ [[c, s], [-s, c]] + [75, 75], (150, 150))


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (POINTS[[1, 0, 2, 4, 3]], "do not lie as a face's; expected left eye"),
        (POINTS[:, ::-1], "x before y"),
        (POINTS.T.reshape(5, 2), "x before y"),
        (np.full((5, 2), 50.0), "do not lie as a face's"),
        (2 * POINTS, r"centre \(151, 170\) is outside of the 150x150 image; .* another size"),
    ],
    ids=["swapped sides", "y before x", "all x first", "one point", "twice the size"],
)
def test_points_that_are_no_faces_are_left_out_by_name(
    tmp_path: Path, points: np.ndarray, message: str
) -> None:
    lines = [
        "\t".join([name, *map(str, np.ravel(given))])
        for name, given in (("ann/0000.png", POINTS), ("ann/0001.png", points))
    ]
    (tmp_path / "points.txt").write_text("\n".join(lines))
    aligner = face_aligner(landmarks=tmp_path / "points.txt")
    image = np.zeros((150, 150, 3), np.uint8)
    assert aligner(image, "ann/0000.png").shape == (112, 112, 3)
    with pytest.raises(NoFace, match=message) as caught:
        aligner(image, "ann/0001.png")
    assert str(caught.value).startswith("ann/0001.png: ")


def test_a_crop_is_made_anew_when_its_image_or_the_landmarks_are(tmp_path: Path) -> None:
    raw, out = make_folder(tmp_path / "raw", {"ann": 2}), tmp_path / "out"
    numbers = "\t".join(map(str, POINTS.ravel()))
    points = tmp_path / "points.txt"
    points.write_text(f"0000.png\t{numbers}\n0001.png\t{numbers}\n")
    assert align_folder(raw, out, face_aligner(landmarks=points)).aligned == 2
    write_image(raw / "ann" / "0000.png", make_face(7))
    later = (out / "ann" / "0000.jpg").stat().st_mtime + 5
    os.utime(raw / "ann" / "0000.png", (later, later))
    summary = align_folder(raw, out, face_aligner(landmarks=points))
    assert (summary.aligned, summary.kept) == (1, 1)
    points.write_text(points.read_text().replace("60.0", "61.0"))
    with pytest.raises(ValueError, match="expected crops made with"):
        align_folder(raw, out, face_aligner(landmarks=points))


def test_align_folder_never_writes_into_its_source(tmp_path: Path) -> None:
    raw = raw_folder(tmp_path / "raw")
    with pytest.raises(ValueError, match="expected a folder outside of"):
        align_folder(raw, raw / "crops", DETECTING)


def test_aligned_images_are_a_sequence(tmp_path: Path) -> None:
    raw = raw_folder(tmp_path / "raw")
    images = ImageView(ImagePaths([raw / "ann/0000.png", raw / "bob/dark.png"]), change=DETECTING)
    assert len(images) == 2
    np.testing.assert_array_equal(images[0]["image"], align_face(make_face(0), POINTS, (112, 112)))
    with pytest.raises(NoFace, match=r"dark\.png: no face found"):
        images[1]


def test_an_aligner_wants_landmarks_or_a_detector() -> None:
    with pytest.raises(ValueError, match="either landmarks or a detector"):
        FaceAligner()


def grey_inside(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[8:-8, 8:-8].ravel().astype(float)


def test_real_faces_align_as_the_shared_crops(shared_data: Path) -> None:
    landmarks = read_landmarks(shared_data / "lfw_raw" / "landmarks.txt")
    crops = shared_data / "lfw" / "aligned_112"
    names = [name for name in landmarks if (crops / name).is_file()][::5]
    assert len(names) > 50
    correlations = []
    for name in names:
        raw = read_image(shared_data / "lfw_raw" / "images" / name)
        mine = grey_inside(align_face(raw, landmarks[name], (112, 112)))
        correlations.append(np.corrcoef(mine, grey_inside(read_image(crops / name)))[0, 1])
    assert np.mean(correlations) > 0.92  # other landmarks were used there: 0.94 over all 277
    assert np.median(correlations) > 0.94


needs_detector = pytest.mark.skipif(
    not (importlib.util.find_spec("mtcnn") and importlib.util.find_spec("lz4")),
    reason="the detector's weights are not installed: pip install '.[detect]'",
)


@needs_detector
def test_mtcnn_finds_the_landmarks_of_real_faces(shared_data: Path) -> None:
    from sphereface_jax.data.mtcnn import MtcnnDetector

    landmarks = read_landmarks(shared_data / "lfw_raw" / "landmarks.txt")
    detector = MtcnnDetector()
    distances = []
    for name in list(landmarks)[::20]:
        image = read_image(shared_data / "lfw_raw" / "images" / name)
        face = choose_face(detector.detect(image), image.shape[:2])
        distances.append(np.linalg.norm(face.landmarks - landmarks[name], axis=1).mean())
    assert np.median(distances) < 2
    assert np.mean(np.array(distances) < 5) > 0.9


@needs_detector
def test_mtcnn_sees_no_face_in_noise() -> None:
    from sphereface_jax.data.mtcnn import MtcnnDetector

    detector = MtcnnDetector()
    for shape in ((150, 150, 3), (11, 40, 3), (1, 1, 3)):
        noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        assert detector.detect(noise) == []

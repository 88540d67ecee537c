"""Overlap: names, perceptual hashes, and duplicates within and between sets."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from faces_on_disk import make_folder, write_image

from sphereface_jax.data.folder import ImageFolder
from sphereface_jax.data.images import encode_png
from sphereface_jax.data.overlap import (
    NEAR,
    Fingerprints,
    find_duplicates,
    find_overlap,
    fingerprint,
    normalise_name,
    perceptual_hash,
)
from sphereface_jax.data.packs import read_pack, write_pack
from sphereface_jax.data.synthetic import SyntheticFaces

FACES = SyntheticFaces(12, 2, image_size=(112, 112))


def distance(first: np.ndarray, second: np.ndarray) -> int:
    return int(np.bitwise_count(perceptual_hash(first) ^ perceptual_hash(second)).sum())


def reencoded(image: np.ndarray, quality: int = 60) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("José_Ñandú", "jose nandu", True),
        ("Ann-Marie O'Neill", "ann_marie_o_neill", True),
        ("Ann", "Anna", False),
        ("0000045", "45", False),
    ],
)
def test_names_are_compared_without_case_accents_and_punctuation(first, second, same) -> None:
    assert (normalise_name(first) == normalise_name(second)) == same


def test_the_hash_survives_re_encoding_and_scaling_and_tells_faces_apart() -> None:
    faces = [FACES[i]["image"] for i in range(len(FACES))]
    for face in faces[:6]:
        assert distance(face, reencoded(face)) <= NEAR / 2
        half = cv2.resize(face, (56, 56), interpolation=cv2.INTER_AREA)
        assert distance(face, half) <= NEAR / 2
        brighter = np.clip(face.astype(int) + 20, 0, 255).astype(np.uint8)
        assert distance(face, brighter) <= NEAR
    apart = [distance(a, b) for i, a in enumerate(faces) for b in faces[:i]]
    assert min(apart) > NEAR


def random_prints(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, (count, 4), np.uint64)


def flipped(bits: np.ndarray, count: int, seed: int) -> np.ndarray:
    row = np.unpackbits(bits.view(np.uint8))
    row[np.random.default_rng(seed).choice(255, count, replace=False)] ^= 1
    return np.packbits(row).view(np.uint64)


def test_planted_duplicates_are_found_and_no_others() -> None:
    bits = random_prints(5000)
    for i in range(200):
        bits[1000 + i] = flipped(bits[i], i % 31, seed=i)
    bits[4000] = flipped(bits[4001], NEAR + 1, seed=0)
    prints = Fingerprints(bits, bits[:, :2])
    found = find_duplicates(prints)
    assert [(d.first, d.second) for d in found] == [(i, 1000 + i) for i in range(200)]
    assert [d.distance for d in found] == [i % 31 for i in range(200)]
    assert [d.exact for d in found][:2] == [True, False]

    one, other = (Fingerprints(part, part[:, :2]) for part in (bits[:1000], bits[1000:]))
    found = find_duplicates(one, other)
    assert [(d.first, d.second) for d in found] == [(i, i) for i in range(200)]
    assert find_duplicates(one) == []


def test_many_equal_images_give_a_line_each_not_all_pairs() -> None:
    bits = random_prints(2000)
    bits[500:1500] = bits[500]
    prints = Fingerprints(bits, bits[:, :2])
    found = find_duplicates(prints)
    assert {d.first for d in found} == {500}
    assert [d.second for d in found] == list(range(501, 1500))
    across = find_duplicates(prints, Fingerprints(bits[1490:1510], bits[1490:1510, :2]))
    # 1,000 equal images against the first of ten equal ones, and ten that are once in each.
    assert [(d.first, d.second) for d in across][:1000] == [(i, 0) for i in range(500, 1500)]
    assert [(d.first, d.second) for d in across][1000:] == [(1500 + i, 10 + i) for i in range(10)]


def write_faces(directory: Path, faces: dict[str, list[np.ndarray]]) -> ImageFolder:
    for identity, images in faces.items():
        for number, image in enumerate(images):
            write_image(directory / identity / f"{number}.png", image)
    return ImageFolder(directory)


def test_overlap_of_two_folders(tmp_path: Path) -> None:
    face = [FACES[i]["image"] for i in range(12)]
    training = write_faces(
        tmp_path / "train",
        {"Ann_Lee": [face[0], face[1]], "bob": [face[2], face[0]], "cat": [face[4], face[4]]},
    )
    (tmp_path / "train" / "bob" / "torn.png").write_bytes(b"torn")
    training = ImageFolder(tmp_path / "train")
    evaluation = write_faces(
        tmp_path / "test", {"ann lee": [face[6]], "dan": [face[7], reencoded(face[2])]}
    )
    counted = []
    report = find_overlap(training, evaluation, advance=counted.append)
    assert sum(counted) == len(training) + len(evaluation)
    assert report.shared_names == ["Ann_Lee"]
    ((ours, theirs, bits),) = report.shared_images
    assert ours.endswith("bob/0.png")
    assert theirs.endswith("dan/1.png")
    assert 0 <= bits <= NEAR
    ((first, second, bits),) = report.two_names  # cat's twice the same is no label noise
    assert (first[-13:], second[-9:], bits) == ("Ann_Lee/0.png", "bob/1.png", 0)
    assert report.to_json()["shared_names"] == ["Ann_Lee"]
    assert report.lines()[:3] == [
        "identities in both sets, by name: 1",
        "  Ann_Lee",
        "pictures in both sets: 1",
    ]


def test_overlap_with_a_pack(tmp_path: Path) -> None:
    training = ImageFolder(make_folder(tmp_path / "train", {"ann": 2, "bob": 1}))
    images = [training.read_encoded(2), encode_png(FACES[0]["image"])]
    write_pack(tmp_path / "lfw.bin", images, [False])
    report = find_overlap(training, read_pack(tmp_path / "lfw.bin"))
    assert report.shared_names == []
    assert [ours for ours, _, _ in report.shared_images] == [training.describe(2)]


def test_unreadable_images_match_nothing(tmp_path: Path) -> None:
    source = ImageFolder(make_folder(tmp_path, {"ann": 3}))
    for path in sorted((tmp_path / "ann").iterdir())[:2]:
        path.write_bytes(b"torn")
    assert find_duplicates(fingerprint(source)) == []


def test_the_shared_training_set_overlaps_lfw_in_one_picture(shared_data: Path) -> None:
    from sphereface_jax.data.source import Subset

    training = ImageFolder(shared_data / "train")
    suspect = Subset(training, ["celeba_7261", "celeba_7310", "celeba_7312"])
    lfw = ImageFolder(shared_data / "lfw" / "aligned_112")
    some = Subset(lfw, [name for name in lfw.identities if name.startswith("Ni")])
    report = find_overlap(suspect, some)
    assert [(a[-22:], b[-21:]) for a, b, _ in report.shared_images] == [
        ("celeba_7261/155630.jpg", "Nicole_Hiltz_0001.jpg")
    ]
    assert len(report.two_names) >= 1

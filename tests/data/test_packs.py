"""Verification packs: read and written as InsightFace does, and no pickle that runs anything."""

import os
import pickle
import subprocess
from pathlib import Path

import numpy as np
import pytest
from faces_on_disk import make_face

from sphereface_jax.data.images import UnreadableImage, encode_png
from sphereface_jax.data.open import open_source
from sphereface_jax.data.packs import read_pack, write_pack
from sphereface_jax.data.pipeline import ordered_batches
from sphereface_jax.data.transforms import FaceTransform
from sphereface_jax.tasks.packs import PackTask

IMAGES = [encode_png(make_face(i, 14, 14)) for i in range(8)]
ANSWERS = [True, False, False, True]


def arrays(images):
    return [np.frombuffer(image, np.uint8) for image in images]


def test_packs_round_trip(tmp_path: Path) -> None:
    write_pack(tmp_path / "lfw.bin", IMAGES, ANSWERS)
    pack = read_pack(tmp_path / "lfw.bin")
    assert len(pack) == 8
    assert pack.is_same.tolist() == ANSWERS
    assert pack.folds.tolist() == [0, 1, 2, 3]
    assert [pack.read_encoded(i) for i in range(8)] == IMAGES
    np.testing.assert_array_equal(pack[3]["image"], make_face(3, 14, 14))
    assert pack.describe(3) == f"{tmp_path / 'lfw.bin'} pair 1 image 1"
    plain = FaceTransform(image_size=(14, 12))
    (batch,) = ordered_batches(pack, 8, transform=plain)
    np.testing.assert_array_equal(batch["image"][5], plain(make_face(5, 14, 14)))


def test_pairs_of_one_picture_are_counted(tmp_path: Path) -> None:
    write_pack(tmp_path / "a.bin", IMAGES, ANSWERS)
    assert PackTask(tmp_path / "a.bin").remarks == ()
    write_pack(tmp_path / "a.bin", [*IMAGES[:4], IMAGES[0], IMAGES[0], *IMAGES[6:]], ANSWERS)
    (said,) = PackTask(tmp_path / "a.bin").remarks
    assert "a.bin: 1 of 4 pairs are one picture twice; they are scored" in said


def test_folds_are_insightfaces(tmp_path: Path) -> None:
    write_pack(tmp_path / "a.bin", [b"x"] * 46, [True] * 23)
    sizes = np.bincount(read_pack(tmp_path / "a.bin").folds)
    assert sizes.tolist() == [3, 3, 3, 2, 2, 2, 2, 2, 2, 2]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("images", [IMAGES, tuple(IMAGES), arrays(IMAGES), [b"", *IMAGES[1:]]])
@pytest.mark.parametrize(
    "answers",
    [ANSWERS, tuple(ANSWERS), np.array(ANSWERS), [np.bool_(a) for a in ANSWERS], [1, 0, 0, 1]],
)
def test_every_protocol_and_kind_is_read(tmp_path: Path, protocol, images, answers) -> None:
    path = tmp_path / "lfw.bin"
    path.write_bytes(pickle.dumps((images, answers), protocol=protocol))
    pack = read_pack(path)
    assert pack.is_same.tolist() == ANSWERS
    assert [pack.read_encoded(i) for i in range(8)] == [bytes(image) for image in images]


def test_a_pack_of_python_2_is_read(tmp_path: Path) -> None:
    images = b"".join(b"U" + bytes([len(i)]) + i for i in [b"abc", b"\xff\xd8\xff"])
    (tmp_path / "a.bin").write_bytes(b"\x80\x02](" + images + b"e](I01\ne\x86.")
    pack = read_pack(tmp_path / "a.bin")
    assert pack.read_encoded(1) == b"\xff\xd8\xff"
    assert pack.is_same.tolist() == [True]


class Payload:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("payload", "name"),
    [
        (Payload(os.system, "touch {}"), "system"),
        (Payload(subprocess.check_output, ["touch", "{}"]), r"(subprocess|commands)\.check_output"),
        (Payload(eval, "open('{}', 'w')"), "eval"),
        (Payload(getattr, "", "join"), "getattr"),
        (np.array([b"x"], object), "array of 'O8'"),
    ],
)
def test_a_payload_is_refused_by_name(tmp_path: Path, protocol, payload, name) -> None:
    marker = tmp_path / "ran"
    if isinstance(payload, Payload):
        filled = [
            a.format(marker) if isinstance(a, str) else [b.format(marker) for b in a]
            for a in payload.arguments
        ]
        payload = Payload(payload.call, *filled)
    for content in (payload, ([payload], [True]), (IMAGES, [payload])):
        (tmp_path / "a.bin").write_bytes(pickle.dumps(content, protocol=protocol))
        with pytest.raises(ValueError, match="refused: .*" + name) as caught:
            read_pack(tmp_path / "a.bin")
        assert "\n" not in str(caught.value)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (b"\x80\x02cbuiltins\nbytes\nJ\0\0\0\x7f\x85R.", "TypeError"),  # bytes(2 ** 31)
        (b"\x80\x02cnumpy\ndtype\n}X\x01\0\0\0aK\x01sb.", "changes Function"),  # set its attributes
        (b"\x80\x02r\xff\xff\xff\x7f.", "damaged or truncated pickle"),  # 2 ** 31 objects
        (b"\x80\x02c_codecs\nencode\nX\x01\0\0\0aX\x05\0\0\0rot13\x86R.", "encodes as 'rot13'"),
        (b"\x80\x02X\x01\0\0\0aQ.", "refers to objects outside itself"),
    ],
)
def test_a_sly_program_is_refused(tmp_path: Path, program: bytes, message: str) -> None:
    (tmp_path / "a.bin").write_bytes(program)
    with pytest.raises(ValueError, match=message):
        read_pack(tmp_path / "a.bin")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({1, 2}, "refused: .*asks for .*set|found set"),
        (7, r"expected a pickled pair \(images, is_same\), found int"),
        ({"images": 1}, "found dict"),
        (([], []), "found 0 images and 0 pairs"),
        ((IMAGES, ANSWERS[:3]), "found 8 images and 3 pairs"),
        ((IMAGES, 5), "found list and int"),
        (([1, 2], [True]), "image 0: expected the bytes of an encoded image, found int"),
        ((["a", "b"], [True]), "image 0: expected the bytes"),
        ((IMAGES[:2], [2]), "pair 0: expected True or False, found int"),
        ((IMAGES[:2], [b"x"]), "pair 0: expected True or False, found bytes"),
    ],
)
def test_other_content_is_named(tmp_path: Path, content, message) -> None:
    (tmp_path / "a.bin").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=message) as caught:
        read_pack(tmp_path / "a.bin")
    assert str(caught.value).startswith(str(tmp_path / "a.bin"))


def test_damage_gives_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with pytest.raises(FileNotFoundError, match="expected a verification pack, found none"):
        read_pack(path)
    write_pack(path, IMAGES, ANSWERS)
    whole = path.read_bytes()
    for end in (0, 1, 5, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match="damaged or truncated pickle"):
            read_pack(path)
    write_pack(path, [b"not an image", *IMAGES[1:]], ANSWERS)
    with pytest.raises(UnreadableImage, match="pair 0 image 0: not a whole image"):
        read_pack(path)[0]


def test_packs_are_for_evaluation(tmp_path: Path) -> None:
    write_pack(tmp_path / "lfw.bin", IMAGES, ANSWERS)
    with pytest.raises(ValueError, match=r"verification pack, .* evaluate on it instead"):
        open_source(str(tmp_path / "lfw.bin"))


def test_two_images_a_pair() -> None:
    with pytest.raises(ValueError, match="expected two for each of 4 pairs, got 7"):
        write_pack("unused", IMAGES[:7], ANSWERS)

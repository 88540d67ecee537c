"""Damaged input of every kind: a reader returns or says one line; nothing hangs, crashes or runs.

200 seeded mutations a reader in the suite, 2,000 with `pytest -m fuzz`.
"""

import os
import pickle
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from faces_on_disk import make_face, make_folder
from flax import nnx

from sphereface_jax.commands.import_onnx import read_network
from sphereface_jax.commands.weight_options import ImportOptions
from sphereface_jax.data.folder import ImageFolder
from sphereface_jax.data.images import encode_jpeg, read_image
from sphereface_jax.data.landmarks import read_landmarks
from sphereface_jax.data.lfw_list import find_images, read_pairs
from sphereface_jax.data.open import open_source
from sphereface_jax.data.packs import read_pack, write_pack
from sphereface_jax.data.record_source import write_records
from sphereface_jax.data.recordio import write_record_file
from sphereface_jax.interop.onnx_export import onnx_bytes
from sphereface_jax.models import MODELS

SECONDS = 10  # far above what any reader takes; a hang is far above this


def write_rec(directory: Path) -> Path:
    write_records(
        ImageFolder(make_folder(directory / "faces", {"a": 2, "b": 1})), directory / "t.rec"
    )
    return directory / "t.rec"


def write_rec_without_index(directory: Path) -> Path:
    path = write_rec(directory)
    path.with_suffix(".idx").unlink()
    payload = b"abcd" + bytes.fromhex("0a23d7ce") * 3 + b"x" * 50
    write_record_file(directory / "parts.rec", [(0, payload)])
    path.write_bytes(path.read_bytes() + (directory / "parts.rec").read_bytes())
    (directory / "parts.rec").unlink()
    return path


def write_index(directory: Path) -> Path:
    return write_rec(directory).with_suffix(".idx")


def write_bin(directory: Path) -> Path:
    images = [encode_jpeg(make_face(i, 24, 24)) for i in range(6)]
    write_pack(directory / "lfw.bin", images, [True, False, True])
    return directory / "lfw.bin"


def write_bin_of_arrays(directory: Path) -> Path:
    images = [np.frombuffer(encode_jpeg(make_face(i, 24, 24)), np.uint8) for i in range(4)]
    content = (images, [np.bool_(True), np.bool_(False)])
    (directory / "lfw.bin").write_bytes(pickle.dumps(content, protocol=2))
    return directory / "lfw.bin"


class Payload:
    """Unpickled naively, it leaves a file behind."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def write_bin_with_payload(directory: Path) -> Path:
    content = ([b"x", b"y"], [Payload(directory / "ran")])
    (directory / "lfw.bin").write_bytes(pickle.dumps(content, protocol=2))
    return directory / "lfw.bin"


def write_jpeg(directory: Path) -> Path:
    (directory / "face.jpg").write_bytes(encode_jpeg(make_face(0)))
    return directory / "face.jpg"


def write_progressive_jpeg(directory: Path) -> Path:
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    cv2.imwrite(str(directory / "face.jpg"), make_face(0), options)
    return directory / "face.jpg"


def write_png(directory: Path) -> Path:
    cv2.imwrite(str(directory / "face.png"), make_face(0, 40, 40))
    return directory / "face.png"


def write_pairs(directory: Path) -> Path:
    lines = ["2\t2", *["Ann_Lee\t1\t4", "Bob\t2\t3", "Ann_Lee\t1\tBob\t2", "Bob\t1\tCat\t1"] * 2]
    (directory / "pairs.txt").write_text("\n".join(lines))
    return directory / "pairs.txt"


def write_list(directory: Path) -> Path:
    make_folder(directory / "faces", {"a": 2, "b": 1})
    lines = ["faces/a/0000.png 0", "faces/a/0001.png 0", "faces/b/0000.png 1"]
    (directory / "list.txt").write_text("\n".join(lines))
    return directory / "list.txt"


def write_landmarks(directory: Path) -> Path:
    lines = [f"a/{i}.jpg\t" + "\t".join(str(10.5 * n + i) for n in range(10)) for i in range(5)]
    (directory / "points.txt").write_text("\n".join(lines))
    return directory / "points.txt"


def write_zip(directory: Path) -> Path:
    folder = ImageFolder(make_folder(directory / "faces", {"a": 2, "b": 1}))
    with zipfile.ZipFile(directory / "faces.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(len(folder)):
            archive.write(folder.describe(i), f"{i % 2}/{i}.png")
    return directory / "faces.zip"


def write_tar(directory: Path) -> Path:
    folder = ImageFolder(make_folder(directory / "faces", {"a": 2, "b": 1}))
    with tarfile.open(directory / "faces.tar", "w") as archive:
        for i in range(len(folder)):
            archive.add(folder.describe(i), f"{i % 2}/{i}.png")
    return directory / "faces.tar"


def read_source(path: Path) -> None:
    source = open_source(str(path))
    for i in range(len(source)):
        source[i]


def read_bin(path: Path) -> None:
    pack = read_pack(path)
    for i in range(len(pack)):
        pack[i]


def read_pairs_and_images(path: Path) -> None:
    find_images(read_pairs(path).names, path.parent)


def write_onnx(directory: Path) -> Path:
    pytest.importorskip("onnx", reason="onnx is in the extra `onnx`")
    sizes = {"embedding_dim": 3, "image_size": (16, 16), "channels": (1, 1, 2, 2)}
    model = MODELS["spherenet4"](**sizes, rngs=nnx.Rngs(0))
    pixels = {"image_size": (16, 16), "color_order": "rgb", "pixel_mean": 120.0}
    content = onnx_bytes(model, **pixels, pixel_divisor=128.0, normalize=True)
    (directory / "net.onnx").write_bytes(content)
    return directory / "net.onnx"


def read_onnx_network(path: Path) -> None:
    read_network(ImportOptions(path, out=path.parent / "run", arch="spherenet4"))


READERS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], object]]] = {
    "rec": (write_rec, read_source),
    "rec without idx": (write_rec_without_index, read_source),
    "idx": (write_index, read_source),
    "bin": (write_bin, read_bin),
    "bin of arrays": (write_bin_of_arrays, read_bin),
    "bin with payload": (write_bin_with_payload, read_bin),
    "jpeg": (write_jpeg, read_image),
    "progressive jpeg": (write_progressive_jpeg, read_image),
    "png": (write_png, read_image),
    "pairs": (write_pairs, read_pairs_and_images),
    "list": (write_list, read_source),
    "landmarks": (write_landmarks, read_landmarks),
    "zip": (write_zip, read_source),
    "tar": (write_tar, read_source),
    "onnx": (write_onnx, read_onnx_network),
}


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """One to four changes: bits, bytes, cuts, repeats, a stretch of one value, large numbers."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        if not changed:
            break
        place = int(rng.integers(len(changed)))
        if rng.random() < 0.5:  # the structure is mostly at the start
            place = int(place * rng.random() ** 3)
        length = int(rng.integers(1, 1 + min(64, len(changed) - place)))
        match rng.integers(7):
            case 0:
                changed[place] ^= 1 << int(rng.integers(8))
            case 1:
                changed[place] = int(rng.integers(256))
            case 2:
                del changed[place:]
            case 3:
                del changed[place : place + length]
            case 4:
                changed[place:place] = changed[place : place + length]
            case 5:
                changed[place : place + length] = bytes([int(rng.choice([0, 255]))]) * length
            case _:
                number = int(rng.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1]))
                changed[place : place + 4] = number.to_bytes(4, str(rng.choice(["little", "big"])))
    return bytes(changed)


def run(name: str, tmp_path: Path, mutations: int, seed: int) -> None:
    write, read = READERS[name]
    path = write(tmp_path)
    whole = path.read_bytes()
    if name != "bin with payload":
        read(path)
    refused = 0
    for number in range(mutations):
        rng = np.random.default_rng([seed, number])
        path.write_bytes(mutate(whole, rng))
        started = time.monotonic()
        try:
            read(path)
        except (ValueError, FileNotFoundError) as error:
            refused += 1
            message = str(error)
            assert "\n" not in message, f"mutation {number}: {message!r}"
            assert str(tmp_path) in message, f"mutation {number}: names no file: {message!r}"
        assert time.monotonic() - started < SECONDS, f"mutation {number} took too long"
    assert refused > mutations / 10
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", READERS)
def test_200_mutations(name: str, tmp_path: Path) -> None:
    run(name, tmp_path, 200, seed=1)


@pytest.mark.fuzz
@pytest.mark.parametrize("name", READERS)
def test_2000_mutations(name: str, tmp_path: Path) -> None:
    run(name, tmp_path, 2000, seed=2)

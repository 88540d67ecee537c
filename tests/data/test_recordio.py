"""RecordIO: the bytes as dmlc writes them, parts, a lost index, InsightFace's layout, damage."""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from faces_on_disk import make_face, make_folder

from sphereface_jax.data.folder import ImageFolder
from sphereface_jax.data.images import UnreadableImage, encode_png
from sphereface_jax.data.open import open_source
from sphereface_jax.data.record_source import RecordSource, find_record_file, write_records
from sphereface_jax.data.recordio import RecordFile, pack_image, unpack_image, write_record_file
from sphereface_jax.data.source import FaceSource, Subset

MAGIC = bytes.fromhex("0a23d7ce")
PAYLOADS = [
    b"",
    b"abc",
    b"abcd",
    MAGIC,
    MAGIC * 3,
    b"abcd" + MAGIC + b"xyz",
    b"ab" + MAGIC + b"cd",
    b"abcd" + MAGIC + MAGIC + b"efgh" + MAGIC,
    bytes(100_000),
]


def write(path: Path, payloads: list[bytes]) -> Path:
    write_record_file(path, enumerate(payloads))
    return path


def write_faces(path: Path, labels: list[list[float]]) -> Path:
    faces = [pack_image(encode_png(make_face(i, 8, 8)), label, i) for i, label in enumerate(labels)]
    return write(path, faces)


def test_the_bytes_are_dmlcs(tmp_path: Path) -> None:
    path = write(tmp_path / "a.rec", [b"abc", b"abcd" + MAGIC + b"xyz"])
    head = struct.pack("<II", 0xCED7230A, 3) + b"abc\0"
    first = struct.pack("<II", 0xCED7230A, 1 << 29 | 4) + b"abcd"
    last = struct.pack("<II", 0xCED7230A, 3 << 29 | 3) + b"xyz\0"
    assert path.read_bytes() == head + first + last
    assert path.with_suffix(".idx").read_text() == "0\t0\n1\t12\n"


@pytest.mark.parametrize("indexed", [True, False])
def test_payloads_come_back(tmp_path: Path, indexed: bool) -> None:
    path = write(tmp_path / "a.rec", PAYLOADS)
    if not indexed:
        path.with_suffix(".idx").unlink()
    file = RecordFile(path)
    assert file.keys.tolist() == list(range(len(PAYLOADS)))
    assert [file.read(i) for i in range(len(file))] == PAYLOADS


def test_an_index_may_be_in_any_order_and_have_gaps(tmp_path: Path) -> None:
    path = write(tmp_path / "a.rec", [b"zero", b"one", b"two"])
    index = path.with_suffix(".idx")
    lines = index.read_text().splitlines()
    index.write_text("\n".join([lines[2].replace("2\t", "90\t"), lines[0]]))
    file = RecordFile(path)
    assert file.keys.tolist() == [0, 90]
    assert [file.read(0), file.read(file.position(90))] == [b"zero", b"two"]
    with pytest.raises(ValueError, match="expected a record with key 1, found none"):
        file.position(1)


@pytest.mark.parametrize("labels", [[3.0], [1.0, 2.0], [5.0, 0.5, 0.25]])
def test_image_headers_come_back(tmp_path: Path, labels: list[float]) -> None:
    payload = pack_image(b"image", labels, key=7)
    flag, scalar, key, _ = struct.unpack_from("<IfQQ", payload)
    assert (flag, key) == (0 if len(labels) == 1 else len(labels), 7)
    assert scalar == (labels[0] if len(labels) == 1 else 0)
    record = unpack_image(payload, "x")
    assert record.labels.tolist() == labels
    assert record.image == b"image"
    file = RecordFile(write(tmp_path / "a.rec", [payload, MAGIC + payload]))
    assert file.read_labels(0)[0].tolist() == labels
    assert file.read_labels(0)[1]


def test_insightface_layout_round_trips(tmp_path: Path) -> None:
    source = ImageFolder(make_folder(tmp_path / "faces", {"ann": 2, "bob": 1, "cat": 3}))
    write_records(source, tmp_path / "train.rec")
    file = RecordFile(tmp_path / "train.rec")
    assert file.keys.tolist() == list(range(10))
    labels = [file.read_labels(key)[0].tolist() for key in (0, 7, 8, 9)]
    assert labels == [[7, 10], [1, 3], [3, 4], [4, 7]]
    assert unpack_image(file.read(0), "record 0").image == b""
    assert (tmp_path / "property").read_text() == "3,112,112\n"
    for spec in (tmp_path, tmp_path / "train.rec", tmp_path / "train.idx"):
        records = open_source(str(spec))
        assert isinstance(records, RecordSource)
        assert isinstance(records, FaceSource)
        assert records.labels.tolist() == source.labels.tolist()
        assert records.labels.dtype == np.int32
        assert records.identities == ("0", "1", "2")
        for i in range(len(source)):
            assert records.read_encoded(i) == source.read_encoded(i)
        assert records[4]["label"] == 2
        np.testing.assert_array_equal(records[4]["image"], source[4]["image"])
        assert records.describe(0) == f"{tmp_path / 'train.rec'} record 1"


def test_a_source_in_another_order_is_grouped_by_identity(tmp_path: Path) -> None:
    source = ImageFolder(make_folder(tmp_path / "faces", {"ann": 2, "bob": 2}))
    source.labels = np.array([1, 0, 1, 0], np.int32)
    source.describe = lambda i: str(sorted((tmp_path / "faces").rglob("*.png"))[i])
    write_records(source, tmp_path / "train.rec")
    records = RecordSource(tmp_path / "train.rec")
    assert records.labels.tolist() == [0, 0, 1, 1]
    assert [records.read_encoded(i) for i in range(4)] == [
        source.read_encoded(i) for i in (1, 3, 0, 2)
    ]


def test_without_ranges_every_label_is_read(tmp_path: Path) -> None:
    records = RecordSource(write_faces(tmp_path / "a.rec", [[5], [2], [5, 0.5], [9]]))
    assert records.labels.tolist() == [1, 0, 1, 2]
    assert records.identities == ("2", "5", "9")


def test_images_after_the_identity_records_are_read_and_said(tmp_path: Path) -> None:
    source = ImageFolder(make_folder(tmp_path / "faces", {"ann": 2, "bob": 1}))
    write_records(source, tmp_path / "train.rec")
    whole = RecordFile(tmp_path / "train.rec")
    payloads = [whole.read(position) for position in range(len(whole))]
    assert not RecordSource(tmp_path / "train.rec").remarks
    for label in (1.0, 2.0, 2.0):
        payloads.append(pack_image(encode_png(make_face(9)), [label], 0))
    (tmp_path / "more").mkdir()
    more = RecordSource(write(tmp_path / "more" / "train.rec", payloads))
    assert more.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert more[5]["label"] == 2
    assert "3 images are in no identity's range, the first in record 6;" in more.remarks[0]
    # A header that ends one identity too soon: the last one's images are not lost.
    payloads[0] = pack_image(b"", [4, 5], 0)
    (tmp_path / "short").mkdir()
    short = RecordSource(write(tmp_path / "short" / "train.rec", payloads[:6]))
    assert short.labels.tolist() == [0, 0, 1]
    assert len(short.remarks) == 1


def test_an_index_that_ends_before_the_file_is_refused(tmp_path: Path) -> None:
    path = write_faces(tmp_path / "a.rec", [[0], [1], [1]])
    index = path.with_suffix(".idx")
    index.write_text("".join(index.read_text().splitlines(keepends=True)[:2]))
    with pytest.raises(ValueError, match=r"a\.idx: record 1 is the last, .* goes on"):
        RecordSource(path)


def test_a_lost_index_and_a_subset(tmp_path: Path) -> None:
    source = ImageFolder(make_folder(tmp_path / "faces", {"ann": 2, "bob": 1}))
    write_records(Subset(source, ["ann", "bob"]), tmp_path / "train.rec")
    (tmp_path / "train.idx").unlink()
    records = RecordSource(tmp_path)
    assert [records.read_encoded(i) for i in range(3)] == [source.read_encoded(i) for i in range(3)]


def test_a_record_of_another_identity_is_named(tmp_path: Path) -> None:
    source = ImageFolder(make_folder(tmp_path / "faces", {"ann": 2, "bob": 1}))
    write_records(source, tmp_path / "train.rec")
    data = bytearray((tmp_path / "train.rec").read_bytes())
    offset = int((tmp_path / "train.idx").read_text().split()[5])
    struct.pack_into("<f", data, offset + 12, 1.0)
    (tmp_path / "train.rec").write_bytes(data)
    with pytest.raises(UnreadableImage, match=r"train\.rec record 2: expected label 0, found 1"):
        RecordSource(tmp_path)[1]


def test_labels_beyond_the_class_count_are_named(tmp_path: Path) -> None:
    write_faces(tmp_path / "a.rec", [[0], [3], [1]])
    (tmp_path / "property").write_text("3,112,112")
    with pytest.raises(ValueError, match=r"record 1: expected a label below 3, .* found 3"):
        RecordSource(tmp_path)
    (tmp_path / "property").write_text("three")
    with pytest.raises(ValueError, match="property: expected 'classes,height,width'"):
        RecordSource(tmp_path)


@pytest.mark.parametrize("label", [-1.0, 0.5, float("nan"), float("inf"), 2.0**31])
def test_labels_that_are_no_class_are_named(tmp_path: Path, label: float) -> None:
    path = write_faces(tmp_path / "a.rec", [[0], [label]])
    with pytest.raises(ValueError, match="record 1: expected whole numbers from 0"):
        RecordSource(path)


def test_nothing_is_left_of_an_interrupted_write(tmp_path: Path) -> None:
    def interrupted() -> Iterator[tuple[int, bytes]]:
        yield 0, b"abc"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_record_file(tmp_path / "a.rec", interrupted())
    assert list(tmp_path.iterdir()) == []


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def drop_index(path: Path) -> None:
    path.with_suffix(".idx").unlink()


def read_all(path: Path) -> list[dict]:
    source = RecordSource(path)
    return [source[i] for i in range(len(source))]


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda p: p.unlink(), FileNotFoundError, "expected a RecordIO file, found none"),
        (lambda p: p.write_bytes(b""), ValueError, "found an empty file"),
        (lambda p: p.write_bytes(b"JPEG" * 9), ValueError, "which starts with 0a23d7ce"),
        (lambda p: (drop_index(p), truncate(p)), ValueError, "byte .* past the end"),
        (truncate, ValueError, "past the end"),
        (
            lambda p: p.with_suffix(".idx").write_text("0\t0\n1\n"),
            ValueError,
            r"a\.idx:2: expected",
        ),
        (lambda p: p.with_suffix(".idx").write_text("0\tx\n"), ValueError, r"a\.idx:1: expected"),
        (lambda p: p.with_suffix(".idx").write_text(""), ValueError, "found an empty file"),
        (lambda p: p.with_suffix(".idx").write_text("0\t3\n"), ValueError, "a multiple of 4"),
        (lambda p: p.with_suffix(".idx").write_text("0\t9999\n"), ValueError, "within the"),
        (lambda p: p.with_suffix(".idx").write_text("4\t0\n4\t0\n"), ValueError, "key 4 twice"),
        (lambda p: p.with_suffix(".idx").write_text("0\t4\n"), ValueError, "record 0, at byte 4"),
    ],
)
def test_damage_gives_one_line(tmp_path: Path, damage, error, message) -> None:
    path = write_faces(tmp_path / "a.rec", [[0], [1], [1]])
    damage(path)
    with pytest.raises(error, match=message) as caught:
        read_all(path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_with_several_or_no_record_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected a \.rec file, found none"):
        find_record_file(tmp_path)
    (tmp_path / "a.rec").touch()
    (tmp_path / "b.rec").touch()
    with pytest.raises(ValueError, match=r"expected one \.rec file, found a\.rec, b\.rec"):
        find_record_file(tmp_path)

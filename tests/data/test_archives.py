"""Zip and tar archives of identity folders, read in place; what does not belong is refused."""

import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from faces_on_disk import make_face, make_folder

from sphereface_jax.data.archives import ArchiveSource
from sphereface_jax.data.folder import ImageFolder
from sphereface_jax.data.images import UnreadableImage, encode_png
from sphereface_jax.data.open import open_source
from sphereface_jax.data.record_source import write_records
from sphereface_jax.data.source import FaceSource


@pytest.fixture
def folder(tmp_path: Path) -> ImageFolder:
    return ImageFolder(make_folder(tmp_path / "faces", {"bob": 2, "ann": 3, "cat": 1}))


def pack(folder: ImageFolder, kind: str, prefix: str = "set/") -> Path:
    path = folder.directory.with_suffix(f".{kind.removesuffix('_deflated')}")
    files = [(folder.describe(i), Path(folder.describe(i))) for i in range(len(folder))]
    names = [f"{prefix}{file.parent.name}/{file.name}" for _, file in files]
    if kind.startswith("zip"):
        method = zipfile.ZIP_DEFLATED if "deflated" in kind else zipfile.ZIP_STORED
        with zipfile.ZipFile(path, "w", method) as archive:
            for (file, _), name in reversed(list(zip(files, names, strict=True))):
                archive.write(file, name)
            archive.writestr("set/readme.txt", "not an image")
            archive.writestr("__MACOSX/ann/._0000.png", "not an image")
    else:
        with tarfile.open(path, "w") as archive:
            archive.add(folder.directory / "ann", f"{prefix}ann", recursive=False)
            for (file, _), name in reversed(list(zip(files, names, strict=True))):
                archive.add(file, name)
    return path


@pytest.mark.parametrize("kind", ["zip", "zip_deflated", "tar"])
@pytest.mark.parametrize("prefix", ["", "set/", "./deep/er/"])
def test_an_archive_is_the_folder(folder: ImageFolder, kind: str, prefix: str) -> None:
    path = pack(folder, kind, prefix)
    source = open_source(str(path))
    assert isinstance(source, ArchiveSource)
    assert isinstance(source, FaceSource)
    assert source.identities == folder.identities
    assert source.labels.tolist() == folder.labels.tolist()
    assert source.labels.dtype == np.int32
    for i in range(len(folder)):
        assert source.read_encoded(i) == folder.read_encoded(i)
    assert source[4]["label"] == 1
    np.testing.assert_array_equal(source[4]["image"], folder[4]["image"])
    assert source.describe(0).startswith(f"{path}:")
    assert source.describe(0).endswith("ann/0000.png")


FACE = encode_png(make_face(0))


def write_zip(path: Path, names: list[str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, FACE)
    return path


def write_tar(path: Path, names: list[str], kind: bytes = tarfile.REGTYPE) -> Path:
    with tarfile.open(path, "w") as archive:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "/etc/passwd"
            entry.size = len(FACE) if kind == tarfile.REGTYPE else 0
            archive.addfile(entry, io.BytesIO(FACE))
    return path


@pytest.mark.parametrize("write", [write_zip, write_tar])
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["../ann/1.png"], "found one that leaves it"),
        (["ann/../../1.png"], "found one that leaves it"),
        (["/ann/1.png"], "found one that leaves it"),
        (["C:/ann/1.png"], "found one that leaves it"),
        (["1.png"], "found images at its top"),
        (["a/ann/1.png", "b/ann/1.png"], "expected one folder per identity, found a/ann and b/ann"),
        (["ann/1.png", "Ann/1.png"], "differ by case only"),
    ],
)
def test_what_does_not_belong_is_refused(tmp_path: Path, write, names, message) -> None:
    path = write(tmp_path / "faces.archive", names)
    with pytest.raises(ValueError, match=message) as caught:
        open_source(str(path))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    path = write_tar(tmp_path / "faces.tar", ["ann/1.png"], kind)
    with pytest.raises(ValueError, match=r"ann/1\.png: .* found a link or a device"):
        open_source(str(path))


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_members_are_told_by_content_where_the_suffix_is_unknown(tmp_path: Path, write) -> None:
    names = ["ann/1.jfif", "ann/2", "ann/.3", "bob/1.png"]
    source = open_source(str(write(tmp_path / "faces.archive", names)))
    assert isinstance(source, ArchiveSource)
    assert source.labels.tolist() == [0, 0, 1]
    assert source[1]["image"].shape == (112, 112, 3)
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ann/1.img", FACE)
        archive.writestr("ann/notes.txt", "no image")
    source = ArchiveSource(tmp_path / "b.zip")
    assert len(source) == 1
    assert source.passed_over == [("ann/notes.txt", "no image")]
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("ann/notes.txt", "no image")
    with pytest.raises(ValueError, match="found no images"):
        ArchiveSource(tmp_path / "c.zip")


@pytest.mark.parametrize("kind", ["zip", "rec"])
def test_a_source_in_a_global_leaves_python_in_silence(
    folder: ImageFolder, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "zip":
        pack(folder, "zip").rename(path)
    else:
        write_records(folder, path)
    opening = "from sphereface_jax.data.open import open_source; source = open_source"
    code = f"{opening}({str(path)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stderr == b""


def test_links_and_encryption_in_a_zip_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("ann/1.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ValueError, match="found a link"):
        open_source(str(tmp_path / "a.zip"))
    data = bytearray(write_zip(tmp_path / "b.zip", ["ann/1.png"]).read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "b.zip").write_bytes(data)
    with pytest.raises(ValueError, match="found an encrypted one"):
        open_source(str(tmp_path / "b.zip"))


def test_a_zip_of_records_says_what_to_do(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "faces_webface_112x112.zip", ["faces/train.rec"])
    with pytest.raises(ValueError, match=r"train\.rec: a RecordIO file; unzip the archive"):
        open_source(str(path))


def test_a_compressed_tar_says_what_to_do(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "faces.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("ann"), None)
    with pytest.raises(ValueError, match="decompress it first"):
        open_source(str(tmp_path / "faces.tar.gz"))


@pytest.mark.parametrize("kind", ["zip", "zip_deflated", "tar"])
def test_a_truncated_archive_gives_one_line(folder: ImageFolder, kind: str) -> None:
    path = pack(folder, kind)
    whole = path.read_bytes()
    for end in (0, 3, 600, len(whole) // 2):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=str(path)) as caught:
            open_source(str(path))
        assert "\n" not in str(caught.value)
    assert "cut short" in str(caught.value)


def test_damage_within_a_zip_is_named(folder: ImageFolder) -> None:
    path = pack(folder, "zip_deflated")
    data = bytearray(path.read_bytes())
    name = data.index(b"set/ann/0000.png")
    data[name + 16 : name + 60] = b"\xff" * 44
    path.write_bytes(data)
    with pytest.raises(UnreadableImage, match=r"ann/0000\.png"):
        open_source(str(path))[0]
    data[name - 30 : name - 26] = b"\0\0\0\0"
    path.write_bytes(data)
    with pytest.raises(UnreadableImage, match="the archive is damaged there"):
        open_source(str(path))[0]

"""List files of `path label`."""

from pathlib import Path

import numpy as np
import pytest
from faces_on_disk import make_folder

from sphereface_jax.data.lists import ListSource
from sphereface_jax.data.open import open_source
from sphereface_jax.data.source import FaceSource


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "faces", {"0000045": 2, "0000099": 1, "with space": 1})


CAFFE = """faces/0000045/0000.png 0
faces/0000045/0001.png 0
faces/0000099/0000.png 7

faces/with space/0000.png 9
"""


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_caffe_lists(faces: Path, tmp_path: Path) -> None:
    source = open_source(write(tmp_path / "train.txt", CAFFE))
    assert isinstance(source, FaceSource)
    assert source.identities == ("0000045", "0000099", "with space")
    assert source.labels.tolist() == [0, 0, 1, 2]
    assert source.labels.dtype == np.int32
    assert source[3]["image"].shape == (112, 112, 3)
    assert source[3]["label"] == 2
    assert source.describe(0) == str(tmp_path / "faces/0000045/0000.png")


def test_insightface_lists_and_another_root(faces: Path, tmp_path: Path) -> None:
    lines = "1\t0000045/0000.png\t4\n1\twith space/0000.png\t3\n"
    (tmp_path / "lists").mkdir()
    source = open_source(write(tmp_path / "lists" / "a.lst", lines), root=str(faces))
    assert source.identities == ("with space", "0000045")
    assert source.labels.tolist() == [1, 0]
    assert source[0]["label"] == 1


@pytest.mark.parametrize("root", [None, ".", "/"])
def test_absolute_paths_lie_in_the_root(faces: Path, tmp_path: Path, root: str | None) -> None:
    lines = [f"1\t{faces}/0000045/0000.png\t0", f"1\t{faces}/with space/0000.png\t1"]
    given = None if root is None else str(tmp_path / root)
    source = open_source(write(tmp_path / "a.lst", "\n".join(lines)), root=given)
    assert source.identities == ("0000045", "with space")
    assert source[1]["image"].shape == (112, 112, 3)
    (tmp_path / "linked").symlink_to(tmp_path)
    assert len(open_source(str(tmp_path / "a.lst"), root=str(tmp_path / "linked"))) == 2
    with pytest.raises(ValueError, match=r"a\.lst:1: expected a path within .*--data\.root"):
        open_source(str(tmp_path / "a.lst"), root=str(faces / "0000099"))


def test_mxnets_order_and_labels_written_as_floats(faces: Path, tmp_path: Path) -> None:
    lines = "7\t4.000000\t0000045/0000.png\n8\t3.0\twith space/0000.png\n9\t3\t0.5\tx.png\n"
    source = open_source(write(tmp_path / "a.lst", lines), root=str(faces))
    assert source.labels.tolist() == [1, 0, 0]
    assert source.describe(0).endswith("0000045/0000.png")
    caffe = "faces/0000045/0000.png 0.0\nfaces/0000099/0000.png 1.0\n"
    assert open_source(write(tmp_path / "b.txt", caffe)).labels.tolist() == [0, 1]


def test_identities_are_labels_where_folders_do_not_tell(faces: Path, tmp_path: Path) -> None:
    lines = "faces/0000045/0000.png 3\nfaces/0000045/0001.png 5\n"
    assert open_source(write(tmp_path / "a.txt", lines)).identities == ("3", "5")
    lines = "faces/0000045/0000.png 3\nfaces/0000099/0000.png 3\n"
    assert open_source(write(tmp_path / "b.txt", lines)).identities == ("3",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found an empty file"),
        ("faces/0000045/0000.png\n", ":1: expected 'path label', separated by"),
        ("faces/0000045/0000.png,1\n", ":1: expected 'path label', separated by a space or a tab"),
        ("faces/0000045/0000.png 0\nfaces/0000045/0001.png x\n", ":2: expected a whole number"),
        ("faces/0000045/0000.png -1\n", ":1: expected a whole number"),
        ("faces/0000045/0000.png 99999999999\n", ":1: expected a whole number"),
        ("/etc/passwd 0\n", ":1: expected a path within .* name the folder that it lies in"),
        ("faces/0000045/0000.png 0.5\n", ":1: expected a whole number"),
        ("1\t0.5\tfaces/0000045/0000.png\n", ":1: expected a whole number"),
        ("1\tx.png\t0\t3\t4\n", ":1: expected .* found 5 fields; boxes"),
        ("faces/../../x.png 0\n", ":1: expected a path within the folder"),
    ],
)
def test_a_bad_line_is_named(faces: Path, tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "train.txt", text)
    with pytest.raises(ValueError, match=message) as caught:
        open_source(path)
    assert str(caught.value).startswith(path)
    assert "\n" not in str(caught.value)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected a list file"):
        ListSource(tmp_path / "none.txt")
    with pytest.raises(FileNotFoundError, match=r"first image is not at .*--data.root"):
        open_source(write(tmp_path / "a.txt", "x/y.png 0\n"))
    (tmp_path / "b.txt").write_bytes(b"x/y.png 0\n\xff\xfe\n")
    with pytest.raises(ValueError, match="expected text in UTF-8, found byte 0xff"):
        open_source(str(tmp_path / "b.txt"))

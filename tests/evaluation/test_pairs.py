"""Pairs files in LFW's format, and their images."""

from pathlib import Path

import numpy as np
import pytest
from faces_on_disk import write_text

from sphereface_jax.data.lfw_list import find_images, read_pairs

TWO_FOLDS = """2\t1
Ann\t1\t4
Ann\t2\tBob\t3
Cat\t10\t11
Cat\t1\tBob\t3
"""


def test_reads_tabs_and_folds(tmp_path: Path) -> None:
    pairs = read_pairs(write_text(tmp_path / "pairs.txt", TWO_FOLDS))
    assert pairs.left == ("Ann/Ann_0001", "Ann/Ann_0002", "Cat/Cat_0010", "Cat/Cat_0001")
    assert pairs.right == ("Ann/Ann_0004", "Bob/Bob_0003", "Cat/Cat_0011", "Bob/Bob_0003")
    assert pairs.is_same.tolist() == [True, False, True, False]
    assert pairs.folds.tolist() == [0, 0, 1, 1]
    assert pairs.folds.dtype == np.int32
    assert pairs.names[:2] == ("Ann/Ann_0001", "Ann/Ann_0002")
    assert len(pairs.names) == 7


def test_reads_white_space_blank_lines_and_windows_line_ends(tmp_path: Path) -> None:
    text = "\ufeff" + TWO_FOLDS.replace("\t", "  ").replace("\n", "\r\n") + "\r\n"
    assert read_pairs(write_text(tmp_path / "a", text)).left == (
        read_pairs(write_text(tmp_path / "b", TWO_FOLDS)).left
    )


def test_tabs_allow_spaces_in_names(tmp_path: Path) -> None:
    # U+2028 parts lines for `str.splitlines`, and for no editor.
    pairs = read_pairs(write_text(tmp_path / "p", "1\t1\nAnn B\t1\t2\nAnn B\t1\tCé\u2028D\t2\n"))
    assert pairs.right == ("Ann B/Ann B_0002", "Cé\u2028D/Cé\u2028D_0002")


def test_a_header_with_one_number_has_no_folds(tmp_path: Path) -> None:
    pairs = read_pairs(write_text(tmp_path / "p", "1\nAnn\t1\t2\nAnn\t1\tBob\t2\n"))
    assert pairs.folds.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ":1: expected a header"),
        ("Ann\t1\t2\n", ":1: expected a header"),
        ("0\t3\n", ":1: expected a header"),
        ("1\t1\t1\n", ":1: expected a header"),
        ("2\t1\nAnn\t1\t4\n", ":1: the header announces 2 x 2 x 1 = 4 pairs, found 1"),
        ("1\t1\nAnn\t1\nAnn\t1\t2\n", ":2: expected 3 fields .* found 2"),
        ("1\t1\nAnn\t1\t2\nAnn\t1\tBob\t2\t3\n", ":3: expected 3 fields .* found 5"),
        ("1\t1\nAnn\tone\t2\nAnn\t1\tBob\t2\n", ":2: expected the number .* found 'one'"),
        ("1\t1\nAda Lovelace 1 2\nAnn 1 Bob 2\n", ":2: .* found 'Lovelace'; .* by tabs"),
        ("1\t1\nAnn 1 2\nAda Lovelace 1 Bob 2\n", ":3: .* found 5: .* by tabs"),
        ("1\t1\nAnn\t-1\t2\nAnn\t1\tBob\t2\n", ":2: expected the number"),
        ("1\t1\n../../etc\t1\t2\nAnn\t1\tBob\t2\n", ":2: expected a person's name"),
        ("1\t1\n..\t1\t2\nAnn\t1\tBob\t2\n", ":2: expected a person's name"),
        ("1\t1\nAnn\t1\t01\nAnn\t1\tBob\t2\n", ":2: expected a pair, found Ann/Ann_0001 twice"),
        ("1\t1\nAnn\t1\t2\nAnn\t1\tAnn\t1\n", ":3: expected a pair, found Ann/Ann_0001 twice"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = write_text(tmp_path / "pairs.txt", text)
    with pytest.raises(ValueError, match=message) as caught:
        read_pairs(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_other_bad_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected a pairs file"):
        read_pairs(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="expected a pairs file, found a folder"):
        read_pairs(tmp_path)
    (tmp_path / "binary").write_bytes(b"1\t1\n\xff\xfe\x00")
    with pytest.raises(ValueError, match="text in UTF-8, found byte 0xff at offset 4"):
        read_pairs(tmp_path / "binary")


def test_find_images_takes_any_suffix_and_lists_the_missing(tmp_path: Path) -> None:
    for name in ("Ann/Ann_0001.jpg", "Bob/Bob_0002.PNG", "Ann/Ann_0002.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = ["Ann/Ann_0001", "Ann/Ann_0002", "Bob/Bob_0002"]
    found, missing = find_images(names, tmp_path)
    assert found == {
        "Ann/Ann_0001": tmp_path / "Ann/Ann_0001.jpg",
        "Bob/Bob_0002": tmp_path / "Bob/Bob_0002.PNG",
    }
    assert missing == ["Ann/Ann_0002"]
    with pytest.raises(FileNotFoundError, match="expected a folder of images"):
        find_images(names, tmp_path / "none")


def test_lfw_pairs(shared_data: Path) -> None:
    pairs = read_pairs(shared_data / "lfw" / "pairs.txt")
    assert len(pairs) == 6000
    assert np.bincount(pairs.folds).tolist() == [600] * 10
    assert pairs.is_same.sum() == 3000
    assert len(pairs.names) == 7701
    assert find_images(pairs.names[:50], shared_data / "lfw" / "aligned_112")[1] == []
    assert len(read_pairs(shared_data / "lfw" / "pairsDevTest.txt")) == 1000
    assert len(read_pairs(shared_data / "lfw" / "pairsDevTrain.txt")) == 2200

"""What is an image, for every command: suffixes, contents, links, and what is passed over."""

import os
from pathlib import Path

import cv2
import pytest
from faces_on_disk import make_face, make_folder, write_image

from sphereface_jax.data.finder import (
    describe_passed_over,
    find_images_below,
    passed_over_table,
    walk_images,
)
from sphereface_jax.data.folder import ImageFolder
from sphereface_jax.data.images import encode_jpeg, read_image
from sphereface_jax.data.lfw_list import find_images

FACE = make_face(0)
JPEG = encode_jpeg(FACE)


def write(path: Path, data: bytes = JPEG) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", ["a.jfif", "a.jpe", "a.JPE_", "a", "a.2", "a.txt"])
def test_an_unknown_suffix_is_decided_by_content(tmp_path: Path, name: str) -> None:
    write(tmp_path / "ann" / name)
    write(tmp_path / "ann" / "notes.txt.bak", b"II, a history")
    found = walk_images(tmp_path)
    assert found.names == [f"ann/{name}"]
    assert found.passed_over == [("ann/notes.txt.bak", "no image")]
    assert read_image(found.paths[0]).shape == FACE.shape
    source = ImageFolder(tmp_path)
    assert len(source) == 1
    assert source.passed_over == found.passed_over


@pytest.mark.parametrize("suffix", [".gif", ".tiff", ".ppm", ".avif"])
def test_other_formats_are_images(tmp_path: Path, suffix: str) -> None:
    write_image(tmp_path / f"a{suffix}", FACE)
    os.rename(tmp_path / f"a{suffix}", tmp_path / "a.picture")
    (path,) = find_images_below(tmp_path).paths
    assert read_image(path).shape == FACE.shape


def test_a_known_suffix_is_believed_unread(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg", b"not read here")
    assert walk_images(tmp_path).names == ["a.jpg"]


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)


def test_what_cannot_be_decoded_is_counted_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    write(tmp_path / "ann" / "1.jpg")
    write(tmp_path / "ann" / "2.heic", HEIC)
    write(tmp_path / "ann" / "3.jp2", b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40))
    write(tmp_path / "ann" / ".hidden.jpg")
    write(tmp_path / ".cache" / "1.jpg")
    write(tmp_path / "skipped.tsv", b"of an earlier align")
    passed = dict(walk_images(tmp_path).passed_over)
    assert set(passed) == {"ann/2.heic", "ann/3.jp2"}
    assert "needs pillow-heif" in passed["ann/2.heic"]
    assert "JPEG 2000, which is not read" in passed["ann/3.jp2"]
    assert walk_images(tmp_path).names == ["ann/1.jpg"]


def test_links_are_followed_and_end(tmp_path: Path) -> None:
    make_folder(tmp_path / "elsewhere", {"bob": 2})
    root = tmp_path / "faces"
    make_folder(root, {"ann": 2})
    (root / "bob").symlink_to("../elsewhere/bob")
    (root / "ann" / "up").symlink_to("..")  # a loop
    (root / "aaa").symlink_to("bob")  # the same people a second time
    (root / "ann" / "gone.png").symlink_to("nowhere.png")
    (root / "ann" / "self.png").symlink_to("self.png")
    (root / "ann" / "z.png").symlink_to("0000.png")
    found = walk_images(root)
    assert found.names == [
        *("aaa/0000.png", "aaa/0001.png"),
        *("ann/0000.png", "ann/0001.png", "ann/z.png"),
    ]
    assert dict(found.passed_over) == {
        "ann/gone.png": "a link to nothing, or in a circle",
        "ann/self.png": "a link to nothing, or in a circle",
        "ann/up": f"the same folder as {root}",
        "bob": "the same folder as aaa",
    }
    assert ImageFolder(root).identities == ("aaa", "ann")


def test_folders_beyond_the_depth_and_empty_ones_are_counted(tmp_path: Path) -> None:
    make_folder(tmp_path, {"ann": 1})
    write(tmp_path / "ann" / "raw" / "1.jpg")
    write(tmp_path / "loose.jpg")
    (tmp_path / "bob").mkdir()
    assert dict(ImageFolder(tmp_path).passed_over) == {
        "ann/raw": "a folder deeper than is looked",
        "loose.jpg": "in no identity's folder",
        "bob": "a folder without images",
    }


def test_a_pipe_with_an_images_name_is_not_opened(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg")
    os.mkfifo(tmp_path / "b.jpg")
    assert walk_images(tmp_path).passed_over == [("b.jpg", "no file")]


def test_the_list_says_how_many_and_names_ten(tmp_path: Path) -> None:
    for number in range(12):
        write(tmp_path / f"{number:02d}.txt", b"text")
    passed = walk_images(tmp_path).passed_over
    lines = describe_passed_over(passed)
    assert lines[0].startswith("passed over 12 ")
    assert lines[1] == "  00.txt: no image"
    assert lines[-1] == "  ..."
    assert len(passed_over_table(passed).splitlines()) == 12
    with pytest.raises(ValueError, match="expected images, found none; passed over 12"):
        find_images_below(tmp_path)
    assert describe_passed_over([]) == []


def test_a_table_keeps_the_bytes_of_a_name_and_its_lines() -> None:
    assert passed_over_table([("Ren\udce9/1\n2.txt", "no image")]) == b"Ren\xe9/1?2.txt\tno image\n"


def test_pairs_find_images_of_any_suffix(tmp_path: Path) -> None:
    write(tmp_path / "St. John" / "St. John_0001.jfif")
    write(tmp_path / "St. John" / "St. John_0002")
    write(tmp_path / "St. John" / "St. John_0003.txt", b"text")
    names = [f"St. John/St. John_{number:04d}" for number in (1, 2, 3)]
    found, missing = find_images(names, tmp_path)
    assert [path.name for path in found.values()] == ["St. John_0001.jfif", "St. John_0002"]
    assert missing == names[2:]


def test_gif_is_written_by_opencv() -> None:
    assert cv2.imencode(".gif", FACE)[0]

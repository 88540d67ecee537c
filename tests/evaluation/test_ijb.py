"""IJB's files, as InsightFace and NIST publish them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from faces_on_disk import write_text

from sphereface_jax.data.ijb import (
    read_ijb_faces,
    read_ijb_matches,
    read_ijb_pairs,
    read_ijb_subjects,
    read_ijb_templates,
)

FACES = (
    "1.jpg 46.1 45.1 84.2 47.2 67.3 69.3 47.4 84.4 80.5 86.5 0.99\n2.jpg 1 2 3 4 5 6 7 8 9 10 0.5\n"
)
TEMPLATES = "1.jpg 1 69544\n2.jpg 1 69544\n3.jpg 7 12\n"
PAIRS = "1 11065 1\n1 11066 0\n"
GALLERY = """TEMPLATE_ID,SUBJECT_ID,FILENAME,SIGHTING_ID
7,100,img/1.jpg,1
7,100,img/2.jpg,2
3,101,img/3.jpg,3
"""


def test_faces(tmp_path: Path) -> None:
    faces = read_ijb_faces(write_text(tmp_path / "faces.txt", FACES))
    assert faces.names == ("1.jpg", "2.jpg")
    np.testing.assert_array_equal(faces.landmarks[1], [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]])
    np.testing.assert_allclose(faces.scores, [0.99, 0.5])
    assert faces.landmarks.dtype == faces.scores.dtype == np.float32


def test_templates(tmp_path: Path) -> None:
    templates = read_ijb_templates(write_text(tmp_path / "media.txt", TEMPLATES))
    assert templates.names == ("1.jpg", "2.jpg", "3.jpg")
    assert templates.template_ids.tolist() == [1, 1, 7]
    assert templates.media_ids.tolist() == [69544, 69544, 12]


def test_pairs(tmp_path: Path) -> None:
    pairs = read_ijb_pairs(write_text(tmp_path / "pairs.txt", PAIRS))
    assert pairs.left_ids.tolist() == [1, 1]
    assert pairs.right_ids.tolist() == [11065, 11066]
    assert pairs.is_same.tolist() == [True, False]


def test_subjects_and_matches(tmp_path: Path) -> None:
    gallery = read_ijb_subjects(write_text(tmp_path / "gallery.csv", GALLERY))
    assert gallery.template_ids.tolist() == [3, 7]
    assert gallery.subjects.tolist() == [101, 100]
    probes = read_ijb_subjects(write_text(tmp_path / "p.csv", "SUBJECT_ID,TEMPLATE_ID\n100,5\n"))
    matches = read_ijb_matches(write_text(tmp_path / "m.csv", "7,5\n3,5\n"), gallery, probes)
    assert matches.left_ids.tolist() == [7, 3]
    assert matches.right_ids.tolist() == [5, 5]
    assert matches.is_same.tolist() == [True, False]
    with pytest.raises(ValueError, match=r"m\.csv: expected templates of the tables, found 5"):
        read_ijb_matches(tmp_path / "m.csv", gallery)


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (read_ijb_faces, "1.jpg 1 2\n", ":1: expected an image, ten coordinates and a score"),
        (read_ijb_faces, FACES + "x 1 2 3 4 5 6 7 8 9 10 y\n", ":3: expected an image, ten"),
        (read_ijb_faces, "\n", ": expected lines of text, found an empty file"),
        (read_ijb_templates, TEMPLATES + "4.jpg 1\n", ":4: expected image, template and medium"),
        (read_ijb_templates, "1.jpg one 2\n", ":1: expected image, template and medium"),
        (read_ijb_pairs, "1 2 3\n", ":1: expected a label of 0 or 1, found 3"),
        (read_ijb_pairs, "1 2 0\n4 4 1\n", ":2: expected a pair, found 4 twice"),
        (read_ijb_pairs, "1 2\n", ": expected lines of 3 whole numbers, found 2 a line"),
        (read_ijb_pairs, PAIRS + "1 x 1\n", ": expected lines of 3 whole numbers: could not"),
        (read_ijb_pairs, PAIRS + "1 2\n", ": expected lines of 3 whole numbers: the number of"),
        (read_ijb_pairs, "", ": expected lines of 3 whole numbers: "),
        (read_ijb_subjects, "A,B\n1,2\n", ":1: expected columns TEMPLATE_ID and SUBJECT_ID"),
        (read_ijb_subjects, GALLERY + "7,101,x,1\n", ":5: expected one subject for template 7"),
        (read_ijb_subjects, GALLERY + "7\n", ":5: expected whole numbers as ids"),
        (read_ijb_subjects, "TEMPLATE_ID,SUBJECT_ID\n", ": expected templates below the header"),
    ],
)
def test_a_wrong_line_is_named(read: Callable, text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"file\.txt{message}") as error:
        read(write_text(tmp_path / "file.txt", text))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("read", [read_ijb_faces, read_ijb_pairs, read_ijb_subjects])
def test_a_missing_file_is_named(read: Callable, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="x: expected a file of IJB's protocols"):
        read(tmp_path / "x")

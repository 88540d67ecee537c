"""MegaFace's files: the development kit's lists, lists of wrong images, feature files."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from sphereface_jax.data.megaface import (
    MegafaceList,
    read_megaface_feature,
    read_megaface_features,
    read_megaface_list,
    read_megaface_noises,
)

FACESCRUB = {
    "path": ["A_B/A_B_1.png", "A_B/A_B_2.png", "C_D/C_D_7.png"],
    "id": ["A_B", "A_B", "C_D"],
}
DISTRACTORS = {"path": ["534/53415754@N00/37731000_1.jpg", "389/38989502@N07/4767491946_13.jpg"]}


def write_json(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def write_feature(path: Path, *numbers: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(f"<4i{len(numbers)}f", len(numbers), 1, 4, 5, *numbers))


def test_lists_of_the_development_kit(tmp_path: Path) -> None:
    probes = read_megaface_list(write_json(tmp_path / "facescrub.json", FACESCRUB))
    assert probes == MegafaceList(tuple(FACESCRUB["path"]), ("A_B", "A_B", "C_D"))
    distractors = read_megaface_list(write_json(tmp_path / "mf.json_1000000_1", DISTRACTORS))
    assert len(distractors) == 2
    assert distractors.identities is None


def test_wrong_images_are_left_out(tmp_path: Path) -> None:
    noises = tmp_path / "noises.txt"
    noises.write_text("# wrong\nA_B_2.png\n\n3\t534/53415754@N00/37731000_1.jpg\n")
    wrong = read_megaface_noises(noises)
    assert wrong == {"A_B_2.png", "534/53415754@N00/37731000_1.jpg"}
    probes = MegafaceList(tuple(FACESCRUB["path"]), tuple(FACESCRUB["id"])).without(wrong)
    assert probes == MegafaceList(("A_B/A_B_1.png", "C_D/C_D_7.png"), ("A_B", "C_D"))
    assert MegafaceList(tuple(DISTRACTORS["path"])).without(wrong).paths == (
        DISTRACTORS["path"][1],
    )


def test_a_feature_file_is_an_opencv_matrix(tmp_path: Path) -> None:
    write_feature(tmp_path / "x.png_net.bin", 1.5, -2.0, 0.25)
    feature = read_megaface_feature(tmp_path / "x.png_net.bin")
    np.testing.assert_array_equal(feature, np.float32([1.5, -2.0, 0.25]))


def test_a_folder_of_features_is_called_by_its_images(tmp_path: Path) -> None:
    write_feature(tmp_path / "facescrub" / "A_B" / "A_B_1.png_net_v2.bin", 1, 1)
    write_feature(tmp_path / "1" / "2@N00" / "3_0.jpg.bin", 0.5, 2)
    (tmp_path / "notes.bin").write_text("no feature")
    vectors = read_megaface_features(tmp_path)
    assert vectors.paths == ["1/2@N00/3_0.jpg", "facescrub/A_B/A_B_1.png"]
    np.testing.assert_array_equal(vectors.embeddings, [[0.5, 2], [1, 1]])
    write_feature(tmp_path / "1" / "x.jpg_net.bin", 1, 1, 1)
    with pytest.raises(ValueError, match=r"x\.jpg_net\.bin: expected 2 numbers as in the first"):
        read_megaface_features(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: expected feature files such as IMAGE"):
        read_megaface_features(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="none: expected a folder of feature files"):
        read_megaface_features(tmp_path / "none")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected the header of a float32 matrix"),
        (struct.pack("<4i", 3, 1, 8, 6), "expected the header of a float32 matrix, found"),
        (struct.pack("<4i2f", 3, 1, 4, 5, 1, 2), "expected 28 bytes by its header, found 24"),
        (struct.pack("<4i", -3, 1, 4, 5), "expected the header of a float32 matrix"),
        (
            struct.pack("<4i", 2**30, 2**30, 4, 5),
            "expected 4611686018427387920 bytes by its header",
        ),
    ],
)
def test_a_damaged_feature_file_is_named(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"x\.bin: {message}"):
        read_megaface_feature(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "expected a list of names under 'path'"),
        ({"path": []}, "expected images under 'path', found none"),
        ({"path": ["a", 1.5]}, "expected a list of names under 'path'"),
        ({"path": ["../a.jpg"]}, "expected paths below a folder, found '../a.jpg'"),
        ({"path": ["/a.jpg"]}, "expected paths below a folder"),
        ({"path": ["a", "b"], "id": ["a"]}, "expected 2 identities as paths, found 1"),
        ({"path": ["a"], "id": "a"}, "expected a list of names under 'id'"),
    ],
)
def test_a_wrong_list_is_named(content: object, message: str, tmp_path: Path) -> None:
    path = write_json(tmp_path / "list.json", content)
    with pytest.raises(ValueError, match=rf"list\.json: {message}") as error:
        read_megaface_list(path)
    assert "\n" not in str(error.value)


def test_what_is_not_json_or_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("{'path'")
    with pytest.raises(ValueError, match="x: expected JSON"):
        read_megaface_list(tmp_path / "x")
    for read in (read_megaface_list, read_megaface_noises, read_megaface_feature):
        with pytest.raises(FileNotFoundError, match="y: expected"):
            read(tmp_path / "y")
    (tmp_path / "z").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ValueError, match="z: expected text in UTF-8"):
        read_megaface_noises(tmp_path / "z")

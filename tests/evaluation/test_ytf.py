"""YouTube Faces' list of splits, and its frames on disk."""

from pathlib import Path

import pytest
from faces_on_disk import write_text

from sphereface_jax.data.ytf import find_frames, read_ytf_splits

SPLITS = """split number, pair number, first name, second name, same, is same
1, 1, Ann_Lee/0, Bob/2, 0, 0
1, 2, Ann_Lee/0, Ann_Lee/1, 1, 1

2, 1, Bob/2, Cyd/5, 0, 0
"""


def test_the_list_of_splits(tmp_path: Path) -> None:
    pairs = read_ytf_splits(write_text(tmp_path / "splits.txt", SPLITS))
    assert len(pairs) == 3
    assert pairs.left == ("Ann_Lee/0", "Ann_Lee/0", "Bob/2")
    assert pairs.right == ("Bob/2", "Ann_Lee/1", "Cyd/5")
    assert pairs.is_same.tolist() == [False, True, False]
    assert pairs.folds.tolist() == [1, 1, 2]
    assert pairs.names == ("Ann_Lee/0", "Ann_Lee/1", "Bob/2", "Cyd/5")


def test_frames_are_the_images_of_a_videos_folder(tmp_path: Path) -> None:
    for name in ("Ann_Lee/0/0.2.jpg", "Ann_Lee/0/0.10.jpg", "Bob/2/2.1.jpg", "Bob/2/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    paths, missing = find_frames(["Bob/2", "Cyd/5", "Ann_Lee/0"], tmp_path)
    names = [path.relative_to(tmp_path).as_posix() for path in paths]
    assert names == ["Bob/2/2.1.jpg", "Ann_Lee/0/0.10.jpg", "Ann_Lee/0/0.2.jpg"]
    assert missing == ["Cyd/5"]
    with pytest.raises(FileNotFoundError, match="nowhere: expected a folder of videos' frames"):
        find_frames([], tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r":1: expected columns first name, second name, is same, found \[\]"),
        ("a, b\n1, 2\n", ":1: expected columns first name"),
        (SPLITS.splitlines()[0], ": expected video pairs below the header, found none"),
        (SPLITS.replace("Bob/2, 0, 0", "Bob/2"), ":2: expected 6 fields or more, found 4"),
        (SPLITS.replace("Cyd/5", "Cyd"), ":5: expected a video as Name/0, found 'Cyd'"),
        (SPLITS.replace("Cyd/5", "../5"), ":5: expected a video as Name/0, found '../5'"),
        (SPLITS.replace("Lee/1", "Lee/0"), ":3: expected a pair, found Ann_Lee/0 twice"),
        (SPLITS.replace("1, 1\n\n", "1, yes\n\n"), ":3: expected 0 or 1 under 'is same'"),
        (SPLITS.replace("2, 1, Bob", "x, 1, Bob"), ":5: expected the number of a split first"),
    ],
)
def test_a_wrong_line_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = write_text(tmp_path / "splits.txt", text)
    with pytest.raises(ValueError, match=rf"splits\.txt{message}") as error:
        read_ytf_splits(path)
    assert "\n" not in str(error.value)


def test_a_missing_or_foreign_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected YouTube Faces' list of splits"):
        read_ytf_splits(tmp_path / "x")
    (tmp_path / "y").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ValueError, match="expected text in UTF-8"):
        read_ytf_splits(tmp_path / "y")

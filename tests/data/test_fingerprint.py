"""The digest of a source's people, names and sizes: the same wherever it lies, another if it is."""

import shutil
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from faces_on_disk import make_face, make_folder, write_image

from sphereface_jax.data.open import open_source
from sphereface_jax.data.record_source import write_records
from sphereface_jax.data.source import FaceSource, Subset, fingerprint, with_file_sizes
from sphereface_jax.data.synthetic import SyntheticFaces


def as_folder(faces: Path, place: Path) -> FaceSource:
    return open_source(str(shutil.copytree(faces, place / "faces")))


def as_zip(faces: Path, place: Path) -> FaceSource:
    place.mkdir()
    with zipfile.ZipFile(place / "faces.zip", "w") as archive:
        for path in sorted(faces.rglob("*.png")):
            archive.write(path, str(path.relative_to(faces)))
    return open_source(str(place / "faces.zip"))


def as_list(faces: Path, place: Path) -> FaceSource:
    folder = as_folder(faces, place)
    paths = [Path(folder.describe(i)).relative_to(place) for i in range(len(folder))]
    lines = [f"{path} {label}" for path, label in zip(paths, folder.labels, strict=True)]
    (place / "list.txt").write_text("\n".join(lines))
    return open_source(str(place / "list.txt"))


def as_records(faces: Path, place: Path) -> FaceSource:
    write_records(as_folder(faces, place), place / "train.rec")
    return open_source(str(place / "train.rec"))


def remove(faces: Path) -> None:
    (faces / "bob" / "0001.png").unlink()


def add(faces: Path) -> None:
    shutil.copy(faces / "bob" / "0001.png", faces / "bob" / "0002.png")


def give_away(faces: Path) -> None:
    (faces / "bob" / "0001.png").rename(faces / "ann" / "0002.png")


def replace(faces: Path) -> None:
    write_image(faces / "bob" / "0001.png", make_face(9, 40, 40))


@pytest.mark.parametrize("change", [remove, add, give_away, replace])
@pytest.mark.parametrize("kind", [as_folder, as_zip, as_list, as_records])
def test_it_tells_other_images_and_not_another_place(
    tmp_path: Path, kind: Callable[[Path, Path], FaceSource], change: Callable[[Path], None]
) -> None:
    faces = make_folder(tmp_path / "source", {"ann": 2, "bob": 2})
    here = fingerprint(kind(faces, tmp_path / "here"))
    assert fingerprint(kind(faces, tmp_path / "there")) == here
    change(faces)
    assert fingerprint(kind(faces, tmp_path / "changed")) != here


def test_of_a_subset_and_of_drawn_faces() -> None:
    drawn = SyntheticFaces(4, 3)
    prints = {
        fingerprint(source)
        for source in (
            drawn,
            SyntheticFaces(3, 4),
            SyntheticFaces(4, 3, seed=1),
            Subset(drawn, drawn.identities[1:]),
            Subset(drawn, drawn.identities[:3]),
        )
    }
    assert len(prints) == 5
    assert fingerprint(SyntheticFaces(4, 3)) in prints


def test_very_many_files_are_not_all_asked_for_their_size(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(5))
    asked = []

    def path(index: int) -> str:
        asked.append(index)
        return str(tmp_path / "file")

    start = time.process_time()
    lines = with_file_sizes(["name"] * 1_000_000, path)
    assert time.process_time() - start < 1
    assert 10_000 < len(asked) <= 20_000
    assert (lines[0], lines[1]) == ("name 5", "name")
    assert with_file_sizes(["name"], lambda index: str(tmp_path / "missing")) == ["name"]

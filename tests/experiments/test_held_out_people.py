"""The split of people: nobody on two sides, and two names of one person together."""

import json
from pathlib import Path

import numpy as np
import pytest

from experiments.benchmark_lists import draw_people
from experiments.held_out_people import main
from sphereface_jax.data.lfw_list import find_images, read_pairs
from sphereface_jax.data.open import open_source
from sphereface_jax.data.vectors import FaceVectors, save_vectors
from sphereface_jax.tasks.megaface import MegafaceTask
from sphereface_jax.tasks.people import PeopleTask

PEOPLE, HELD, VIEWS = 40, 22, 3
TWICE = ("P000003", "P000030")


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The faces and the split of them."""
    root = tmp_path_factory.mktemp("people")
    draw_people(root / "faces", PEOPLE, VIEWS, (16, 16), first=0)
    faces = open_source(str(root / "faces"))
    vectors = np.eye(PEOPLE)[faces.labels] + 0.01
    vectors[faces.labels == 30] = vectors[faces.labels == 3]
    save_vectors(
        root / "vectors.npz", FaceVectors([faces.describe(i) for i in range(len(faces))], vectors)
    )
    main(root / "faces", root / "vectors.npz", root / "split", held=HELD, pairs=40)
    return root / "faces", root / "split"


def test_nobody_is_trained_on_and_tested(split: tuple[Path, Path]) -> None:
    _, out = split
    trained = {line.split("/")[0] for line in (out / "train.txt").read_text().splitlines()}
    tested = {path.name for path in (out / "people").iterdir()}
    assert (len(trained), len(tested)) == (PEOPLE - HELD, HELD)
    assert not trained & tested
    assert json.loads((out / "split.json").read_text())["held_out"] == sorted(tested)


def test_two_names_of_one_person_are_one_identity_to_train_on(split: tuple[Path, Path]) -> None:
    faces, out = split
    source = open_source(str(out / "train.txt"), root=str(faces))
    labels: dict[str, set[int]] = {}
    for index in range(len(source)):
        name = Path(source.describe(index)).parent.name
        labels.setdefault(name, set()).add(int(source.labels[index]))
    assert labels[TWICE[0]] == labels[TWICE[1]]
    assert len(source.identities) == len(labels) - 1 == PEOPLE - HELD - 1
    assert json.loads((out / "split.json").read_text())["one_person"] == [list(TWICE)]


def test_the_lists_are_those_that_evaluate_reads(split: tuple[Path, Path]) -> None:
    faces, out = split
    pairs = read_pairs(out / "pairs.txt")
    assert (len(pairs), pairs.is_same.mean()) == (40, 0.5)
    _, missing = find_images(pairs.names, out / "people")
    assert not missing
    task = MegafaceTask(
        out / "probes.json",
        out / "distractors.json",
        images=out / "people",
        distractor_images=faces,
    )
    assert not task.find_images().missing.names
    assert "lfw_open_set" in PeopleTask.of_folder(out / "open_set").protocols


def test_a_split_is_never_written_over(split: tuple[Path, Path]) -> None:
    faces, out = split
    with pytest.raises(FileExistsError, match="training may have begun"):
        main(faces, out.parent / "vectors.npz", out)

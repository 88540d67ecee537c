"""Reference sets: enrolling, finding, refusing, removing, and moving to another network."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command import call, refused
from faces_on_disk import write_image
from imported_run import make_run
from task_sets import FACES, people_folder, people_pairs, store

from sphereface_jax.references import ReferenceSet

SIZE = (24, 16)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("references"), "spherenet4", SIZE)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return people_folder(tmp_path_factory.mktemp("faces"))


def one_line(text: str) -> str:
    return " ".join(text.split())


def test_a_persons_vector_is_the_mean_weighted_by_length() -> None:
    people = ReferenceSet("f00d")
    people.enroll("Ann", [[3.0, 0.0], [0.0, 1.0]])
    np.testing.assert_allclose(people.vectors, [[3 / np.sqrt(10), 1 / np.sqrt(10)]], atol=1e-6)
    assert people.counts == {"Ann": 2}
    people.enroll("Ann", [[0.0, 2.0]])
    assert (len(people), people.counts) == (1, {"Ann": 1})
    np.testing.assert_allclose(people.vectors, [[0.0, 1.0]])


def test_matches_are_above_the_threshold_and_the_best_first() -> None:
    people = ReferenceSet("f00d")
    for name, vector in (("Ann", [1, 0.0]), ("Bob", [0.0, 1]), ("Cid", [-1, 0.0])):
        people.enroll(name, [vector])
    (found,) = people.identify([[0.8, 0.6]], threshold=0.5, k=3)
    assert [(match.name, round(match.cosine, 4)) for match in found] == [("Ann", 0.8), ("Bob", 0.6)]
    assert people.identify([[0.8, 0.6]], threshold=0.8001) == [[]]


def test_a_removed_person_leaves_nothing_in_the_file(tmp_path: Path) -> None:
    people, path = ReferenceSet("f00d", run="r"), tmp_path / "people.npz"
    rng = np.random.default_rng(0)
    for name in ("Ann", "Zacharias"):
        people.enroll(name, rng.normal(size=(1, 8)))
    people.save(path)
    vector = people.vectors[1].tobytes()
    assert "Zacharias".encode("utf-32-le") in path.read_bytes()
    assert vector in path.read_bytes()
    again = ReferenceSet.load(path)
    assert (again.names, again.fingerprint, again.run) == (["Ann", "Zacharias"], "f00d", "r")
    again.remove("Zacharias")
    again.save(path)
    content = path.read_bytes()
    assert "Zacharias".encode("utf-32-le") not in content
    assert vector not in content
    assert [each.name for each in tmp_path.iterdir()] == ["people.npz"]
    again.remove("Ann")
    again.save(path)
    assert len(ReferenceSet.load(path)) == 0


def test_enrolling_and_identifying_on_the_command_line(
    run: Path, faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gallery, enrolled = tmp_path / "people.npz", tmp_path / "enrolled"
    for name in ("P0", "P1", "P2"):
        shutil.copytree(faces / name, enrolled / name)
    assert call("enroll", gallery, run, enrolled) == 0
    assert "3 people enrolled by 6 of 6 pictures, 3 in all" in one_line(capsys.readouterr().out)
    image = faces / "P1" / "P1_0001.png"
    assert "likelihood.npz" in refused(capsys, "identify", gallery, image)
    pairs = people_pairs(tmp_path)
    flags = ["--pairs", pairs, "--images", faces, "--recalibrate"]
    assert call("evaluate", run, *flags) == 0
    capsys.readouterr()
    said = refused(capsys, "identify", gallery, image)
    assert "--one-false-hit-in 100: expected at least 100 people" in said
    assert call("identify", gallery, image, "--one-false-hit-in", 3) == 0
    said = one_line(capsys.readouterr().out)
    assert "at one false hit in 3 searches of 3 people, measured on 6 people" in said
    assert call("identify", gallery, image, "--threshold", 0.2) == 0
    assert "P1, cosine" in one_line(capsys.readouterr().out)
    assert call("identify", gallery, image, "--threshold", 0.99999) == 0
    assert ": nobody (threshold" in one_line(capsys.readouterr().out)
    assert call("identify", gallery, image, "--threshold", 0.2, "--min-length", 1e9) == 0
    assert "not searched" in one_line(capsys.readouterr().out)
    assert call("enroll", gallery, "--remove", "P1") == 0
    assert call("identify", gallery, image, "--threshold", 0.999) == 0
    assert "P1, cosine" not in one_line(capsys.readouterr().out)


def test_mistakes_are_named_and_write_nothing(
    run: Path, faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gallery = tmp_path / "people.npz"
    image = faces / "P0" / "P0_0001.png"
    assert "expected a reference set" in refused(capsys, "identify", gallery, image)
    assert "got less" in refused(capsys, "enroll", gallery, run)
    said = refused(capsys, "enroll", gallery, run, faces, "--min-length", 1e9)
    assert "--min-length" in said
    stray = tmp_path / "stray"
    write_image(stray / "face.png", FACES[0]["image"])
    assert "expected pictures as" in refused(capsys, "enroll", gallery, run, stray)
    assert not gallery.exists()
    assert call("enroll", gallery, run, faces) == 0
    before = gallery.read_bytes()
    said = refused(capsys, "enroll", gallery, "--remove", "P0", "Nobody")
    assert "Nobody: expected an enrolled person" in said
    assert gallery.read_bytes() == before
    gallery.write_bytes(before[:50])
    assert "damaged file" in refused(capsys, "identify", gallery, image)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("enroll", "g", "r", "d", "--min-length", "nan"), "--min-length: expected a number of at"),
        (("identify", "g", "a.png", "--min-length", -1), "--min-length: expected a number of at l"),
        (
            ("identify", "g", "a.png", "--one-false-hit-in", 1),
            "one-false-hit-in: expected a number",
        ),
        (
            ("identify", "g", "a.png", "--threshold", 1.5),
            "--threshold: expected a number in [-1, 1]",
        ),
        (("bridge", "o", "n", "--out", "b.npz", "--far", 0), "--far: expected a number in (0, 1)"),
        (
            ("bridge", "o", "n", "--out", "b.npz", "--seed", -1),
            "--seed: expected a whole number in",
        ),
        (
            ("compare", "r", "a.png", "b.png", "--gallery-size", 0),
            "--gallery-size: expected at least",
        ),
        (
            ("compare", "r", "a.png", "b.png", "--min-length", "nan"),
            "--min-length: expected at least",
        ),
    ],
)
def test_numbers_out_of_range_are_refused(
    command: tuple, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, *command)


def test_another_network_is_refused_until_a_bridge_leads_there(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faces = people_folder(tmp_path / "faces", people=6, views=4)
    for person in range(6, 20):
        for view in range(2):
            image = np.random.default_rng(person).integers(0, 255, (24, 16, 3), np.uint8)
            name = f"Q{person}"
            write_image(faces / name / f"{name}_{view:04d}.png", np.roll(image, view, axis=0))
    other = make_run(tmp_path, "sfnet4_bn", SIZE)
    gallery, link = tmp_path / "people.npz", tmp_path / "bridge.npz"
    assert call("enroll", gallery, run, faces) == 0
    image = faces / "P0" / "P0_0001.png"
    flags = ["identify", gallery, image, "--threshold", -1]
    said = refused(capsys, *flags, "--run", other)
    assert "expected the network" in said
    assert "or give --bridge" in said
    numbers = tmp_path / "numbers.json"
    learnt = ["bridge", run, other, "--images", faces, "--out", link, "--far", 0.2]
    assert call(*learnt, "--json", numbers) == 0
    said = one_line(capsys.readouterr().out)
    assert "old, mapped, against new: TAR" in said
    assert sum(json.loads(numbers.read_text())["people"]) == 20
    assert call(*flags, "--bridge", link) == 0
    assert "cosine" in one_line(capsys.readouterr().out)
    backwards = tmp_path / "backwards.npz"
    assert call("bridge", other, run, "--images", faces, "--out", backwards, "--far", 0.2) == 0
    said = refused(capsys, *flags, "--bridge", backwards)
    assert "expected a bridge from the network" in said
    assert "--images: expected" in refused(capsys, "bridge", run, other, "--out", link)
    link.write_bytes(b"PK")
    assert "expected a bridge" in refused(capsys, *flags, "--bridge", link)


def test_a_bridge_of_stored_vectors_is_learnt_and_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    old, new = {}, {}
    for person in range(60):
        centre = rng.normal(size=8)
        for view in range(3):
            vector = centre + 0.2 * rng.normal(size=8)
            old[f"s/N{person}/{view}.jpg"] = vector
            new[f"t/N{person}/{view}.png"] = (vector + 0.05 * rng.normal(size=8)) @ rotation
    paths = store(tmp_path / "old.npz", old), store(tmp_path / "new.npz", new)
    numbers = tmp_path / "n.json"
    assert call("bridge", *paths, "--out", tmp_path / "b.npz", "--json", numbers) == 0
    found = json.loads(numbers.read_text())
    rates = {name: result["tar"]["rate"] for name, result in found["results"].items()}
    # Turned vectors compare by the map, and not as they are.
    assert rates.pop("old, as it is, against new") < 0.5
    assert rates["old, mapped, against new"] > 0.95 * min(rates.values()) > 0.5
    few = store(tmp_path / "few.npz", dict(list(new.items())[:6]))
    said = refused(capsys, "bridge", paths[0], few, "--out", tmp_path / "b.npz")
    assert "ten people or more" in said

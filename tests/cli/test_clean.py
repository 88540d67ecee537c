"""`sphereface clean` and `prepare --apply`: from wrong labels to a set without them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command import call, refused
from faces_on_disk import make_face, write_image, write_text
from imported_run import make_run
from planted_noise import draw_people

from experiments import noisy_labels
from sphereface_jax.data.corrections import Correction, corrected, read_corrections
from sphereface_jax.data.folder import ImageFolder
from sphereface_jax.data.open import open_source
from sphereface_jax.data.vectors import FaceVectors, save_vectors

PEOPLE, VIEWS = 12, 6


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 people: P00 is under two names, P02 and P03 under one, P05's first image under P07."""
    folder = tmp_path_factory.mktemp("noisy")
    embeddings, truth = draw_people(PEOPLE, VIEWS, spread=0.4, seed=1)
    face, names = make_face(0), []
    for row, person in enumerate(truth.tolist()):
        view = row % VIEWS
        name = "P00b" if person == 0 and view % 2 else "P02" if person == 3 else f"P{person:02d}"
        name = "P07" if (person, view) == (5, 0) else name
        names.append(f"{name}/{person:02d}_{view}.png")
        write_image(folder / "faces" / names[-1], face)
    save_vectors(folder / "vectors.npz", FaceVectors(names, embeddings))
    turned = embeddings @ np.linalg.qr(np.random.default_rng(1).normal(size=(32, 32)))[0]
    save_vectors(folder / "others.npz", FaceVectors(names, turned))
    return folder


def test_a_set_is_cleaned_from_end_to_end(
    noisy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faces, vectors = noisy / "faces", noisy / "vectors.npz"
    before = sorted(path.stat().st_mtime_ns for path in faces.rglob("*"))
    flags = ["--data", faces, "--agree-with", noisy / "others.npz", "--out", tmp_path]
    assert call("clean", vectors, *flags) == 0
    assert "agrees with 3 of 3 findings" in capsys.readouterr().out
    table = tmp_path / "clean.csv"
    found = read_corrections(table)
    assert {(line.action, line.identity) for line in found} == {
        ("merge", "P00b"),
        ("move", "P07"),
        ("split", "P02"),
    }
    assert next(line.to for line in found if line.action == "move") == "P05"
    assert sum(line.action == "split" for line in found) == VIEWS
    page = (tmp_path / "clean.html").read_text()
    assert "<b>Local.</b>" in page
    assert page.count("<figure>") == 3
    assert page.count("data:image/jpeg") > 15
    assert sorted(path.stat().st_mtime_ns for path in faces.rglob("*")) == before

    moved = shutil.copytree(faces, tmp_path / "elsewhere")
    assert call("prepare", moved, "--out", tmp_path / "tfds", "--apply", table) == 0
    assert "1 of move, 6 of split, 1 of merge" in capsys.readouterr().out
    clean = open_source("face_folder", data_dir=str(tmp_path / "tfds"))
    source = corrected(ImageFolder(moved), found)
    people = np.array([int(Path(source.describe(i)).name[:2]) for i in range(len(source))])
    np.testing.assert_array_equal(clean.labels, source.labels)
    assert len(clean) == len(source) == PEOPLE * VIEWS
    assert len({*zip(people.tolist(), source.labels.tolist(), strict=True)}) == PEOPLE


def test_a_run_looks_at_what_it_learnt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path, "spherenet4", (24, 16))
    config = json.loads((run / "config.json").read_text())
    config["data"] |= {"train": "synthetic", "synthetic_identities": 6, "synthetic_views": 4}
    (run / "config.json").write_text(json.dumps(config))
    assert call("clean", run, "--agree-with", run) == 0
    assert "24 images of 6 identities" in " ".join(capsys.readouterr().out.split())
    read_corrections(run / "clean.csv")
    assert "Local." in (run / "clean.html").read_text()


def test_mistakes_are_named_and_write_nothing(
    noisy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors, faces = noisy / "vectors.npz", noisy / "faces"
    assert "--data: expected" in refused(capsys, "clean", vectors, "--out", tmp_path)
    assert "--out: expected" in refused(capsys, "clean", vectors, "--data", faces)
    flags = ["--data", faces, "--out", tmp_path]
    assert "--confidence" in refused(capsys, "clean", vectors, *flags, "--confidence", 0)
    save_vectors(tmp_path / "no.npz", FaceVectors(["a/b.png"], np.ones((1, 2))))
    assert "found none" in refused(capsys, "clean", tmp_path / "no.npz", *flags)
    nowhere = tmp_path / "nowhere"
    assert "create it first" in refused(capsys, "clean", vectors, "--data", faces, "--out", nowhere)
    assert [path.name for path in tmp_path.iterdir()] == ["no.npz"]
    listed = write_text(tmp_path / "list.csv", "action,identity,to,image\ndrop,P01,,P01/none.png\n")
    said = refused(capsys, "prepare", faces, "--out", tmp_path / "tfds", "--apply", listed)
    assert "list.csv: expected the image 'P01/none.png' in this set, found none" in said
    assert not (tmp_path / "tfds").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("what,is,this\n", "list.csv:1: expected the columns action,identity,to,image"),
        ("HEAD\nburn,A,,a.png\n", "list.csv:2: expected one of drop, move, split, merge"),
        ("HEAD\n\nmove,A,,a.png\n", "list.csv:3: expected a name as to of a move"),
        ("HEAD\ndrop,,,a.png\n", "expected a name as identity"),
        ("HEAD\ndrop,A\n", "expected 4 to 8 columns, got 2"),
        ("HEAD\ndrop,A,,\n", "expected an image for a drop"),
        ("HEAD\nmerge,A,B,a.png\n", "expected no image for a merge"),
    ],
)
def test_a_list_that_is_none_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = write_text(tmp_path / "list.csv", text.replace("HEAD", "action,identity,to,image"))
    with pytest.raises(ValueError, match=said):
        read_corrections(path)


def test_corrections_go_together(noisy: Path) -> None:
    source = ImageFolder(noisy / "faces")
    chain = [Correction("merge", "P08", "P09"), Correction("merge", "P09", "P10")]
    moved = Correction("move", "P07", "P08", "P07/05_0.png")
    found = corrected(source, [*chain, moved, Correction("drop", "P11", "", "P11/11_0.png")])
    assert len(found) == len(source) - 1
    assert len(found.identities) == len(source.identities) - 2
    (row,) = [i for i in range(len(found)) if found.describe(i).endswith("05_0.png")]
    assert found.identities[found.labels[row]] == "P10"
    assert found[row]["label"] == found.labels[row]
    assert len(found.contents()) == len(found)
    for wrong, said in (
        (moved._replace(to="Nobody"), "expected identities of this set"),
        (moved._replace(identity="P06"), "it is of 'P07'"),
    ):
        with pytest.raises(ValueError, match=said):
            corrected(source, [wrong])
    first = Correction("drop", "P00", "", "P00/00_0.png")
    small = corrected(source, []).identities
    assert small == source.identities
    with pytest.raises(ValueError, match="all are dropped"):
        corrected(
            source,
            [
                first._replace(identity=source.identities[label], image=source.describe(row))
                for row, label in enumerate(source.labels.tolist())
            ],
        )


def test_the_experiment_plants_and_judges() -> None:
    embeddings, truth = draw_people(60, 16)
    found = noisy_labels.planted(embeddings, truth)
    assert found["none"]["flagged_share"] <= 0.01
    for name in ("flips 0.2", "flips 0.4", "copies"):
        assert min(found[name][key] for key in ("precision", "recall")) >= 0.9
        assert found[name]["moves_home"] is None or found[name]["moves_home"] >= 0.95
    for key in ("merge_precision", "merge_recall", "split_precision", "split_recall"):
        assert found["names"][key] == 1
    labels = noisy_labels.flipped(truth, 0.4, 0)
    new, stays = noisy_labels.cleaned(noisy_labels.look(embeddings, labels), labels)
    assert np.mean(new[stays] == truth[stays]) > 0.98
    assert stays.mean() > 0.9

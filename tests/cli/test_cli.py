"""The command: what it prints and writes, and the one line and exit code of each mistake."""

import dataclasses
import io
import json
import os
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from command import call, refused
from tiny_run import as_flags, quiet, tiny_config

from sphereface_jax._console import counting
from sphereface_jax.data.synthetic import SyntheticFaces
from sphereface_jax.data.vectors import FaceVectors, load_vectors, save_vectors
from sphereface_jax.training.loop import train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny_config(tmp_path_factory.mktemp("runs") / "run", steps=4)
    train(config, console=quiet())
    return config.out


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 6 people with 3 images each, and pairs.txt of two folds beside them."""
    directory = tmp_path_factory.mktemp("faces")
    source = SyntheticFaces(6, 3, image_size=(24, 16))
    for index in range(len(source)):
        person, number = f"P{index // 3}", index % 3 + 1
        (directory / person).mkdir(exist_ok=True)
        path = directory / person / f"{person}_{number:04d}.png"
        assert cv2.imwrite(str(path), source[index]["image"][:, :, ::-1])
    lines = ["2\t3"]
    for people in ((0, 1, 2), (3, 4, 5)):
        lines += [f"P{person}\t1\t2" for person in people]
        lines += [f"P{person}\t3\tP{people[person % 3 - 1]}\t1" for person in people]
    (directory / "pairs.txt").write_text("\n".join(lines) + "\n")
    return directory


def test_train_prints_the_last_loss_and_the_second_time_says_it_is_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = as_flags(tiny_config(tmp_path / "run", steps=4))
    assert call("train", *flags) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert f"loss {result['loss']!r}" in capsys.readouterr().out
    assert call("train", *flags) == 0
    again = capsys.readouterr().out
    assert "finished at step 4" in again
    assert f"loss {result['loss']!r}" in again


def test_evaluate_a_run_agrees_with_its_stored_embeddings(
    run: Path, faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs, first, second = faces / "pairs.txt", tmp_path / "first.json", tmp_path / "second.json"
    vectors = tmp_path / "vectors.npz"
    assert call("evaluate", run, "--pairs", pairs, "--images", faces, "--json", first) == 0
    assert call("embed", run, faces, "--out", vectors) == 0
    assert call("evaluate", "--embeddings", vectors, "--pairs", pairs, "--json", second) == 0
    ours, theirs = (json.loads(path.read_text())["protocols"] for path in (first, second))
    assert set(ours) == {"lfw_authors", "lfw_insightface", "lfw_facexzoo", "lfw_opensphere"}
    assert ours["lfw_authors"]["accuracy_10_fold"] == theirs["lfw_authors"]["accuracy_10_fold"]
    assert ours["lfw_authors"]["auc"] == pytest.approx(theirs["lfw_authors"]["auc"])
    assert "lfw_authors" in capsys.readouterr().out
    stored = load_vectors(vectors)
    assert stored.paths[0] == "P0/P0_0001.png"
    assert stored.embeddings.shape == (18, 8)
    point = json.loads((run / "calibration.json").read_text())
    assert point["num_same"] == 6


def test_evaluate_only_the_protocol_named(run: Path, faces: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    flags = ["--pairs", faces / "pairs.txt", "--images", faces, "--json", out]
    assert call("evaluate", run, *flags, "--protocol", "lfw_insightface") == 0
    assert set(json.loads(out.read_text())["protocols"]) == {"lfw_insightface"}


def test_compare_before_and_after_calibration(
    faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(tmp_path / "run", steps=1)
    train(config, console=quiet())
    first, second = faces / "P0" / "P0_0001.png", faces / "P1" / "P1_0001.png"
    assert call("compare", config.out, first, first) == 0
    said = capsys.readouterr().out
    assert "cosine 1.0000, angle 0.0°" in said
    assert "no threshold yet" in said
    flags = ["--pairs", faces / "pairs.txt", "--images", faces]
    assert call("evaluate", config.out, *flags) == 0
    capsys.readouterr()
    assert call("compare", config.out, first, second) == 0
    said = capsys.readouterr().out
    assert ("same person" in said) != ("different people" in said)
    assert "measured on pairs.txt" in said


def test_missing_images_are_listed_or_left_out(
    run: Path, faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = tmp_path / "pairs.txt"
    pairs.write_text((faces / "pairs.txt").read_text().replace("P2\t1\t2", "P2\t1\t9"))
    flags = ["evaluate", run, "--pairs", pairs, "--images", faces]
    assert f"missing (P2/P2_0009) in {faces}; add them" in refused(capsys, *flags)
    out = tmp_path / "out.json"
    assert call(*flags, "--allow-missing", "--json", out) == 0
    assert "1 of 12 pairs are left out" in capsys.readouterr().out
    entries = json.loads(out.read_text())["protocols"].values()
    assert {entry["pairs_left_out"] for entry in entries} == {1}


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_any_terminal_is_shown_the_results(
    run: Path, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    shown = io.BytesIO()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(shown, encoding, write_through=True))
    out = tmp_path / "out.json"
    pairs = faces / "pairs.txt"
    assert call("evaluate", run, "--pairs", pairs, "--images", faces, "--json", out) == 0
    image = faces / "P0" / "P0_0001.png"
    assert call("compare", run, image, image) == 0
    said = shown.getvalue().decode(encoding)
    assert "lfw_authors" in said
    assert ("angle 0.0 deg" if encoding == "ascii" else "angle 0.0°") in said
    assert "lfw_authors" in json.loads(out.read_text())["protocols"]


def test_all_is_kept_before_it_is_shown(
    run: Path, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **options: object) -> None:
        raise BrokenPipeError("nobody reads")

    monkeypatch.setattr("sphereface_jax.commands.evaluate.print_results", broken)
    (run / "calibration.json").unlink(missing_ok=True)
    out, pairs = tmp_path / "out.json", faces / "pairs.txt"
    assert call("evaluate", run, "--pairs", pairs, "--images", faces, "--json", out) == 2
    assert "lfw_authors" in json.loads(out.read_text())["protocols"]
    assert (run / "calibration.json").is_file()
    assert "lfw_authors" in (run / "MODEL_CARD.md").read_text()


def test_any_name_of_a_person_works_in_every_command(
    run: Path, faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "faces"
    shutil.copytree(faces, folder)
    try:
        os.rename(folder / "P0", os.fsencode(folder) + b"/Ren\xe9 [x]\nY")
    except OSError:
        pytest.skip("this file system takes no such name")
    config = tiny_config(tmp_path / "run", steps=1)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, train=str(folder)))
    assert call("train", *as_flags(config), f"--data.train={folder}") == 0
    assert call("evaluate", config.out, "--images", folder) == 0
    assert r"Ren\xe9" in (config.out / "report.html").read_text("utf-8")
    vectors = tmp_path / "v.npz"
    assert call("embed", run, folder, "--out", vectors) == 0
    assert os.fsdecode(b"Ren\xe9 [x]\nY/P0_0001.png") in load_vectors(vectors).paths
    (folder / os.fsdecode(b"Ren\xe9 [x]\nY") / "P0_0001.png").write_bytes(b"")
    assert call("embed", run, folder, "--out", tmp_path / "w.npz") == 2
    assert r"Ren\xe9 [x]" in capsys.readouterr().err


def test_embed_leaves_out_what_cannot_be_read_when_asked(
    run: Path, faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "faces", tmp_path / "v.npz"
    shutil.copytree(faces, folder)
    (folder / "P1" / "P1_0002.png").write_bytes(b"\x89PNG cut short")
    said = refused(capsys, "embed", run, folder, "--out", out)
    assert "P1_0002.png: not a whole image" in said
    assert not out.exists()
    assert call("embed", run, folder, "--out", out, "--on-error", "skip") == 0
    captured = capsys.readouterr()
    assert "17 embeddings of 8 numbers" in captured.out
    assert "v.npz.skipped.tsv: 1 images have no vector" in captured.out
    assert (tmp_path / "v.npz.skipped.tsv").read_text().startswith("P1/P1_0002.png\t")
    stored = load_vectors(out)
    assert len(stored.paths) == 17
    assert "P1/P1_0002.png" not in stored.paths
    whole = tmp_path / "whole.npz"
    assert call("embed", run, faces, "--out", whole) == 0
    rows = [load_vectors(whole).paths.index(path) for path in stored.paths]
    np.testing.assert_allclose(stored.embeddings, load_vectors(whole).embeddings[rows], atol=1e-6)
    flags = ["evaluate", run, "--pairs", faces / "pairs.txt", "--images", folder]
    assert "P1_0002.png: not a whole image" in refused(capsys, *flags)
    assert call(*flags, "--allow-missing") == 0
    said = capsys.readouterr().out
    assert "left out: " in said
    assert "1 of 12 pairs are left out" in said
    for image in folder.rglob("*.png"):
        image.write_bytes(b"")
    said = refused(
        capsys, "embed", run, folder, "--out", tmp_path / "none.npz", "--on-error", "skip"
    )
    assert "none of 18 can be read" in said


def test_names_that_differ_a_little_are_said(
    run: Path, faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = tmp_path / "pairs.txt"
    pairs.write_text((faces / "pairs.txt").read_text().replace("P", "p"))
    said = refused(capsys, "evaluate", run, "--pairs", pairs, "--images", faces)
    assert "'p0/p0_0001' is there as 'P0/P0_0001': upper and lower case must agree" in said
    # facenet's aligner puts the number of the face behind the name.
    for image in (faces / "P0").iterdir():
        path = tmp_path / "numbered" / "P0" / f"{image.stem}_0{image.suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image.read_bytes())
    flags = ["--pairs", faces / "pairs.txt", "--images", tmp_path / "numbered"]
    said = refused(capsys, "evaluate", run, *flags)
    assert "'P0/P0_0001' may be there as 'P0/P0_0001_0': give it the name" in said
    vectors = tmp_path / "v.npz"
    assert call("embed", run, faces, "--out", vectors) == 0
    said = refused(capsys, "evaluate", "--embeddings", vectors, "--pairs", pairs)
    assert "none of the 12 pairs has both of its sides; 'p0/p0_0001' is there as" in said


def test_what_is_passed_over_is_said_by_every_command(
    run: Path, faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "faces"
    shutil.copytree(faces, folder)
    (folder / "pairs.txt").unlink()
    (folder / "P1" / "notes.txt").write_text("no image")
    config = tiny_config(tmp_path / "run", steps=1)
    for command in (
        ["train", *as_flags(config), f"--data.train={folder}"],
        ["embed", run, folder, "--out", tmp_path / "v.npz"],
        ["evaluate", run, "--images", folder],
    ):
        assert call(*command) == 0
        said = capsys.readouterr().out
        assert "passed over 1 that are not images" in said
        assert "  P1/notes.txt: no image" in said
    listed = "P1/notes.txt\tno image\n"
    assert (config.out / "passed_over.tsv").read_text() == listed
    assert (tmp_path / "v.npz.skipped.tsv").read_text() == listed


def test_without_a_terminal_long_work_says_how_far_it_is() -> None:
    console, now = quiet(), iter([0.0, 10.0, 61.0, 70.0, 130.0])
    with counting(console, "embedding", "images", 400, clock=lambda: next(now)) as advance:
        for _ in range(4):
            advance(100)
    lines = console.file.getvalue().splitlines()
    assert lines == [
        "embedding: 200 of 400 images, 3.3/s, 0:01:01 left",
        "embedding: 400 of 400 images, 3.1/s, 0:00:00 left",
    ]


def test_mistakes_get_one_line(
    run: Path, faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = faces / "pairs.txt"
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    garbage = tmp_path / "garbage.npz"
    garbage.write_bytes(b"PK\x03\x04 no archive")
    whole = faces / "P0" / "P0_0001.png"
    tall = tmp_path / "tall.png"
    cv2.imwrite(str(tall), np.zeros((30, 20, 3), np.uint8))
    config = tiny_config(tmp_path / "new")
    assert "config.json" in refused(capsys, "compare", tmp_path, whole, whole)
    assert str(broken) in refused(capsys, "compare", run, whole, broken)
    assert "24x16" in refused(capsys, "compare", run, whole, tall)
    assert "both or neither" in refused(capsys, "evaluate", "--pairs", pairs)
    assert "--images" in refused(capsys, "evaluate", run, "--pairs", pairs)
    said = refused(capsys, "evaluate", "--embeddings", garbage, "--pairs", pairs)
    assert "garbage.npz: expected an .npz file of plain arrays" in said
    said = refused(capsys, "evaluate", "--embeddings", pairs, "--pairs", pairs)
    assert "sphereface embed" in said
    assert "pickle" not in said
    assert "found nothing" in refused(capsys, "embed", run, tmp_path / "no", "--out", "x.npz")
    assert "found a file" in refused(capsys, "embed", run, pairs, "--out", "x.npz")
    pairs_of_faces = ["--pairs", pairs, "--images"]
    said = refused(capsys, "evaluate", tmp_path / "no_run", *pairs_of_faces, faces)
    assert "expected a run's folder" in said
    assert "is that the right place" in refused(capsys, "evaluate", run, *pairs_of_faces, tmp_path)
    said = refused(capsys, "evaluate", run, *pairs_of_faces, faces, "--against", tmp_path / "no")
    assert "expected a run's folder or an .npz file, found none" in said
    below_a_file = as_flags(tiny_config(pairs / "run", steps=1))
    said = refused(capsys, "train", *below_a_file)
    assert f"{pairs / 'run'}: Not a directory; a folder above it is a file" in said
    missing_test = ["--out", tmp_path / "sets", "--check-overlap", tmp_path / "no"]
    assert f"{tmp_path / 'no'}: " in refused(capsys, "prepare", faces, *missing_test)
    assert not (tmp_path / "sets").exists()
    assert "did you mean train?" in refused(capsys, "trian", "--out", tmp_path / "new")
    assert "does not exist yet" in refused(capsys, "embed", run, faces, "--out", pairs)
    nowhere = tmp_path / "no" / "v.npz"
    assert "to write v.npz into, found none" in refused(
        capsys, "embed", run, faces, "--out", nowhere
    )
    bad_name = [*as_flags(config), "--loss.name", "spherefaze"]
    assert "loss.name: expected one of" in refused(capsys, "train", *bad_name)
    other = as_flags(dataclasses.replace(tiny_config(run, steps=4), seed=9))
    assert "seed: 0 -> 9" in refused(capsys, "train", *other)
    protocol = ["--pairs", pairs, "--images", faces, "--protocol", "lfw"]
    assert "protocol: expected one of" in refused(capsys, "evaluate", run, *protocol)
    assert not (tmp_path / "new").exists()


def test_a_misspelt_option_exits_with_2(tmp_path: Path) -> None:
    assert call("train", "--out", tmp_path / "run", "--setps", "3") == 2


def test_vectors_round_trip_and_refuse_what_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "v.npz"
    vectors = FaceVectors(["a/a_0001.jpg", "b/b_0001.jpg"], np.eye(2, 3), np.ones((2, 3)))
    save_vectors(path, vectors)
    again = load_vectors(path)
    assert again.paths == vectors.paths
    np.testing.assert_array_equal(again.features(), vectors.features())
    assert [entry.name for entry in tmp_path.iterdir()] == ["v.npz"]
    np.savez(path, paths=np.array(["a"]), embeddings=np.eye(2))
    with pytest.raises(ValueError, match=r"expected paths \[N\] and embeddings \[N, D\]"):
        load_vectors(path)
    np.savez(path, paths=np.array([{}], dtype=object), embeddings=np.eye(1))
    with pytest.raises(ValueError, match="expected an \\.npz file"):
        load_vectors(path)

"""From a cosine to evidence on the command line: calibrate, compare, groups, refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
from command import call, refused
from imported_run import make_run
from task_sets import evaluate, people_folder, people_pairs, store, write_lines

from sphereface_jax.embedder import FaceEmbedder

SIZE = (24, 16)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("evidence"), "spherenet4", SIZE)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return people_folder(tmp_path_factory.mktemp("faces"))


def one_line(text: str) -> str:
    return " ".join(text.split())


def test_compare_says_what_a_cosine_is_worth(
    run: Path, faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--pairs", people_pairs(tmp_path), "--images", faces]
    found = evaluate(tmp_path, run, *flags, "--recalibrate")
    assert "lfw_authors" in found
    evidence = json.loads((tmp_path / "out.json").read_text())["evidence"]["pairs.txt"]
    assert 0 <= evidence["min_cllr"] <= 1
    assert evidence["error_versus_reject"]["pairs_kept"][0] == 12
    said = one_line(capsys.readouterr().out)
    assert "likelihood.npz: likelihood ratios for `sphereface compare`" in said
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Reliability on pairs.txt" in page
    assert "Refusing short embeddings on pairs.txt" in page
    first = faces / "P0" / "P0_0001.png"
    assert call("compare", run, first, first, "--gallery-size", 100) == 0
    said = one_line(capsys.readouterr().out)
    assert "cosine 1.0000" in said
    assert "none of 6 pairs of strangers of pairs.txt scores as high: fewer than one" in said
    assert "pairs that share no person" in said
    assert "a gallery of 100 people: at most" in said
    assert call("compare", run, first, faces / "P1" / "P1_0001.png") == 0
    said = one_line(capsys.readouterr().out)
    assert "likelihood ratio" in said
    assert "a gallery of" not in said
    assert "expected at least 1" in refused(
        capsys, "compare", run, first, first, "--gallery-size", 0
    )


def test_short_embeddings_are_not_decided(
    run: Path, faces: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = faces / "P0" / "P0_0001.png"
    assert call("compare", run, first, first, "--min-length", 1e9) == 0
    said = one_line(capsys.readouterr().out)
    assert "not decided" in said
    assert "same person" not in said


def test_lengths_are_those_that_normalisation_takes_away(run: Path, faces: Path) -> None:
    embedder = FaceEmbedder.from_run(run)
    path = faces / "P0" / "P0_0001.png"
    unit, lengths = embedder.embed([path], lengths=True)
    raw = embedder.embed_paths([path]).embeddings
    np.testing.assert_allclose(unit * lengths[:, None], raw, rtol=1e-5)
    np.testing.assert_array_equal(unit, embedder.embed([path]))


def test_stored_evidence_is_replaced_only_when_asked_and_damage_is_named(
    run: Path, faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["evaluate", run, "--pairs", people_pairs(tmp_path), "--images", faces]
    assert call(*flags, "--recalibrate", "--likelihood", "isotonic") == 0
    stored = run / "likelihood.npz"
    before = stored.read_bytes()
    assert call(*flags) == 0
    assert stored.read_bytes() == before
    assert "what is there stays; --recalibrate replaces it" in one_line(capsys.readouterr().out)
    stored.write_bytes(before[:100])
    image = faces / "P0" / "P0_0001.png"
    assert "likelihood.npz: expected" in refused(capsys, "compare", run, image, image)
    stored.unlink()
    assert call("compare", run, image, image) == 0
    assert "no likelihood ratio yet" in one_line(capsys.readouterr().out)


def biased_vectors(directory: Path) -> tuple[Path, Path, Path]:
    """Vectors, pairs and groups of 120 people; strangers of group w look alike."""
    rng = np.random.default_rng(0)
    common = 2.0 * rng.normal(size=16)
    vectors, people = {}, [f"{'mw'[n % 2]}{n:03d}" for n in range(120)]
    for person in people:
        centre = rng.normal(size=16) + (common if person[0] == "w" else 0)
        for image in (1, 2):
            name = f"s/{person}/{person}_{image:04d}.jpg"
            vectors[name] = (1 + rng.uniform()) * (centre + 0.5 * rng.normal(size=16))
    lines = ["1\t480"]
    lines += [f"{person}\t1\t2" for person in people for _ in range(4)]
    lines += [
        f"{people[n]}\t1\t{people[(n + 2 * step) % 120]}\t2" for step in range(1, 5)
        for n in range(120)
    ]  # fmt: skip
    groups = write_lines(directory / "groups.txt", *(f"{name}\t{name[0]}" for name in people))
    pairs = write_lines(directory / "pairs.txt", *lines)
    return store(directory / "vectors.npz", vectors), pairs, groups


def test_groups_of_people_are_compared_and_the_worst_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors, pairs, groups = biased_vectors(tmp_path)
    evaluate(tmp_path, "--embeddings", vectors, "--pairs", pairs, "--groups", groups)
    report = json.loads((tmp_path / "out.json").read_text())["evidence"]["pairs.txt"]["groups"]
    assert report["worst"]["false_accepts"] == "w"
    assert report["groups"]["w"]["false_accepts"]["trials"] == 240
    said = one_line(capsys.readouterr().out)
    assert "w has more false accepts than the other groups" in said
    lines = pairs.read_text().splitlines()
    column = [lines[0], *(f"{line}\t{line[0]}" for line in lines[1:])]
    listed = write_lines(tmp_path / "column" / "pairs.txt", *column)
    evaluate(tmp_path, "--embeddings", vectors, "--pairs", listed)
    again = json.loads((tmp_path / "out.json").read_text())["evidence"]["pairs.txt"]["groups"]
    assert again == report


def test_wrong_groups_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vectors, pairs, groups = biased_vectors(tmp_path)
    flags = ["evaluate", "--embeddings", vectors, "--groups", groups]
    assert "--groups: expected --pairs" in refused(capsys, *flags)
    write_lines(groups, "m000\tm", "m000\tw")
    assert "groups.txt:2: expected one group for m000" in refused(capsys, *flags, "--pairs", pairs)
    write_lines(groups, "m000")
    assert "groups.txt:1: expected 'Name<TAB>group'" in refused(capsys, *flags, "--pairs", pairs)
    write_lines(groups, "m000\tm")
    assert "two groups or more" in refused(capsys, *flags, "--pairs", pairs)

"""Every experiment runs at its smallest and writes what its table and figure need."""

import dataclasses
import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from experiments import figures, pages, plots, sphere_figure, study, tables
from experiments.benchmark_lists import draw_people, write_pairs

pytestmark = pytest.mark.slow

STUDIES = {
    "margins": ["softmax", "m = 4"],
    "depth": ["SphereNet-4", "SphereNet-10"],
    "losses": ["subcenter_arcface", "adaface", "sphereface2"],
    "lambda_schedules": ["λ 5 from the start", "λ 0 from the start"],
    "gradients": ["detached", "caffe"],
}


def run(name: str, tmp_path: Path, options=study.Options, **changes) -> dict:
    """Runs an experiment's smoke preset in this process and returns its results."""
    out = tmp_path / "results.json"
    main = importlib.import_module(f"experiments.{name}").main
    main(options(preset="smoke", runs=tmp_path / "runs", out=out, **changes))
    results = json.loads(out.read_text())
    assert results["machine"]["cores"] >= 1
    assert results["seconds"] > 0
    return results


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_trains_and_examines_its_variants(name: str, tmp_path: Path) -> None:
    seeds = 2 if name == "margins" else 1
    results = run(name, tmp_path, study.StudyOptions, seeds=seeds)
    assert list(results["variants"]) == STUDIES[name]
    for row in results["variants"].values():
        assert row["verification"]["num_pairs"] == 40
        assert row["training"]["curve"]["step"] == [1, 2, 3, 4, 5, 6]
        assert len(row["accuracy_by_seed"]) == seeds
    changes = {tuple(row["changes"]) for row in results["variants"].values()}
    assert len(changes) == len(STUDIES[name])
    section = figures.SECTIONS[name]
    assert section.table(results).count("\n") == len(STUDIES[name]) + 1
    assert ("mean of 2 seeds" in section.table(results)) == (seeds == 2)
    for end, draw in section.figures.items():
        draw(results, tmp_path / f"figure{end}")
        assert "<svg" in (tmp_path / f"figure{end}").read_text()[:1000]


def test_spheres(tmp_path: Path) -> None:
    results = run("sphere3d", tmp_path)
    assert list(results["variants"]) == ["m = 1", "m = 4"]
    assert len(results["labels"]) == 18
    points = np.array(results["variants"]["m = 4"]["points"])
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1, atol=1e-3)
    sphere_figure.draw_still(results, tmp_path / "still.png")
    assert (tmp_path / "still.png").stat().st_size > 10_000
    sphere_figure.draw_turning(results, tmp_path / "turning.html")
    assert "plotly" in (tmp_path / "turning.html").read_text(encoding="utf-8")
    assert tables.spheres(results).count("\n") == 3


def test_spheres_of_the_most_photographed(tmp_path: Path) -> None:
    for person in range(8):
        draw_people(tmp_path / "faces", 1, person + 4, study.SMOKE.data.image_size, person)
    results = run("sphere3d", tmp_path, train=str(tmp_path / "faces"))
    shown = np.bincount(results["labels"])
    assert shown.tolist() == [2, 2, 2, 2, 1, 1]  # a quarter of 11, 10, 9, 8, 7 and 6
    listed = (tmp_path / "runs" / "sphere3d_smoke" / "six_people.txt").read_text()
    assert len(listed.splitlines()) == 51 - 10
    assert "P000001/" not in listed


def test_the_paper_s_recipe_on_drawn_sets(tmp_path: Path) -> None:
    casia = importlib.import_module("experiments.casia_lfw_ytf")
    results = run("casia_lfw_ytf", tmp_path, casia.BenchmarkOptions)
    found = results["benchmarks"]
    assert found["LFW"]["lfw_authors"]["num_pairs"] == 40
    assert found["YTF"]["ytf_average"]["num_pairs"] == 40
    (search,) = [found[name] for name in found if "MegaFace" in name]
    assert search["megaface"]["num_distractors"] == 8
    assert search["megaface"]["num_searches"] == 40
    assert "`ytf_best_frame`" in tables.benchmarks(results)


def test_planted_noise_is_learnt_and_looked_for(tmp_path: Path) -> None:
    noisy = importlib.import_module("experiments.noisy_labels")
    results = run("noisy_labels", tmp_path, noisy.NoisyOptions, seeds=1)
    assert set(results["mean_regained"]) == set(noisy.REMEDIES)
    found = results["another network"]["flips 0.2"]
    assert min(found["precision"], found["recall"]) > 0.5


def test_a_million_classes_in_small(tmp_path: Path) -> None:
    results = run("scale_classes", tmp_path)
    assert results["largest_relative_difference"] < 1e-4
    assert all(row["peak_gib"] > 0 for row in results["variants"].values())
    assert tables.classes(results).count("\n") == 1 + len(results["variants"])
    plots.draw_classes(results, tmp_path / "classes.svg")


def test_plain_torch_learns_the_same(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="PyTorch is in the extra `parity`")
    results = run("benchmarks.accuracy", tmp_path)
    assert results["goals"]["first_steps"]["met"]
    for seed in results["seeds"].values():
        np.testing.assert_allclose(seed["here"]["losses"], seed["there"]["losses"], rtol=1e-4)
        assert seed["here"]["losses"][0] != seed["here"]["losses"][-1]
    assert results["seeds"]["seed 0"] != results["seeds"]["seed 1"]
    assert "| met |" in tables.goals(results)
    plots.draw_accuracy(results, tmp_path / "accuracy.svg")


def test_lfw_takes_the_place_of_the_synthetic_exam(tmp_path: Path) -> None:
    size, first = study.SMOKE.data.image_size, 100
    draw_people(tmp_path / "lfw", 20, 2, size, first)
    write_pairs(tmp_path / "pairs.txt", first)
    lfw = {"pairs": tmp_path / "pairs.txt", "images": tmp_path / "lfw"}
    exam = study.Options(preset="smoke", **lfw).exam()
    assert exam.title == "pairs.txt, 40 pairs"
    assert exam.people[0] == "P000100"
    is_same = np.array(exam.people)[exam.pairs.left] == np.array(exam.people)[exam.pairs.right]
    np.testing.assert_array_equal(is_same, exam.pairs.is_same)
    assert exam.images[int(exam.pairs.left[0])]["image"].shape == (*size, 3)
    (tmp_path / "lfw" / "P000100" / "P000100_0001.png").unlink()
    with pytest.raises(FileNotFoundError, match="1 of its 40 images are not in"):
        study.Options(preset="smoke", **lfw).exam()


def test_results_are_never_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    out.write_text("{}")
    margins = importlib.import_module("experiments.margins")
    with pytest.raises(ValueError, match="expected no results yet"):
        margins.main(study.StudyOptions(preset="smoke", runs=tmp_path / "runs", out=out))
    assert not (tmp_path / "runs").exists()


def test_a_preset_without_its_data_says_so(tmp_path: Path) -> None:
    margins = importlib.import_module("experiments.margins")
    with pytest.raises(ValueError, match="--pairs: the paper preset needs it"):
        margins.main(
            study.StudyOptions(preset="paper", train="faces", out=tmp_path / "results.json")
        )


def test_a_run_that_diverges_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rate = dataclasses.replace(study.SMOKE.optimizer, learning_rate=1e30)
    monkeypatch.setattr(study, "SMOKE", dataclasses.replace(study.SMOKE, optimizer=rate))
    results = run("gradients", tmp_path, study.StudyOptions)
    row = results["variants"]["detached"]
    assert row["diverged"].startswith("step ")
    assert "verification" not in row
    assert "detached diverged: step " in tables.study(results, "gradient")
    plots.draw_curves(results, tmp_path / "curves.svg")


def test_the_page_of_results_is_fresh() -> None:
    page = (pages.DOCS / "results.md").read_text(encoding="utf-8")
    assert page == figures.page(figures.measured()), "run `python -m experiments.figures`"


def test_every_figure_on_the_page_is_there() -> None:
    for name, (section, _, _) in figures.measured().items():
        for end in section.figures:
            assert end == ".html" or (pages.DOCS / "images" / f"{name}{end}").is_file()


def test_evidence_of_simulated_people(tmp_path: Path) -> None:
    evidence = importlib.import_module("experiments.evidence")
    evidence.main(evidence.Options(draws=3, out=tmp_path / "evidence.json"))
    results = json.loads((tmp_path / "evidence.json").read_text())
    assert results["coverage"]["FAR 0.01"]["draws"] == 3
    assert results["groups"]["named"]["planted"] >= 2


def test_the_faces_preset_learns_from_a_list() -> None:
    options = study.StudyOptions(preset="faces", train="train.txt", root="faces")
    data = importlib.import_module("experiments.depth").variants(options)["SFNet-20"].data
    assert (data.train, data.root) == ("train.txt", "faces")
    with pytest.raises(ValueError, match="--pairs: the faces preset needs it"):
        options.exam()
    with pytest.raises(ValueError, match="--preset: expected one of smoke, cpu, paper, got faces"):
        importlib.import_module("experiments.lambda_schedules").variants(options)

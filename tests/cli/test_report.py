"""The report: what an evaluation keeps for it, what the page says, and what it must not hold."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from command import call, refused
from report_runs import VIEWS, evaluate_run, train_run, write_test_faces
from tiny_run import as_flags, tiny_config

from sphereface_jax.commands.keep import load_stored, store
from sphereface_jax.commands.report import read_run
from sphereface_jax.data.images import decode_image
from sphereface_jax.reports.html import escape
from sphereface_jax.reports.plots_errors import angle_plots
from sphereface_jax.reports.plots_geometry import project
from sphereface_jax.reports.plots_training import smooth
from sphereface_jax.reports.report import render_report
from sphereface_jax.reports.run_record import RunRecord, Score, collect_scores
from sphereface_jax.reports.stored import (
    Pictures,
    StoredPairs,
    StoredPeople,
    StoredPrototypes,
    measure_people,
    measure_prototypes,
)
from sphereface_jax.reports.tables import tables_of_one

PLOTLY = re.compile(r"<script>\s*/\*\*\s*\* plotly\.js.*?</script>", re.S)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_test_faces(tmp_path_factory.mktemp("faces"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody evaluated."""
    return train_run(tmp_path_factory.mktemp("runs") / "trained")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory, faces: Path) -> Path:
    run = train_run(tmp_path_factory.mktemp("runs") / "evaluated", seed=1)
    evaluate_run(run, faces)
    return run


def page_of(run: Path) -> str:
    """The report's HTML without plotly.js."""
    text = (run / "report.html").read_text(encoding="utf-8")
    without, count = PLOTLY.subn("", text)
    assert count == 1, "plotly.js is in the page once"
    return without


def figure_titles(page: str) -> list[str]:
    return re.findall(r'<figure class="plot.*?<h3>(.*?)</h3>', page, re.S)


# ---- evidence


def test_people_are_measured_in_degrees() -> None:
    angles = np.radians([0, 20, 90, 90, 200])
    vectors = np.stack([np.cos(angles), np.sin(angles), np.zeros(5)], axis=1) * 3
    found = measure_people(vectors, ["a", "a", "b", "b", "c"], title="t", step=7)
    assert found is not None
    assert found.people.tolist() == ["a", "b"]
    np.testing.assert_allclose(found.spread, [10, 0], atol=1e-3)
    # c has one image: no spread of its own, yet somebody's neighbour it could be.
    np.testing.assert_allclose(found.nearest, [80, 80], atol=1e-3)
    assert found.nearest_name.tolist() == ["b", "a"]
    assert found.shown.tolist() == ["a", "b"]
    assert found.shown_index.tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(np.linalg.norm(found.embeddings, axis=1), 1, atol=1e-3)
    assert measure_people(vectors, ["a", "a", "b", "c", "d"], title="t", step=7) is None
    assert measure_people(0 * vectors, ["a", "a", "b", "b", "c"], title="t", step=7) is None


def test_prototypes_that_are_orthogonal() -> None:
    found = measure_prototypes(5 * np.eye(4), step=1)
    assert found is not None
    np.testing.assert_allclose(found.nearest, 90, atol=1e-3)
    assert found.angles[89:91].sum() == found.angles.sum() == 6
    assert measure_prototypes(np.ones((1, 3)), step=1) is None


def names_of(pair: int) -> list[str]:
    """The images of a pair of `write_test_faces`: five of one person and five of two, twice."""
    fold, place = divmod(pair, 10)
    person = 5 * fold + place % 5
    sides = [(person, 1), (person, 2)] if place < 5 else [(person, 3), ((person + 1) % 10, 4)]
    return [f"P{number}_000{view}.png" for number, view in sides]


def test_an_evaluation_keeps_the_hardest_pairs_and_their_faces(evaluated: Path) -> None:
    evidence = load_stored(evaluated, StoredPairs, "pairs-*")["pairs-pairs.txt"]
    assert len(evidence.cosine) == len(evidence.is_same) == 20
    assert set(evidence.scores) == {
        "lfw_authors", "lfw_insightface", "lfw_facexzoo", "lfw_opensphere"
    }  # fmt: skip
    kinds = evidence.is_same[evidence.hardest]
    different = evidence.cosine[evidence.hardest][~kinds]
    assert different[0] == evidence.cosine[~evidence.is_same].max()
    assert (np.diff(different) <= 0).all()
    assert (np.diff(evidence.cosine[evidence.hardest][kinds]) >= 0).all()
    assert len(evidence.pictures) == len(evidence.names) == 2 * len(evidence.hardest)
    assert [Path(name).name for name in evidence.names] == [
        name for pair in evidence.hardest.tolist() for name in names_of(pair)
    ]
    assert decode_image(evidence.pictures[3], "a picture").shape == (24, 16, 3)


def test_an_evaluation_keeps_people_and_prototypes(evaluated: Path) -> None:
    people = load_stored(evaluated, StoredPeople, "people-*")
    assert {int(each.num_images) for each in people.values()} == {10 * VIEWS}
    assert all(len(each.shown) == len(each.pictures) == 8 for each in people.values())
    prototypes = load_stored(evaluated, StoredPrototypes, "prototypes")["prototypes"]
    assert int(prototypes.num_prototypes) == 6
    assert prototypes.angles.sum() == 15


def test_evidence_is_never_unpickled_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    spread = measure_prototypes(np.eye(3), step=1)
    store(tmp_path, "../up and away", spread)
    assert [path.name for path in (tmp_path / "evidence").iterdir()] == ["_up_and_away.npz"]
    path = tmp_path / "evidence" / "prototypes.npz"
    for content in (
        {"nearest": np.array([{}], dtype=object)},
        {"nearest": np.zeros(3)},
    ):
        np.savez(path, **content)
        with pytest.raises(ValueError, match=r"prototypes\.npz: expected a report's data"):
            load_stored(tmp_path, StoredPrototypes, "prototypes")
    path.write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(ValueError, match=r"prototypes\.npz: expected a report's data"):
        load_stored(tmp_path, StoredPrototypes, "prototypes")


def test_pictures_come_back_one_by_one() -> None:
    pictures = Pictures.of([b"one", b"", b"three"])
    assert [pictures[index] for index in range(len(pictures))] == [b"one", b"", b"three"]
    assert len(Pictures.of([])) == 0


# ---- what is drawn


def test_three_dimensions_are_shown_as_they_are() -> None:
    vectors = np.random.default_rng(0).normal(size=(20, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    view = project(vectors, vectors[:2])
    assert view.kept == 1
    np.testing.assert_allclose(view.points, vectors)
    np.testing.assert_allclose(view.prototypes, vectors[:2])


def test_more_dimensions_keep_their_three_largest() -> None:
    rng = np.random.default_rng(0)
    scales = np.array([5.0, 4.0, 3.0, 0.01, 0.01])
    vectors = rng.normal(size=(200, 5)) * scales
    view = project(vectors, np.empty((0, 5)))
    assert 0.999 < view.kept < 1
    np.testing.assert_allclose(np.linalg.norm(view.points, axis=1), 1)
    inside = (vectors - vectors.mean(axis=0))[:, :3]
    inside /= np.linalg.norm(inside, axis=1, keepdims=True)
    np.testing.assert_allclose(view.points @ view.points.T, inside @ inside.T, atol=0.02)


def test_smoothing_does_not_lag() -> None:
    line = np.arange(500.0)
    np.testing.assert_allclose(smooth(line)[60:-60], line[60:-60])
    noise = np.random.default_rng(0).normal(size=500)
    assert smooth(noise).std() < 0.4 * noise.std()


def test_the_newest_evaluation_of_a_list_counts() -> None:
    old = {"step": 1, "protocols": {"a": {"input": "x", "auc": 0.1}, "b": {"input": "x"}}}
    new = {"step": 2, "protocols": {"a": {"input": "x", "auc": 0.9}}}
    found = {(score.protocol, score.on): score for score in collect_scores([old, new])}
    assert found["a", "x"].numbers["auc"] == 0.9
    assert found["b", "x"].step == 1


def test_protocols_without_an_accuracy_have_their_row_too() -> None:
    rates = {"tar_at_far": {"1e-4": 0.25}, "auc": 0.75, "equal_error_rate": 0.125}
    ranks = {"rank_k": {"1": 0.5}, "dir_at_far": {"1e-1": 0.375}}
    scores = [Score("ijb_1_1", "IJB", 1, rates), Score("ijb_1_n", "IJB", 1, ranks)]
    verification, identification = tables_of_one(
        RunRecord(name="run", folder="run", config={}, scores=scores)
    )
    for cell in ("ijb_1_1", "0.7500", "12.50%", "25.0%"):
        assert f">{cell}<" in verification
    for cell in ("ijb_1_n", "50.00%", "DIR at 1e-1", "37.5%"):
        assert f">{cell}<" in identification


# ---- the page


def test_a_run_without_evaluation_says_what_is_missing(trained: Path) -> None:
    assert call("report", trained) == 0
    page = page_of(trained)
    command = f"sphereface evaluate {trained}"
    for name in ("sphere", "decisions", "protocols", "mistakes", "people"):
        part = re.search(rf'<section id="{name}".*?</section>', page, re.S)
        assert part is not None
        assert command in part[0], name
        assert "<figure" not in part[0], name
    assert figure_titles(page)[:2] == ["Loss", "Annealing λ"]


def test_an_evaluated_run_shows_everything(evaluated: Path, faces: Path) -> None:
    page = page_of(evaluated)
    titles = figure_titles(page)
    for title in (
        f"People of {faces.name}",
        "Loss",
        "Angles of the pairs of pairs.txt",
        "ROC on pairs.txt",
        "DET on pairs.txt",
        "Prototypes on the hypersphere",
    ):
        assert title in titles
    scores = json.loads((evaluated / "evaluations" / "pairs.txt.json").read_text())["protocols"]
    for name, numbers in scores.items():
        assert f">{name}<" in page
        assert f"{numbers['accuracy_10_fold']:.2%}" in page
    evidence = load_stored(evaluated, StoredPairs, "pairs-*")["pairs-pairs.txt"]
    threshold = json.loads((evaluated / "calibration.json").read_text())["threshold"]
    wrong = (evidence.cosine > threshold) != evidence.is_same
    shown = re.search(r'<section id="mistakes".*?</section>', page, re.S)
    assert shown is not None
    assert shown[0].count("<img") == 2 * wrong[evidence.hardest].sum()


def test_a_plot_names_its_run_where_there_are_several(evaluated: Path) -> None:
    runs = [read_run(evaluated, name) for name in ("first", "second")]
    titles = [plot.title for plot in angle_plots(runs, "pairs.txt")]
    (alone,) = angle_plots(runs[:1], "pairs.txt")
    assert alone.title == "Angles of the pairs of pairs.txt"
    assert titles == [f"{name}: angles of the pairs of pairs.txt" for name in ("first", "second")]


def test_the_page_asks_the_network_for_nothing(evaluated: Path) -> None:
    page = page_of(evaluated)
    assert not re.search(r'(src|href)="(?!#|data:)', page)
    assert "default-src 'none'" in page
    assert not re.search(r"url\((?!data:)", page)


def test_faces_can_be_left_out(evaluated: Path, tmp_path: Path) -> None:
    out = tmp_path / "public.html"
    assert call("report", evaluated, "--out", out, "--no-faces") == 0
    assert "data:image" not in PLOTLY.sub("", out.read_text(encoding="utf-8"))
    assert "data:image" in page_of(evaluated)


def test_several_runs_share_a_page(
    trained: Path, evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "both.html"
    assert call("report", trained, evaluated, "--out", out) == 0
    assert str(out) in capsys.readouterr().out
    page = PLOTLY.sub("", out.read_text(encoding="utf-8"))
    part = re.search(r">Fields that differ.*?</table>", page, re.S)
    assert part is not None
    assert re.findall(r'<th scope="row">(.*?)</th>', part[0]) == ["seed"]
    assert figure_titles(page).count("Loss") == 1


def test_a_run_that_went_on_after_its_test_says_so(evaluated: Path) -> None:
    record = read_run(evaluated, "run")
    assert "evaluate it again" not in render_report([record])
    later = [*record.metrics, {**record.metrics[-1], "step": 99}]
    page = render_report([dataclasses.replace(record, metrics=later)])
    assert "tested at step 12 and is at step 99: evaluate it again" in page


def test_names_from_outside_are_text(evaluated: Path) -> None:
    record = read_run(evaluated, "run")
    name, evidence = next(iter(record.people.items()))
    evil = "</script><script>alert(1)</script>"
    named = dataclasses.replace(
        evidence,
        shown=np.array([evil, *evidence.shown[1:]]),
        people=np.array([evil, *evidence.people[1:]]),
    )
    page = render_report([dataclasses.replace(record, name=evil, people={name: named})])
    assert evil not in page
    assert escape(evil) in page
    assert escape("a `b<c` d") == "a <code>b&lt;c</code> d"


def test_a_name_in_backquotes_is_plain_text_in_attributes(evaluated: Path) -> None:
    record = read_run(evaluated, "run")
    page = render_report([dataclasses.replace(record, name="a `b`")])
    assert "<title>a `b` – sphereface report</title>" in page
    assert "<h1>a <code>b</code></h1>" in page
    assert not re.search(r'(alt|aria-label)="[^"]*<', PLOTLY.sub("", page))


def test_reports_refuse_what_is_no_run(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "config.json" in refused(capsys, "report", tmp_path)
    assert "folder that exists" in refused(
        capsys, "report", trained, "--out", tmp_path / "no" / "page.html"
    )
    assert not list(tmp_path.iterdir())


# ---- the hooks


def test_train_writes_a_report_and_again_once_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    flags = as_flags(tiny_config(run, steps=2))
    assert call("train", *flags) == 0
    assert str(run / "report.html") in capsys.readouterr().out
    assert "People it learnt" in figure_titles(page_of(run))
    learnt = load_stored(run, StoredPeople, "training")["training"]
    assert len(learnt.prototypes) == len(learnt.shown) == 6
    kept = (run / "evidence" / "training.npz").stat().st_mtime_ns
    (run / "report.html").unlink()
    assert call("train", *flags) == 0
    assert (run / "report.html").is_file()
    assert (run / "evidence" / "training.npz").stat().st_mtime_ns == kept
    assert not list(run.rglob("*.tmp"))


def test_evaluate_prints_where_the_report_is(
    evaluated: Path, faces: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("evaluate", evaluated, "--pairs", faces / "pairs.txt", "--images", faces) == 0
    assert str(evaluated / "report.html") in capsys.readouterr().out

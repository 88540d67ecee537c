"""Every protocol through the command, on images that a run embeds, and its threshold."""

import dataclasses
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import call, refused
from faces_on_disk import write_image
from task_sets import (
    FACES,
    MEGAFACE,
    PEOPLE,
    evaluate,
    ijb_folder,
    megaface_lists,
    people_folder,
    people_pairs,
    store,
    videos,
    write_lines,
)
from tiny_run import quiet, tiny_config

from sphereface_jax.data.alignment import Detection, align_face
from sphereface_jax.data.images import encode_png, read_image
from sphereface_jax.data.packs import write_pack
from sphereface_jax.data.source import ImageSequence
from sphereface_jax.embedder import FaceEmbedder
from sphereface_jax.evaluation.pairs import Pairs
from sphereface_jax.evaluation.verification import lfw_insightface
from sphereface_jax.tasks.ijb import IjbTask
from sphereface_jax.training.loop import train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step; it takes faces of any size."""
    config = tiny_config(tmp_path_factory.mktemp("runs") / "run", steps=1)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, resize=True))
    train(config, console=quiet())
    return config.out


@pytest.fixture(autouse=True)
def no_calibration(request: pytest.FixtureRequest) -> None:
    """Each test meets the run as it was trained."""
    if "run" in request.fixturenames:
        (request.getfixturevalue("run") / "calibration.json").unlink(missing_ok=True)


def test_mcnemar_against_a_run(run: Path, tmp_path: Path) -> None:
    folder, pairs = people_folder(tmp_path / "faces"), people_pairs(tmp_path)
    vectors = tmp_path / "v.npz"
    assert call("embed", run, folder, "--out", vectors) == 0
    flags = ["--embeddings", vectors, "--pairs", pairs, "--images", folder]
    against = evaluate(tmp_path, *flags, "--against", run)["lfw_authors"]["against"]
    assert (against["only_first"], against["only_second"], against["p_value"]) == (0, 0, 1.0)


def test_a_stored_threshold_is_replaced_only_when_asked(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = people_folder(tmp_path / "faces")
    flags = ["evaluate", run, "--pairs", people_pairs(tmp_path), "--images", folder]
    stored = run / "calibration.json"
    assert call(*flags, "--max-far", "0.2") == 0
    point = json.loads(stored.read_text())
    assert point["max_far"] == 0.2
    assert point["false_accept_rate"] <= 0.2
    assert point["step"] == 1
    assert "is what `sphereface compare` uses" in capsys.readouterr().out
    assert call(*flags) == 0
    said = capsys.readouterr().out
    assert f"threshold {point['threshold']:.4f} (measured on pairs.txt" in said
    assert "stays; --recalibrate replaces it" in said
    assert json.loads(stored.read_text()) == point
    assert call(*flags, "--recalibrate") == 0
    assert json.loads(stored.read_text())["max_far"] is None


def test_a_rate_that_few_pairs_cannot_show_is_neither_printed_nor_stored(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = people_folder(tmp_path / "faces")
    flags = [run, "--pairs", people_pairs(tmp_path), "--images", folder, "--max-far", "1e-6"]
    found = evaluate(tmp_path, *flags)["lfw_authors"]
    assert found["tar_at_far"] == {"1e-1": None, "1e-2": None, "1e-3": None}
    said = " ".join(capsys.readouterr().out.split())
    assert "fewer than 1 in 6 cannot be shown with 6 different pairs" in said
    assert "6 pairs of different people; 1e-06 takes 1,000,000; no threshold is stored" in said
    assert not (run / "calibration.json").exists()
    image = folder / "P0" / "P0_0001.png"
    assert call("compare", run, image, image) == 0
    assert "no threshold yet" in capsys.readouterr().out


def test_compare_says_when_the_threshold_is_of_other_weights(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = people_folder(tmp_path / "faces")
    image = folder / "P0" / "P0_0001.png"
    assert call("evaluate", run, "--pairs", people_pairs(tmp_path), "--images", folder) == 0
    stored = run / "calibration.json"
    capsys.readouterr()
    assert call("compare", run, image, image) == 0
    assert "it is of step" not in capsys.readouterr().out
    stored.write_text(json.dumps(json.loads(stored.read_text()) | {"step": 7}))
    assert call("compare", run, image, image) == 0
    assert "it is of step 7 and the run is at 1" in capsys.readouterr().out
    stored.write_text("{}")
    assert "calibration.json: expected threshold" in refused(capsys, "compare", run, image, image)


def test_packs_are_scored_by_name(run: Path, tmp_path: Path) -> None:
    images = [FACES[index]["image"] for index in range(24)]
    is_same = np.arange(20) % 2 == 0
    for name, step in (("easy", 1), ("hard", 5)):
        right = [images[(p + (step if same else 9)) % 24] for p, same in enumerate(is_same)]
        sides = [image for pair in zip(images[:20], right, strict=True) for image in pair]
        write_pack(tmp_path / f"{name}.bin", [encode_png(image) for image in sides], is_same)
    packs = [tmp_path / "easy.bin", tmp_path / "hard.bin"]
    found = evaluate(tmp_path, run, "--pack", *packs, "--protocol", "lfw_insightface")
    assert set(found) == {"easy/lfw_insightface", "hard/lfw_insightface"}
    embeddings, mirrored = FaceEmbedder.from_run(run).embed_source(FACES)
    left = np.arange(20)
    pairs = Pairs(
        left, (left + np.where(is_same, 5, 9)) % 24, is_same=is_same, folds=np.arange(20) // 2
    )
    expected = lfw_insightface(embeddings, pairs, mirrored=mirrored)
    assert found["hard/lfw_insightface"]["accuracy_10_fold"] == expected.accuracy_10_fold
    assert found["hard/lfw_insightface"]["auc"] == pytest.approx(expected.auc)
    assert "intervals_95" not in found["easy/lfw_insightface"]  # a pack names no people
    assert json.loads((run / "calibration.json").read_text())["pairs"] == "easy"


@pytest.mark.parametrize("count", [1, 3])
def test_a_pack_of_too_few_pairs_is_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], count: int
) -> None:
    images = [encode_png(FACES[index]["image"]) for index in range(2 * count)]
    write_pack(tmp_path / "mine.bin", images, np.arange(count) % 2 == 0)
    said = refused(capsys, "evaluate", run, "--pack", tmp_path / "mine.bin")
    assert "mine: " in said
    assert "expected same and different pairs" in said


def test_packs_of_one_name_are_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = encode_png(FACES[0]["image"])
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_pack(tmp_path / folder / "lfw.bin", [image] * 4, [True, False])
    packs = [tmp_path / "a" / "lfw.bin", tmp_path / "b" / "lfw.bin"]
    said = refused(capsys, "evaluate", run, "--pack", *packs)
    assert "expected packs of different names, found lfw twice" in said


def test_a_folder_of_people_and_its_pairs_are_embedded_once(
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = []
    embed_source = FaceEmbedder.embed_source

    def count(self: FaceEmbedder, source: ImageSequence, **options: Any) -> Any:
        sizes.append(len(source))
        return embed_source(self, source, **options)

    monkeypatch.setattr(FaceEmbedder, "embed_source", count)
    folder = people_folder(tmp_path / "faces", views=3)
    named = ["--protocol", "lfw_authors", "--protocol", "geometry"]
    both = evaluate(tmp_path, run, "--pairs", people_pairs(tmp_path), "--images", folder, *named)
    assert list(both) == ["lfw_authors", "geometry"]
    assert sizes == [18]
    alone = evaluate(tmp_path, run, "--images", folder)
    assert set(alone) == {"lfw_identification", "geometry"}
    assert alone["geometry"] == both["geometry"]
    assert alone["geometry"]["angles"]["num_embeddings"] == 18
    assert alone["geometry"]["prototypes"]["num_prototypes"] == 6
    pairs = evaluate(tmp_path, run, "--pairs", people_pairs(tmp_path), "--images", folder)
    assert set(pairs) == {"lfw_authors", "lfw_insightface", "lfw_facexzoo", "lfw_opensphere"}
    assert pairs["lfw_authors"]["auc"] == pytest.approx(both["lfw_authors"]["auc"])
    assert "prototypes" in capsys.readouterr().out


def test_frames_in_folders_are_embedded(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    splits, vectors = videos(tmp_path)
    for number, path in enumerate(vectors):
        write_image(tmp_path / path, FACES[number % 24]["image"])
    found = evaluate(tmp_path, run, "--ytf", splits, "--images", tmp_path / "db")
    assert found["ytf_average"]["num_pairs"] == 12
    assert found["ytf_average"]["flip"] == "concatenated"
    assert not (run / "calibration.json").exists()  # a threshold for videos is none for images
    said = refused(
        capsys, "evaluate", run, "--ytf", splits, "--images", tmp_path / "db", "--recalibrate"
    )
    assert "expected --pairs or --pack to calibrate on" in said


def test_megaface_images_lie_in_two_folders(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lists = megaface_lists(tmp_path)
    for number, path in enumerate(MEGAFACE):
        folder = tmp_path if path.startswith("facescrub") else tmp_path / "flickr"
        write_image(folder / path, FACES[number]["image"])
    flags = [run, *lists, "--images", tmp_path / "facescrub"]
    assert "3 of the 7 images" in refused(capsys, "evaluate", *flags)
    found = evaluate(tmp_path, *flags, "--megaface.distractor-images", tmp_path / "flickr")
    assert found["megaface"]["num_distractors"] == 3
    said = refused(capsys, "evaluate", run, *lists[:2], "--images", tmp_path)
    assert "expected --megaface.probes and --megaface.distractors, got one" in said


def test_loose_crops_are_aligned_by_their_landmarks(run: Path, tmp_path: Path) -> None:
    lists = ijb_folder(tmp_path / "meta")
    rng = np.random.default_rng(0)
    points = rng.normal([[40, 40], [80, 40], [60, 60], [45, 80], [75, 80]], 2, size=(8, 5, 2))
    lines = [
        f"{n}.jpg {' '.join(f'{value:.2f}' for value in points[n - 1].ravel())} 1"
        for n in range(1, 9)
    ]
    write_lines(lists / "ijbc_name_5pts_score.txt", *lines)
    for n in range(1, 9):
        write_image(tmp_path / "crops" / f"{n}.jpg", rng.integers(0, 256, (120, 130, 3), np.uint8))
    images = IjbTask(lists, tmp_path / "crops").find_images()
    assert list(images.names) == [f"{n}.jpg" for n in range(1, 9)]
    crop = read_image(tmp_path / "crops" / "3.jpg")
    expected = align_face(crop, np.round(points[2], 2).astype(np.float32))
    np.testing.assert_array_equal(images.source[2]["image"], expected)
    found = evaluate(tmp_path, run, "--ijb", lists, "--images", tmp_path / "crops")
    assert found["ijb_11"]["flip"] == "summed"
    assert 0 <= found["ijb_1n"]["rank_k"]["1"] <= 1
    (tmp_path / "crops" / "3.jpg").unlink()
    missing = IjbTask(lists, tmp_path / "crops").find_images().missing
    assert (missing.names, missing.total, missing.folder) == (["3.jpg"], 8, tmp_path / "crops")


class ConstantDetector:
    """Sees one face in every photograph, at the same place."""

    points = np.array([[8.0, 10], [17, 9], [13, 15], [9, 20], [18, 19]])

    def detect(self, image: np.ndarray) -> list[Detection]:
        return [Detection(np.array([5.0, 5, 20, 25]), 1.0, self.points)]


class BlindDetector:
    """Sees no face in anything."""

    def detect(self, image: np.ndarray) -> list[Detection]:
        return []


def test_photographs_are_detected_and_aligned(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sphereface_jax.data.mtcnn.MtcnnDetector", ConstantDetector)
    pairs, folder = people_pairs(tmp_path), people_folder(tmp_path / "photographs")
    for path in sorted(folder.rglob("*.png")):
        aligned = tmp_path / "aligned" / path.relative_to(folder)
        write_image(aligned, align_face(read_image(path), ConstantDetector.points))
    named = ["--pairs", pairs, "--protocol", "lfw_authors", "--images"]
    by_hand = evaluate(tmp_path, run, *named, tmp_path / "aligned")
    assert evaluate(tmp_path, run, *named, folder, "--align") == by_hand
    assert evaluate(tmp_path, run, *named, folder) != by_hand
    stored = json.loads((run / "evaluations" / "pairs.txt.json").read_text())
    assert stored["align"] is False
    evaluate(tmp_path, run, *named, folder, "--align")
    card = (run / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "| lfw_authors | pairs.txt, detected and aligned | accuracy" in card


@pytest.mark.parametrize("command", ["embed", "compare", "evaluate"])
def test_a_photograph_without_a_face_is_refused_and_nothing_written(
    command: str,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sphereface_jax.data.mtcnn.MtcnnDetector", BlindDetector)
    pairs, folder = people_pairs(tmp_path), people_folder(tmp_path / "photographs")
    first = folder / "P0" / "P0_0001.png"
    given = {
        "embed": [folder, "--out", tmp_path / "out.npz"],
        "compare": [first, first],
        "evaluate": ["--pairs", pairs, "--images", folder, "--json", tmp_path / "out.json"],
    }
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    said = refused(capsys, command, run, *given[command], "--align")
    assert f"{first}: no face found" in said
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    assert {path.name for path in tmp_path.iterdir()} == {"pairs.txt", "photographs"}


def test_mtcnn_itself_sees_no_face_on_a_wall(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if importlib.util.find_spec("mtcnn") is None:
        pytest.skip("MTCNN's weights are in the extra `detect`")
    wall = tmp_path / "wall.png"
    write_image(wall, np.full((60, 60, 3), 150, np.uint8))
    assert f"{wall}: no face found" in refused(capsys, "compare", run, wall, wall, "--align")


def test_options_that_do_not_go_together(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = people_pairs(tmp_path)
    vectors = store(tmp_path / "v.npz", PEOPLE)

    def said(*args: object) -> str:
        return refused(capsys, "evaluate", *args)

    assert "expected something to score" in said(run)
    assert "expected one list" in said(run, "--pairs", pairs, "--ijb", tmp_path)
    assert "got it with stored vectors" in said("--embeddings", vectors, "--images", tmp_path)
    assert "expected a rate in (0, 1)" in said(run, "--images", tmp_path, "--max-far", "1.5")
    assert "expected a run to calibrate" in said("--embeddings", vectors, "--recalibrate")
    nowhere = tmp_path / "none" / "out.json"
    assert "expected a folder to write" in said("--embeddings", vectors, "--json", nowhere)
    assert "got 'megaface'" in said("--embeddings", vectors, "--protocol", "megaface")
    assert "got no --images" in said("--embeddings", vectors, "--align")
    folder = ["--images", tmp_path, "--align"]
    assert "got --pack, whose faces are" in said(run, "--pack", tmp_path / "p.bin", *folder)
    assert "got --ijb, whose landmarks do it" in said(run, "--ijb", tmp_path, *folder)

"""Every protocol through the command: small sets whose right answers are computed on paper."""

import dataclasses
import importlib.util
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import call, refused
from faces_on_disk import write_image
from rich.console import Console
from tiny_run import tiny_config

from sphereface_jax.data.alignment import Detection, align_face
from sphereface_jax.data.images import encode_png, read_image
from sphereface_jax.data.packs import write_pack
from sphereface_jax.data.sources import ImageSequence
from sphereface_jax.data.synthetic import SyntheticFaces
from sphereface_jax.data.vectors import FaceVectors, load_vectors, save_vectors
from sphereface_jax.embedder import FaceEmbedder
from sphereface_jax.evaluation.pairs import Pairs
from sphereface_jax.evaluation.verification import lfw_insightface
from sphereface_jax.tasks.ijb import IjbTask
from sphereface_jax.tasks.pairs import PairsTask
from sphereface_jax.tasks.people import PeopleTask
from sphereface_jax.training.loop import train

FACES = SyntheticFaces(6, 4, image_size=(24, 16))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step; it takes faces of any size."""
    config = tiny_config(tmp_path_factory.mktemp("runs") / "run", steps=1)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, resize=True))
    train(config, console=Console(file=io.StringIO()))
    return config.out


@pytest.fixture(autouse=True)
def no_calibration(request: pytest.FixtureRequest) -> None:
    """Each test meets the run as it was trained."""
    if "run" in request.fixturenames:
        (request.getfixturevalue("run") / "calibration.json").unlink(missing_ok=True)


def store(path: Path, vectors: dict[str, list[float] | np.ndarray]) -> Path:
    """Writes vectors by image path."""
    save_vectors(path, FaceVectors(list(vectors), np.array(list(vectors.values()), float)))
    return path


def write_lines(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def evaluate(tmp_path: Path, *args: object) -> dict:
    """Runs the command and returns the protocols of its JSON."""
    out = tmp_path / "out.json"
    assert call("evaluate", *args, "--json", out) == 0
    return json.loads(out.read_text())["protocols"]


def people_pairs(directory: Path, *, people: int = 6) -> Path:
    """Two folds of pairs of images 1 and 2 of each person, and of 1 with the next person's 2."""
    lines = [f"2\t{people // 2}"]
    for fold in np.split(np.arange(people), 2):
        lines += [f"P{person}\t1\t2" for person in fold]
        lines += [f"P{person}\t1\tP{(person + 1) % people}\t2" for person in fold]
    return write_lines(directory / "pairs.txt", *lines)


def people_folder(directory: Path, people: int = 6, views: int = 2) -> Path:
    for person in range(people):
        for view in range(views):
            image = FACES[4 * person + view]["image"]
            write_image(directory / f"P{person}" / f"P{person}_{view + 1:04d}.png", image)
    return directory


# ---- names


def test_rows_are_found_by_the_last_parts_of_a_path() -> None:
    paths = ["lfw/Ann/Ann_0001.jpg", "x/Dr. Who/Dr. Who_0002", "7.png", "b/7.jpg"]
    vectors = FaceVectors(paths, np.eye(4))
    names = ["Dr. Who/Dr. Who_0002", "Ann/Ann_0001", "b/7.jpg", "Bob/Bob_0001", "lfw/Ann/Ann_0001"]
    assert vectors.find_rows(names).tolist() == [1, 0, 3, -1, 0]
    with pytest.raises(ValueError, match=r"expected one image '7.jpg', found several .* '7.png'"):
        vectors.find_rows(["7.jpg"])


# ---- pairs


def angles(**degrees: float) -> dict[str, list[float]]:
    """Vectors on a half circle by the images' names, `P0_1` for the first image of P0."""
    return {
        f"lfw/{name[:2]}/{name[:2]}_000{name[3]}.jpg": [
            np.cos(np.radians(angle)),
            np.sin(np.radians(angle)),
        ]
        for name, angle in degrees.items()
    }


def test_pairs_are_scored_with_intervals_over_people(tmp_path: Path) -> None:
    # Cosines of the same are 1, of neighbours cos 30°, but P5's images are 60° apart.
    first = {f"P{person}_1": 30.0 * person for person in range(6)}
    second = {f"P{person}_2": 30.0 * person for person in range(5)} | {"P5_2": 90.0}
    vectors = store(tmp_path / "v.npz", angles(**first, **second))
    found = evaluate(tmp_path, "--embeddings", vectors, "--pairs", people_pairs(tmp_path))
    assert set(found) == {"lfw_authors", "lfw_insightface", "lfw_facexzoo", "lfw_opensphere"}
    entry = found["lfw_insightface"]
    # The first fold is clean; in the second P5 with itself (60°) is taken for two people, and
    # P4's image 1 with P5's image 2 (30°) for two as well, rightly.
    assert entry["fold_accuracies"] == [1.0, pytest.approx(5 / 6)]
    assert entry["input"] == "pairs.txt"
    assert entry["pairs_left_out"] == 0
    low, high = entry["intervals_95"]["accuracy_10_fold"]
    assert low < 11 / 12 < high == 1.0
    assert set(found["lfw_opensphere"]["intervals_95"]) == {"accuracy_10_fold", "auc"}


def test_a_list_of_one_fold_allows_one_protocol(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = write_lines(tmp_path / "dev.txt", "1", "P0\t1\t2", "P0\t1\tP1\t2")
    vectors = store(tmp_path / "v.npz", angles(P0_1=0, P0_2=5, P1_2=80))
    flags = ["--embeddings", vectors, "--pairs", pairs]
    assert set(evaluate(tmp_path, *flags)) == {"lfw_opensphere"}
    said = refused(capsys, "evaluate", *flags, "--protocol", "lfw_authors")
    assert "protocol: expected one of lfw_opensphere, lfw_identification" in said
    assert "got 'lfw_authors'" in said


def test_missing_vectors_are_listed_or_their_pairs_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    degrees = {f"P{person}_{k}": 30.0 * person + k for person in range(6) for k in (1, 2)}
    del degrees["P2_1"]
    vectors = store(tmp_path / "v.npz", angles(**degrees))
    flags = ["--embeddings", vectors, "--pairs", people_pairs(tmp_path)]
    said = refused(capsys, "evaluate", *flags)
    assert "pairs.txt: 1 of the 12 images it needs are missing (P2/P2_0001)" in said
    found = evaluate(tmp_path, *flags, "--allow-missing")
    assert "2 of 12 pairs are left out, for 1 missing images" in capsys.readouterr().out
    assert found["lfw_authors"]["num_pairs"] == 10
    assert found["lfw_authors"]["pairs_left_out"] == 2
    other = store(tmp_path / "other.npz", angles(Q0_1=0, Q1_1=1))
    said = refused(capsys, "evaluate", "--embeddings", other, *flags[2:], "--allow-missing")
    assert "none of the 12 pairs has both of its sides" in said


def test_mcnemar_against_another_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = {f"P{person}_{k}": 30.0 * person for person in range(6) for k in (1, 2)}
    # Without P0's and P1's second images where they belong, their same pairs are lost.
    bad = good | {"P0_2": 179.0, "P1_2": 179.0}
    pairs = people_pairs(tmp_path)
    ours, theirs = (
        store(tmp_path / f"{name}.npz", angles(**degrees))
        for name, degrees in (("good", good), ("bad", bad))
    )
    flags = ["--embeddings", ours, "--pairs", pairs, "--protocol", "lfw_opensphere"]
    against = evaluate(tmp_path, *flags, "--against", theirs)["lfw_opensphere"]["against"]
    assert against["vectors"] == str(theirs)
    assert against["accuracy_10_fold"] == pytest.approx(10 / 12)
    assert (against["only_first"], against["only_second"], against["p_value"]) == (2, 0, 0.5)
    said = capsys.readouterr().out
    assert f"{ours} (here) against {theirs} (there)" in said
    del good["P3_1"]
    lacking = store(tmp_path / "lacking.npz", angles(**good))
    said = refused(capsys, "evaluate", *flags, "--against", lacking, "--allow-missing")
    assert "lack different images" in said
    people = ["--embeddings", ours, "--protocol", "geometry", "--against", theirs]
    assert "--against: expected --pairs, --pack or --ytf" in refused(capsys, "evaluate", *people)


def test_mcnemar_against_a_run(run: Path, tmp_path: Path) -> None:
    folder, pairs = people_folder(tmp_path / "faces"), people_pairs(tmp_path)
    vectors = tmp_path / "v.npz"
    assert call("embed", run, folder, "--out", vectors) == 0
    flags = ["--embeddings", vectors, "--pairs", pairs, "--images", folder]
    against = evaluate(tmp_path, *flags, "--against", run)["lfw_authors"]["against"]
    assert (against["only_first"], against["only_second"], against["p_value"]) == (0, 0, 1.0)


# ---- calibration


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


# ---- packs


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


# ---- people

# A's and B's second images are nearest to their first, B's third to A's first; C has one image,
# nearer to A than anything but A's own.
PEOPLE = {
    "s/A/1.jpg": [1.0, 0.0, 0.0],
    "s/A/2.jpg": [0.9, 0.1, 0.0],
    "s/B/1.jpg": [0.0, 1.0, 0.0],
    "s/B/2.jpg": [0.0, 0.9, 0.1],
    "s/B/3.jpg": [0.8, 0.6, 0.0],
    "s/C/1.jpg": [0.9, 0.0, 0.3],
}


def test_vectors_alone_are_searched_for_their_own_people(tmp_path: Path) -> None:
    found = evaluate(tmp_path, "--embeddings", store(tmp_path / "v.npz", PEOPLE))
    assert set(found) == {"lfw_identification", "lfw_open_set", "geometry"}
    closed, opened = found["lfw_identification"], found["lfw_open_set"]
    assert closed["rank_k"]["1"] == pytest.approx(2 / 3)
    # B's third image finds A (0.8) and the distractor C (0.76) before its own (0.6).
    assert closed["cmc"][:3] == pytest.approx([2 / 3, 2 / 3, 1])
    assert (closed["num_searches"], closed["num_distractors"]) == (3, 1)
    assert (opened["num_unmated"], opened["num_distractors"]) == (1, 0)
    assert opened["cmc"][:2] == pytest.approx([2 / 3, 1])
    # C looks like A with 0.9487; the two that come first are surer than that.
    assert opened["dir_at_far"]["1e-1"] == pytest.approx(2 / 3)
    assert found["geometry"]["angles"]["num_classes"] == 3
    assert found["geometry"]["prototypes"] is None
    assert closed["flip"] == "none"


def test_without_strangers_there_is_no_open_set(tmp_path: Path) -> None:
    known = {path: vector for path, vector in PEOPLE.items() if "/C/" not in path}
    found = evaluate(tmp_path, "--embeddings", store(tmp_path / "v.npz", known))
    assert set(found) == {"lfw_identification", "geometry"}


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["A/1", "2"], "v: expected images as PERSON/IMAGE, found '2'"),
        (["A/1", "B/1"], "one of them with two images or more, found 2 people and 2 images"),
        (["A/1", "A/2"], "expected two people or more"),
    ],
)
def test_people_who_cannot_be_told_apart_are_named(paths: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PeopleTask(paths, title="v")


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


# ---- videos


def videos(tmp_path: Path) -> tuple[Path, dict[str, list[float]]]:
    """Two splits of six video pairs each, and two frames a video, by angle."""
    lines = ["split number, pair number, first name, second name, same, is same"]
    vectors = {}
    for person in range(6):
        for video, degrees in ((0, 20.0 * person), (1, 20.0 * person + 2)):
            for frame, sway in ((1, -1.0), (2, 1.0)):
                angle = np.radians(degrees + sway)
                vectors[f"db/P{person}/{video}/{video}.{frame}.jpg"] = [
                    np.cos(angle),
                    np.sin(angle),
                ]
        split = person // 3 + 1
        lines.append(f"{split}, 1, P{person}/0, P{person}/1, 1, 1")
        lines.append(f"{split}, 2, P{person}/0, P{(person + 1) % 6}/1, 0, 0")
    return write_lines(tmp_path / "splits.txt", *lines), vectors


def test_video_pairs_by_average_and_best_frame(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    splits, vectors = videos(tmp_path)
    found = evaluate(tmp_path, "--embeddings", store(tmp_path / "v.npz", vectors), "--ytf", splits)
    assert set(found) == {"ytf_average", "ytf_best_frame"}
    # The best frames of one person are 0° apart, of neighbours 20°.
    assert found["ytf_best_frame"]["accuracy_10_fold"] == 1.0
    middle = (1 + np.cos(np.radians(20))) / 2
    assert found["ytf_best_frame"]["threshold"] == pytest.approx(middle, abs=2e-4)
    assert found["ytf_average"]["auc"] == 1.0
    assert "intervals_95" in found["ytf_average"]
    gone = {path: vector for path, vector in vectors.items() if "/P1/1/" not in path}
    flags = ["--embeddings", store(tmp_path / "gone.npz", gone), "--ytf", splits]
    said = refused(capsys, "evaluate", *flags)
    assert "splits.txt: 1 of the 12 videos it needs are missing (P1/1)" in said
    found = evaluate(tmp_path, *flags, "--allow-missing")
    assert found["ytf_average"]["video_pairs_left_out"] == 2


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


# ---- MegaFace


def megaface_lists(tmp_path: Path) -> list[object]:
    probes = {"path": ["A/1.png", "A/2.png", "B/1.png", "B/2.png"], "id": ["A", "A", "B", "B"]}
    distractors = {"path": ["0/x@N00/1.jpg", "0/x@N00/2.jpg", "0/y@N00/1.jpg"]}
    for name, content in (("probes", probes), ("distractors", distractors)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return [
        *("--megaface.probes", tmp_path / "probes.json"),
        *("--megaface.distractors", tmp_path / "distractors.json"),
    ]


MEGAFACE = {
    "facescrub/A/1.png": [1.0, 0.0, 0.0],
    "facescrub/A/2.png": [0.8, 0.6, 0.0],  # 0.8 from its mate
    "facescrub/B/1.png": [0.0, 0.0, 1.0],
    "facescrub/B/2.png": [0.0, 0.6, 0.8],
    "0/x@N00/1.jpg": [0.9, 0.0, np.sqrt(0.19)],  # 0.9 from A/1, 0.72 from A/2, 0.44 from B/1
    "0/x@N00/2.jpg": [0.0, -1.0, 0.0],
    "0/y@N00/1.jpg": [-1.0, 0.0, 0.0],
}


def test_megaface_on_paper(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lists = megaface_lists(tmp_path)
    flags = ["--embeddings", store(tmp_path / "v.npz", MEGAFACE), *lists]
    found = evaluate(tmp_path, *flags)["megaface"]
    # Of the four searches only A/1's has a distractor before its mate.
    assert found["rank_k"]["1"] == pytest.approx(3 / 4)
    assert found["rank_k"]["5"] == 1.0
    assert (found["num_searches"], found["num_distractors"]) == (4, 3)
    wrong = write_lines(tmp_path / "noises.txt", "# wrong", "0/x@N00/1.jpg")
    found = evaluate(tmp_path, *flags, "--megaface.wrong-distractors", wrong)["megaface"]
    assert found["rank_k"]["1"] == 1.0
    assert found["num_distractors"] == 2
    del flags[1]
    lacking = {path: vector for path, vector in MEGAFACE.items() if "y@N00" not in path}
    flags.insert(1, store(tmp_path / "lacking.npz", lacking))
    assert "missing (0/y@N00/1.jpg)" in refused(capsys, "evaluate", *flags)
    found = evaluate(tmp_path, *flags, "--allow-missing")["megaface"]
    assert (found["probes_left_out"], found["distractors_left_out"]) == (0, 1)


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


# ---- IJB


def ijb_folder(directory: Path) -> Path:
    """Templates 1 to 6: 1 and 4 show person 10, 2 and 5 person 20, 3 and 6 person 30.

    Template 1 is two frames of a medium and a still; the others are a still each.
    """
    directory.mkdir()
    templates = [(1, 7), (1, 7), (1, 8), (2, 9), (3, 10), (4, 11), (5, 12), (6, 13)]
    write_lines(
        directory / "ijbc_face_tid_mid.txt",
        *(f"{n}.jpg {template} {media}" for n, (template, media) in enumerate(templates, 1)),
    )
    points = "30 51 65 51 48 71 33 92 62 92"
    write_lines(
        directory / "ijbc_name_5pts_score.txt", *(f"{n}.jpg {points} 0.5" for n in range(1, 9))
    )
    write_lines(directory / "ijbc_template_pair_label.txt", "1 4 1", "2 5 1", "3 6 1", "1 5 0")
    header = "TEMPLATE_ID,SUBJECT_ID"
    write_lines(directory / "ijbc_1N_gallery_G1.csv", header, "1,10", "2,20")
    write_lines(directory / "ijbc_1N_gallery_G2.csv", header, "3,30")
    write_lines(directory / "ijbc_1N_probe_mixed.csv", header, "4,10", "5,20", "6,30")
    return directory


# The frames of template 1 point along x and -x, its medium so nowhere, and the still alone decides.
IJB = {
    "crops/1.jpg": [1.0, 0.0, 0.0],
    "crops/2.jpg": [-1.0, 0.0, 0.0],
    "crops/3.jpg": [0.0, 1.0, 0.0],
    "crops/4.jpg": [0.0, 0.0, 1.0],
    "crops/5.jpg": [1.0, 1.0, 1.0],
    "crops/6.jpg": [0.0, 1.0, 0.1],
    "crops/7.jpg": [0.1, 0.0, 1.0],
    "crops/8.jpg": [0.2, 0.9, 0.0],  # template 6 looks more like 1 (0.976) than like 3 (0.689)
}


def test_ijb_on_paper(tmp_path: Path) -> None:
    lists = ijb_folder(tmp_path / "meta")
    flags = ["--embeddings", store(tmp_path / "v.npz", IJB), "--ijb", lists]
    found = evaluate(tmp_path, *flags)
    assert set(found) == {"ijb_11", "ijb_1n", "ijb_1n_insightface"}
    # The one different pair is orthogonal, so every same one is above it.
    assert found["ijb_11"]["tar_at_far"]["1e-6"] == 1.0
    assert (found["ijb_11"]["num_pairs"], found["ijb_11"]["num_same"]) == (4, 3)
    assert found["ijb_11"]["quality"] == "detector score"
    # In its own gallery template 6 is alone with its mate; joined, template 1 comes before it.
    assert found["ijb_1n"]["rank_k"]["1"] == 1.0
    assert found["ijb_1n_insightface"]["rank_k"]["1"] == pytest.approx(2 / 3)
    assert set(evaluate(tmp_path, *flags, "--protocol", "ijb_11")) == {"ijb_11"}


def test_what_the_folder_has_decides_the_protocols(tmp_path: Path) -> None:
    lists = ijb_folder(tmp_path / "meta")
    (lists / "ijbc_template_pair_label.txt").unlink()
    assert IjbTask(lists).protocols == ("ijb_1n", "ijb_1n_insightface")
    write_lines(lists / "ijbc_11_G1_G2_matches.csv", "1,4", "2,6")
    assert IjbTask(lists).protocols[0] == "ijb_11"
    (lists / "ijbc_name_5pts_score.txt").unlink()
    vectors = FaceVectors(list(IJB), np.array(list(IJB.values())))
    matched = IjbTask(lists).match(vectors)
    assert matched.facts["quality"] == "none"
    assert matched.scorers["ijb_11"]().to_json()["num_same"] == 1
    with pytest.raises(FileNotFoundError, match=r"expected ijbc_name_5pts_score\.txt"):
        IjbTask(lists, tmp_path).find_images()
    (lists / "ijbc_1N_probe_mixed.csv").unlink()
    with pytest.raises(ValueError, match=r"expected \*_template_pair_label.txt, or"):
        IjbTask(lists)


def test_a_template_without_images_leaves_its_pairs_and_probes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lists = ijb_folder(tmp_path / "meta")
    lacking = {path: vector for path, vector in IJB.items() if path != "crops/4.jpg"}
    flags = ["--embeddings", store(tmp_path / "v.npz", lacking), "--ijb", lists]
    said = refused(capsys, "evaluate", *flags)
    assert "ijbc: 1 of the 8 images it needs are missing (4.jpg)" in said
    found = evaluate(tmp_path, *flags, "--allow-missing")
    # Template 2 is gone, and with it the pair 2-5 and probe 5, whose mate it was.
    assert found["ijb_11"]["num_pairs"] == 3
    assert found["ijb_1n_insightface"]["num_probes"] == 2
    assert (found["ijb_11"]["templates_left_out"], found["ijb_11"]["probes_left_out"]) == (1, 1)


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        (
            "ijbc_name_5pts_score.txt",
            ["1.jpg 1 2 3 4 5 6 7 8 9 10 1"],
            r"5pts_score\.txt and .*tid_mid\.txt: expected a line an image .* found 1 and 8 lines",
        ),
        (
            "ijbc_name_5pts_score.txt",
            [f"{n}.png 1 2 3 4 5 6 7 8 9 10 1" for n in range(1, 9)],
            r"5pts_score\.txt:1: expected image '1.jpg' as in .*tid_mid\.txt, found '1.png'",
        ),
        ("ijbb_face_tid_mid.txt", ["1.jpg 1 1"], "found ijbb_face_tid_mid.txt and ijbc_face"),
    ],
)
def test_lists_that_do_not_fit_are_named(
    name: str, lines: list[str], message: str, tmp_path: Path
) -> None:
    lists = ijb_folder(tmp_path / "meta")
    write_lines(lists / name, *lines)
    with pytest.raises(ValueError, match=message) as error:
        IjbTask(lists)
    assert "\n" not in str(error.value)


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


# ---- photographs


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


# ---- options


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
    assert "expected a rate in [0, 1)" in said(run, "--images", tmp_path, "--max-far", "1.5")
    assert "expected a run to calibrate" in said("--embeddings", vectors, "--recalibrate")
    nowhere = tmp_path / "none" / "out.json"
    assert "expected a folder to write" in said("--embeddings", vectors, "--json", nowhere)
    assert "got 'megaface'" in said("--embeddings", vectors, "--protocol", "megaface")
    assert "got no --images" in said("--embeddings", vectors, "--align")
    folder = ["--images", tmp_path, "--align"]
    assert "got --pack, whose faces are" in said(run, "--pack", tmp_path / "p.bin", *folder)
    assert "got --ijb, whose landmarks do it" in said(run, "--ijb", tmp_path, *folder)


def test_pairs_need_a_folder_only_to_find_images(tmp_path: Path) -> None:
    task = PairsTask(people_pairs(tmp_path))
    with pytest.raises(ValueError, match="images: expected the folder of the images of pairs"):
        task.find_images()


# ---- the shared faces


def test_the_shared_vectors_measure_what_independent_code_did(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors = shared_data / "lfw_reference_embeddings.npz"
    found = evaluate(tmp_path, "--embeddings", vectors, "--pairs", shared_data / "lfw/pairs.txt")
    assert found["lfw_authors"]["accuracy_10_fold"] == pytest.approx(0.9837, abs=5e-5)
    assert found["lfw_authors"]["accuracy_std"] == pytest.approx(0.0039, abs=5e-5)
    low, high = found["lfw_authors"]["intervals_95"]["accuracy_10_fold"]
    assert low < 0.9837 < high < low + 0.015
    found = evaluate(tmp_path, "--embeddings", vectors)
    assert found["lfw_identification"]["rank_k"]["1"] == pytest.approx(0.8596, abs=5e-5)
    assert found["lfw_open_set"]["dir_at_far"]["1e-1"] == pytest.approx(0.787, abs=5e-4)
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line.rstrip()) for line in lines if "/" not in line) <= 80
    assert load_vectors(vectors).embeddings.shape == (7701, 128)

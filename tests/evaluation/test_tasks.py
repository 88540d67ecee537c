"""Every protocol through the command, on stored vectors whose right answers are on paper."""

from pathlib import Path

import numpy as np
import pytest
from command import refused
from task_sets import (
    IJB,
    MEGAFACE,
    PEOPLE,
    angles,
    evaluate,
    ijb_folder,
    megaface_lists,
    people_pairs,
    store,
    videos,
    write_lines,
)

from sphereface_jax.data.vectors import FaceVectors, load_vectors
from sphereface_jax.tasks.ijb import IjbTask
from sphereface_jax.tasks.pair_list import PairsTask
from sphereface_jax.tasks.people import PeopleTask


def test_rows_are_found_by_the_last_parts_of_a_path() -> None:
    paths = ["lfw/Ann/Ann_0001.jpg", "x/Dr. Who/Dr. Who_0002", "7.png", "b/7.jpg"]
    vectors = FaceVectors(paths, np.eye(4))
    names = ["Dr. Who/Dr. Who_0002", "Ann/Ann_0001", "b/7.jpg", "Bob/Bob_0001", "lfw/Ann/Ann_0001"]
    assert vectors.find_rows(names).tolist() == [1, 0, 3, -1, 0]
    with pytest.raises(ValueError, match=r"expected one image '7.jpg', found several .* '7.png'"):
        vectors.find_rows(["7.jpg"])


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
    assert f"{ours} (A) against {theirs} (B)" in said
    del good["P3_1"]
    lacking = store(tmp_path / "lacking.npz", angles(**good))
    said = refused(capsys, "evaluate", *flags, "--against", lacking, "--allow-missing")
    assert "lack different images" in said
    people = ["--embeddings", ours, "--protocol", "geometry", "--against", theirs]
    assert "--against: expected --pairs, --pack or --ytf" in refused(capsys, "evaluate", *people)


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
    assert opened["dir_at_far"] == {"1e-1": None, "1e-2": None}  # one stranger shows no such rate
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


def test_ijb_on_paper(tmp_path: Path) -> None:
    lists = ijb_folder(tmp_path / "meta")
    flags = ["--embeddings", store(tmp_path / "v.npz", IJB), "--ijb", lists]
    found = evaluate(tmp_path, *flags)
    assert set(found) == {"ijb_11", "ijb_1n", "ijb_1n_insightface"}
    # The one different pair is orthogonal, so every same one is above it; it shows no rate.
    assert found["ijb_11"]["auc"] == 1.0
    assert set(found["ijb_11"]["tar_at_far"].values()) == {None}
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
            r"5pts_score\.txt and .*tid_mid\.txt: expected one line per image .* 1 and 8 lines",
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


def test_pairs_need_a_folder_only_to_find_images(tmp_path: Path) -> None:
    task = PairsTask(people_pairs(tmp_path))
    with pytest.raises(ValueError, match="images: expected the folder of the images of pairs"):
        task.find_images()


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

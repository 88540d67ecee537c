"""Identification: streamed impostors against brute force, ranks and rates counted by hand."""

import json
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
from on_paper import at_degrees, unit

from sphereface_jax.evaluation import impostors as impostors_module
from sphereface_jax.evaluation.identification import (
    identification,
    lfw_identification,
    megaface,
)
from sphereface_jax.evaluation.impostors import highest_impostors, merge_impostors
from sphereface_jax.evaluation.roc import roc_curve, tar_at_far


def brute_force(
    probes: np.ndarray, others: np.ndarray, left_out: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Every score with -inf where left out, by row and overall, falling."""
    scores = np.where(left_out, -np.inf, unit(probes) @ unit(others).T)
    return np.sort(scores)[:, ::-1], np.sort(scores[~left_out])[::-1]


@pytest.mark.parametrize("num_others", [7, 500, 6000])
@pytest.mark.parametrize("block_size", [64, 1000, None])
def test_highest_impostors_are_those_of_brute_force(
    num_others: int, block_size: int | None
) -> None:
    rng = np.random.default_rng(0)
    probes = rng.normal(size=(30, 8)).astype(np.float32)
    others = rng.normal(size=(num_others, 8)).astype(np.float32) * 7
    probe_identities, other_identities = rng.integers(0, 9, 30), rng.integers(0, 9, num_others)
    found = highest_impostors(
        probes, others, probe_identities=probe_identities, other_identities=other_identities,
        by_probe=10, overall=300, block_size=block_size,
    )  # fmt: skip
    left_out = probe_identities[:, None] == other_identities
    by_probe, overall = brute_force(probes, others, left_out)
    width = min(10, num_others)
    np.testing.assert_allclose(found.by_probe[:, :width], by_probe[:, :10], atol=1e-6)
    assert (found.by_probe[:, width:] == -np.inf).all()
    np.testing.assert_allclose(found.overall, overall[:300], atol=1e-6)
    assert found.num_scores == len(overall)


def test_a_wrong_guess_from_the_sample_is_made_good() -> None:
    rng = np.random.default_rng(0)
    probes, others = rng.normal(size=(5, 8)), rng.normal(size=(6000, 8)).astype(np.float32)
    sample = np.sort(np.random.default_rng(0).choice(6000, impostors_module._SAMPLE, replace=False))
    others[sample] = probes[0] + 0.01 * others[sample]  # the sample is all one face
    nobody = np.full(6000, -1)
    found = highest_impostors(
        probes, others, probe_identities=np.arange(5), other_identities=nobody,
        by_probe=3, overall=12000,
    )  # fmt: skip
    by_probe, overall = brute_force(probes, others, np.zeros((5, 6000), bool))
    np.testing.assert_allclose(found.by_probe, by_probe[:, :3], atol=1e-6)
    np.testing.assert_allclose(found.overall, overall[:12000], atol=1e-6)


def test_probes_beyond_one_pass_and_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(impostors_module, "_PROBES_PER_PASS", 8)
    rng = np.random.default_rng(0)
    probes, others = rng.normal(size=(20, 4)), rng.normal(size=(100, 4))
    calls = []
    found = highest_impostors(
        probes, others, probe_identities=np.arange(20), other_identities=np.full(100, -1),
        by_probe=2, overall=50, block_size=64, progress=lambda *done: calls.append(done),
    )  # fmt: skip
    by_probe, overall = brute_force(probes, others, np.zeros((20, 100), bool))
    np.testing.assert_allclose(found.by_probe, by_probe[:, :2], atol=1e-6)
    np.testing.assert_allclose(found.overall, overall[:50], atol=1e-6)
    assert calls == sorted(calls)
    assert calls[-1] == (2000, 2000)


def test_two_sets_of_others_merge_to_their_union() -> None:
    rng = np.random.default_rng(0)
    probes, others = rng.normal(size=(9, 4)), rng.normal(size=(80, 4))
    whole, first, second = (
        highest_impostors(
            probes, part, probe_identities=np.arange(9), other_identities=np.full(len(part), -1),
            by_probe=4, overall=60,
        )
        for part in (others, others[:30], others[30:])
    )  # fmt: skip
    merged = merge_impostors(first, second)
    np.testing.assert_allclose(merged.by_probe, whole.by_probe, atol=1e-6)
    np.testing.assert_allclose(merged.overall[:60], whole.overall, atol=1e-6)
    assert merged.num_scores == whole.num_scores == 720


def test_a_search_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    chex.clear_trace_counter()
    once = chex.assert_max_traces(impostors_module._grouped_scores.__wrapped__, n=1)
    monkeypatch.setattr(impostors_module, "_grouped_scores", jax.jit(once))
    rng = np.random.default_rng(0)
    found = highest_impostors(
        rng.normal(size=(5, 4)), rng.normal(size=(300, 4)), probe_identities=np.arange(5),
        other_identities=np.full(300, -1), by_probe=2, overall=50, block_size=64,
    )  # fmt: skip
    assert found.num_scores == 1500


# Gallery: a at 0°, b at 90°, c at 180°. A distractor at 45°.
GALLERY, NAMES, DISTRACTORS = at_degrees(0, 90, 180), ["a", "b", "c"], at_degrees(45)


def test_ranks_on_paper() -> None:
    # a at 10°: first. b at 60°: the distractor is 15° away, b 30°: second. c at 50°: distractor 5°,
    # b 40°, a 50°, c 130°: fourth. a at 100°: b 10°, distractor 55°, c 80°, a 100°: fourth.
    result = identification(
        at_degrees(10, 60, 50, 100), ["a", "b", "c", "a"], GALLERY, NAMES, DISTRACTORS
    )
    assert result.ranks.tolist() == [1, 2, 4, 4]
    assert result.cmc[:4] == (0.25, 0.5, 0.5, 1.0)
    assert result.rank_k == {"1": 0.25, "5": 1.0, "10": 1.0, "20": 1.0}
    assert (result.num_searches, result.num_gallery, result.num_distractors) == (4, 3, 1)
    assert result.num_impostor_scores == 4 * 4 - 4
    assert result.dir_at_far == {}
    json.dumps(result.to_json(), allow_nan=False)


def test_the_best_of_several_mates_counts() -> None:
    result = identification(at_degrees(80), ["a"], at_degrees(0, 75, 90), ["a", "a", "b"])
    assert result.ranks.tolist() == [1]


def test_the_open_set_on_paper() -> None:
    # Unmated probes at 95° (5° from b), 20°, 30°, 40° from theirs: alarms fall with these angles.
    # Mated: a at 4° right and nearer than every alarm; b at 75°, 15° away, below the highest alarm
    # alone; c at 100°, nearest to b: never right.
    result = identification(
        at_degrees(4, 75, 100, 95, 20, 60, 140),
        ["a", "b", "c", "x", "x", "y", "y"],
        GALLERY,
        NAMES,
        dir_fars=(0.0, 0.25, 1.0),
    )
    assert result.num_unmated == 4
    assert result.dir_at_far == {"0e0": None, "2.5e-1": 2 / 3, "1e0": 2 / 3}


def test_megaface_on_paper() -> None:
    # a at 0° and 30°, b at 90° and 100°; distractors at 20°, 95° and 270°. Of a: 0°→30° loses to
    # 20°, 30°→0° too. Of b: 90°→100° loses to 95°, and so does 100°→90°. Rank 2 each.
    result = megaface(at_degrees(0, 30, 90, 100), [1, 1, 2, 2], at_degrees(20, 95, 270))
    assert result.ranks.tolist() == [2, 2, 2, 2]
    # a's other people at 20° never matter: b is no impostor of a.
    assert result.num_impostor_scores == 12
    far = megaface(at_degrees(0, 10, 90, 91), [1, 1, 2, 2], at_degrees(20, 95, 270), fars=[0.1])
    # 0°→10° wins; 10°→0° ties with 20° and so loses; b wins both ways.
    assert far.ranks.tolist() == [1, 2, 1, 1]
    # One of twelve impostors may pass: 91° to 95°, 4°; the next is 90° to 95°, 5°. b's 1° do.
    assert far.tar_at_far == {"1e-1": 0.5}


def test_tar_agrees_with_the_roc_of_all_comparisons() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(40, 8))
    identities = rng.integers(0, 40, 200)
    probes = centres[identities] + 0.7 * rng.normal(size=(200, 8))
    distractors = rng.normal(size=(500, 8))
    fars = (0.1, 0.01, 0.001)
    result = identification(probes, identities, centres, np.arange(40), distractors, fars=fars)
    others = np.concatenate([centres, distractors])
    scores = unit(probes) @ unit(others).T
    is_same = identities[:, None] == np.append(np.arange(40), np.full(500, -1))
    curve = roc_curve(scores.ravel(), is_same.ravel())
    assert result.tar_at_far == pytest.approx(tar_at_far(curve, fars))
    assert 0.05 < result.tar_at_far["1e-3"] < result.tar_at_far["1e-1"] < 1
    mate = scores[np.arange(200), identities]
    rank = 1 + ((scores >= mate[:, None]) & ~is_same).sum(axis=1)
    np.testing.assert_array_equal(result.ranks, np.minimum(rank, 21))


def test_a_collapsed_network_identifies_nobody() -> None:
    rng = np.random.default_rng(0)
    same = np.broadcast_to(rng.normal(size=64), (50, 64))
    result = identification(same, np.arange(50), same, np.arange(50), same, fars=[0.5])
    assert result.rank_k == {"1": 0.0, "5": 0.0, "10": 0.0, "20": 0.0}
    assert result.tar_at_far == {"5e-1": 0.0}


def test_lfw_identification_on_paper() -> None:
    paths = ["x/Ann/Ann_0002.jpg", "Ann/Ann_0001.jpg", "Bob/1.png", "Cyd/1.png", "Cyd/2.png"]
    embeddings = at_degrees(10, 0, 8, 90, 100)
    closed = lfw_identification(paths, embeddings)
    # Ann's probe at 10° is 10° from her gallery image and 2° from Bob, a distractor.
    assert closed.ranks.tolist() == [2, 1]
    assert (closed.num_gallery, closed.num_distractors, closed.num_unmated) == (2, 1, 0)
    opened = lfw_identification(paths, embeddings, open_set=True)
    assert opened.ranks.tolist() == [1, 1]
    assert (opened.num_gallery, opened.num_distractors, opened.num_unmated) == (2, 0, 1)
    # Bob alone shows no rate of false alarms.
    assert opened.dir_at_far == {"1e-1": None, "1e-2": None}


def test_lfw_identification_on_the_reference_embeddings(shared_data: Path) -> None:
    with np.load(shared_data / "lfw_reference_embeddings.npz") as archive:
        paths, embeddings = archive["paths"], archive["embeddings"]
    result = lfw_identification(paths, embeddings)
    assert result.num_searches + result.num_gallery + result.num_distractors == 7701
    scores = unit(embeddings) @ unit(embeddings).T
    people = np.array([path.split("/")[0] for path in paths])
    names, first, counts = np.unique(people, return_index=True, return_counts=True)
    gallery = first[counts > 1]  # paths are in order
    searched = np.concatenate([gallery, np.flatnonzero(np.isin(people, names[counts == 1]))])
    probes = np.setdiff1d(np.flatnonzero(np.isin(people, names[counts > 1])), gallery)
    nearest = people[searched[scores[probes][:, searched].argmax(axis=1)]]
    assert result.rank_k["1"] == pytest.approx(np.mean(nearest == people[probes]), abs=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probe_identities": ["a"]}, r"probe_identities: expected shape \[2\], got \[1\]"),
        ({"gallery_identities": ["x", "y", "z"]}, "expected some of the probes' identities"),
        ({"gallery": np.ones((3, 3))}, "gallery: expected width 2, got 3"),
        ({"distractors": np.ones((4, 3))}, r"others: expected shape \[N, 2\]"),
        ({"distractors": np.ones((0, 2))}, r"with N >= 1, got \[0, 2\]"),
        (
            {"distractors": np.array([[1.0, 0], [0, 0]])},
            "others: expected finite nonzero rows, row 1",
        ),
        ({"distractors": np.array([[1.0, 0], [np.nan, 0]])}, "row 1 is not"),
        ({"probes": np.array([[1.0, 0], [0, 0]])}, "probes: expected nonzero rows, row 1"),
    ],
)
def test_what_cannot_be_searched_is_named(change: dict, message: str) -> None:
    arguments = {
        "probes": at_degrees(10, 60),
        "probe_identities": ["a", "b"],
        "gallery": GALLERY,
        "gallery_identities": NAMES,
        "distractors": DISTRACTORS,
    } | change
    with pytest.raises(ValueError, match=message) as error:
        identification(**arguments)
    assert "\n" not in str(error.value)


def test_identities_without_a_second_image_are_named() -> None:
    with pytest.raises(ValueError, match="expected an identity with two probes"):
        megaface(at_degrees(0, 10), [1, 2], DISTRACTORS)
    with pytest.raises(ValueError, match="expected a person with two or more images"):
        lfw_identification(["a/1", "b/1"], at_degrees(0, 1))
    with pytest.raises(ValueError, match="paths: expected PERSON/IMAGE, got 'a'"):
        lfw_identification(["a", "b/1"], at_degrees(0, 1))

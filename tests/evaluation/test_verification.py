"""Verification: hand-made sets, a literal reading of evaluation.m, scikit-learn, real vectors."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from on_paper import at_degrees
from sklearn import metrics

from sphereface_jax.evaluation.folds import best_threshold
from sphereface_jax.evaluation.pairs import Pairs, paired_cosines
from sphereface_jax.evaluation.roc import (
    area_under_curve,
    can_show,
    equal_error_rate,
    far_name,
    roc_curve,
    tar_at_far,
)
from sphereface_jax.evaluation.verification import (
    PROTOCOLS,
    allowed_protocols,
    lfw_authors,
    lfw_facexzoo,
    lfw_insightface,
    lfw_opensphere,
)


def read_lfw(shared_data: Path) -> tuple[np.ndarray, Pairs]:
    with np.load(shared_data / "lfw_reference_embeddings.npz") as archive:
        paths, embeddings = archive["paths"], archive["embeddings"]
    row = {str(path): number for number, path in enumerate(paths)}
    left, right, is_same = [], [], []
    for line in (shared_data / "lfw" / "pairs.txt").read_text().splitlines()[1:]:
        fields = line.split("\t")
        first, second = fields[:2], [fields[0] if len(fields) == 3 else fields[2], fields[-1]]
        for side, (name, number) in ((left, first), (right, second)):
            side.append(row[f"{name}/{name}_{int(number):04d}.jpg"])
        is_same.append(len(fields) == 3)
    return embeddings, Pairs(left, right, is_same=is_same, folds=np.arange(6000) // 600)


def random_set(
    num_pairs: int = 300, num_folds: int = 10, dim: int = 16, seed: int = 0
) -> tuple[np.ndarray, Pairs]:
    """Two images a pair; the second is the first with noise, or another one."""
    rng = np.random.default_rng(seed)
    left = rng.normal(size=(num_pairs, dim)) + 0.7
    is_same = rng.random(num_pairs) < 0.5
    right = np.where(is_same[:, None], left, rng.normal(size=left.shape) + 0.7)
    right += 0.8 * rng.normal(size=left.shape)
    rows = np.arange(num_pairs)
    folds = rng.permutation(rows % num_folds)
    embeddings = np.concatenate([left, right]).astype(np.float32)
    return embeddings, Pairs(rows, rows + num_pairs, is_same=is_same, folds=folds)


def literal_evaluation_m(embeddings: np.ndarray, pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """evaluation.m step by step: the folds' accuracies and thresholds."""
    left, right = (embeddings[side].astype(np.float64) for side in (pairs.left, pairs.right))
    thresholds = np.arange(-10000, 10001) / 10000
    accuracies, chosen = [], []
    for fold in np.unique(pairs.folds):
        train, test = pairs.folds != fold, pairs.folds == fold
        mean = np.concatenate([left[train], right[train]]).mean(axis=0)
        l, r = left - mean, right - mean  # noqa: E741
        l /= np.sqrt((l**2).sum(axis=1, keepdims=True))  # noqa: E741
        r /= np.sqrt((r**2).sum(axis=1, keepdims=True))
        score = (l * r).sum(axis=1)
        same, different = score[train & pairs.is_same], score[train & ~pairs.is_same]
        correct = [(same > t).sum() + (different < t).sum() for t in thresholds]
        chosen.append(thresholds[np.array(correct) == max(correct)].mean())
        right_side = np.where(pairs.is_same, score > chosen[-1], score < chosen[-1])
        accuracies.append(right_side[test].mean())
    return np.array(accuracies), np.array(chosen)


@pytest.mark.parametrize("num_folds", [2, 5, 10])
def test_lfw_authors_is_evaluation_m(num_folds: int) -> None:
    embeddings, pairs = random_set(num_folds=num_folds)
    result = lfw_authors(embeddings, pairs)
    accuracies, thresholds = literal_evaluation_m(embeddings, pairs)
    np.testing.assert_allclose(result.fold_accuracies, accuracies, rtol=0, atol=1e-15)
    assert result.threshold == pytest.approx(thresholds.mean(), abs=1e-12)
    assert result.accuracy_10_fold == pytest.approx(accuracies.mean(), abs=1e-15)
    assert result.accuracy_std == pytest.approx(accuracies.std(), abs=1e-15)
    assert 0.6 < result.accuracy_10_fold < 1
    assert result.num_folds == num_folds


def test_lfw_authors_centres_away_a_common_offset() -> None:
    embeddings, pairs = random_set()
    far_away = lfw_authors(embeddings.astype(np.float64) + 1e4, pairs)
    np.testing.assert_allclose(far_away.scores, lfw_authors(embeddings, pairs).scores, atol=1e-8)


def test_lfw_authors_on_the_reference_embeddings(shared_data: Path) -> None:
    result = lfw_authors(*read_lfw(shared_data))
    assert result.num_pairs == 6000
    assert result.num_same == 3000
    assert round(100 * result.accuracy_10_fold, 2) == 98.37
    assert round(100 * result.accuracy_std, 2) == 0.39


def test_the_json_holds_plain_numbers() -> None:
    result = lfw_authors(*random_set())
    entry = json.loads(json.dumps(result.to_json()))
    assert entry["accuracy_10_fold"] == result.accuracy_10_fold
    assert set(entry["tar_at_far"]) == {"1e-1", "1e-2", "1e-3"}
    assert len(entry["fold_accuracies"]) == 10
    assert "scores" not in entry


def test_a_tie_of_thresholds_is_averaged() -> None:
    # Best from 0.3001 to 0.4999: strictly between the two cosines.
    threshold = best_threshold(np.array([0.5, 0.3]), np.array([True, False]))
    assert threshold == pytest.approx(0.4, abs=1e-12)


def test_a_cosine_at_the_threshold_is_wrong_either_way() -> None:
    cosines, is_same = np.array([0.5, 0.5]), np.array([True, False])
    # Every grid point but 0.5 itself takes one of the two.
    assert best_threshold(cosines, is_same) == pytest.approx(-0.5 / 20000, abs=1e-12)


# Row 0 with the others: three same pairs, then three different ones.
PAPER_COSINES = np.array([0.7975, 0.5975, 0.3975, 0.4975, 0.2975, 0.0975])
PAPER = at_degrees(0, *np.degrees(np.arccos(PAPER_COSINES)))
PAPER_PAIRS = Pairs([0] * 6, [1, 2, 3, 4, 5, 6], is_same=np.arange(6) < 3, folds=[0, 1, 1, 0, 1, 1])


def test_insightface_on_paper() -> None:
    # Squared distances .405 .805 1.205 | 1.005 1.405 1.805. Fold 0 chooses on .805 1.205 | 1.405
    # 1.805: all right from 1.21. Fold 1 chooses on .405 | 1.005: all right from .41.
    result = lfw_insightface(PAPER, PAPER_PAIRS)
    assert result.threshold == pytest.approx(np.mean([1 - 1.21 / 2, 1 - 0.41 / 2]), abs=1e-12)
    # Fold 0 at 1.21 takes 1.005 for the same. Fold 1 at .41 refuses both its same pairs.
    assert result.fold_accuracies == (0.5, 0.5)
    assert (result.accuracy_std, result.num_folds, result.optimistic) == (0.0, 2, False)


def test_facexzoo_on_paper() -> None:
    # Fold 0 chooses on .5975 .3975 | .2975 .0975 by steps of .0005: TAR - FAR is 1 from .2975 on.
    # Fold 1 chooses on .7975 | .4975 by steps of .0003: it is 1 from the first on.
    result = lfw_facexzoo(PAPER, PAPER_PAIRS)
    assert result.threshold == pytest.approx(np.mean([0.2975, 0.4978]), abs=3e-4)
    # Fold 0 takes .4975 for the same; fold 1 refuses .3975.
    assert result.fold_accuracies == (0.5, 0.75)
    assert result.accuracy_std == pytest.approx(0.125 * np.sqrt(2) / np.sqrt(2), abs=1e-12)


def test_opensphere_on_paper() -> None:
    # Accepting from .5975 up is right on five of six; so is from .3975 up.
    result = lfw_opensphere(PAPER, PAPER_PAIRS)
    assert result.accuracy_10_fold == pytest.approx(5 / 6)
    assert result.threshold == pytest.approx(0.5975, abs=1e-12)
    assert (result.accuracy_std, result.num_folds, result.optimistic) == (None, 0, True)
    json.dumps(result.to_json(), allow_nan=False)


def test_the_mirror_images_are_used_as_each_protocol_says() -> None:
    embeddings, pairs = random_set()
    mirrored = embeddings + 0.3 * np.random.default_rng(1).normal(size=embeddings.shape)
    result = {name: run(embeddings, pairs, mirrored=mirrored) for name, run in PROTOCOLS.items()}
    flips = {name: entry.flip for name, entry in result.items()}
    assert list(flips.values()) == ["concatenated", "summed", "unused", "averaged"]
    both = np.concatenate([embeddings, mirrored], axis=1)
    np.testing.assert_allclose(result["lfw_authors"].scores, lfw_authors(both, pairs).scores)
    summed = paired_cosines(embeddings + mirrored, pairs)
    np.testing.assert_allclose(result["lfw_insightface"].scores, summed)
    np.testing.assert_allclose(result["lfw_opensphere"].scores, summed)
    np.testing.assert_allclose(
        result["lfw_facexzoo"].scores, paired_cosines(embeddings, pairs), atol=1e-7
    )


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_decides_each_pair(name: str) -> None:
    embeddings, pairs = random_set()
    result = PROTOCOLS[name](embeddings, pairs)
    assert result.flip == "none"
    assert result.accuracy_10_fold == pytest.approx(result.is_correct.mean())
    assert result.auc == pytest.approx(metrics.roc_auc_score(pairs.is_same, result.scores))
    with pytest.raises(ValueError, match="expected same and different pairs"):
        PROTOCOLS[name](
            embeddings, Pairs(pairs.left, pairs.right, is_same=[False] * 300, folds=pairs.folds)
        )
    with pytest.raises(ValueError, match=r"mirrored: expected shape \[600, 16\] as embeddings"):
        PROTOCOLS[name](embeddings, pairs, mirrored=embeddings[:, :8])


def test_a_list_without_folds_allows_the_protocol_without_folds() -> None:
    embeddings, pairs = random_set()
    assert allowed_protocols(pairs) == tuple(PROTOCOLS)
    flat = Pairs(pairs.left, pairs.right, is_same=pairs.is_same, folds=[0] * 300)
    (name,) = allowed_protocols(flat)
    assert PROTOCOLS[name](embeddings, flat).num_pairs == 300


@pytest.mark.parametrize("run", [lfw_insightface, lfw_opensphere])
def test_mirror_images_that_cancel_are_refused(run: Callable) -> None:
    embeddings, pairs = random_set()
    with pytest.raises(ValueError, match="row 0 is all zeros"):
        run(embeddings, pairs, mirrored=-embeddings)


@pytest.mark.parametrize("decimals", [16, 1])
def test_the_roc_agrees_with_scikit_learn(decimals: int) -> None:
    rng = np.random.default_rng(1)
    is_same = rng.random(500) < 0.4
    scores = np.round(rng.normal(size=500) + is_same, decimals)
    curve = roc_curve(scores, is_same)
    far, tar, thresholds = metrics.roc_curve(is_same, scores, drop_intermediate=False)
    np.testing.assert_allclose(curve.far, far, atol=1e-15)
    np.testing.assert_allclose(curve.tar, tar, atol=1e-15)
    np.testing.assert_array_equal(curve.thresholds, thresholds)
    assert area_under_curve(curve) == pytest.approx(metrics.roc_auc_score(is_same, scores))
    eer = equal_error_rate(curve)
    assert np.interp(eer, far, tar) == pytest.approx(1 - eer, abs=1 / 200)
    rates = tar_at_far(curve, [0.1, 0.01, 0.001])
    assert rates.pop("1e-3") is None  # of about 300 different pairs
    for name, value in rates.items():
        assert value == tar[far <= float(name)].max()


def test_the_roc_on_paper() -> None:
    # Descending: S .9, D .8, S .7, S+D tied .5, D .1.
    scores, is_same = [0.9, 0.8, 0.7, 0.5, 0.5, 0.1], [True, False, True, True, False, False]
    curve = roc_curve(scores, is_same)
    np.testing.assert_allclose(curve.far, [0, 0, 1 / 3, 1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(curve.tar, [0, 1 / 3, 1 / 3, 2 / 3, 1, 1])
    # Couples of a same and a different pair in order: 3 for .9, 2 for .7, 1 and a half for .5.
    assert area_under_curve(curve) == pytest.approx(6.5 / 9)
    assert equal_error_rate(curve) == pytest.approx(1 / 3)
    # None of three different pairs says no more than "fewer than 1 in 3".
    assert tar_at_far(curve, [0.1, 1 / 3]) == {"1e-1": None, "3.33333e-1": 2 / 3}
    # Ties are accepted together: a FAR of 1 / 2 allows one of two, and here it is none or both.
    tied = roc_curve([0.9, 0.5, 0.5, 0.4], [True, False, False, True])
    assert tar_at_far(tied, [0.5]) == {"5e-1": 0.5}


@pytest.mark.parametrize(
    ("far", "count", "shown"), [(1e-3, 1000, True), (1e-3, 999, False), (0.0, 10**9, False)]
)
def test_a_far_below_one_in_n_cannot_be_shown(far: float, count: int, shown: bool) -> None:
    assert can_show(far, count) == shown


def test_a_far_is_named_as_it_is_written() -> None:
    assert [far_name(far) for far in (1.0, 0.1, 1e-6, 0.005)] == ["1e0", "1e-1", "1e-6", "5e-3"]


def test_paired_cosines_have_no_overflow() -> None:
    pairs = Pairs([0, 0], [1, 2], is_same=[True, False], folds=[0, 1])
    embeddings = np.array([[1e-30, 0], [3e30, 0], [0, 1]], np.float32)
    np.testing.assert_allclose(paired_cosines(embeddings, pairs), [1, 0])


def test_a_row_paired_with_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="another row than left, got 4 twice in pair 1"):
        Pairs([0, 4], [1, 4], is_same=[True, True], folds=[0, 1])


def test_pairs_beyond_a_block_keep_their_order() -> None:
    rng = np.random.default_rng(2)
    left = rng.integers(0, 50, 9000)
    right = (left + rng.integers(1, 50, 9000)) % 50
    embeddings = rng.normal(size=(50, 3))
    pairs = Pairs(left, right, is_same=left < right, folds=np.zeros(9000, int))
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    np.testing.assert_allclose(paired_cosines(embeddings, pairs), (unit @ unit.T)[left, right])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"folds": np.zeros(300, int)}, "folds: expected at least two, found one"),
        ({"is_same": np.zeros(300, bool)}, "found no same pairs"),
        ({"is_same": np.ones(300, bool)}, "found no different pairs"),
        ({"is_same": np.full(300, 2)}, "is_same: expected booleans"),
        ({"left": np.full(300, -1)}, "left: expected rows of the embeddings, got a negative"),
        ({"left": np.full(300, 600)}, r"embeddings: expected shape \[N, D\] with N >= 601"),
        ({"right": np.zeros(299, int)}, "right: expected 300 entries as left, got 299"),
        ({"folds": np.zeros(300)}, "folds: expected integers, got float64"),
    ],
)
def test_pairs_that_cannot_be_scored_are_named(change: dict, message: str) -> None:
    embeddings, pairs = random_set()
    fields = {name: getattr(pairs, name) for name in ("left", "right", "is_same", "folds")} | change
    with pytest.raises(ValueError, match=message) as error:
        lfw_authors(embeddings, Pairs(fields.pop("left"), fields.pop("right"), **fields))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [(0.0, "row 7 is all zeros"), (np.nan, "row 7 has NaN"), (-np.inf, "row 7 has NaN or inf")],
)
def test_a_bad_embedding_is_named(value: float, message: str) -> None:
    embeddings, pairs = random_set()
    embeddings[7] = value
    with pytest.raises(ValueError, match=message):
        lfw_authors(embeddings, pairs)


def test_a_collapsed_network_is_refused() -> None:
    embeddings, pairs = random_set()
    with pytest.raises(ValueError, match="collapsed"):
        lfw_authors(np.broadcast_to(embeddings[0], embeddings.shape), pairs)


def test_an_embedding_at_the_mean_is_refused() -> None:
    pairs = Pairs(
        [0, 0, 2, 1], [1, 2, 3, 3], is_same=[True, False, True, False], folds=[0, 0, 1, 1]
    )
    # The others' mean when fold 0 is held out is that of rows 2, 3, 1 and 3: here row 2.
    with pytest.raises(ValueError, match="equal to the mean"):
        lfw_authors([[5.0, 1.0], [1.0, 0.3], [1.0, 1.0], [1.0, 1.35]], pairs)

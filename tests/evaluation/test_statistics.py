"""Statistics: intervals on sets whose draws can be counted, McNemar against SciPy."""

import dataclasses
import json
import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from sphereface_jax.evaluation import statistics as statistics_module
from sphereface_jax.evaluation.pairs import Pairs
from sphereface_jax.evaluation.roc import area_under_curve, roc_curve
from sphereface_jax.evaluation.statistics import (
    bootstrap_interval,
    mcnemar,
    verification_intervals,
)
from sphereface_jax.evaluation.verification import lfw_authors, lfw_insightface


def test_the_weights_are_the_products_of_peoples_counts() -> None:
    seen = []

    def record(weights: np.ndarray) -> float:
        seen.append(weights)
        return float(weights.sum())

    # Pairs aa, bb, ab of two people: a draw of two gives a count of 0, 1 or 2.
    bootstrap_interval(record, ["a", "b", "a"], ["a", "b", "b"], num_draws=200)
    assert {tuple(weights) for weights in seen} == {(2, 0, 0), (1, 1, 1), (0, 2, 0)}
    share_of_ones = np.mean([weights[2] for weights in seen])
    assert share_of_ones == pytest.approx(0.5, abs=0.12)


def test_the_interval_covers_what_it_says() -> None:
    # 50 people with one pair each, right with probability 0.8: the binomial's quantiles.
    is_correct = np.arange(50) < 40
    low, high = bootstrap_interval(
        lambda weights: np.average(is_correct, weights=weights),
        np.arange(50), np.arange(50), num_draws=4000,
    )  # fmt: skip
    expected = stats.binom.ppf([0.025, 0.975], 50, 0.8) / 50
    np.testing.assert_allclose([low, high], expected, atol=0.021)


def test_people_who_share_pairs_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(20), 30)
    is_correct = (rng.random(20) < 0.7)[person]  # a person's pairs stand or fall together

    def width(identities: np.ndarray) -> float:
        low, high = bootstrap_interval(
            lambda weights: np.average(is_correct, weights=weights), identities, identities
        )
        return high - low

    assert width(person) > 3 * width(np.arange(600))


def test_equal_seeds_give_equal_intervals() -> None:
    values = np.random.default_rng(0).normal(size=30)

    def interval(seed: int) -> tuple[float, float]:
        people = np.arange(30)
        return bootstrap_interval(
            lambda w: np.average(values, weights=w), people, people, num_draws=50, seed=seed
        )

    assert interval(1) == interval(1) != interval(2)


def test_verification_intervals_hold_the_measure() -> None:
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(40), 4)
    embeddings = rng.normal(size=(40, 16))[people] + 1.2 * rng.normal(size=(160, 16))
    left = rng.integers(0, 160, 400)
    right = (left + rng.integers(1, 160, 400)) % 160
    right[:200] = 4 * (left[:200] // 4) + (left[:200] + 1 + rng.integers(0, 3, 200)) % 4
    pairs = Pairs(
        left, right, is_same=people[left] == people[right], folds=rng.integers(0, 10, 400)
    )
    results = {"insightface": lfw_insightface(embeddings, pairs), "authors": None}
    results["authors"] = lfw_authors(embeddings, pairs)
    intervals = verification_intervals(results, pairs, people, num_draws=200)
    assert set(intervals) == {"insightface", "authors"}
    for name, result in results.items():
        low, high = intervals[name]["accuracy_10_fold"]
        assert low < result.is_correct.mean() < high
        assert 0.02 < high - low < 0.3
        low, high = intervals[name]["auc"]
        assert low < result.auc < high
    with pytest.raises(ValueError, match=r"identities: expected shape \[N\] with N >= 160"):
        verification_intervals(results, pairs, people[:159])


def test_verification_intervals_are_those_of_a_weighted_roc(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(statistics_module, "_NUMBERS_PER_BLOCK", 100)  # a few draws a block
    rng = np.random.default_rng(1)
    people, rows = np.arange(60) // 2, np.arange(30)
    is_same = rows < 15
    left = np.where(is_same, 2 * rows, rng.permutation(30))
    right = np.where(is_same, 2 * rows + 1, 59 - rows)
    pairs = Pairs(left, right, is_same=is_same, folds=rows % 3)
    # Scores of one decimal tie within and between the kinds.
    scores = np.round(rng.normal(size=30) + is_same, 1)
    result = dataclasses.replace(
        lfw_insightface(rng.normal(size=(60, 4)), pairs), scores=scores, is_correct=scores > 0.5
    )
    intervals = verification_intervals({"x": result}, pairs, people, num_draws=150)["x"]

    def auc(weights: np.ndarray) -> float:
        return area_under_curve(roc_curve(scores, is_same, weights=weights))

    for measure, statistic in (
        ("auc", auc),
        ("accuracy_10_fold", lambda weights: np.average(scores > 0.5, weights=weights)),
    ):
        expected = bootstrap_interval(statistic, people[left], people[right], num_draws=150)
        assert intervals[measure] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("errors", [0, 3])
def test_few_errors_do_not_make_a_list_sure(errors: int) -> None:
    # 20 people with one same pair each, and ten different pairs: draws alone know no more errors.
    rows = np.arange(30)
    is_same = rows < 20
    left, right = (
        np.where(is_same, rows, 2 * rows - 40),
        np.where(is_same, rows + 20, 2 * rows - 39),
    )
    people = np.arange(40) % 20
    pairs = Pairs(left, right, is_same=is_same, folds=rows % 3)
    result = dataclasses.replace(
        lfw_insightface(np.random.default_rng(0).normal(size=(40, 4)), pairs),
        scores=np.where(is_same, 0.9, 0.1),
        is_correct=rows >= errors,
    )
    found = verification_intervals({"x": result}, pairs, people, num_draws=100)["x"]
    # Ten pairs without a person in common at most: twenty people.
    worth = 10 if errors == 0 else 30
    low, high = stats.binomtest(round(worth * (1 - errors / 30)), worth).proportion_ci(0.95)
    assert found["accuracy_10_fold"][0] <= low + 1e-9
    assert found["accuracy_10_fold"][1] >= high - 1e-9
    assert found["accuracy_10_fold"][0] > 0.5
    low, high = stats.binomtest(10, 10).proportion_ci(0.95)
    assert found["auc"] == pytest.approx((low, high))


def test_a_weighted_roc_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    is_same, scores = rng.random(300) < 0.4, np.round(rng.normal(size=300), 1)
    weights = rng.integers(0, 4, 300)
    curve = roc_curve(scores, is_same, weights=weights)
    auc = metrics.roc_auc_score(is_same, scores, sample_weight=weights)
    assert area_under_curve(curve) == pytest.approx(auc)
    assert curve.far[-1] == curve.tar[-1] == 1.0
    with pytest.raises(ValueError, match="weights: expected some on same"):
        roc_curve(scores, is_same, weights=is_same)
    with pytest.raises(ValueError, match="weights: expected 300 numbers from 0 up"):
        roc_curve(scores, is_same, weights=-weights)


@pytest.mark.parametrize(
    ("first", "second"), [(0, 0), (3, 0), (5, 9), (40, 21), (700, 800), (49_500, 50_500)]
)
def test_mcnemar_is_the_exact_binomial_test(first: int, second: int) -> None:
    both = np.ones(10, bool)
    a = np.concatenate([np.ones(first, bool), np.zeros(second, bool), both])
    b = np.concatenate([np.zeros(first, bool), np.ones(second, bool), both])
    result = mcnemar(a, b)
    assert (result.only_first, result.only_second) == (first, second)
    expected = stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert result.p_value == pytest.approx(expected, rel=1e-9)
    assert json.loads(json.dumps(result.to_json()))["only_first"] == first


def test_mcnemar_compares_protocol_results() -> None:
    rng = np.random.default_rng(0)
    rows = np.arange(100)
    pairs = Pairs(rows, rows + 100, is_same=rows % 2 == 0, folds=rows // 10)
    clear = rng.normal(size=(100, 8))
    embeddings = np.concatenate(
        [clear, np.where(rows[:, None] % 2, rng.normal(size=(100, 8)), clear + 0.3)]
    )
    blurred = embeddings + 2 * rng.normal(size=embeddings.shape)
    result = mcnemar(
        lfw_authors(embeddings, pairs).is_correct, lfw_authors(blurred, pairs).is_correct
    )
    assert result.only_first > result.only_second
    assert result.p_value < 0.01


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"right_identities": [1]}, r"right_identities: expected shape \[2\] as left, got \[1\]"),
        ({"confidence": 1.0}, r"confidence: expected a number in \(0, 1\), got 1.0"),
        ({"num_draws": 0}, "num_draws: expected at least 1, got 0"),
        ({"left_identities": [2, 2]}, "left_identities: expected two people or more, found 1"),
        ({"statistic": lambda weights: math.nan}, "statistic: expected a number on some draws"),
    ],
)
def test_a_bootstrap_that_cannot_be_is_named(change: dict, message: str) -> None:
    arguments = {
        "statistic": np.sum,
        "left_identities": [1, 2],
        "right_identities": [2, 2],
    } | change
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(**arguments)


def test_mcnemar_refuses_lists_that_do_not_match() -> None:
    with pytest.raises(ValueError, match="second_is_correct: expected 2 as first, got 3"):
        mcnemar([True, False], [True, False, True])
    with pytest.raises(ValueError, match=r"first_is_correct: expected booleans of shape \[P\]"):
        mcnemar([1, 0], [True, False])

"""Rates with intervals: what pairs support, alone and where they share people."""

import numpy as np
import pytest

from sphereface_jax.evaluation.calibration import TooFewPairsError
from sphereface_jax.evaluation.rates import (
    Strangers,
    compare_strangers,
    design_effect,
    pair_rate,
    tail_rate,
    trials_needed,
)


def test_independent_pairs_have_the_exact_interval() -> None:
    happened = np.arange(100) < 5
    found = pair_rate(happened, np.arange(100), np.arange(100, 200))
    # Clopper and Pearson's for 5 of 100.
    assert (found.rate, found.effective_trials) == (0.05, 100)
    assert (found.low, found.high) == pytest.approx((0.01643, 0.11283), abs=1e-5)


def test_pairs_that_share_a_person_are_worth_fewer() -> None:
    # Ten people with ten pairs each, and all of a person's pairs go one way.
    person = np.repeat(np.arange(10), 10)
    happened = person < 5
    assert design_effect(happened, person, person) == pytest.approx(10)
    assert pair_rate(happened, person, person).effective_trials == pytest.approx(10)


def test_nothing_seen_is_an_upper_bound_and_says_what_it_supports() -> None:
    found = pair_rate(np.zeros(3000, bool), np.arange(3000), np.arange(3000, 6000))
    assert found.low == found.rate == 0
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 3000), rel=1e-6)
    assert found.supports(1e-3)
    assert not found.supports(1e-6)
    assert trials_needed(1e-6) == pytest.approx(3e6, rel=0.01)


def test_the_tail_takes_the_effect_of_its_tenth_highest() -> None:
    cosines = np.linspace(0, 1, 100)
    people = np.repeat(np.arange(5), 20)
    found = tail_rate(cosines, people, people, at_least=0.999)
    assert found.events == 1
    assert found.effective_trials < 100 / 5


def test_intervals_cover_the_truth() -> None:
    covered, truth = 0, 0.05
    for seed in range(100):
        rng = np.random.default_rng(seed)
        person = rng.standard_normal(300)
        i, j = rng.integers(300, size=(2, 1000))
        keep = i != j
        i, j = i[keep], j[keep]
        score = np.sqrt(0.2) * (person[i] + person[j]) + np.sqrt(0.6) * rng.standard_normal(len(i))
        found = tail_rate(score, i, j, at_least=1.6448536)
        covered += found.low <= truth <= found.high
    assert covered >= 90


def test_false_hits_are_what_random_galleries_meet() -> None:
    rng = np.random.default_rng(0)
    highest = -np.sort(-rng.normal(size=(40, 39)), axis=1)
    strangers = Strangers(highest.astype(np.float32))
    galleries = [
        np.mean([rng.permutation(row)[:5].max() > 1.5 for row in highest]) for _ in range(400)
    ]
    assert strangers.false_hits(1.5, 5).rate == pytest.approx(np.mean(galleries), abs=0.02)
    everybody = strangers.false_hits(1.5, 39)
    assert everybody.rate == pytest.approx(np.mean(highest[:, 0] > 1.5))
    assert everybody.low < everybody.rate < everybody.high
    assert strangers.false_hits(1.5, 78).rate > everybody.rate
    assert strangers.false_hits(1.5, 78).rate <= 1 - (1 - everybody.rate) ** 2 + 1e-12
    assert strangers.false_hits(10.0, 39).rate == 0
    assert 0.1 < strangers.false_hits(10.0, 39).high < 0.25  # none of 40, worth 20


def test_the_threshold_keeps_the_rate_and_refuses_what_too_few_people_show() -> None:
    rng = np.random.default_rng(1)
    strangers = compare_strangers(rng.normal(size=(100, 8)), np.repeat(np.arange(50), 2))
    assert strangers.highest.shape == (50, 49)
    threshold = strangers.threshold(0.1, 20)
    assert strangers.false_hits(threshold, 20).rate <= 0.1
    assert strangers.false_hits(threshold - 0.05, 20).rate > 0.1
    with pytest.raises(TooFewPairsError, match="expected at least 1,000 people"):
        strangers.threshold(1e-3, 20)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="right_identities: expected shape"):
        pair_rate([True, False], [1, 2], [3])
    with pytest.raises(ValueError, match="confidence"):
        pair_rate([True, False], [1, 2], [3, 4], confidence=1)
    with pytest.raises(ValueError, match="rate: expected a number in"):
        trials_needed(0)
    with pytest.raises(ValueError, match="gallery_size"):
        Strangers(np.zeros((3, 2), np.float32)).false_hits(0.5, 0)
    with pytest.raises(ValueError, match="two people or more"):
        compare_strangers(np.eye(2), ["a", "a"])

"""Likelihood ratios, their cost and their intervals, against populations whose truth is known."""

import numpy as np
import pytest

from sphereface_jax.evaluation.likelihood import (
    cllr,
    fit_likelihood,
    likelihood_curve,
    min_cllr,
    reliability,
)


def population(seed: int, people: int = 400, pairs: int = 2000):
    """Cosines N(0.1, 0.1²) and N(0.5, 0.1²), of which a part belongs to each person."""
    rng = np.random.default_rng(seed)
    person = rng.standard_normal(people)
    i, k = rng.integers(people, size=(2, pairs))
    j = (i + rng.integers(1, people, size=pairs)) % people
    noise = np.sqrt(0.8) * rng.standard_normal((2, pairs))
    different = 0.1 + 0.1 * (np.sqrt(0.1) * (person[i] + person[j]) + noise[0])
    same = 0.5 + 0.1 * (np.sqrt(0.2) * person[k] + noise[1])
    is_same = np.repeat([False, True], pairs)
    return np.append(different, same), is_same, np.append(i, k), np.append(j, k)


def true_log_lr(cosine):
    """Of two normal densities of variance 0.01: a line."""
    return ((cosine - 0.1) ** 2 - (cosine - 0.5) ** 2) / 0.02


@pytest.mark.parametrize(("method", "near"), [("logistic", 0.4), ("isotonic", 1.0)])
def test_a_fit_finds_the_true_ratios(method: str, near: float) -> None:
    cosines, is_same, _, _ = population(0)
    calibration = fit_likelihood(cosines, is_same, method=method)
    at = np.linspace(0.22, 0.38, 9)
    np.testing.assert_allclose(calibration(at), true_log_lr(at), atol=near)
    assert (np.diff(calibration(np.linspace(-1, 1, 200))) >= 0).all()


@pytest.mark.parametrize("method", ["logistic", "isotonic"])
def test_the_evidence_is_no_stronger_than_the_pairs(method: str) -> None:
    cosines = np.array([0.9, 0.8, 0.7, 0.1, 0.0, -0.1, -0.2])
    is_same = np.arange(7) < 3
    calibration = fit_likelihood(cosines, is_same, method=method)
    low, high = np.exp(calibration([-1.0, 1.0]))
    assert 1 / 4 - 1e-9 <= low < 1 < high <= 5 + 1e-9


def test_a_cosine_that_points_the_wrong_way_is_no_evidence() -> None:
    calibration = fit_likelihood([0.1, 0.2, 0.7, 0.8], [True, True, False, False])
    np.testing.assert_array_equal(calibration([-1.0, 0.5, 1.0]), 0)


def test_the_interval_holds_the_truth_and_narrows_with_more_people() -> None:
    curve = likelihood_curve(*population(1), num_draws=100)
    ratio, low, high = curve.at(0.25)
    assert low < np.exp(true_log_lr(0.25)) < high
    assert low < ratio < high
    _, few_low, few_high = likelihood_curve(*population(1, 40, 100), num_draws=100).at(0.25)
    assert few_high / few_low > high / low
    again = likelihood_curve(*population(1), num_draws=100)
    np.testing.assert_array_equal(curve.low, again.low)


def test_the_isotonic_interval_is_around_its_fit() -> None:
    curve = likelihood_curve(*population(2), method="isotonic", num_draws=30)
    assert (curve.low <= curve.log_lr).all()
    assert (curve.log_lr <= curve.high).all()


def test_cllr_on_paper() -> None:
    assert cllr([0, 0, 0], [True, False, False]) == pytest.approx(1.0)
    values, is_same = np.log([3.0, 1 / 3, 1.0]), [True, False, False]
    expected = (np.log2(4 / 3) + (np.log2(4 / 3) + 1) / 2) / 2
    assert cllr(values, is_same) == pytest.approx(expected)


def test_min_cllr_is_below_any_calibration_and_blind_to_monotone_maps() -> None:
    cosines, is_same, _, _ = population(3)
    lowest = min_cllr(cosines, is_same)
    assert 0 < lowest < cllr(fit_likelihood(cosines, is_same)(cosines), is_same) < lowest + 0.02
    assert min_cllr(np.exp(cosines), is_same) == pytest.approx(lowest)
    assert min_cllr([0.5, 0.5], [True, False]) == pytest.approx(1.0)


def test_a_calibrated_population_is_reliable_and_a_boaster_is_not() -> None:
    cosines, is_same, _, _ = population(4)
    log_lr = true_log_lr(cosines)
    honest = reliability(log_lr, is_same, num_bins=5)
    np.testing.assert_allclose(honest.observed, honest.claimed, atol=0.12)
    assert honest.num_same.sum() == honest.num_different.sum() == 2000
    boast = reliability(4 * log_lr + 3, is_same, num_bins=5)
    assert np.abs(boast.observed - boast.claimed).max() > 0.3


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="method: expected one of 'logistic', 'isotonic'"):
        fit_likelihood([0.1, 0.9], [False, True], method="platt")
    with pytest.raises(ValueError, match="found no same pairs"):
        cllr([0.1], [False])
    with pytest.raises(ValueError, match="confidence: expected a number in"):
        likelihood_curve(*population(5, 20, 20), confidence=95)
    with pytest.raises(ValueError, match="num_bins"):
        reliability([0.1, 0.2], [True, False], num_bins=0)
